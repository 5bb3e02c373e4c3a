"""What a worker thread does: decode, run, and nothing that another request could feel."""

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np

from service.batching import Batch
from service.costs import Canvas, Costs
from service.errors import AnypoolError, InferenceFailed, NotReady
from service.failures import DeviceLost, OutOfMemory
from service.images import Pixels
from service.scores import Scores
from service.sessions import Stop

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Runs(Protocol):
    """What the scheduler needs of an engine."""

    @property
    def devices(self) -> tuple[str, ...]:
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
        device: str | None = None,
    ) -> Scores:
        """Scores (n, k) of n images, each uint8 (h, w, c), with maps of the classes each wants.

        device: one of `devices`. Raises EngineError, OutOfMemory, DeviceLost.
        """


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of an image's time, on the monotonic clock; `batch` images shared a run."""

    name: Literal["queue", "decode", "infer"]
    begun: float
    ended: float
    batch: int = 1


def seconds_in(phases: Sequence[Phase], name: str) -> float:
    """How long all phases of that name took together."""
    return sum(phase.ended - phase.begun for phase in phases if phase.name == name)


@dataclass(frozen=True, slots=True)
class Timed(Generic[T]):
    """A result, and where the time went until it was there."""

    value: T
    phases: Sequence[Phase]


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
    """A job's other half: who waits for it, since when, what to run; `phases` are noted there."""

    future: "asyncio.Future[Timed[object]]"
    since: float
    cost: Cost
    work: "Callable[[], object] | Inference"
    phases: list[Phase] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Inference:
    """classes: those whose maps are wanted; -1-j is the j-th most probable one."""

    engine: Runs
    picture: Pixels | Undecoded
    classes: Sequence[int] = ()


@dataclass(slots=True, eq=False)
class Run:
    """A batch that runs: since when, where, and whether its worker counts as lost."""

    batch: Batch
    members: list[Waiting]
    begun: float
    device: str
    stop: Stop = field(default_factory=Stop)
    lost: bool = False


@dataclass(slots=True)
class Done:
    """What a worker made of a batch: a result or an exception for each member, and seconds.

    begun, ran: of the run; decodes, decoding: of each decode just before it
    inferred: images that were run
    broken: why the device is lost, if it is
    """

    results: list[object]
    begun: float
    ran: float = 0.0
    inferred: int = 0
    decodes: list[float] = field(default_factory=list)
    decoding: list[float] = field(default_factory=list)
    broken: str | None = None


def inference_cost(engine: Runs, pixels: int) -> Cost:
    """What an image of that size should take the engine, alone."""
    return Cost(id(engine), engine.costs.plain.seconds(pixels))


def perform(run: Run) -> Done:
    """Decode or infer."""
    first, begun = run.members[0].work, time.monotonic()
    if isinstance(first, Inference):
        works = [m.work for m in run.members if isinstance(m.work, Inference)]
        return _decode_and_infer(first.engine, works, run)
    result = _given(first)
    return Done([result], begun, time.monotonic() - begun)


def phases(run: Run, done: Done, index: int) -> list[Phase]:
    """Where the time of one member of a run went; it also waits for its neighbours' decodes."""
    member, result = run.members[index], done.results[index]
    since, ended = member.since, done.begun + done.ran
    if not isinstance(member.work, Inference):
        return [Phase("queue", since, done.begun), Phase("decode", done.begun, ended)]
    found = []
    if done.decodes and isinstance(member.work.picture, Undecoded):
        begun, decoded = done.decodes[index], done.decodes[index] + done.decoding[index]
        found = [Phase("queue", since, begun), Phase("decode", begun, decoded)]
        if isinstance(result, Exception) and not isinstance(result, InferenceFailed | NotReady):
            return found
        since = decoded
    return [
        *found,
        Phase("queue", since, done.begun),
        Phase("infer", done.begun, ended, max(1, done.inferred)),
    ]


def stopped(run: Run, member: Waiting, now: float) -> list[Phase]:
    """Where the time of a member went whose run hangs."""
    name: Literal["decode", "infer"] = "infer" if isinstance(member.work, Inference) else "decode"
    queued = Phase("queue", member.since, run.begun)
    return [queued, Phase(name, run.begun, now, len(run.members))]


def _given(work: Callable[[], object]) -> object:
    """What `work` gives, or raises: that travels to whoever waits for it."""
    try:
        return work()
    except AnypoolError as exc:
        return exc.bare()
    except Exception as exc:  # nobody foresaw it: its traceback will be logged
        return exc


def _decode_and_infer(engine: Runs, works: list[Inference], run: Run) -> Done:
    """Decode what is not decoded, then run what could be."""
    done = Done([], time.monotonic())
    for work in works:
        begun = time.monotonic()
        picture = work.picture
        done.results.append(_given(picture.decode) if isinstance(picture, Undecoded) else picture)
        done.decodes.append(begun)
        done.decoding.append(time.monotonic() - begun)
    ready = [
        (result, work.classes)
        for result, work in zip(done.results, works, strict=True)
        if isinstance(result, np.ndarray)
    ]
    done.begun = time.monotonic()
    done.inferred = len(ready)
    scores = iter(_infer(engine, ready, run, done) if ready else [])
    done.results = [next(scores) if isinstance(r, np.ndarray) else r for r in done.results]
    done.ran = time.monotonic() - done.begun
    return done


def _infer(
    engine: Runs,
    ready: list[tuple[Pixels, Sequence[int]]],
    run: Run,
    done: Done,
) -> list[object]:
    """Run pictures together; if that fails, in halves, until what fails is alone.

    ready: pictures, each with the classes whose maps it wants
    So memory that runs out costs time, not answers; and an image that breaks the run, only its own.
    A device that is lost would fail each time.
    """
    try:
        pictures, classes = zip(*ready, strict=True)
        scores = engine.run(pictures, run.stop, run.batch.canvas, classes, run.device)
        return [scores.row(index) for index in range(len(ready))]
    except DeviceLost as exc:
        logger.critical("%s is lost: %s", run.device, exc)
        done.broken = str(exc)
        return [lost(run.device)] * len(ready)
    except Exception as exc:
        if len(ready) > 1 and not run.stop.is_set and done.broken is None:
            half = len(ready) // 2
            logger.warning("a run of %d images failed, now in halves: %s", len(ready), exc)
            parts = ready[:half], ready[half:]
            return [result for part in parts for result in _infer(engine, part, run, done)]
        logger.error("a run failed", exc_info=exc)
        return [failed(exc)] * len(ready)


def lost(device: str) -> NotReady:
    """What a client is told whose image was, or would be, on a device that is lost."""
    return NotReady(f"the GPU ({device}) is lost, and the service restarts; try again", 5)


def failed(exc: Exception) -> InferenceFailed:
    """What a client is told of a run that failed."""
    why = "memory ran out" if isinstance(exc, OutOfMemory) else "the log says why"
    return InferenceFailed(f"the network could not be run on this image: {why}")
