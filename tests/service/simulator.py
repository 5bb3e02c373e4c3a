"""Compare our law with others: `python -m tests.service.simulator` prints a table.

Arrivals are replayed on a simulated device, which has workers and a cost for each run. Time is
simulated too: nothing here is measured, and the same arrivals always give the same numbers.
"""

import heapq
import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from service.batching import PATIENCE, Batch, Group, Job, Queue
from service.costs import Canvas, Costs, Line

LIMIT = 2_100_000  # pixels of a run
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Device:
    """What computes.

    workers: runs at once
    line: seconds of a run, by the pixels of its shape
    masks: how many times longer a run of mixed sizes takes, or one on a pinned canvas
    replan: seconds more when a session's (n, height, width) differs from that of its last call
    """

    workers: int
    line: Line
    masks: float
    replan: float = 0.0


CPU = Device(2, Line(0.4e-3, 0.26e-6), masks=1.3)
GPU = Device(1, Line(0.4e-3, 1.5e-9), masks=1.1, replan=10e-3)
CANVASES = [(32, 96, 96), (16, 224, 224), (8, 384, 384), (4, 512, 512), (2, 1024, 1024)]


@dataclass(frozen=True, slots=True)
class Arrival:
    """An image of a size, at a time in seconds; whose, where there are keys."""

    at: float
    height: int
    width: int
    client: str | None = None

    @property
    def size_class(self) -> str:
        """small, medium or large."""
        pixels = self.height * self.width
        return "small" if pixels <= 128**2 else "medium" if pixels <= 512**2 else "large"


@dataclass(frozen=True, slots=True)
class Run:
    """Arrivals, by number, that run together; pinned shapes have a session, so a plan, each."""

    members: Sequence[int]
    pinned: Canvas | None = None


class Policy(Protocol):
    """Decides what runs next."""

    def add(self, number: int, arrival: Arrival) -> None:
        """Let it wait."""

    def take(self, workers: int) -> Run | None:
        """What the next of the free workers runs; None if nothing waits."""


Cut = Callable[[Sequence[Arrival]], int]


@dataclass(slots=True)
class Fifo:
    """First come, first served: `cut` says how many of those that wait make a run."""

    cut: Cut
    waiting: list[tuple[int, Arrival]] = field(default_factory=list)

    def add(self, number: int, arrival: Arrival) -> None:
        self.waiting.append((number, arrival))

    def take(self, workers: int) -> Run | None:
        if not self.waiting:
            return None
        size = self.cut([arrival for _, arrival in self.waiting[:64]])
        chosen = [number for number, _ in self.waiting[:size]]
        del self.waiting[:size]
        return Run(chosen)


def one_by_one(waiting: Sequence[Arrival]) -> int:
    return 1


def until_the_size_differs(waiting: Sequence[Arrival]) -> int:
    """Triton's rule."""
    first = waiting[0]
    room = max(1, LIMIT // (first.height * first.width))
    same = itertools.takewhile(
        lambda a: (a.height, a.width) == (first.height, first.width), waiting[:room]
    )
    return len(list(same))


def eight_on_one_canvas(waiting: Sequence[Arrival]) -> int:
    """Pad to the largest of whatever waits."""
    return min(len(waiting), 8)


class Ours:
    """The real queue, told the device's true costs."""

    def __init__(
        self, device: Device, *, mixed: bool, pinned: bool, patience: float = PATIENCE
    ) -> None:
        line = device.line
        ragged = Line(line.base * device.masks, line.pixel * device.masks)
        canvases = [
            Canvas(*shape, seconds=ragged.seconds(Canvas(*shape).pixels)) for shape in CANVASES
        ]
        self._line = line
        costs = Costs(line, ragged if mixed else None, canvases if pinned else ())
        self._group = Group("net", costs)
        self._queue = Queue(LIMIT, patience)

    def add(self, number: int, arrival: Arrival) -> None:
        cost = self._line.seconds(arrival.height * arrival.width)
        height, width, client = arrival.height, arrival.width, arrival.client
        self._queue.add(Job(number, self._group, height, width, cost, arrival.at, FOREVER, client))

    def take(self, workers: int) -> Run | None:
        batch: Batch | None = self._queue.take(workers)
        return None if batch is None else Run([job.key for job in batch.jobs], batch.canvas)


@dataclass(frozen=True, slots=True)
class Outcome:
    """When each arrival was answered, and the runs."""

    arrivals: Sequence[Arrival]
    answered: Sequence[float]
    runs: Sequence[Run]

    def latencies(self, size_class: str) -> list[float]:
        """Seconds, of one class."""
        return [
            end - arrival.at
            for arrival, end in zip(self.arrivals, self.answered, strict=True)
            if arrival.size_class == size_class
        ]

    def mean(self, size_class: str) -> float:
        """Seconds, of one class."""
        return statistics.fmean(self.latencies(size_class))

    def p99(self, size_class: str) -> float:
        """Seconds that 1 % of one class take longer than."""
        return float(np.percentile(self.latencies(size_class), 99))

    @property
    def throughput(self) -> float:
        """Images a second, from the first arrival to the last answer."""
        return len(self.arrivals) / (max(self.answered) - self.arrivals[0].at)


Plans = dict[Canvas | None, tuple[int, int, int]]  # a device's: the last shape of each session


class Replica:
    """A device, or several that share one queue."""

    def __init__(self, device: Device, policy: Policy, devices: int = 1) -> None:
        self._device = device
        self._policy = policy
        self._waiting: dict[int, Arrival] = {}
        plans: list[Plans] = [{} for _ in range(devices)]
        self._free = plans * device.workers

    def add(self, number: int, arrival: Arrival) -> None:
        """Let it wait."""
        self._waiting[number] = arrival
        self._policy.add(number, arrival)

    def begin(self) -> Iterator[tuple[float, Run, Plans]]:
        """What the free workers run next: for how many seconds, and on whose plans."""
        while self._free and (run := self._policy.take(len(self._free))):
            plans = self._free.pop()
            members = [self._waiting.pop(number) for number in run.members]
            yield _seconds(self._device, members, run, plans), run, plans

    def end(self, plans: Plans) -> None:
        """A worker is free again."""
        self._free.append(plans)


def replay(arrivals: Sequence[Arrival], device: Device, policy: Policy) -> Outcome:
    """Run all arrivals, in the order of their times, to the end.

    Whenever one comes or a run ends, the free workers ask for more.
    """
    replica = Replica(device, policy)
    now, upcoming = 0.0, 0
    running: list[tuple[float, int, Run, Plans]] = []
    answered = [FOREVER] * len(arrivals)
    runs: list[Run] = []
    while upcoming < len(arrivals) or running:
        coming = arrivals[upcoming].at if upcoming < len(arrivals) else FOREVER
        if running and running[0][0] <= coming:
            now, _, done, plans = heapq.heappop(running)
            replica.end(plans)
            for number in done.members:
                answered[number] = now
        else:
            now = coming
            replica.add(upcoming, arrivals[upcoming])
            upcoming += 1
        for seconds, run, plans in replica.begin():
            heapq.heappush(running, (now + seconds, len(runs), run, plans))
            runs.append(run)
    return Outcome(arrivals, answered, runs)


def _seconds(device: Device, members: Sequence[Arrival], run: Run, planned: Plans) -> float:
    sizes = {(arrival.height, arrival.width) for arrival in members}
    shape = len(members), max(h for h, _ in sizes), max(w for _, w in sizes)
    if run.pinned is not None:
        shape = run.pinned.rows, run.pinned.height, run.pinned.width
    seconds = device.line.seconds(shape[0] * shape[1] * shape[2])
    if len(sizes) > 1 or run.pinned is not None:
        seconds *= device.masks
    if planned.get(run.pinned) != shape:
        seconds += device.replan
    planned[run.pinned] = shape
    return seconds


Sizes = Callable[[np.random.Generator], tuple[int, int]]


def poisson(seed: int, count: int, rate: float, sizes: Sizes) -> list[Arrival]:
    """`count` arrivals, `rate` a second."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(1 / rate, count))
    return [Arrival(float(at), *sizes(rng)) for at in times]


def thumbnails_and_large(rng: np.random.Generator) -> tuple[int, int]:
    """90 % of 32 to 64 pixels a side, 10 % of 1024²."""
    if rng.random() < 0.1:
        return 1024, 1024
    height, width = rng.integers(32, 65, 2)
    return int(height), int(width)


def fifty_sizes(rng: np.random.Generator) -> tuple[int, int]:
    """One of fifty, 64 to 360 pixels a side."""
    number = int(rng.integers(50))
    return 64 + 6 * number, 64 + 6 * (number * 17 % 50)


def photos_of_the_web(rng: np.random.Generator) -> tuple[int, int]:
    """Hardly two alike: the longer side log-normal around 400, the other 0.5 to 1 of it."""
    longer = float(np.clip(400 * np.exp(rng.normal(0, 0.5)), 64, 1448))
    sides = round(longer), round(longer * rng.uniform(0.5, 1))
    return sides if rng.random() < 0.3 else (sides[1], sides[0])


def capacity(device: Device, sizes: Sizes) -> float:
    """Images a second when each runs alone, replanning included."""
    rng = np.random.default_rng(0)
    drawn = [sizes(rng) for _ in range(4000)]
    seconds = statistics.fmean(device.line.seconds(h * w) for h, w in drawn) + device.replan
    return device.workers / seconds


def policies(device: Device) -> dict[str, Policy]:
    """Every policy that is compared, fresh."""
    return {
        "FIFO one by one": Fifo(one_by_one),
        "FIFO cut (Triton)": Fifo(until_the_size_differs),
        "FIFO pad to largest": Fifo(eight_on_one_canvas),
        "ours, equal sizes": Ours(device, mixed=False, pinned=False),
        "ours, mixed sizes": Ours(device, mixed=True, pinned=False),
        "ours, pinned": Ours(device, mixed=True, pinned=True),
    }


def main() -> None:
    scenarios = [
        ("CPU, 90 % thumbnails and 10 % 1024², 80 % load", CPU, thumbnails_and_large, 0.8, 20_000),
        ("GPU, 90 % thumbnails and 10 % 1024², 80 % load", GPU, thumbnails_and_large, 0.8, 20_000),
        ("GPU, fifty sizes of 64 to 360, all at once", GPU, fifty_sizes, 1e6, 5_000),
    ]
    for title, device, sizes, load, count in scenarios:
        arrivals = poisson(1, count, load * capacity(device, sizes), sizes)
        classes = sorted({a.size_class for a in arrivals}, reverse=True)
        print(f"\n{title}; latencies in ms")
        print(f"{'':20}{'images/s':>9}" + "".join(f"{c:>8} mean{'p99':>9}" for c in classes))
        for name, policy in policies(device).items():
            done = replay(arrivals, device, policy)
            print(
                f"{name:20}{done.throughput:9.1f}"
                + "".join(f"{done.mean(c) * 1e3:13.1f}{done.p99(c) * 1e3:9.1f}" for c in classes)
            )


if __name__ == "__main__":
    main()
