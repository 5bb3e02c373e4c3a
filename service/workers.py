"""Several worker processes behind one socket: what each takes of the whole, and what they share.

The supervisor makes a folder in memory for as long as the service runs, and tells each worker that
it starts which of them it is.
"""

import fcntl
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

from service.settings import Settings

FOLDER, WORKER = "ANYPOOL_FOLDER", "ANYPOOL_WORKER"  # tell a worker where, and which
_COUNTS = "PROMETHEUS_MULTIPROC_DIR"  # tells prometheus_client, which reads it when imported
_MEMORY = Path("/dev/shm")  # noqa: S108  a folder with a random name is made in it
_NUMBER = struct.Struct("d")

# When a worker begins to listen. `soon`: when it is ready, or cannot be, or after a while; until
# then the socket keeps who comes.
Listen = Literal["at-once", "soon", "when-ready"]


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
        self._path = path

    def __enter__(self) -> Self:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        held = os.pread(self._file, _NUMBER.size, 0)
        self.value = _NUMBER.unpack(held)[0] if held else 0.0
        return self

    def __exit__(self, *error: object) -> None:
        try:
            os.pwrite(self._file, _NUMBER.pack(self.value), 0)
        finally:
            os.close(self._file)  # and so unlocked


@dataclass(frozen=True, slots=True)
class Folder:
    """Where the workers of a service meet; without one, this process is alone."""

    path: Path

    def replace(self, pid: int) -> None:
        """Tell a worker, before it is told to stop, that others go on."""
        self._replaced(pid).touch()

    def is_replaced(self, pid: int) -> bool:
        """Whether a worker stops alone, and not all."""
        return self._replaced(pid).exists()

    def forget(self, pid: int) -> None:
        """Drop what stood in a worker's metrics that is gone; what it counted stays.

        Its number may come again, and then nobody is replaced by that.
        """
        self._replaced(pid).unlink(missing_ok=True)
        for file in (self.path / "counts").glob(f"gauge_live*_{pid}.db"):
            file.unlink(missing_ok=True)

    def number(self, name: str) -> Number:
        """A number of that name, the same in all workers."""
        return SharedNumber(self.path / f"number-{name}")

    def publish(self, name: str, text: str) -> None:
        """Show a text to the other workers, whole or not at all, in place of the last one.

        Where there is no room the last one stays.
        """
        path = self.path / f"{name}-{os.getpid()}"
        with suppress(OSError):
            path.with_suffix(".new").write_text(text, encoding="utf-8")
            path.with_suffix(".new").replace(path)

    def published(self, name: str) -> list[str]:
        """The texts of that name of all others, those who are gone too."""
        own, texts = f"{name}-{os.getpid()}", []
        for path in self.path.glob(f"{name}-*[0-9]"):
            with suppress(OSError):
                texts += [path.read_text(encoding="utf-8")] * (path.name != own)
        return texts

    def remove(self) -> None:
        """Remove it, also when there is no supervisor any more that would."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _replaced(self, pid: int) -> Path:
        return self.path / f"replaced-{pid}"


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the workers this process is: one that replaces another has its number."""

    folder: Folder
    number: int
    listen: Listen

    @property
    def note(self) -> str:
        """File that says what is being loaded, for whoever comes after."""
        return str(self.folder.path / f"loading-{self.number}")


@contextmanager
def shared_folder(workers: int) -> Iterator[Folder]:
    """A folder for the workers to come, who find it in their environment; raises OSError."""
    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    try:
        folder = Folder(Path(tempfile.mkdtemp(prefix="anypool-", dir=memory)))
    except OSError as exc:
        raise OSError(f"no folder can be made for the workers, in /dev/shm or /tmp: {exc}") from exc
    os.environ[FOLDER] = str(folder.path)
    if workers > 1:
        (folder.path / "counts").mkdir()
        os.environ[_COUNTS] = str(folder.path / "counts")
    try:
        yield folder
    finally:
        del os.environ[FOLDER]
        os.environ.pop(_COUNTS, None)
        folder.remove()


def assign(number: int, listen: Listen) -> None:
    """Tell the worker that is started next which one it is."""
    os.environ[WORKER] = f"{number} {listen}"


def place_here() -> Place:
    """What the supervisor has told this process."""
    number, told = os.environ[WORKER].split()
    (listen,) = (each for each in get_args(Listen) if each == told)
    return Place(Folder(Path(os.environ[FOLDER])), int(number), listen)


def share(settings: Settings, number: int) -> Settings:
    """What a worker may use of what all have together."""
    n = settings.workers
    least, more = divmod(settings.cores, n)
    return settings.model_copy(
        update={
            "cores": max(1, least + (number < more)),
            "memory_mb": settings.memory_mb // n,
            "queue_megapixels": settings.queue_megapixels / n,
            "bodies_mb": None if settings.bodies_mb is None else settings.bodies_mb / n,
        }
    )
