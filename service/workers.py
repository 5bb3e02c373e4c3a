"""Several worker processes behind one socket: what each takes of the whole, and what they share.

The supervisor makes a folder in memory for as long as the service runs. A worker takes the lowest
free place in it by a lock, which the kernel gives back however the worker ends; so a replacement
finds what the one before it was loading, and goes on counting where that one stopped.
"""

import fcntl
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import BinaryIO, Self

from service.settings import Settings

FOLDER = "ANYPOOL_WORKERS_FOLDER"  # tells a worker where the folder is
_COUNTS = "PROMETHEUS_MULTIPROC_DIR"  # tells prometheus_client, which reads it when imported
_MEMORY = Path("/dev/shm")  # noqa: S108  a folder with a random name is made in it
_NUMBER = struct.Struct("d")


class Folder:
    """Where the workers of a service meet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = path / "end"

    def end(self) -> None:
        """Tell the workers that the service ends, before they are told to stop."""
        self._end.touch()

    @property
    def ends(self) -> bool:
        """Whether all workers stop, and not one to be replaced."""
        return self._end.exists() or not self.path.exists()


@contextmanager
def shared_folder(workers: int) -> Iterator[Folder]:
    """A folder for the workers to come, who find it in their environment; raises OSError."""
    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="anypool-", dir=memory))
    os.environ[FOLDER] = str(folder)
    if workers > 1:
        os.environ[_COUNTS] = str(folder)
    try:
        yield Folder(folder)
    finally:
        del os.environ[FOLDER]
        os.environ.pop(_COUNTS, None)
        shutil.rmtree(folder, ignore_errors=True)


class Number:
    """A number that only one may change at a time: use it in `with`."""

    def __init__(self) -> None:
        self.value = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class SharedNumber(Number):
    """One that all workers change, in a file; the kernel unlocks it when its holder dies."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def __enter__(self) -> Self:
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        held = os.pread(self._file, _NUMBER.size, 0)
        self.value = _NUMBER.unpack(held)[0] if held else 0.0
        return self

    def __exit__(self, *error: object) -> None:
        os.pwrite(self._file, _NUMBER.pack(self.value), 0)
        fcntl.lockf(self._file, fcntl.LOCK_UN)


@dataclass(frozen=True, slots=True)
class Place:
    """What is one worker's own, until its process ends.

    index: from 0; a replacement has that of the worker it replaces
    first: nobody serves yet. It listens at once, to say that it is loading; all others begin to
    listen when they are ready
    before: process id of the worker that it replaces
    """

    folder: Path
    index: int
    first: bool
    before: int | None
    lock: BinaryIO

    @property
    def ends(self) -> bool:
        """Whether all workers stop, and not this one alone."""
        return Folder(self.folder).ends

    @property
    def note(self) -> str:
        """File that says what is being loaded."""
        return str(self.folder / f"loading-{self.index}")

    def number(self, name: str) -> Number:
        """A number of that name, the same in all workers."""
        return SharedNumber(self.folder / f"number-{name}")

    def publish(self, name: str, text: str) -> None:
        """Show a text to the other workers, whole or not at all, in place of the last one.

        Where there is no room the last one stays.
        """
        path = self.folder / f"{name}-{self.index}"
        with suppress(OSError):
            path.with_suffix(".new").write_text(text, encoding="utf-8")
            path.with_suffix(".new").replace(path)

    def published(self, name: str) -> dict[int, str]:
        """The texts of that name by place; of this place, what the worker before it left."""
        texts = {}
        for path in self.folder.glob(f"{name}-*[0-9]"):
            with suppress(OSError):
                texts[int(path.name.rpartition("-")[2])] = path.read_text(encoding="utf-8")
        return texts

    def remove(self) -> None:
        """Remove the folder, when there is no supervisor that would."""
        shutil.rmtree(self.folder, ignore_errors=True)


def take_place() -> Place:
    """The lowest place that no living worker holds."""
    folder = Path(os.environ[FOLDER])
    for index in count():
        path = folder / f"worker-{index}"
        lock = path.open("a+b")
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        lock.seek(0)
        before = int(lock.read() or 0) or None
        with suppress(OSError):  # no room: then the next one does not learn of this one's end
            os.ftruncate(lock.fileno(), 0)
            os.pwrite(lock.fileno(), b"%d" % os.getpid(), 0)
        return Place(folder, index, index == 0 and before is None, before, lock)
    raise AssertionError("places never end")


def share(settings: Settings, index: int) -> Settings:
    """What a worker may use of what all have together; while workers are replaced one by one there
    is one more for a moment, with the smallest share."""
    n = settings.workers
    least, more = divmod(settings.cores, n)
    return settings.model_copy(
        update={
            "cores": max(1, least + (index < more)),
            "memory_mb": settings.memory_mb // n,
            "queue_megapixels": settings.queue_megapixels / n,
            "bodies_mb": None if settings.bodies_mb is None else settings.bodies_mb / n,
        }
    )
