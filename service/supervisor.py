"""The parent process: holds the socket, starts the workers, replaces one that dies.

It never imports ONNX Runtime or Pillow: those can die of a bad model or file (SIGFPE, SIGSEGV),
and somebody must be left. uvicorn's own supervisor does the work.
"""

import logging
import os
import resource
import signal
import socket
import time
from types import FrameType

from uvicorn import Config
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from service.connection import ConnectionConfig
from service.logs import configuration, configure
from service.settings import Settings
from service.workers import Folder, Listen, assign, shared_folder

logger = logging.getLogger(__name__)

_HANG_S = 30  # a worker that does not answer its supervisor for this long is replaced
_OTHER_FILES = 64  # open beside connections: some 20, and more while models are loaded
_LOAD_S = 600  # for a new worker to become ready, before an old one is replaced by it
_GRACE_S = 5  # after the drain, before a worker that will not end is killed


class Supervisor(Multiprocess):
    """uvicorn's supervisor, which also tells each worker which one it is, refuses new connections
    when it ends, and never waits for ever."""

    def __init__(
        self, config: Config, sockets: list[socket.socket], drain_s: float, folder: Folder
    ) -> None:
        super().__init__(config, sockets)
        self._drain_s = drain_s
        self._folder = folder
        self._leaving: list[Process] = []  # replaced, and still answering
        for told in (signal.SIGTERM, signal.SIGINT):
            signal.signal(told, self._end)

    def init_processes(self) -> None:
        # One of several that listened while it loads would refuse what another could answer.
        first: Listen = "at-once" if self.processes_num == 1 else "soon"
        self.processes = [
            self._start(number, "when-ready" if number else first)
            for number in range(self.processes_num)
        ]

    def keep_subprocess_alive(self) -> None:
        """Replace what is dead or does not answer."""
        for number, process in enumerate(self.processes):
            process.child_conn.close()  # else the end of one that dies is not seen at once
            if self.should_exit.is_set():
                return
            if process.is_alive(_HANG_S):
                continue
            process.kill()
            process.join()
            self._folder.forget(process.pid or 0)
            if process.exitcode == STARTUP_FAILURE:
                logger.error("worker %s cannot start, and none ever would; ending", process.pid)
                self.should_exit.set()
                return
            logger.info("worker %s died; replacing it", process.pid)
            others = any(other.is_ready(1) for other in self.processes if other is not process)
            self.processes[number] = self._start(number, "when-ready" if others else "soon")

    def restart_all(self) -> None:
        """Replace one worker after the other, each only when the new one is ready."""
        for number, old in enumerate(self.processes):
            new = self._start(number, "when-ready")
            if not new.wait_until_ready(_LOAD_S, self.should_exit):
                new.kill()
                new.join()
                if not self.should_exit.is_set():
                    logger.error("the new worker did not become ready; the others stay")
                return
            self.processes[number] = new
            self._leaving = [old]  # only one at a time
            self._folder.replace(old.pid or 0)
            old.terminate()
            while old.process.is_alive() and not self.should_exit.is_set():
                old.process.join(0.1)
            self._folder.forget(old.pid or 0)

    def terminate_all(self) -> None:
        for held in self.sockets:  # else the kernel queues connections that nobody will answer
            held.close()
        super().terminate_all()

    def join_all(self) -> None:
        give_up = time.monotonic() + self._drain_s + _GRACE_S
        for process in (*self.processes, *self._leaving):
            process.process.join(max(0.0, give_up - time.monotonic()))
            if process.process.is_alive():
                logger.error("worker %s does not end; killing it", process.pid)
                process.process.kill()
        super().join_all()

    def handle_ttin(self) -> None:
        logger.warning("the number of workers is --workers, for as long as the service runs")

    handle_ttou = handle_ttin

    def _start(self, number: int, listen: Listen) -> Process:
        assign(number, listen)
        process = Process(self.config, self.sockets)
        process.start()
        return process

    def _end(self, signum: int, frame: FrameType | None) -> None:
        """Whatever is being done, workers replaced for example, is left off."""
        self.signal_queue.append(signum)
        self.should_exit.set()


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
    try:
        held = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as exc:
        raise OSError(f"cannot listen on {host}:{port}: {exc}. Choose another --port") from exc
    held.set_inheritable(True)
    return held
