"""A stand-in for the engine, at the seam the scheduler ships for it."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.costs import Canvas, Costs, Line
from service.failures import DeviceLost, EngineError, OutOfMemory
from service.scores import Maps, Scores
from service.sessions import Stop

PLAIN = Costs(Line(1e-3, 1e-6))
_AT_MOST_S = 60.0  # behind a closed gate: a test that fails must not keep pytest from ending


@dataclass(frozen=True, slots=True)
class Ran:
    """A run: the (height, width) of its images, the canvas if it had one, and where."""

    sizes: tuple[tuple[int, int], ...]
    canvas: Canvas | None = None
    device: str = "cpu"


class FakeEngine:
    """Scores an image by its mean and remembers what ran, in order, and how many were stopped.

    Maps of the classes that were asked for have that mean everywhere.

    poison: a run with that grey in it fails
    memory: a run of more images fails for want of memory
    stubborn: a run that waits for the gate does not listen to Stop
    """

    def __init__(
        self,
        poison: int | None = None,
        memory: int = 1000,
        costs: Costs = PLAIN,
        devices: tuple[str, ...] = ("cpu",),
        stubborn: bool = False,
    ) -> None:
        self.costs = costs
        self.devices = devices
        self.lost: set[str] = set()  # devices that fail for good
        self.ran: list[Ran] = []
        self.stopped = 0
        self.poison = poison
        self.memory = memory
        self.stubborn = stubborn
        self.gate = threading.Event()  # runs wait for it, unless they are stopped
        self.gate.set()
        self.gates: dict[str, threading.Event] = {}  # of devices that have one of their own

    @property
    def batches(self) -> list[int]:
        """Images in each run."""
        return [len(run.sizes) for run in self.ran]

    def run(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        stop: Stop | None = None,
        canvas: Canvas | None = None,
        classes: Sequence[Sequence[int]] = (),
        device: str | None = None,
    ) -> Scores:
        device = device or self.devices[0]
        for _ in range(int(_AT_MOST_S / 0.01)):
            if self.gates.get(device, self.gate).wait(0.01):
                break
            if stop is not None and stop.is_set and not self.stubborn:
                self.stopped += 1
                raise EngineError("stopped")
        self.ran.append(Ran(tuple((p.shape[0], p.shape[1]) for p in pictures), canvas, device))
        if device in self.lost:
            raise DeviceLost("CUDA failure 700: an illegal memory access was encountered")
        if len(pictures) > self.memory:
            raise OutOfMemory("no memory")
        if any((picture == self.poison).any() for picture in pictures):
            raise EngineError("poisoned")
        means = np.array([[picture.mean()] for picture in pictures], np.float32)  # (n, 1)
        maps = tuple(
            Maps(np.array(wanted, np.int64), np.full((len(wanted), 2, 3), mean, np.float32))
            for wanted, (mean,) in zip(classes, means, strict=bool(classes))
        )
        ranking = np.zeros((len(means), 1), np.int64)
        return Scores(means, means, None, ranking, maps if any(classes) else None)


def grey(value: int, height: int = 8, width: int = 8) -> NDArray[np.uint8]:
    """An image (height, width, 1) of one grey."""
    return np.full((height, width, 1), value, np.uint8)
