"""What work costs, in predicted seconds: lines fitted to timed runs, kept fresh by what is seen.

Pure arithmetic: no clock, no I/O.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

_MEMORY = 0.05  # weight of the newest measurement
_DOUBT = 4.0  # one measurement counts for at most this many times more or less than predicted


@dataclass(frozen=True, slots=True)
class Line:
    """A run over so many pixels takes base + pixel · pixels seconds."""

    base: float
    pixel: float

    def seconds(self, pixels: int) -> float:
        """Predicted seconds for that many pixels."""
        return self.base + self.pixel * pixels


FREE = Line(0.0, 0.0)


def fit(measured: Iterable[tuple[int, float]]) -> Line:
    """The line through (pixels, seconds) with the least squared relative error.

    Relative, since a thumbnail's millisecond matters as much as a photo's second. Neither number
    is negative.
    """
    points = np.array(list(measured), np.float64)  # (n, 2)
    pixels, seconds = points.T
    rows = np.stack([1 / seconds, pixels / seconds], 1)  # (n, 2): both sides divided by seconds
    base, pixel = np.linalg.lstsq(rows, np.ones(len(points)))[0]
    if base < 0:
        return Line(0.0, float(np.median(seconds / pixels)))
    if pixel < 0:
        return Line(float(np.median(seconds)), 0.0)
    return Line(float(base), float(pixel))


@dataclass(frozen=True, slots=True)
class Canvas:
    """A fixed shape that one session was made for: rows images of up to height × width.

    seconds: what a run takes, however many of the rows are used
    """

    rows: int
    height: int
    width: int
    seconds: float = 0.0

    @property
    def pixels(self) -> int:
        return self.rows * self.height * self.width

    def holds(self, height: int, width: int) -> bool:
        """Whether an image of that size fits a row."""
        return height <= self.height and width <= self.width


@dataclass(frozen=True, slots=True)
class Costs:
    """What one network costs.

    plain: runs of one size
    ragged: runs of mixed sizes; None where sizes may not share a run
    canvases: pinned shapes for images of any size, cheapest first
    """

    plain: Line
    ragged: Line | None = None
    canvases: Sequence[Canvas] = ()


class Pace:
    """How much slower or faster than predicted work runs at present: a slowly moving factor."""

    def __init__(self) -> None:
        self.factor = 1.0

    def observe(self, predicted: float, measured: float) -> None:
        """Learn from one run. A hiccup of the machine hardly counts: the mean is of logarithms."""
        if predicted > 0 and measured > 0:
            ratio = min(max(measured / (predicted * self.factor), 1 / _DOUBT), _DOUBT)
            self.factor *= math.exp(_MEMORY * math.log(ratio))
