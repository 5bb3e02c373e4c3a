"""The service with engines that fail on images of certain sizes: `python -m tests.e2e.faulty`.

The real supervisor, application and engines. A run with an image of HANGS pixels a side never ends
and does not listen to Stop; one with RAISES a side raises what nobody foresaw. Settings come from
ANYPOOL_*.
"""

import logging
import socket
import threading
from collections.abc import Sequence

from fastapi import FastAPI

from service import app
from service.connection import ConnectionConfig
from service.costs import Canvas
from service.engine import Engine, Scores, Stop
from service.images import Pixels
from service.logs import configuration, configure
from service.settings import Settings
from service.store import Store
from service.supervisor import Supervisor
from service.workers import shared_folder

HANGS, RAISES = 37, 41  # not among the sizes that a new engine is tried on

logger = logging.getLogger(__name__)


class FaultyEngine(Engine):
    """Runs as others do, but for images of those sizes."""

    def run(
        self,
        pictures: Sequence[Pixels],
        stop: Stop | None = None,
        canvas: Canvas | None = None,
        classes: Sequence[Sequence[int]] = (),
    ) -> Scores:
        sides = {picture.shape[0] for picture in pictures}
        if HANGS in sides:
            threading.Event().wait()  # which nobody sets
        if RAISES in sides:
            raise RuntimeError("as it was told to")
        return super().run(pictures, stop, canvas, classes)


class FaultyStore(Store):
    """Loads as others do, and hands out engines that fail."""

    def get(self, name: str | None = None, version: str | None = None) -> Engine:
        engine = super().get(name, version)
        engine.__class__ = FaultyEngine
        return engine


def create_app() -> FastAPI:
    """The application that a worker serves."""
    made = app.create_app()
    made.state.service.store.__class__ = FaultyStore
    return made


def main() -> None:
    """Serve until SIGTERM, on a port that is logged."""
    settings = Settings()
    configure(settings.log_level)
    config = ConnectionConfig(
        "tests.e2e.faulty:create_app",
        factory=True,
        header_timeout_s=settings.header_timeout_s,
        answer_timeout_s=settings.answer_timeout_s,
        max_connections=settings.max_connections,
        log_config=configuration(settings.log_level),
    )
    held = socket.create_server(("127.0.0.1", 0))
    held.set_inheritable(True)
    logger.info("listening on http://127.0.0.1:%d", held.getsockname()[1])
    with shared_folder(settings.workers) as folder:
        Supervisor(config, [held], settings.drain_s, folder).run()


if __name__ == "__main__":
    main()
