"""A stand-in for the engine, at the seam the scheduler ships for it."""

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.engine import EngineError, Scores


class FakeEngine:
    """Scores an image by its mean and remembers the batches; a run with `poison` in it fails."""

    def __init__(self, poison: int | None = None, *, mixes: bool = False) -> None:
        self.mixes = mixes
        self.batches: list[int] = []
        self.poison = poison
        self.gate = threading.Event()  # runs wait for it
        self.gate.set()

    def run(self, pictures: Sequence[NDArray[np.uint8]]) -> Scores:
        self.gate.wait(20)
        self.batches.append(len(pictures))
        if any((picture == self.poison).any() for picture in pictures):
            raise EngineError("poisoned")
        means = np.array([[picture.mean()] for picture in pictures], np.float32)
        return Scores(means, means, None)


def grey(value: int, height: int = 8, width: int = 8) -> NDArray[np.uint8]:
    """An image of one grey."""
    return np.full((height, width, 1), value, np.uint8)
