"""Ways to choose a replica for a request, by what a proxy knows of both."""

import bisect
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

TINY = 1e-9
ODD = 0.1  # of a replica: a size with that much more or less is as good as even


@dataclass(slots=True)
class View:
    """What a proxy knows of the replicas, by their numbers.

    requests: in flight when it last sent one there, less those of its own that ended since
    work: seconds of its own requests in flight, as it predicts them
    """

    requests: list[int]
    work: list[float]


Load = Callable[[View], Sequence[float]]
Router = Callable[[float, View], int]  # predicted seconds of a request, to a replica's number


def by_requests(view: View) -> Sequence[float]:
    return view.requests


def by_work(view: View) -> Sequence[float]:
    return view.work


class Anywhere:
    """Random."""

    def __init__(self, replicas: Sequence[int], rng: random.Random) -> None:
        self._replicas = replicas
        self._rng = rng

    def __call__(self, work: float, view: View) -> int:
        return self._rng.choice(self._replicas)


class Least:
    """Of so many replicas drawn at random, or of all, the one with the least in flight."""

    def __init__(
        self, replicas: Sequence[int], rng: random.Random, load: Load, drawn: int | None = None
    ) -> None:
        self._replicas = replicas
        self._rng = rng
        self._load = load
        self._drawn = len(replicas) if drawn is None else min(drawn, len(replicas))

    def __call__(self, work: float, view: View) -> int:
        drawn: Sequence[int] = self._replicas
        if self._drawn < len(drawn):
            drawn = self._rng.sample(drawn, self._drawn)
        load = self._load(view)
        least = min(load[r] for r in drawn)
        return self._rng.choice([r for r in drawn if load[r] <= least])


class BySize:
    """Similar sizes to the same replica, unless it has more than its share.

    Each replica has a band of sizes with an equal part of the work of late; a size with more than
    one part has several replicas. A request goes to the replica nearest to its band that has no
    more in flight than `slack` times the mean.
    """

    def __init__(self, replicas: int, rng: random.Random, load: Load, slack: float = 1.25) -> None:
        self._replicas = replicas
        self._load = load
        self._slack = slack
        self._rng = rng
        self._nearest = [
            sorted(range(replicas), key=lambda other: abs(other - home)) for home in range(replicas)
        ]
        self._recent: deque[float] = deque(maxlen=2000)
        self._sorted: list[float] = []
        self._parts = [0.0]  # of all work, in the first so many
        self._seen = 0

    def __call__(self, work: float, view: View) -> int:
        self._learn(work)
        load = self._load(view)
        home, last = self._band(work)
        if last > home:
            home = min(range(home, last + 1), key=lambda r: (load[r], self._rng.random()))
        most = self._slack * sum(load) / self._replicas
        return next(r for r in self._nearest[home] if load[r] <= most + TINY)

    def _learn(self, work: float) -> None:
        self._recent.append(work)
        if self._seen % 100 == 0:
            self._sorted = sorted(self._recent)
            total = sum(self._sorted)
            self._parts = [part / total for part in itertools.accumulate(self._sorted, initial=0.0)]
        self._seen += 1

    def _band(self, work: float) -> tuple[int, int]:
        """The first and last replica whose whole part is this size's, or else the one it is in."""
        below = self._parts[bisect.bisect_left(self._sorted, work)] * self._replicas
        up_to = self._parts[bisect.bisect_right(self._sorted, work)] * self._replicas
        first, last = math.ceil(below - ODD), int(up_to + ODD) - 1
        if first <= last:
            return first, last
        middle = min(int((below + up_to) / 2), self._replicas - 1)
        return middle, middle
