"""Run jobs on as many threads as there are cores: the asyncio side of batching.

All state lives on the event loop; the threads only decode and infer. Decoding and inference share
the threads, so cores are never oversubscribed.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Generic, Protocol, TypeVar, cast

from service.batching import Job, Queue
from service.engine import Scores
from service.errors import DeadlineExceeded, InferenceFailed, Overloaded, TooManyPixels
from service.images import Pixels
from service.resize import Size

logger = logging.getLogger(__name__)

_FIRST_GUESS = 0.3e-6  # seconds a pixel, until something was measured: EfficientNet-Lite0, one core
_MEMORY = 0.1  # weight of the newest measurement in the running mean


KINDS = ("alone", "equal", "mixed")

T = TypeVar("T")


class Runs(Protocol):
    """What the scheduler needs of an engine."""

    @property
    def mixes(self) -> bool:
        """Whether images of different sizes may share a run."""

    def run(self, pictures: Sequence[Pixels]) -> Scores:
        """Scores (n, k) of n images, each uint8 (h, w, c); raises EngineError."""


@dataclass(frozen=True, slots=True)
class Timed(Generic[T]):
    """A result, how long its job waited and how long it ran, in seconds."""

    value: T
    waited: float
    ran: float
    batch: int = 1


@dataclass(slots=True)
class _Waiting:
    """A job's other half: who waits for it, since when, and what to run."""

    future: "asyncio.Future[Timed[object]]"
    since: float
    work: "Callable[[], object] | _Inference"


@dataclass(frozen=True, slots=True)
class _Inference:
    engine: Runs
    pixels: Pixels


class Scheduler:
    """Admits requests by their pixels, and runs their jobs in the order batching decides."""

    def __init__(self, workers: int, queue_pixels: int, batch_pixels: int) -> None:
        self._workers = workers
        self._queue_pixels = queue_pixels
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="worker")
        self._free = workers
        self._queue = Queue(batch_pixels)
        self._waiting: dict[int, _Waiting] = {}
        self._running: set[asyncio.Future[None]] = set()
        self._keys = count()
        self._seconds_per_pixel = _FIRST_GUESS
        self._admitted = 0
        self.runs = dict.fromkeys(KINDS, 0)  # of the network, by who shared them

    @property
    def admitted_pixels(self) -> int:
        """Network pixels of all images that were admitted and are not answered yet."""
        return self._admitted

    def retry_after(self) -> int:
        """Whole seconds until the backlog should be gone, at least 1."""
        seconds = self._admitted * self._seconds_per_pixel / self._workers
        return max(1, math.ceil(seconds))

    @contextmanager
    def admit(self, pixels: int) -> Iterator[None]:
        """Hold room for a whole request; raises Overloaded, or TooManyPixels if it never fits."""
        if pixels > self._queue_pixels:
            raise TooManyPixels(
                f"the request's images have {pixels / 1e6:.1f} megapixels together; the queue "
                f"holds {self._queue_pixels / 1e6:g}. Send fewer images at once"
            )
        if self._admitted + pixels > self._queue_pixels:
            wait = self.retry_after()
            raise Overloaded(f"the queue is full; try again in {wait} s", wait)
        self._admitted += pixels
        try:
            yield
        finally:
            self._admitted -= pixels

    async def decode(self, work: Callable[[], T], size: Size, deadline: float) -> Timed[T]:
        """Run `work`, on an image of that size; raises what it raises, and DeadlineExceeded."""
        done = await self._submit(work, None, (size.height, size.width), deadline)
        return cast("Timed[T]", done)

    async def infer(self, engine: Runs, pixels: Pixels, deadline: float) -> Timed[Scores]:
        """Scores (1, k) of one image (h, w, c), run alone or in company.

        Raises InferenceFailed, DeadlineExceeded.
        """
        height, width, _ = pixels.shape
        group = (id(engine),) if engine.mixes else (id(engine), height, width)
        work = _Inference(engine, pixels)
        done = await self._submit(work, group, (height, width), deadline)
        return cast("Timed[Scores]", done)

    def close(self) -> None:
        """Let the workers go; does not wait for what they are doing."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _submit(
        self,
        work: "Callable[[], object] | _Inference",
        group: Hashable,
        size: tuple[int, int],
        deadline: float,
    ) -> Timed[object]:
        loop = asyncio.get_running_loop()
        job = Job(next(self._keys), group, *size, deadline)
        waiting = _Waiting(loop.create_future(), time.monotonic(), work)
        self._waiting[job.key] = waiting
        self._queue.add(job)
        alarm = loop.call_later(max(0.0, deadline - time.monotonic()), self._expire, deadline)
        self._dispatch()
        try:
            return await waiting.future
        finally:
            alarm.cancel()
            self._queue.remove(job.key)  # the client went away while the job still waited
            self._waiting.pop(job.key, None)

    def _expire(self, now: float = 0.0) -> None:
        """Give up the jobs that are late; `now` is for a timer that fires a little early."""
        for job in self._queue.expire(max(now, time.monotonic())):
            late = DeadlineExceeded("no worker was free before the deadline; try again later")
            _fail(self._waiting[job.key], late)

    def _dispatch(self) -> None:
        self._expire()
        while self._free and (jobs := self._queue.next()):
            self._free -= 1
            # Looked up now: whoever waits may be gone before the run begins.
            members = [self._waiting[job.key] for job in jobs]
            run = asyncio.ensure_future(self._run(jobs, members))
            self._running.add(run)
            run.add_done_callback(self._running.discard)

    async def _run(self, jobs: list[Job], members: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        begun = time.monotonic()
        try:
            results = await loop.run_in_executor(self._threads, _work, members)
        except Exception as exc:  # whatever happens, nobody is left waiting
            logger.exception("a run failed in a way nobody foresaw")
            results = [_failed(exc)] * len(members)
        finally:
            self._free += 1
            self._dispatch()
        ran = time.monotonic() - begun
        if isinstance(members[0].work, _Inference):
            self.runs[_kind(jobs)] += 1
            pace = ran / sum(job.pixels for job in jobs)
            self._seconds_per_pixel += _MEMORY * (pace - self._seconds_per_pixel)
        for member, result in zip(members, results, strict=True):
            if isinstance(result, Exception):
                _fail(member, result)
            elif not member.future.done():
                timed = Timed(result, begun - member.since, ran, len(members))
                member.future.set_result(timed)


def _kind(jobs: list[Job]) -> str:
    if len(jobs) == 1:
        return "alone"
    return "equal" if len({(job.height, job.width) for job in jobs}) == 1 else "mixed"


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)


def _work(members: list[_Waiting]) -> list[object]:
    """On a worker thread: a result or an exception for each member."""
    first = members[0].work
    if isinstance(first, _Inference):
        pictures = [m.work.pixels for m in members if isinstance(m.work, _Inference)]
        return _infer(first.engine, pictures)
    try:
        return [first()]
    except Exception as exc:  # travels to whoever waits for it
        return [exc]


def _infer(engine: Runs, pictures: list[Pixels]) -> list[object]:
    """Run pictures together; if that fails, each alone, so that one harms no other."""
    try:
        scores = engine.run(pictures)
        return [scores.row(index) for index in range(len(pictures))]
    except Exception as exc:
        if len(pictures) > 1:
            return [_infer(engine, [picture])[0] for picture in pictures]
        logger.exception("a run failed")
        return [_failed(exc)]


def _failed(exc: Exception) -> InferenceFailed:
    failed = InferenceFailed("the network could not be run on this image; the log says why")
    failed.__cause__ = exc
    return failed
