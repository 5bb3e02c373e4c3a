"""How much a service can carry: the rate rises until it does not hold."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.load.record import ANSWERED, Sample

SHARE = 0.99  # of the requests must be answered in time
_NARROW = 1.1


def late(samples: Sequence[Sample], objective_s: float) -> int:
    """Requests not answered within the objective: too late, refused or failed."""
    return sum(s.outcome != ANSWERED or s.seconds > objective_s for s in samples)


def within(samples: Sequence[Sample], objective_s: float) -> bool:
    """Whether 99 of 100 were answered within the objective."""
    return bool(samples) and late(samples, objective_s) <= (1 - SHARE) * len(samples)


@dataclass(frozen=True, slots=True)
class Step:
    """Requests a second, and whether that held."""

    rate: int
    held: bool


class Climb:
    """Doubles the rate while it holds, then halves the gap until it is within a tenth."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._broken: int | None = None
        self.capacity = 0
        self.steps: list[Step] = []

    def next(self) -> int | None:
        """The rate to try now; None at the end."""
        if self._broken is None:
            return 2 * self.capacity or self._first
        if self._broken <= max(self.capacity + 1, _NARROW * self.capacity):
            return None
        return (self.capacity + self._broken) // 2

    def judge(self, rate: int, held: bool) -> None:
        """What became of it."""
        self.steps.append(Step(rate, held))
        if held:
            self.capacity = rate
        else:
            self._broken = rate
