"""The threads of one device, and the queue they take from."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from service.batching import Job, Queue
from service.work import Run, Waiting

UNLIMITED = float("inf")


class Lane:
    """The threads of one device, what waits for them and what they run; all under the lock."""

    def __init__(
        self, name: str, workers: int, batch_pixels: int, most_pixels: float, patience: float
    ) -> None:
        """most_pixels: in all runs at once."""
        self.lock = threading.Lock()
        self.threads = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self.workers = workers
        self.waiting: dict[int, Waiting] = {}
        self.running: set[Run] = set()
        self.lost = 0  # workers that hang
        self.closed = False
        self._late: list[Waiting] = []  # taken out, to be told
        self._queue = Queue(batch_pixels, patience)
        self._most_pixels = most_pixels

    @property
    def all_hang(self) -> bool:
        """Nobody is left to work."""
        return self.lost == self.workers

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

    def next(self, done: Run | None = None) -> Run | None:
        """What a free worker should run: one that is `done` with a run, or one that had none."""
        with self.lock:
            if done is not None:
                self.running.discard(done)
                self.lost -= done.lost
            free = self.workers - len(self.running)
            if free == 0 or self.closed:
                return None
            busy = sum(run.batch.pixels for run in self.running)
            now = time.monotonic()
            self._expire(now)
            batch = self._queue.take(free, self._most_pixels - busy if busy else UNLIMITED)
            if batch is None:
                return None
            # Looked up now: whoever waits may be gone before the run begins.
            run = Run(batch, [self.waiting[job.key] for job in batch.jobs], now)
            self.running.add(run)
            return run

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
