"""The service with an engine that hangs, once: `python -m tests.e2e.hanging`.

The real supervisor and the real application. The first worker process to start gets an engine that
never ends a run and does not listen to Stop, or, if LOSES_A_GPU is set, one whose GPU is lost;
those after it get the real one. Settings come from ANYPOOL_*; HANGS_ONCE names a file that is made
when that first worker has started.
"""

import logging
import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from fastapi import FastAPI

from service import app
from service.connection import ConnectionConfig
from service.costs import Canvas
from service.engine import Engine
from service.failures import kind_of
from service.images import Pixels
from service.logs import configuration, configure
from service.sessions import Provider, Stop
from service.settings import Settings
from service.store import Store
from service.supervisor import Supervisor

FLAG, LOSES = "HANGS_ONCE", "LOSES_A_GPU"

LOST = "CUDA failure 700: an illegal memory access was encountered ; GPU=0"

logger = logging.getLogger(__name__)


class HangingEngine(Engine):
    """Loads as others do; asked to run, it never comes back."""

    def run(
        self,
        pictures: Sequence[Pixels],
        stop: Stop | None = None,
        canvas: Canvas | None = None,
        classes: Sequence[Sequence[int]] = (),
        device: str | None = None,
    ) -> NoReturn:
        threading.Event().wait()
        raise AssertionError("nobody sets that event")


class LosingEngine(Engine):
    """Loads as others do; asked to run, it finds its GPU lost."""

    def __init__(self, folder: Path, provider: Provider) -> None:
        super().__init__(folder, provider)
        self.devices = ("cuda:0",)

    def run(
        self,
        pictures: Sequence[Pixels],
        stop: Stop | None = None,
        canvas: Canvas | None = None,
        classes: Sequence[Sequence[int]] = (),
        device: str | None = None,
    ) -> NoReturn:
        raise kind_of(LOST)(LOST)


class BrokenStore(Store):
    """Loads as others do, but hands out an engine that hangs, or loses its GPU."""

    def __init__(self, store: Path, model: str) -> None:
        super().__init__(store, "cpu", model)
        broken = LosingEngine if LOSES in os.environ else HangingEngine
        self._broken = broken(store / model / "1", "cpu")

    def get(self, name: str | None = None, version: str | None = None) -> Engine:
        return self._broken


def create_app() -> FastAPI:
    """The application that a worker serves."""
    made = app.create_app()
    flag = Path(os.environ[FLAG])
    if not flag.exists():
        flag.touch()
        settings: Settings = made.state.service.settings
        assert settings.model is not None
        made.state.service.store = BrokenStore(settings.artifacts, settings.model)
    return made


def main() -> None:
    """Serve until SIGTERM, on a port that is logged."""
    settings = Settings()
    configure(settings.log_level)
    config = ConnectionConfig(
        "tests.e2e.hanging:create_app",
        factory=True,
        header_timeout_s=settings.header_timeout_s,
        answer_timeout_s=settings.answer_timeout_s,
        max_connections=settings.max_connections,
        log_config=configuration(settings.log_level),
    )
    held = socket.create_server(("127.0.0.1", 0))
    held.set_inheritable(True)
    logger.info("listening on http://127.0.0.1:%d", held.getsockname()[1])
    Supervisor(config, [held], settings.drain_s).run()


if __name__ == "__main__":
    main()
