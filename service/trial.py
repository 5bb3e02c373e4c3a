"""ONNX Runtime dies of some graphs: such an artifact is to kill a trial, not the service."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.folders import StoreError

# Where a worker finds what the one before it was loading when it died, and notes what it loads.
NOTE = "ANYPOOL_LOADING_NOTE"
_AT_MOST_S = 600


def survive(module: str, *arguments: str) -> None:
    """Run a module in a process of its own; raises StoreError when it does not end by itself.

    Any other failure shows when the same is done here, without harm.
    """
    command = [sys.executable, "-P", "-m", module, *arguments]
    try:
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_AT_MOST_S, check=False
        ).returncode
    except subprocess.TimeoutExpired as exc:
        raise StoreError(f"it was not loaded after {_AT_MOST_S} s") from exc
    if code < 0:
        raise StoreError(f"loading it kills the process ({signal.Signals(-code).name})")


class Note:
    """Tells the next worker what this one was loading, should it die of it."""

    def __init__(self, path: str | None) -> None:
        """path: a file that outlives this process; without it nothing is noted."""
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
