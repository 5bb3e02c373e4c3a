"""What becomes of an image: a result or an error, and where its time went."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property

from models.card import Policy
from service.errors import AnypoolError
from service.heat import HeatMap
from service.resize import Size
from service.scores import Scores
from service.work import Phase, seconds_in


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class and its probability."""

    index: int
    id: str
    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one image: `source` is its upright size, `used` what the network saw."""

    source: Size
    used: Size
    policy: Policy
    predictions: list[Prediction]
    embedding: list[float] | None
    scores: Scores  # of this image, all of them
    maps: list[HeatMap] | None = None


@dataclass(frozen=True)
class Outcome:
    """A result or an error, never both; the network pixels admitted, and where the time went."""

    name: str | None
    result: Result | None = None
    error: AnypoolError | None = None
    pixels: int = 0
    phases: Sequence[Phase] = ()

    @cached_property
    def decoding(self) -> float:
        """Seconds, as those below."""
        return seconds_in(self.phases, "decode")

    @cached_property
    def queued(self) -> float:
        return seconds_in(self.phases, "queue")

    @cached_property
    def inferring(self) -> float:
        return seconds_in(self.phases, "infer")

    @cached_property
    def batch(self) -> int:
        """Images that shared its run; 1 where it was not run."""
        return max((phase.batch for phase in self.phases), default=1)


def check_all(found: Sequence[object]) -> None:
    """Raise the first error among what was found of each image, saying of which image it is."""
    for index, one in enumerate(found):
        if isinstance(one, AnypoolError):
            # A copy: the traceback leads to whoever holds `found`, and so to the original.
            raise copy(one) if len(found) == 1 else one.of(f"image {index}")
