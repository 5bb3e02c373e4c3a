"""What a worker thread does: decode, run, and nothing that another request could feel."""

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np

from service.batching import Batch
from service.costs import Canvas, Costs
from service.engine import OutOfMemory, Scores, Stop
from service.errors import InferenceFailed
from service.images import Pixels

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Runs(Protocol):
    """What the scheduler needs of an engine."""

    @property
    def device(self) -> str:
        """What computes; "cpu" shares its threads with decoding."""

    @property
    def costs(self) -> Costs:
        """Predicted seconds, and which images may share a run."""

    def run(
        self,
        pictures: Sequence[Pixels],
        stop: Stop | None = None,
        canvas: Canvas | None = None,
        classes: Sequence[Sequence[int]] = (),
    ) -> Scores:
        """Scores (n, k) of n images, each uint8 (h, w, c), with maps of the classes each wants.

        Raises EngineError.
        """


@dataclass(frozen=True, slots=True)
class Timed(Generic[T]):
    """A result, and seconds: until the run began, of the run, and of a decode just before it."""

    value: T
    waited: float
    ran: float
    decoding: float = 0.0
    batch: int = 1


@dataclass(frozen=True, slots=True)
class Cost:
    """What a job should take: seconds as measured when all was quiet, and of which kind it is."""

    kind: Hashable
    seconds: float


@dataclass(frozen=True, slots=True)
class Undecoded:
    """An image whose decode costs so little that the worker that runs it decodes it too.

    decode: gives the pixels, of that height and width
    """

    decode: Callable[[], Pixels]
    height: int
    width: int
    cost: Cost


@dataclass(slots=True)
class Waiting:
    """A job's other half: who waits for it, since when, and what to run."""

    future: "asyncio.Future[Timed[object]]"
    since: float
    cost: Cost
    work: "Callable[[], object] | Inference"


@dataclass(frozen=True, slots=True)
class Inference:
    """classes: those whose maps are wanted; -1-j is the j-th most probable one."""

    engine: Runs
    picture: Pixels | Undecoded
    classes: Sequence[int] = ()


@dataclass(slots=True, eq=False)
class Run:
    """A batch that runs: since when, and whether its worker counts as lost."""

    batch: Batch
    members: list[Waiting]
    begun: float
    stop: Stop = field(default_factory=Stop)
    lost: bool = False


@dataclass(slots=True)
class Done:
    """What a worker made of a batch: a result or an exception for each member, and seconds."""

    results: list[object]
    ran: float = 0.0
    inferred: bool = False
    decoding: list[float] = field(default_factory=list)


def inference_cost(engine: Runs, pixels: int) -> Cost:
    """What an image of that size should take the engine, alone."""
    return Cost(id(engine), engine.costs.plain.seconds(pixels))


def perform(run: Run) -> Done:
    """Decode or infer."""
    first = run.members[0].work
    if isinstance(first, Inference):
        works = [m.work for m in run.members if isinstance(m.work, Inference)]
        return _decode_and_infer(first.engine, works, run.stop, run.batch.canvas)
    try:
        result: object = first()
    except Exception as exc:  # travels to whoever waits for it
        result = exc
    return Done([result], time.monotonic() - run.begun)


def _decode_and_infer(
    engine: Runs, works: list[Inference], stop: Stop, canvas: Canvas | None
) -> Done:
    """Decode what is not decoded, then run what could be."""
    done = Done([])
    for work in works:
        begun = time.monotonic()
        try:
            picture = work.picture
            done.results.append(picture.decode() if isinstance(picture, Undecoded) else picture)
        except Exception as exc:  # travels to whoever waits for it
            done.results.append(exc)
        done.decoding.append(time.monotonic() - begun)
    ready = [
        (result, work.classes)
        for result, work in zip(done.results, works, strict=True)
        if isinstance(result, np.ndarray)
    ]
    begun = time.monotonic()
    done.inferred = bool(ready)
    scores = iter(_infer(engine, ready, stop, canvas) if ready else [])
    done.results = [next(scores) if isinstance(r, np.ndarray) else r for r in done.results]
    done.ran = time.monotonic() - begun
    return done


def _infer(
    engine: Runs,
    ready: list[tuple[Pixels, Sequence[int]]],
    stop: Stop,
    canvas: Canvas | None,
) -> list[object]:
    """Run pictures together; if that fails, in halves, until what fails is alone.

    ready: pictures, each with the classes whose maps it wants
    So memory that runs out costs time, not answers; and an image that breaks the run, only its own.
    """
    try:
        pictures, classes = zip(*ready, strict=True)
        scores = engine.run(pictures, stop, canvas, classes)
        return [scores.row(index) for index in range(len(ready))]
    except Exception as exc:
        if len(ready) > 1 and not stop.is_set:
            half = len(ready) // 2
            logger.warning("a run of %d images failed, now in halves: %s", len(ready), exc)
            parts = ready[:half], ready[half:]
            return [result for part in parts for result in _infer(engine, part, stop, canvas)]
        logger.error("a run failed", exc_info=exc)
        return [failed(exc)] * len(ready)


def failed(exc: Exception) -> InferenceFailed:
    """What a client is told of a run that failed."""
    why = "memory ran out" if isinstance(exc, OutOfMemory) else "the log says why"
    error = InferenceFailed(f"the network could not be run on this image: {why}")
    error.__cause__ = exc
    return error
