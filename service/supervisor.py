"""The parent process: holds the socket, starts the workers, replaces one that dies.

It never imports ONNX Runtime or Pillow: those can die of a bad model or file (SIGFPE, SIGSEGV),
and somebody must be left. uvicorn's own supervisor does the work.
"""

import logging
import os
import resource
import socket
import time

from uvicorn import Config
from uvicorn.supervisors import Multiprocess

from service.connection import ConnectionConfig
from service.logs import configuration, configure
from service.settings import Settings
from service.workers import Folder, shared_folder

logger = logging.getLogger(__name__)

_HANG_S = 30  # a worker that does not answer its supervisor for this long is replaced
_OTHER_FILES = 64  # open beside connections: some 20, and more while models are loaded
_GRACE_S = 5  # after the drain, before a worker that will not end is killed


class Supervisor(Multiprocess):
    """uvicorn's supervisor, which also refuses new connections and never waits for ever."""

    def __init__(
        self, config: Config, sockets: list[socket.socket], drain_s: float, folder: Folder
    ) -> None:
        super().__init__(config, sockets)
        self._drain_s = drain_s
        self._folder = folder

    def keep_subprocess_alive(self) -> None:
        for process in self.processes:  # else one that dies before it answers is waited for
            process.child_conn.close()  # until _HANG_S is over: this end would never close
        super().keep_subprocess_alive()

    def terminate_all(self) -> None:
        self._folder.end()
        for held in self.sockets:  # else the kernel queues connections that nobody will answer
            held.close()
        super().terminate_all()

    def join_all(self) -> None:
        give_up = time.monotonic() + self._drain_s + _GRACE_S
        for process in self.processes:
            process.process.join(max(0.0, give_up - time.monotonic()))
            if process.process.is_alive():
                logger.error("worker %s does not end; killing it", process.pid)
                process.process.kill()
        super().join_all()


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, then drain; returns the exit code.

    Raises OSError when the address is taken.
    """
    configure(settings.log_level, settings.log_format)
    os.environ.update(settings.environment())  # the workers read them
    config = ConnectionConfig(
        "service.app:create_worker",
        factory=True,
        workers=settings.workers,
        host=settings.host,
        port=settings.port,
        header_timeout_s=settings.header_timeout_s,
        answer_timeout_s=settings.answer_timeout_s,
        max_connections=_connections(settings.max_connections),
        ws="none",
        root_path=settings.root_path,
        proxy_headers=bool(settings.forwarded_allow_ips),
        forwarded_allow_ips=settings.forwarded_allow_ips,
        access_log=False,
        log_config=configuration(settings.log_level, settings.log_format),
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.drain_s) + 1,
        timeout_worker_healthcheck=_HANG_S,
        server_header=False,
    )
    held = _listen(settings.host, settings.port)
    host, port = held.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    logger.info("listening on http://%s:%d", shown, port)
    logger.info("try: curl --data-binary @photo.jpg http://%s:%d/v1/classify", shown, port)
    with shared_folder(settings.workers) as folder:
        Supervisor(config, [held], settings.drain_s, folder).run()
    return 0


def _connections(wanted: int) -> int:
    """As many as are wanted and may be open: one that cannot be accepted would push out none."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY or files >= wanted + _OTHER_FILES:
        return wanted
    fewer = max(1, files - _OTHER_FILES)
    logger.warning("%d connections at most: %d files may be open (ulimit -n)", fewer, files)
    return fewer


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    held = socket.create_server((host, port), family=family, backlog=2048)
    held.set_inheritable(True)
    return held
