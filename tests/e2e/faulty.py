"""The service with engines that fail on images of certain sizes: `python -m tests.e2e.faulty`.

The real supervisor, application and engines. A run with an image of HANGS pixels a side never ends
and does not listen to Stop; one with RAISES a side raises what nobody foresaw; one with LOSES a
side, what ONNX Runtime raises when a GPU is lost; with GPU=1 the engines believe they have one.
Settings come from ANYPOOL_*.
"""

import logging
import os
import socket
import threading
from collections.abc import Sequence

from fastapi import FastAPI

from service import app
from service.connection import ConnectionConfig
from service.costs import Canvas
from service.engine import Engine
from service.failures import kind_of
from service.images import Pixels
from service.logs import configuration, configure
from service.scores import Scores
from service.sessions import CPU, Stop
from service.settings import Settings
from service.store import Store
from service.supervisor import Supervisor
from service.workers import shared_folder

HANGS, RAISES, LOSES = 37, 41, 43  # not among the sizes that a new engine is tried on

LOST = "CUDA failure 700: an illegal memory access was encountered ; GPU=0"

logger = logging.getLogger(__name__)


class FaultyEngine(Engine):
    """Runs as others do, but for images of those sizes."""

    def run(
        self,
        pictures: Sequence[Pixels],
        stop: Stop | None = None,
        canvas: Canvas | None = None,
        classes: Sequence[Sequence[int]] = (),
        device: str | None = None,
    ) -> Scores:
        sides = {picture.shape[0] for picture in pictures}
        if HANGS in sides:
            threading.Event().wait()  # which nobody sets
        if RAISES in sides:
            raise RuntimeError("as it was told to")
        if LOSES in sides:
            raise kind_of(LOST)(LOST)
        return super().run(pictures, stop, canvas, classes, CPU)


class FaultyStore(Store):
    """Loads as others do, and hands out engines that fail."""

    def get(self, name: str | None = None, version: str | None = None) -> Engine:
        engine = super().get(name, version)
        engine.__class__ = FaultyEngine
        if "GPU" in os.environ:
            engine.devices = ("cuda:0",)
        return engine


def create_app() -> FastAPI:
    """The application that a worker serves."""
    made = app.create_worker()
    made.state.service.store.__class__ = FaultyStore
    return made


def main() -> None:
    """Serve until SIGTERM, on a port that is logged."""
    settings = Settings()
    configure(settings.log_level)
    config = ConnectionConfig(
        "tests.e2e.faulty:create_app",
        factory=True,
        workers=settings.workers,
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
