"""The threads of some devices, and the queue they all take from."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from service.batching import Job, Queue
from service.sessions import CPU
from service.work import Run, Waiting

UNLIMITED = float("inf")


class Lane:
    """The threads of some devices, what waits for them and what they run; all under the lock.

    One queue for all: a device that is free takes what is next, so none waits beside work. Where
    several are free, the one that has worked least so far takes it.
    """

    def __init__(
        self, devices: Sequence[str], batch_pixels: int, most_pixels: float, patience: float
    ) -> None:
        """devices: one for each worker, so the CPU is named as often as it has cores to give.

        most_pixels: in all runs at once
        """
        self.lock = threading.Lock()
        self.workers = len(devices)
        self.threads = ThreadPoolExecutor(self.workers, thread_name_prefix=devices[0])
        self.busy = dict.fromkeys(devices, 0.0)  # seconds that runs have taken on each
        self.broken: dict[str, str] = {}  # devices that run nothing any more, and why
        self.waiting: dict[int, Waiting] = {}
        self.running: set[Run] = set()
        self.lost = 0  # workers that hang
        self.closed = False
        self._free = [*devices]  # that of each free worker
        self._late: list[Waiting] = []  # taken out, to be told
        self._queue = Queue(batch_pixels, patience)
        self._most_pixels = most_pixels

    @property
    def dead(self) -> bool:
        """Nobody is left to work."""
        return self.lost + len(self.broken) == self.workers

    def add(self, job: Job, waiting: Waiting) -> None:
        """Let a job wait."""
        with self.lock:
            self.waiting[job.key] = waiting
            self._queue.add(job)

    def forget(self, key: int) -> None:
        """A job that is done, or whose client went away."""
        with self.lock:
            self._queue.remove(key)
            self.waiting.pop(key, None)

    def late(self, now: float) -> list[Waiting]:
        """Those whose deadline has passed; they will not run."""
        with self.lock:
            self._expire(now)
            late, self._late = self._late, []
            return late

    def next(self, done: Run | None = None, broken: str | None = None) -> Run | None:
        """What a free worker should run: one that is `done` with a run, or one that had none.

        broken: why the device of the run that is done will never do another
        """
        with self.lock:
            now = time.monotonic()
            if done is not None:
                self._leave(done, now, broken)
            if not self._free or self.closed:
                return None
            busy = sum(run.batch.pixels for run in self.running)
            self._expire(now)
            room = self._most_pixels - busy if busy else UNLIMITED
            batch = self._queue.take(len(self._free), room)
            if batch is None:
                return None
            device = min(self._free, key=self.busy.__getitem__)
            self._free.remove(device)
            # Looked up now: whoever waits may be gone before the run begins.
            run = Run(batch, [self.waiting[job.key] for job in batch.jobs], now, device)
            self.running.add(run)
            return run

    def _leave(self, done: Run, now: float, broken: str | None) -> None:
        self.running.discard(done)
        self.lost -= done.lost
        self.busy[done.device] += now - done.begun
        if broken is None or done.device == CPU:
            self._free.append(done.device)
        else:
            self.broken[done.device] = broken

    def _expire(self, now: float) -> None:
        self._late += [self.waiting[job.key] for job in self._queue.expire(now)]

    def hanging(self, since: float) -> list[Run]:
        """Runs that began before that; their workers count as lost from now on."""
        with self.lock:
            found = [run for run in self.running if run.begun < since and not run.lost]
            for run in found:
                run.lost = True
            self.lost += len(found)
            return found
