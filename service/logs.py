"""How the service logs: one line a message, to standard error."""

import logging.config
from typing import Any


def configuration(level: str) -> dict[str, Any]:
    """A logging.config dictionary; uvicorn's own loggers follow it too."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {"format": "%(asctime)s %(levelname)s %(name)s[%(process)d] %(message)s"}
        },
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "line"},
        },
        "root": {"level": level.upper(), "handlers": ["stderr"]},
        "loggers": {"uvicorn.access": {"level": "WARNING"}},
    }


def configure(level: str) -> None:
    """Apply `configuration` to this process."""
    logging.config.dictConfig(configuration(level))
