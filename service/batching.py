"""What runs next. No clock, no asyncio, no I/O: time comes in as an argument.

Nothing waits for company: whenever a worker is free and jobs wait, some leave. Short jobs go before
long ones, but not for ever: a job may be overtaken only by those that come within PATIENCE times
its own predicted cost, so nothing starves. Decoding and inference are jobs alike.

With the most urgent job go others of its network: those of its size, as long as company saves
anything worth having; those of other sizes, where the measured cost of mixed sizes says that one
run takes less time than two; or whatever fits a pinned canvas, where there are any.

Clients that have keys take turns, each in the order above (fair queueing): the next job is one of
the client that will then have been served least, in predicted seconds. What a client did not ask
for is not saved up for later.
"""

import heapq
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from itertools import count, islice
from typing import TypeVar

from service.costs import Canvas, Costs

# Measured with tests/service/simulator.py. At 3 thumbnails wait 9 % longer; above 10
# only large images wait longer.
PATIENCE = 10.0
_LOOK_AHEAD = 64  # jobs considered for company of another size
_WORTH = 0.02  # a batch grows until a call's fixed cost is this part of its whole

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Group:
    """The jobs of one network: they may run together, at these costs."""

    name: Hashable
    costs: Costs = field(compare=False)


@dataclass(frozen=True, slots=True)
class Job:
    """Work that waits for a worker.

    key: tells this job from all others
    group: whom it may run with; None runs alone
    height, width: of the image, in pixels
    cost: predicted seconds, alone
    arrived: when it came
    deadline: begin before this time, or not at all
    client: whose it is; None is one client too
    """

    key: int
    group: Group | None
    height: int
    width: int
    cost: float
    arrived: float
    deadline: float
    client: Hashable = None

    @property
    def pixels(self) -> int:
        return self.height * self.width


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs that run together, the most urgent first; canvas is None unless it is a pinned one."""

    jobs: tuple[Job, ...]
    canvas: Canvas | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """What the run computes: (n, height, width)."""
        if self.canvas is not None:
            return self.canvas.rows, self.canvas.height, self.canvas.width
        height = max(job.height for job in self.jobs)
        return len(self.jobs), height, max(job.width for job in self.jobs)

    @property
    def pixels(self) -> int:
        n, height, width = self.shape
        return n * height * width

    @property
    def mixed(self) -> bool:
        return len({(job.height, job.width) for job in self.jobs}) > 1

    @property
    def cost(self) -> float:
        """Predicted seconds of the run."""
        first = self.jobs[0]
        if first.group is None:
            return first.cost
        if self.canvas is not None:
            return self.canvas.seconds
        costs = first.group.costs
        line = costs.ragged if self.mixed and costs.ragged is not None else costs.plain
        return line.seconds(self.pixels)


class Queue:
    """Jobs that wait, the most urgent first."""

    def __init__(self, max_batch_pixels: int, patience: float = PATIENCE) -> None:
        """patience 0 is first come, first served."""
        self._max_batch_pixels = max_batch_pixels
        self._patience = patience
        self._jobs: dict[int, Job] = {}
        self._groups: dict[Group, dict[int, Job]] = {}  # oldest first, as is the next
        self._sizes: dict[tuple[Group, int, int], dict[int, Job]] = {}
        # Heaps of (time, number, key); what has left stays until it comes to the top.
        self._urgent: dict[Hashable, list[tuple[float, int, int]]] = {}  # by client
        self._late: list[tuple[float, int, int]] = []
        self._served: dict[Hashable, float] = {}  # predicted seconds, by client
        self._turn = 0.0  # what the client whose turn it was had been served: newcomers start here
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        """Let a job wait."""
        self._jobs[job.key] = job
        if job.group is not None:
            self._groups.setdefault(job.group, {})[job.key] = job
            self._sizes.setdefault((job.group, job.height, job.width), {})[job.key] = job
        if job.client not in self._urgent:
            self._urgent[job.client] = []
            self._served[job.client] = max(self._turn, self._served.get(job.client, 0.0))
        number = next(self._numbers)
        urgency = job.arrived + self._patience * job.cost
        heapq.heappush(self._urgent[job.client], (urgency, number, job.key))
        heapq.heappush(self._late, (job.deadline, number, job.key))

    def remove(self, key: int) -> bool:
        """Forget a job; False when it does not wait (any more)."""
        job = self._jobs.pop(key, None)
        if job is None:
            return False
        if job.group is not None:
            _drop(self._groups, job.group, key)
            _drop(self._sizes, (job.group, job.height, job.width), key)
        if not self._jobs:  # nothing that has left is worth remembering
            self._urgent.clear()
            self._late.clear()
            self._served.clear()
            self._turn = 0.0
        return True

    def expire(self, now: float) -> list[Job]:
        """Take out the jobs whose deadline has passed."""
        late = []
        while self._late and self._late[0][0] <= now:
            job = self._jobs.get(heapq.heappop(self._late)[2])
            if job is not None and self.remove(job.key):
                late.append(job)
        return late

    def take(self, workers: int = 1, room: float = float("inf")) -> Batch | None:
        """Take out what a free worker should run next; None if nothing waits or may run yet.

        workers: how many are free; equal jobs are shared among them
        room: pixels that may run; the most urgent job waits until it fits
        """
        first = self._first()
        if first is None or (first.group is not None and first.pixels > room):
            return None
        batch = Batch((first,)) if first.group is None else self._company(first, workers, room)
        self._turn = max(self._turn, self._served[first.client])
        for job in batch.jobs:
            self._served[job.client] += job.cost
        for job in batch.jobs:
            self.remove(job.key)
        return batch

    def _first(self) -> Job | None:
        """The most urgent job of the client whose turn it is."""
        firsts = [job for client in list(self._urgent) if (job := self._first_of(client))]
        return min(firsts, key=lambda job: self._served[job.client] + job.cost, default=None)

    def _first_of(self, client: Hashable) -> Job | None:
        urgent = self._urgent[client]
        while urgent:
            job = self._jobs.get(urgent[0][2])
            if job is not None:
                return job
            heapq.heappop(urgent)
        del self._urgent[client]
        return None

    def _company(self, first: Job, workers: int, room: float) -> Batch:
        assert first.group is not None
        costs = first.group.costs
        pinned = self._pinned(first, [c for c in costs.canvases if c.pixels <= room])
        if pinned is not None:
            return pinned
        limit = min(self._max_batch_pixels, room)
        batch = self._equal(first, workers, limit)
        return batch if costs.ragged is None else self._mixed(batch, workers, limit)

    def _equal(self, first: Job, workers: int, limit: float) -> Batch:
        """`first` and the oldest of its size: this worker's share, and what is worth it."""
        assert first.group is not None
        mates = self._sizes[first.group, first.height, first.width]
        line = first.group.costs.plain
        if line.pixel > 0:
            limit = min(limit, line.base / line.pixel / _WORTH)
        share = -(-len(mates) // workers)
        size = max(1, min(share, int(limit // first.pixels)))
        others = (job for job in mates.values() if job is not first)
        return Batch((first, *islice(others, size - 1)))

    def _mixed(self, batch: Batch, workers: int, limit: float) -> Batch:
        """`batch` and others, nearest in size first, if that saves time; else `batch`.

        No more than this worker's share of all that wait.

        One more image on the canvas should cost less than its own run; then all together should
        cost less than apart.
        """
        first = batch.jobs[0]
        assert first.group is not None
        plain, ragged = first.group.costs.plain, first.group.costs.ragged
        assert ragged is not None
        dearer = ragged.pixel - plain.pixel
        largest = plain.base / dearer if dearer > 0 else limit  # a call saved, masks paid
        if first.pixels > largest:
            return batch
        chosen = {job.key: job for job in batch.jobs}
        oldest = islice(self._groups[first.group].values(), _LOOK_AHEAD)
        size = first.height, first.width  # what is left of those is for other workers
        others = [j for j in oldest if j.pixels <= largest and (j.height, j.width) != size]
        others.sort(key=lambda job: abs(job.height - first.height) + abs(job.width - first.width))
        height, width, canvas = first.height, first.width, batch.pixels
        apart = plain.seconds(canvas)
        share = -(-len(self._groups[first.group]) // workers)
        for job in others:
            if len(chosen) >= share:
                break
            taller, wider = max(height, job.height), max(width, job.width)
            larger = (len(chosen) + 1) * taller * wider
            alone = plain.seconds(job.pixels)
            if larger <= limit and ragged.pixel * (larger - canvas) < alone:
                chosen[job.key] = job
                height, width, canvas = taller, wider, larger
                apart += alone
        return Batch(tuple(chosen.values())) if ragged.seconds(canvas) < apart else batch

    def _pinned(self, first: Job, canvases: Iterable[Canvas]) -> Batch | None:
        """`first` and the oldest that fit, on the canvas with the least time for each image."""
        assert first.group is not None
        fitting = [c for c in canvases if c.holds(first.height, first.width)]
        if not fitting:
            return None
        oldest = list(islice(self._groups[first.group].values(), _LOOK_AHEAD))
        batches = []
        for canvas in fitting:
            others = (j for j in oldest if j is not first and canvas.holds(j.height, j.width))
            batches.append(Batch((first, *islice(others, canvas.rows - 1)), canvas))
        return min(batches, key=lambda batch: batch.cost / len(batch.jobs))


def _drop(index: dict[K, dict[int, Job]], at: K, key: int) -> None:
    del index[at][key]
    if not index[at]:
        del index[at]
