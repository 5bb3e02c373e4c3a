"""Run jobs on as many threads as there are cores: the asyncio side of batching.

Requests live on the event loop. A thread that is free takes from the queue by itself, under a lock,
and only reports to the loop: waiting for the loop between two thumbnails would cost it a third of
its time. On a CPU decoding and inference share the threads, so cores are never oversubscribed;
other devices have a queue of their own, and each of them a thread.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Protocol, TypeVar, cast
from weakref import WeakKeyDictionary, finalize

from service.batching import PATIENCE, Batch, Group, Job
from service.costs import Pace
from service.errors import (
    DeadlineExceeded,
    NotReady,
    Overloaded,
    TooManyPixels,
)
from service.images import Pixels
from service.lane import UNLIMITED, Lane
from service.scores import Scores
from service.sessions import CPU
from service.shares import Shares
from service.work import (
    Cost,
    Done,
    Inference,
    Phase,
    Run,
    Runs,
    Timed,
    Undecoded,
    Waiting,
    failed,
    inference_cost,
    lost,
    perform,
    phases,
    stopped,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")


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
    running_pixels: float = UNLIMITED
    run_s: float = 60.0


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
        self._lanes: dict[tuple[str, ...], Lane] = {(CPU,): self._lane([CPU] * workers)}
        # An engine that is taken out of service is freed when its last request is answered.
        self._groups: WeakKeyDictionary[Runs, Group] = WeakKeyDictionary()
        self._names = count()
        self._paces: dict[Hashable, Pace] = {}
        self._watch: asyncio.TimerHandle | None = None
        self._keys = count()
        self._admitted = Shares(limits.queue_pixels)
        self._backlog = 0.0  # predicted seconds of what was admitted

    @property
    def admitted_pixels(self) -> int:
        """Network pixels of all images that were admitted and are not answered yet."""
        return self._admitted.used

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

    @property
    def broken(self) -> dict[str, str]:
        """Devices that run nothing any more, and why."""
        return {name: why for lane in self._lanes.values() for name, why in lane.broken.items()}

    @property
    def busy(self) -> dict[str, float]:
        """Seconds that runs, and on the CPU decodes, have taken on each device."""
        return {name: s for lane in self._lanes.values() for name, s in lane.busy.items()}

    def retry_after(self) -> int:
        """Whole seconds until the backlog should be gone, at least 1."""
        return max(1, math.ceil(self._backlog / self._workers))

    @contextmanager
    def admit(self, pixels: int, costs: Sequence[Cost], client: Hashable = None) -> Iterator[None]:
        """Hold room for a whole request of `client`, in no more than its share of the queue.

        Raises Overloaded, or TooManyPixels if it never fits.
        """
        most = self._admitted.most(client)
        if pixels > most:
            raise TooManyPixels(
                f"the request's images have {pixels / 1e6:.1f} megapixels together; the queue "
                f"holds {most / 1e6:g}{'' if client is None else ' for one key'}. Send fewer "
                "images at once"
            )
        if not self._admitted.fits(pixels, client):
            wait = self.retry_after()
            full = "the queue" if client is None else "your share of the queue"
            raise Overloaded(f"{full} is full; try again in {wait} s", wait)
        seconds = sum(self._predict(cost) for cost in costs)
        self._admitted.take(pixels, client)
        self._backlog += seconds
        try:
            yield
        finally:
            self._admitted.give_back(pixels, client)
            self._backlog = self._backlog - seconds if self._admitted.used else 0.0

    async def decode(
        self,
        work: Callable[[], T],
        cost: Cost,
        arrived: float,
        deadline: float,
        client: Hashable = None,
        note: list[Phase] | None = None,
    ) -> Timed[T]:
        """Run `work` on a thread; raises what it raises, DeadlineExceeded and NotReady.

        Whatever happens, `note` gets the phases it went through.
        """
        lane = self._lanes[(CPU,)]
        done = await self._submit(lane, work, None, (0, 0), cost, arrived, deadline, client, note)
        return cast("Timed[T]", done)

    async def infer(
        self,
        engine: Runs,
        picture: Pixels | Undecoded,
        arrived: float,
        deadline: float,
        classes: Sequence[int] = (),
        client: Hashable = None,
        note: list[Phase] | None = None,
    ) -> Timed[Scores]:
        """Scores (1, k) of one image (h, w, c), run alone or in company, with maps of `classes`.

        Whatever happens, `note` gets the phases it went through.
        Raises InferenceFailed, DeadlineExceeded, NotReady, and what decoding raises.
        """
        if isinstance(picture, Undecoded):
            height, width = picture.height, picture.width
        else:
            height, width, _ = picture.shape
        group = self._groups.get(engine)
        if group is None:
            group = self._meet(engine)
        done = await self._submit(
            self._lanes[engine.devices],
            Inference(engine, picture, classes),
            group,
            (height, width),
            inference_cost(engine, height * width),
            arrived,
            deadline,
            client,
            note,
        )
        return cast("Timed[Scores]", done)

    def close(self) -> None:
        """Let the workers go; does not wait for what they are doing."""
        if self._watch is not None:
            self._watch.cancel()
        for lane in self._lanes.values():
            lane.closed = True
            lane.threads.shutdown(wait=False, cancel_futures=True)

    def _lane(self, devices: Sequence[str]) -> Lane:
        most = self._limits.running_pixels if CPU in devices else UNLIMITED
        return Lane(devices, self._limits.batch_pixels, most, self._patience)

    def _meet(self, engine: Runs) -> Group:
        """The group of an engine not seen before, and a thread for each of its devices."""
        if engine.devices not in self._lanes:
            self._lanes[engine.devices] = self._lane(engine.devices)
        group = self._groups[engine] = Group(next(self._names), engine.costs)
        finalize(engine, self._paces.pop, inference_cost(engine, 0).kind, None)
        return group

    def _predict(self, cost: Cost) -> float:
        pace = self._paces.get(cost.kind)
        return cost.seconds * (1.0 if pace is None else pace.factor)

    async def _submit(
        self,
        lane: Lane,
        work: "Callable[[], object] | Inference",
        group: Group | None,
        size: tuple[int, int],
        cost: Cost,
        arrived: float,
        deadline: float,
        client: Hashable,
        note: list[Phase] | None,
    ) -> Timed[object]:
        if lane.dead:
            raise _dead(lane)
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        job = Job(next(self._keys), group, *size, self._predict(cost), arrived, deadline, client)
        waiting = Waiting(loop.create_future(), now, cost, work, [] if note is None else note)
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
            del waiting  # holds the exception, whose traceback holds this frame

    def _start(self, loop: asyncio.AbstractEventLoop, lane: Lane) -> None:
        """Set free workers to work, as long as there is some that may run."""
        while (run := lane.next()) is not None:
            lane.threads.submit(self._work, loop, lane, run)

    def _expire(self, lane: Lane, deadline: float) -> None:
        """Give up the jobs that are late; the timer may fire a little early."""
        now = time.monotonic()
        for waiting in lane.late(max(deadline, now)):
            waiting.phases.append(Phase("queue", waiting.since, now))
            late = DeadlineExceeded("no worker was free before the deadline; try again later")
            _fail(waiting, late)

    def _work(self, loop: asyncio.AbstractEventLoop, lane: Lane, run: Run | None) -> None:
        """On a worker thread: run what there is to run, and tell the loop of each."""
        while run is not None:
            try:
                done = perform(run)
            except Exception as exc:  # whatever happens, nobody is left waiting
                logger.exception("a run failed in a way nobody foresaw")
                done = Done([failed(exc)] * len(run.members), time.monotonic())
            following = lane.next(run, done.broken)
            try:
                loop.call_soon_threadsafe(self._finish, loop, lane, run, done)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
            run = following

    def _finish(self, loop: asyncio.AbstractEventLoop, lane: Lane, run: Run, done: Done) -> None:
        """Back on the loop: hand out the results."""
        self._start(loop, lane)  # others may have waited for the room this run took
        self._learn(run.batch, run.members, done)
        if done.inferred:
            self._observer.ran(run.batch)
        for index, (member, result) in enumerate(zip(run.members, done.results, strict=True)):
            if member.future.done():  # the client went away, or the run hung
                continue
            found = phases(run, done, index)
            member.phases += found
            if isinstance(result, Exception):
                member.future.set_exception(result)
            else:
                member.future.set_result(Timed(result, found))
        if done.broken is not None:
            _give_up_if_dead(lane)

    def _learn(self, batch: Batch, members: list[Waiting], done: Done) -> None:
        """Compare what a run took with what was predicted; one that failed teaches nothing."""
        first = members[0]
        if any(isinstance(result, Exception) for result in done.results):
            return
        predicted = first.cost.seconds if batch.jobs[0].group is None else batch.cost
        self._paces.setdefault(first.cost.kind, Pace()).observe(predicted, done.ran)
        for member, seconds in zip(members, done.decoding, strict=False):
            if isinstance(member.work, Inference) and isinstance(member.work.picture, Undecoded):
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
                    member.phases += stopped(run, member, time.monotonic())
                    _fail(member, DeadlineExceeded(f"the run took over {limit:g} s: stopped"))
            _give_up_if_dead(lane)
        self._watch = None
        if not self.idle:
            loop = asyncio.get_running_loop()
            self._watch = loop.call_later(limit / 4, self._find_hanging)


def _give_up_if_dead(lane: Lane) -> None:
    """Tell those that wait when nobody is left to work."""
    for waiting in list(lane.waiting.values()) if lane.dead else ():
        _fail(waiting, _dead(lane))


def _dead(lane: Lane) -> NotReady:
    if lane.broken:
        return lost(", ".join(lane.broken))
    return NotReady("all workers hang, and the service restarts; try again", retry_after=5)


def _fail(waiting: Waiting, error: Exception) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)
