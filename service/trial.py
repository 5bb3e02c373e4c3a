"""ONNX Runtime dies of some graphs: such an artifact is to kill a trial, not the service."""

import ctypes
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from time import monotonic

from service.folders import StoreError

_AT_MOST_S, _LOOK_S = 600, 0.1
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def survive(module: str, *arguments: str, stop: Event) -> None:
    """Run a module in a process of its own; raises StoreError when it does not end by itself.

    Any other failure shows when the same is done here, without harm. stop: gives up
    """
    command = [sys.executable, "-P", "-m", module, *arguments]
    nothing = subprocess.DEVNULL
    give_up = monotonic() + _AT_MOST_S
    with subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing) as process:
        while process.poll() is None:
            if stop.wait(_LOOK_S) or monotonic() > give_up:
                process.kill()
                ending = "the service is shutting down"
                late = f"it was not loaded after {_AT_MOST_S} s"
                raise StoreError(ending if stop.is_set() else late)
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise StoreError(f"loading it kills the process ({name})")


def die_with_parent() -> None:
    """End this process when the one that started it does."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


class Note:
    """Tells the next worker what this one was loading, should it die of it."""

    def __init__(self, path: str | None) -> None:
        """path: a file that outlives this process, and need not be there yet; without it nothing
        is noted."""
        self._path = path
        self.suspect = ""
        with suppress(OSError):
            if path is not None:
                self.suspect = Path(path).read_text(encoding="utf-8")

    @contextmanager
    def about(self, text: str) -> Iterator[None]:
        """What is being loaded, until the end of the block."""
        self._write(text)
        try:
            yield
        finally:
            self._write("")

    def _write(self, text: str) -> None:
        with suppress(OSError):
            if self._path is not None:
                Path(self._path).write_text(text, encoding="utf-8")
