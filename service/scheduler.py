"""Run jobs on as many threads as there are cores: the asyncio side of batching.

Requests live on the event loop. A thread that is free takes from the queue by itself, under a lock,
and only reports to the loop: waiting for the loop between two thumbnails would cost it a third of
its time. On a CPU decoding and inference share the threads, so cores are never oversubscribed;
another device has a thread of its own for its runs.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, Protocol, TypeVar, cast

import numpy as np

from service.batching import PATIENCE, Batch, Group, Job, Queue
from service.costs import Canvas, Costs, Pace
from service.engine import OutOfMemory, Scores, Stop
from service.errors import (
    DeadlineExceeded,
    InferenceFailed,
    NotReady,
    Overloaded,
    TooManyPixels,
)
from service.images import Pixels

logger = logging.getLogger(__name__)

_CPU = "cpu"
_FOREVER = float("inf")

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
        self, pictures: Sequence[Pixels], stop: Stop | None = None, canvas: Canvas | None = None
    ) -> Scores:
        """Scores (n, k) of n images, each uint8 (h, w, c); raises EngineError."""


class Observer(Protocol):
    """Hears what happens."""

    def ran(self, batch: Batch) -> None:
        """A run of the network has ended."""

    def cancelled(self) -> None:
        """A client went away before its image was done."""


class Nobody:
    """An observer that does not listen."""

    def ran(self, batch: Batch) -> None:
        pass

    def cancelled(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Limits:
    """What the scheduler keeps to.

    queue_pixels: admitted and not answered yet
    batch_pixels: in one run
    running_pixels: in all runs at once, on the CPU
    run_s: a run or a decode that takes longer hangs
    """

    queue_pixels: int
    batch_pixels: int
    running_pixels: float = _FOREVER
    run_s: float = 60.0


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
class _Waiting:
    """A job's other half: who waits for it, since when, and what to run."""

    future: "asyncio.Future[Timed[object]]"
    since: float
    cost: Cost
    work: "Callable[[], object] | _Inference"


@dataclass(frozen=True, slots=True)
class _Inference:
    engine: Runs
    picture: Pixels | Undecoded


@dataclass(slots=True, eq=False)
class _Run:
    """A batch that runs: since when, and whether its worker counts as lost."""

    batch: Batch
    members: list[_Waiting]
    begun: float
    stop: Stop = field(default_factory=Stop)
    lost: bool = False


@dataclass(slots=True)
class _Done:
    """What a worker made of a batch: a result or an exception for each member, and seconds."""

    results: list[object]
    ran: float = 0.0
    inferred: bool = False
    decoding: list[float] = field(default_factory=list)


class _Lane:
    """The threads of one device, what waits for them and what they run; all under the lock."""

    def __init__(self, name: str, workers: int, limits: Limits, patience: float) -> None:
        self.lock = threading.Lock()
        self.threads = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self.workers = workers
        self.waiting: dict[int, _Waiting] = {}
        self.running: set[_Run] = set()
        self.lost = 0  # workers that hang
        self.closed = False
        self._late: list[_Waiting] = []  # taken out, to be told
        self._queue = Queue(limits.batch_pixels, patience)
        self._most_pixels = limits.running_pixels if name == _CPU else _FOREVER

    @property
    def all_hang(self) -> bool:
        return self.lost == self.workers

    def add(self, job: Job, waiting: _Waiting) -> None:
        with self.lock:
            self.waiting[job.key] = waiting
            self._queue.add(job)

    def forget(self, key: int) -> None:
        with self.lock:
            self._queue.remove(key)
            self.waiting.pop(key, None)

    def late(self, now: float) -> list[_Waiting]:
        """Those whose deadline has passed; they will not run."""
        with self.lock:
            self._expire(now)
            late, self._late = self._late, []
            return late

    def next(self, done: _Run | None = None) -> _Run | None:
        """What a free worker should run: one that is `done` with a run, or one that had none."""
        with self.lock:
            if done is not None:
                self.running.discard(done)
                self.lost -= done.lost
            free = self.workers - len(self.running)
            if free == 0 or self.closed:
                return None
            busy = sum(run.batch.pixels for run in self.running)
            now = time.monotonic()
            self._expire(now)
            batch = self._queue.take(free, self._most_pixels - busy if busy else _FOREVER)
            if batch is None:
                return None
            # Looked up now: whoever waits may be gone before the run begins.
            run = _Run(batch, [self.waiting[job.key] for job in batch.jobs], now)
            self.running.add(run)
            return run

    def _expire(self, now: float) -> None:
        self._late += [self.waiting[job.key] for job in self._queue.expire(now)]

    def hanging(self, since: float) -> list[_Run]:
        """Runs that began before that; their workers count as lost from now on."""
        with self.lock:
            found = [run for run in self.running if run.begun < since and not run.lost]
            for run in found:
                run.lost = True
            self.lost += len(found)
            return found


class Scheduler:
    """Admits requests by their pixels, and runs their jobs in the order batching decides."""

    def __init__(
        self,
        workers: int,
        limits: Limits,
        observer: Observer | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """patience: see batching; 0 is first come, first served."""
        self._workers = workers
        self._limits = limits
        self._observer = observer or Nobody()
        self._patience = patience
        self._lanes = {_CPU: _Lane(_CPU, workers, limits, patience)}
        self._groups: dict[Runs, Group] = {}
        self._paces: dict[Hashable, Pace] = {}
        self._watch: asyncio.TimerHandle | None = None
        self._keys = count()
        self._admitted = 0
        self._backlog = 0.0  # predicted seconds of what was admitted

    @property
    def admitted_pixels(self) -> int:
        """Network pixels of all images that were admitted and are not answered yet."""
        return self._admitted

    @property
    def backlog_seconds(self) -> float:
        """Predicted work of what was admitted and is not answered yet, on one worker."""
        return self._backlog

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not any(lane.waiting or lane.running for lane in self._lanes.values())

    @property
    def lost(self) -> int:
        """Workers that hang, in a run that was told to stop or in a decode."""
        return sum(lane.lost for lane in self._lanes.values())

    def retry_after(self) -> int:
        """Whole seconds until the backlog should be gone, at least 1."""
        return max(1, math.ceil(self._backlog / self._workers))

    @contextmanager
    def admit(self, pixels: int, costs: Sequence[Cost]) -> Iterator[None]:
        """Hold room for a whole request; raises Overloaded, or TooManyPixels if it never fits."""
        most = self._limits.queue_pixels
        if pixels > most:
            raise TooManyPixels(
                f"the request's images have {pixels / 1e6:.1f} megapixels together; the queue "
                f"holds {most / 1e6:g}. Send fewer images at once"
            )
        if self._admitted + pixels > most:
            wait = self.retry_after()
            raise Overloaded(f"the queue is full; try again in {wait} s", wait)
        seconds = sum(self._predict(cost) for cost in costs)
        self._admitted += pixels
        self._backlog += seconds
        try:
            yield
        finally:
            self._admitted -= pixels
            self._backlog = self._backlog - seconds if self._admitted else 0.0

    async def decode(
        self, work: Callable[[], T], cost: Cost, arrived: float, deadline: float
    ) -> Timed[T]:
        """Run `work` on a thread; raises what it raises, DeadlineExceeded and NotReady."""
        lane = self._lanes[_CPU]
        done = await self._submit(lane, work, None, (0, 0), cost, arrived, deadline)
        return cast("Timed[T]", done)

    async def infer(
        self, engine: Runs, picture: Pixels | Undecoded, arrived: float, deadline: float
    ) -> Timed[Scores]:
        """Scores (1, k) of one image (h, w, c), run alone or in company.

        Raises InferenceFailed, DeadlineExceeded, NotReady, and what decoding raises.
        """
        if isinstance(picture, Undecoded):
            height, width = picture.height, picture.width
        else:
            height, width, _ = picture.shape
        if engine not in self._groups:
            self._groups[engine] = Group(id(engine), engine.costs)
            if engine.device not in self._lanes:
                lane = _Lane(engine.device, 1, self._limits, self._patience)
                self._lanes[engine.device] = lane
        done = await self._submit(
            self._lanes[engine.device],
            _Inference(engine, picture),
            self._groups[engine],
            (height, width),
            inference_cost(engine, height * width),
            arrived,
            deadline,
        )
        return cast("Timed[Scores]", done)

    def close(self) -> None:
        """Let the workers go; does not wait for what they are doing."""
        if self._watch is not None:
            self._watch.cancel()
        for lane in self._lanes.values():
            lane.closed = True
            lane.threads.shutdown(wait=False, cancel_futures=True)

    def _predict(self, cost: Cost) -> float:
        pace = self._paces.get(cost.kind)
        return cost.seconds * (1.0 if pace is None else pace.factor)

    async def _submit(
        self,
        lane: _Lane,
        work: "Callable[[], object] | _Inference",
        group: Group | None,
        size: tuple[int, int],
        cost: Cost,
        arrived: float,
        deadline: float,
    ) -> Timed[object]:
        if lane.all_hang:
            raise _all_hang()
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        job = Job(next(self._keys), group, *size, self._predict(cost), arrived, deadline)
        waiting = _Waiting(loop.create_future(), now, cost, work)
        lane.add(job, waiting)
        alarm = loop.call_later(max(0.0, deadline - now), self._expire, lane, deadline)
        self._start(loop, lane)
        if self._watch is None:
            self._watch = loop.call_later(self._limits.run_s / 4, self._find_hanging)
        try:
            return await waiting.future
        except asyncio.CancelledError:
            self._observer.cancelled()
            raise
        finally:
            alarm.cancel()
            lane.forget(job.key)  # the client went away while the job still waited

    def _start(self, loop: asyncio.AbstractEventLoop, lane: _Lane) -> None:
        """Set free workers to work, as long as there is some that may run."""
        while (run := lane.next()) is not None:
            lane.threads.submit(self._work, loop, lane, run)

    def _expire(self, lane: _Lane, deadline: float) -> None:
        """Give up the jobs that are late; the timer may fire a little early."""
        for waiting in lane.late(max(deadline, time.monotonic())):
            late = DeadlineExceeded("no worker was free before the deadline; try again later")
            _fail(waiting, late)

    def _work(self, loop: asyncio.AbstractEventLoop, lane: _Lane, run: _Run | None) -> None:
        """On a worker thread: run what there is to run, and tell the loop of each."""
        while run is not None:
            try:
                done = _run(run)
            except Exception as exc:  # whatever happens, nobody is left waiting
                logger.exception("a run failed in a way nobody foresaw")
                done = _Done([_failed(exc)] * len(run.members))
            following = lane.next(run)
            try:
                loop.call_soon_threadsafe(self._finish, loop, lane, run, done)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
            run = following

    def _finish(self, loop: asyncio.AbstractEventLoop, lane: _Lane, run: _Run, done: _Done) -> None:
        """Back on the loop: hand out the results."""
        self._start(loop, lane)  # others may have waited for the room this run took
        self._learn(run.batch, run.members, done)
        if done.inferred:
            self._observer.ran(run.batch)
        decoded = sum(done.decoding)
        for index, (member, result) in enumerate(zip(run.members, done.results, strict=True)):
            if isinstance(result, Exception):
                _fail(member, result)
            elif not member.future.done():
                decoding = done.decoding[index] if done.decoding else 0.0
                waited = run.begun - member.since + decoded - decoding
                timed = Timed(result, waited, done.ran, decoding, len(run.members))
                member.future.set_result(timed)

    def _learn(self, batch: Batch, members: list[_Waiting], done: _Done) -> None:
        """Compare what a run took with what was predicted; one that failed teaches nothing."""
        first = members[0]
        if any(isinstance(result, Exception) for result in done.results):
            return
        predicted = first.cost.seconds if batch.jobs[0].group is None else batch.cost
        self._paces.setdefault(first.cost.kind, Pace()).observe(predicted, done.ran)
        for member, seconds in zip(members, done.decoding, strict=False):
            if isinstance(member.work, _Inference) and isinstance(member.work.picture, Undecoded):
                cost = member.work.picture.cost
                self._paces.setdefault(cost.kind, Pace()).observe(cost.seconds, seconds)

    def _find_hanging(self) -> None:
        """Answer for runs that hang. A worker is lost until its run has really ended."""
        limit = self._limits.run_s
        for lane in self._lanes.values():
            for run in lane.hanging(time.monotonic() - limit):
                logger.error("a run of %d images hangs; stopping it", len(run.members))
                run.stop.set()
                for member in run.members:
                    _fail(member, DeadlineExceeded(f"the run took over {limit:g} s: stopped"))
            if lane.all_hang:
                for waiting in list(lane.waiting.values()):
                    _fail(waiting, _all_hang())
        self._watch = None
        if not self.idle:
            loop = asyncio.get_running_loop()
            self._watch = loop.call_later(limit / 4, self._find_hanging)


def inference_cost(engine: Runs, pixels: int) -> Cost:
    """What an image of that size should take the engine, alone."""
    return Cost(id(engine), engine.costs.plain.seconds(pixels))


def _all_hang() -> NotReady:
    return NotReady("all workers hang, and the service restarts; try again", retry_after=5)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)


def _run(run: _Run) -> _Done:
    """Decode or infer."""
    first = run.members[0].work
    if isinstance(first, _Inference):
        works = [m.work for m in run.members if isinstance(m.work, _Inference)]
        return _decode_and_infer(first.engine, works, run.stop, run.batch.canvas)
    try:
        result: object = first()
    except Exception as exc:  # travels to whoever waits for it
        result = exc
    return _Done([result], time.monotonic() - run.begun)


def _decode_and_infer(
    engine: Runs, works: list[_Inference], stop: Stop, canvas: Canvas | None
) -> _Done:
    """Decode what is not decoded, then run what could be."""
    done = _Done([])
    for work in works:
        begun = time.monotonic()
        try:
            picture = work.picture
            done.results.append(picture.decode() if isinstance(picture, Undecoded) else picture)
        except Exception as exc:  # travels to whoever waits for it
            done.results.append(exc)
        done.decoding.append(time.monotonic() - begun)
    pictures = [result for result in done.results if isinstance(result, np.ndarray)]
    begun = time.monotonic()
    done.inferred = bool(pictures)
    scores = iter(_infer(engine, pictures, stop, canvas) if pictures else [])
    done.results = [next(scores) if isinstance(r, np.ndarray) else r for r in done.results]
    done.ran = time.monotonic() - begun
    return done


def _infer(engine: Runs, pictures: list[Pixels], stop: Stop, canvas: Canvas | None) -> list[object]:
    """Run pictures together; if that fails, in halves, until what fails is alone.

    So memory that runs out costs time, not answers; and an image that breaks the run, only its own.
    """
    try:
        scores = engine.run(pictures, stop, canvas)
        return [scores.row(index) for index in range(len(pictures))]
    except Exception as exc:
        if len(pictures) > 1 and not stop.is_set:
            half = len(pictures) // 2
            logger.warning("a run of %d images failed, now in halves: %s", len(pictures), exc)
            parts = pictures[:half], pictures[half:]
            return [result for part in parts for result in _infer(engine, part, stop, canvas)]
        logger.error("a run failed", exc_info=exc)
        return [_failed(exc)] * len(pictures)


def _failed(exc: Exception) -> InferenceFailed:
    why = "memory ran out" if isinstance(exc, OutOfMemory) else "the log says why"
    failed = InferenceFailed(f"the network could not be run on this image: {why}")
    failed.__cause__ = exc
    return failed
