"""How the service logs: one line a message, to standard error, for people or for machines.

A record may have `fields`, which both formats show. Whatever a client sent, it cannot begin a line.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Any, Literal

Format = Literal["console", "json"]

_IN_MESSAGE = ("method", "path", "status")


class ConsoleFormatter(logging.Formatter):
    """`time LEVEL logger[pid] message name=value ...`; a traceback follows, indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s[%(process)d] %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        shown = [
            f"{name}={value}" for name, value in _fields(record).items() if name not in _IN_MESSAGE
        ]
        return _escaped(" ".join([super().formatMessage(record), *shown]))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        lines = super().formatException(ei).splitlines()
        return "\n".join(f"    {_escaped(line)}" for line in lines)


class JsonFormatter(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


_FORMATTERS = {"console": ConsoleFormatter, "json": JsonFormatter}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = getattr(record, "fields", {})
    return fields


def _escaped(text: str) -> str:
    """Without line breaks and other characters that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def configuration(level: str, format: Format = "console") -> dict[str, Any]:  # noqa: A002
    """The same as a logging.config dictionary; uvicorn's own loggers follow it too."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": _FORMATTERS[format]}},
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "line"},
        },
        "root": {"level": level.upper(), "handlers": ["stderr"]},
        "loggers": {"uvicorn.access": {"level": "WARNING"}},
    }


def configure(level: str, format: Format = "console") -> None:  # noqa: A002
    """Log like that in this process. Loggers that somebody else has set up stay as they are."""
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMATTERS[format]())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
