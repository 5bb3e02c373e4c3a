"""A real `anypool serve` process on a real socket, for the length of a test."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import httpx

_LISTENING = re.compile(r"listening on (http://[\w.:\[\]-]+)")
_STARTUP_S = 60


class Served(Protocol):
    """A service, however it is served; it answers at `url`."""

    @property
    def url(self) -> str: ...


Serve = Callable[..., AbstractContextManager[Served]]  # of a store, and options of `anypool serve`


class Server:
    """Start with `with Server(store) as server:`; `server.url` is where it listens.

    under: a command that becomes the one behind it, for example ("env", "A=b")
    """

    def __init__(
        self, store: Path, *options: str, wait: bool = True, under: Sequence[str] = ()
    ) -> None:
        command = [*under, sys.executable, "-P", "-m", "service.cli", "serve", "--port", "0"]
        self._command = [*command, "--artifacts", str(store), *options]
        self._wait = wait
        self.lines: list[str] = []
        self.url = ""

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._until(lambda: bool(self.url), "listen")
        if self._wait:
            self.wait_until_ready()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        self._reader.join(10)

    @property
    def log(self) -> str:
        """What the server has written to standard error."""
        return "\n".join(self.lines)

    def workers(self) -> list[int]:
        """Process ids of the workers that live."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        pids = [int(pid) for pid in children.read_text().split()]
        return [pid for pid in pids if b"spawn_main" in _command_line(pid)]

    def terminate(self) -> None:
        """Ask the server to drain and end, and go on at once."""
        os.kill(self.process.pid, signal.SIGTERM)

    def wait_until_ready(self) -> None:
        """Return when /readyz answers 200."""
        self._until(self._ready, "become ready")

    def wait_for_log(self, text: str) -> None:
        """Return when the log has a line with that text."""
        self._until(lambda: text in self.log, f"log {text!r}")

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def _until(self, reached: "object", what: str) -> None:
        assert callable(reached)
        give_up = time.monotonic() + _STARTUP_S
        while not reached():
            assert self.process.poll() is None, f"the server ended:\n{self.log}"
            assert time.monotonic() < give_up, f"the server did not {what}:\n{self.log}"
            time.sleep(0.02)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._note(line)

    def _note(self, line: str) -> None:
        self.lines.append(line.rstrip())
        if found := _LISTENING.search(line):
            self.url = found[1]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
