"""The scheduler on real threads, with a fake engine.

A run that holds the gate of its engine keeps its worker busy, so what comes meanwhile waits.
"""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.batching import Batch
from service.costs import FREE, Canvas, Costs, Line
from service.errors import (
    AnypoolError,
    DeadlineExceeded,
    InferenceFailed,
    NotReady,
    Overloaded,
    TooManyPixels,
    UndecodableImage,
)
from service.scheduler import Limits, Scheduler
from service.scores import Scores
from service.sessions import Stop
from service.work import Cost, Phase, Timed, Undecoded, inference_cost, seconds_in
from tests.service.fakes import PLAIN, FakeEngine, Ran, grey

ROOMY = Limits(queue_pixels=1_000_000, batch_pixels=1_000_000)
# Long enough for a run that only waits for a processor, short enough to wait for in a test.
HASTY = Limits(queue_pixels=1_000_000, batch_pixels=1_000_000, run_s=1.0)
QUICK = Cost("quick", 1e-4)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 45))


def soon(seconds: float = 40.0) -> float:
    return time.monotonic() + seconds


async def submitted(
    scheduler: Scheduler,
    engine: FakeEngine,
    picture: NDArray[np.uint8] | Undecoded,
    arrived: float = 0.0,
) -> "asyncio.Task[Timed[Scores]]":
    """A task that waits for the image's scores, once the scheduler knows of it."""
    task = asyncio.create_task(scheduler.infer(engine, picture, arrived, soon()))
    await asyncio.sleep(0)
    return task


async def until(reached: Callable[[], bool]) -> None:
    while not reached():
        await asyncio.sleep(0.01)


def score(timed: Timed[Scores]) -> float:
    return float(timed.value.logits[0, 0])


def test_images_of_one_size_that_wait_together_run_together() -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        engine.gate.clear()
        with closing(Scheduler(1, ROOMY)) as scheduler:
            tasks = [await submitted(scheduler, engine, grey(value)) for value in range(5)]
            engine.gate.set()
            answers = await asyncio.gather(*tasks)
        assert [score(answer) for answer in answers] == [0, 1, 2, 3, 4]
        assert engine.batches == [1, 4]
        assert [answer.phases[-1].batch for answer in answers] == [1, 4, 4, 4, 4]

    run(scenario())


def test_different_sizes_never_share_a_run_where_the_engine_takes_none_of_that() -> None:
    async def scenario() -> None:
        engine = FakeEngine(costs=Costs(PLAIN.plain, ragged=None))
        engine.gate.clear()
        pictures = [grey(1, 8, 4), grey(2, 4, 8), grey(3, 8, 4), grey(4, 4, 8)]
        with closing(Scheduler(1, ROOMY)) as scheduler:
            tasks = [await submitted(scheduler, engine, picture) for picture in pictures]
            engine.gate.set()
            assert [score(answer) for answer in await asyncio.gather(*tasks)] == [1, 2, 3, 4]
        assert all(len(set(ran.sizes)) == 1 for ran in engine.ran)

    run(scenario())


def test_different_sizes_share_a_run_where_it_costs_less() -> None:
    async def scenario() -> None:
        engine = FakeEngine(costs=Costs(PLAIN.plain, FREE))
        engine.gate.clear()
        pictures = [grey(1, 8, 8), grey(2, 8, 4), grey(3, 4, 8), grey(4, 5, 7)]
        with closing(Scheduler(1, ROOMY)) as scheduler:
            tasks = [await submitted(scheduler, engine, picture) for picture in pictures]
            engine.gate.set()
            assert [score(answer) for answer in await asyncio.gather(*tasks)] == [1, 2, 3, 4]
        assert engine.batches == [1, 3]

    run(scenario())


def test_the_engine_is_told_of_the_canvas_that_was_chosen() -> None:
    async def scenario() -> None:
        canvas = Canvas(rows=3, height=8, width=8, seconds=1e-3)
        engine = FakeEngine(costs=Costs(PLAIN.plain, canvases=[canvas]))
        engine.gate.clear()
        pictures = [grey(1, 8, 8), grey(2, 8, 4), grey(3, 4, 8), grey(4, 8, 5), grey(5, 9, 8)]
        with closing(Scheduler(1, ROOMY)) as scheduler:
            tasks = [await submitted(scheduler, engine, picture) for picture in pictures]
            engine.gate.set()
            assert [score(answer) for answer in await asyncio.gather(*tasks)] == [1, 2, 3, 4, 5]
        assert engine.ran == [
            Ran(((8, 8),), canvas),
            Ran(((8, 4), (4, 8), (8, 5)), canvas),
            Ran(((9, 8),), None),  # fits no canvas
        ]

    run(scenario())


def test_memory_that_runs_out_splits_the_batch_and_everybody_is_answered() -> None:
    async def scenario() -> None:
        engine = FakeEngine(memory=2)
        engine.gate.clear()
        with closing(Scheduler(1, ROOMY)) as scheduler:
            tasks = [await submitted(scheduler, engine, grey(value)) for value in range(9)]
            engine.gate.set()
            answers = await asyncio.gather(*tasks)
        assert [score(answer) for answer in answers] == list(range(9))
        assert engine.batches == [1, 8, 4, 2, 2, 4, 2, 2]

    run(scenario())


def test_halves_stay_on_the_canvas() -> None:
    async def scenario() -> None:
        canvas = Canvas(rows=4, height=8, width=8, seconds=1e-3)
        engine = FakeEngine(memory=2, costs=Costs(PLAIN.plain, canvases=[canvas]))
        engine.gate.clear()
        with closing(Scheduler(1, ROOMY)) as scheduler:
            tasks = [await submitted(scheduler, engine, grey(i, 8, 8 - i)) for i in range(5)]
            engine.gate.set()
            assert [score(answer) for answer in await asyncio.gather(*tasks)] == [0, 1, 2, 3, 4]
        assert engine.batches == [1, 4, 2, 2]
        assert {ran.canvas for ran in engine.ran} == {canvas}

    run(scenario())


def test_an_image_that_is_too_much_for_the_memory_alone_is_told_so() -> None:
    async def scenario() -> None:
        with (
            closing(Scheduler(1, ROOMY)) as scheduler,
            pytest.raises(InferenceFailed, match="memory ran out"),
        ):
            await scheduler.infer(FakeEngine(memory=0), grey(1), 0.0, soon())

    run(scenario())


@pytest.mark.parametrize("place", range(9))
def test_a_poisoned_image_fails_alone_wherever_in_the_batch_it_is(place: int) -> None:
    async def scenario() -> None:
        engine = FakeEngine(poison=200)
        engine.gate.clear()
        greys = [200 if at == place else at for at in range(9)]
        with closing(Scheduler(1, ROOMY)) as scheduler:
            busy = await submitted(scheduler, engine, grey(100))
            tasks = [await submitted(scheduler, engine, grey(value)) for value in greys]
            engine.gate.set()
            await busy
            answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert engine.batches[:2] == [1, 9]
        for at, answer in enumerate(answers):
            if at == place:
                assert isinstance(answer, InferenceFailed)
                assert "memory" not in answer.detail
            else:
                assert not isinstance(answer, BaseException)
                assert score(answer) == greys[at]

    run(scenario())


def test_images_of_one_run_get_the_maps_each_asked_for_also_when_it_runs_in_halves() -> None:
    async def scenario(engine: FakeEngine) -> None:
        with closing(Scheduler(1, ROOMY)) as scheduler:
            engine.gate.clear()
            first = asyncio.create_task(scheduler.infer(engine, grey(9, 4, 4), 0.0, soon()))
            await asyncio.sleep(0)
            wanted = [(), (1, -1), (5,), ()]
            rest = [
                asyncio.create_task(scheduler.infer(engine, grey(value), 0.0, soon(), classes))
                for value, classes in enumerate(wanted)
            ]
            await asyncio.sleep(0)
            engine.gate.set()
            await first
            for value, (task, classes) in enumerate(zip(rest, wanted, strict=True)):
                maps = (await task).value.maps
                found = [] if maps is None else maps[0].classes.tolist()
                assert found == list(classes)
                assert maps is None or (maps[0].values == value).all()

    for memory in (1000, 2, 1):
        run(scenario(FakeEngine(memory=memory)))


def test_an_engine_that_fails_in_an_unforeseen_way_is_answered_too() -> None:
    class Broken(FakeEngine):
        def run(
            self,
            pictures: Sequence[NDArray[np.uint8]],
            stop: Stop | None = None,
            canvas: Canvas | None = None,
            classes: Sequence[Sequence[int]] = (),
            device: str | None = None,
        ) -> Scores:
            raise ValueError("nobody foresaw this")

    async def scenario() -> None:
        with closing(Scheduler(1, ROOMY)) as scheduler:
            for _ in range(2):
                with pytest.raises(InferenceFailed):
                    await scheduler.infer(Broken(), grey(1), 0.0, soon())
            assert (await scheduler.infer(FakeEngine(), grey(1), 0.0, soon())).phases[-1].batch == 1

    run(scenario())


def test_what_a_decoder_raises_reaches_whoever_waits_and_frees_the_worker() -> None:
    def broken() -> None:
        raise ValueError("broken")

    async def scenario() -> None:
        with closing(Scheduler(1, ROOMY)) as scheduler:
            with pytest.raises(ValueError, match="broken"):
                await scheduler.decode(broken, QUICK, 0.0, soon())
            fine = await scheduler.decode(lambda: "fine", QUICK, 0.0, soon())
            assert fine.value == "fine"

    run(scenario())


def test_a_job_whose_deadline_passes_while_it_waits_is_not_run() -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        engine.gate.clear()
        with closing(Scheduler(1, ROOMY)) as scheduler:
            first = await submitted(scheduler, engine, grey(1))
            with pytest.raises(DeadlineExceeded):
                await scheduler.infer(engine, grey(2), 0.0, soon(0.05))
            with pytest.raises(DeadlineExceeded):
                await scheduler.decode(lambda: "late", QUICK, 0.0, soon(0.05))
            engine.gate.set()
            await first
        assert engine.batches == [1]

    run(scenario())


def test_a_job_that_comes_after_its_deadline_is_not_run_though_a_worker_is_free() -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        with closing(Scheduler(1, ROOMY)) as scheduler:
            with pytest.raises(DeadlineExceeded):
                await scheduler.infer(engine, grey(1), 0.0, soon(-1.0))
            assert scheduler.idle
        assert engine.batches == []

    run(scenario())


def test_a_client_that_goes_away_takes_its_job_along() -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        engine.gate.clear()
        with closing(Scheduler(1, ROOMY)) as scheduler:
            first = await submitted(scheduler, engine, grey(1))
            gone = await submitted(scheduler, engine, grey(2))
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            engine.gate.set()
            await first
            assert scheduler.idle
        assert engine.batches == [1]

    run(scenario())


@pytest.mark.parametrize("turns", range(6))
def test_a_client_that_goes_away_at_any_moment_costs_no_worker(turns: int) -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        engine.gate.clear()
        with closing(Scheduler(1, ROOMY)) as scheduler:
            first = await submitted(scheduler, engine, grey(1))
            gone = await submitted(scheduler, engine, grey(2))
            engine.gate.set()
            time.sleep(0.05)  # noqa: ASYNC251  # the run ends while the loop stands still
            for _ in range(turns):
                await asyncio.sleep(0)
            gone.cancel()
            await asyncio.gather(first, gone, return_exceptions=True)
            assert score(await scheduler.infer(engine, grey(3), 0.0, soon())) == 3

    run(scenario())


# --- images that the worker which runs them decodes too


def undecoded(value: int, height: int = 8, width: int = 8) -> Undecoded:
    return Undecoded(partial(grey, value, height, width), height, width, QUICK)


def undecodable() -> Undecoded:
    def decode() -> NDArray[np.uint8]:
        raise UndecodableImage("broken")

    return Undecoded(decode, 8, 8, QUICK)


def test_decoded_and_undecoded_images_share_a_run() -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        engine.gate.clear()
        pictures: list[NDArray[np.uint8] | Undecoded] = [
            grey(0),
            undecoded(1),
            grey(2),
            undecoded(3),
            undecoded(4, 8, 4),
        ]
        with closing(Scheduler(1, ROOMY)) as scheduler:
            tasks = [await submitted(scheduler, engine, picture) for picture in pictures]
            engine.gate.set()
            answers = await asyncio.gather(*tasks)
        assert [score(answer) for answer in answers] == [0, 1, 2, 3, 4]
        assert sorted(engine.batches) == [1, 1, 3]  # by size, known before they are decoded

    run(scenario())


def test_an_image_that_cannot_be_decoded_fails_alone_and_never_reaches_the_engine() -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        engine.gate.clear()
        with closing(Scheduler(1, ROOMY)) as scheduler:
            busy = await submitted(scheduler, engine, grey(0))
            pictures: list[NDArray[np.uint8] | Undecoded] = [
                undecoded(1),
                undecodable(),
                grey(3),
                undecodable(),
                undecoded(5),
            ]
            tasks = [await submitted(scheduler, engine, picture) for picture in pictures]
            engine.gate.set()
            await busy
            for at, answer in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
                if at in (1, 3):
                    assert isinstance(answer, UndecodableImage)
                else:
                    assert not isinstance(answer, BaseException)
                    assert score(answer) == at + 1
            with pytest.raises(UndecodableImage):
                await scheduler.infer(engine, undecodable(), 0.0, soon())
        assert engine.batches == [1, 3]

    run(scenario())


def test_where_the_time_went_is_noted_also_of_images_that_fail() -> None:
    def broken() -> NDArray[np.uint8]:
        raise UndecodableImage("broken")

    async def noted(scheduler: Scheduler, engine: FakeEngine, picture: Any, within: float) -> str:
        note: list[Phase] = []
        with pytest.raises(AnypoolError):
            await scheduler.infer(engine, picture, 0.0, soon(within), note=note)
        assert all(phase.begun <= phase.ended for phase in note)
        assert [a.ended for a in note[:-1]] == [b.begun for b in note[1:]]
        return " ".join(phase.name for phase in note)

    async def scenario() -> None:
        engine, poisoned = FakeEngine(), FakeEngine(poison=7)
        with closing(Scheduler(1, HASTY)) as scheduler:
            undecoded = Undecoded(broken, 8, 8, QUICK)
            assert await noted(scheduler, engine, undecoded, 40) == "queue decode"
            assert await noted(scheduler, poisoned, grey(7), 40) == "queue infer"
            engine.gate.clear()
            hanging = asyncio.create_task(noted(scheduler, engine, grey(1), 40))
            await asyncio.sleep(0)
            assert await noted(scheduler, engine, grey(2), 0.05) == "queue"  # too late
            assert await hanging == "queue infer"

    run(scenario())


def test_the_time_of_a_decode_counts_for_its_own_image_alone() -> None:
    def slowly() -> NDArray[np.uint8]:
        time.sleep(0.2)
        return grey(1)

    async def scenario() -> None:
        engine = FakeEngine()
        engine.gate.clear()
        with closing(Scheduler(1, ROOMY)) as scheduler:
            tasks = [
                await submitted(scheduler, engine, grey(0)),
                await submitted(scheduler, engine, Undecoded(slowly, 8, 8, QUICK)),
                await submitted(scheduler, engine, grey(2)),
            ]
            engine.gate.set()
            _, slow, beside = await asyncio.gather(*tasks)
        assert engine.batches == [1, 2]
        assert [phase.name for phase in slow.phases] == ["queue", "decode", "queue", "infer"]
        assert [phase.name for phase in beside.phases] == ["queue", "infer"]
        assert seconds_in(slow.phases, "decode") >= 0.2
        waited = seconds_in(beside.phases, "queue")  # for its neighbour's decode too
        assert waited > seconds_in(slow.phases, "queue")
        assert slow.phases[-1] == beside.phases[-1]

    run(scenario())


# --- runs that hang


def test_a_run_that_hangs_is_stopped_and_its_worker_comes_back() -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        engine.gate.clear()
        with closing(Scheduler(1, HASTY)) as scheduler:
            with pytest.raises(DeadlineExceeded, match="over 1 s"):
                await scheduler.infer(engine, grey(1), 0.0, soon())
            assert scheduler.lost == 1
            await until(lambda: scheduler.lost == 0)
            assert engine.stopped == 1
            assert engine.batches == []
            engine.gate.set()
            assert score(await scheduler.infer(engine, grey(2), 0.0, soon())) == 2
            assert scheduler.lost == 0

    run(scenario())


def test_all_images_of_a_run_that_hangs_are_answered() -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        engine.gate.clear()
        with closing(Scheduler(1, HASTY)) as scheduler:
            gate = threading.Event()
            busy = asyncio.create_task(scheduler.decode(gate.wait, QUICK, 0.0, soon()))
            await asyncio.sleep(0)
            tasks = [await submitted(scheduler, engine, grey(value)) for value in range(5)]
            gate.set()
            await busy
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(answer) for answer in answers] == [DeadlineExceeded] * 5
            await until(lambda: scheduler.lost == 0)
            assert engine.stopped == 1  # and not tried again in halves
            engine.gate.set()
            assert score(await scheduler.infer(engine, grey(2), 0.0, soon())) == 2
        assert engine.batches == [1]

    run(scenario())


def test_a_run_that_does_not_stop_keeps_its_worker_until_it_really_ends() -> None:
    async def scenario() -> None:
        engine = FakeEngine(stubborn=True)
        engine.gate.clear()
        with closing(Scheduler(1, HASTY)) as scheduler:
            with pytest.raises(DeadlineExceeded):
                await scheduler.infer(engine, grey(1), 0.0, soon())
            await asyncio.sleep(0.2)  # more than a run that listens takes to stop
            assert scheduler.lost == 1
            assert not scheduler.idle
            engine.gate.set()
            await until(lambda: scheduler.lost == 0)
            assert score(await scheduler.infer(engine, grey(2), 0.0, soon())) == 2

    run(scenario())


def test_when_all_workers_hang_whoever_waits_or_comes_is_told_at_once() -> None:
    async def scenario() -> None:
        engine = FakeEngine(stubborn=True)
        engine.gate.clear()
        with closing(Scheduler(2, HASTY)) as scheduler:
            hanging = [await submitted(scheduler, engine, grey(value)) for value in range(2)]
            waiting = [await submitted(scheduler, engine, grey(value)) for value in range(3)]
            decoding = asyncio.create_task(scheduler.decode(lambda: "?", QUICK, 0.0, soon()))
            answers = await asyncio.gather(*hanging, *waiting, decoding, return_exceptions=True)
            assert [type(a) for a in answers] == [DeadlineExceeded] * 2 + [NotReady] * 4
            assert scheduler.lost == 2
            with pytest.raises(NotReady) as refused:
                await scheduler.infer(engine, grey(1), 0.0, soon())
            assert refused.value.retry_after >= 1
            with pytest.raises(NotReady):
                await scheduler.decode(lambda: "?", QUICK, 0.0, soon())
            engine.gate.set()
            await until(lambda: scheduler.lost == 0)
            assert score(await scheduler.infer(engine, grey(2), 0.0, soon())) == 2
        assert engine.batches == [1, 1, 1]

    run(scenario())


def test_while_one_of_two_workers_hangs_the_other_goes_on() -> None:
    async def scenario() -> None:
        stuck, engine = FakeEngine(stubborn=True), FakeEngine()
        stuck.gate.clear()
        with closing(Scheduler(2, HASTY)) as scheduler:
            with pytest.raises(DeadlineExceeded):
                await scheduler.infer(stuck, grey(1), 0.0, soon())
            assert scheduler.lost == 1
            for value in range(4):
                decoded = await scheduler.decode(lambda: "fine", QUICK, 0.0, soon())
                assert decoded.value == "fine"
                assert score(await scheduler.infer(engine, grey(value), 0.0, soon())) == value
            assert scheduler.lost == 1
            stuck.gate.set()
            await until(lambda: scheduler.lost == 0)

    run(scenario())


def test_who_waits_for_the_other_worker_goes_on_waiting_when_one_hangs() -> None:
    async def scenario() -> None:
        stuck, engine, gate = FakeEngine(stubborn=True), FakeEngine(), threading.Event()
        stuck.gate.clear()
        with closing(Scheduler(2, HASTY)) as scheduler:
            hanging = await submitted(scheduler, stuck, grey(1))
            await asyncio.sleep(0.5)  # so that only the first takes longer than it may
            busy = asyncio.create_task(scheduler.decode(gate.wait, QUICK, 0.0, soon()))
            await asyncio.sleep(0)
            waiting = await submitted(scheduler, engine, grey(2))
            with pytest.raises(DeadlineExceeded):
                await hanging
            gate.set()
            assert score(await waiting) == 2
            assert (await busy).value
            stuck.gate.set()
            await until(lambda: scheduler.lost == 0)

    run(scenario())


def test_a_decode_that_hangs_is_answered_and_its_worker_lost_until_it_ends() -> None:
    async def scenario() -> None:
        gate = threading.Event()
        with closing(Scheduler(1, HASTY)) as scheduler:
            hanging = asyncio.create_task(
                scheduler.decode(lambda: gate.wait(60), QUICK, 0.0, soon())
            )
            await asyncio.sleep(0)
            waiting = asyncio.create_task(scheduler.decode(lambda: "?", QUICK, 0.0, soon()))
            answers = await asyncio.gather(hanging, waiting, return_exceptions=True)
            assert [type(answer) for answer in answers] == [DeadlineExceeded, NotReady]
            assert scheduler.lost == 1
            gate.set()
            await until(lambda: scheduler.lost == 0)
            fine = await scheduler.decode(lambda: "fine", QUICK, 0.0, soon())
            assert fine.value == "fine"

    run(scenario())


def test_a_decode_that_hangs_just_before_its_run_is_answered_too() -> None:
    async def scenario() -> None:
        gate, engine = threading.Event(), FakeEngine()

        def decode() -> NDArray[np.uint8]:
            gate.wait(60)
            return grey(1)

        with closing(Scheduler(1, HASTY)) as scheduler:
            with pytest.raises(DeadlineExceeded, match="over 1 s"):
                await scheduler.infer(engine, Undecoded(decode, 8, 8, QUICK), 0.0, soon())
            assert scheduler.lost == 1
            gate.set()
            await until(lambda: scheduler.lost == 0)
            assert score(await scheduler.infer(engine, grey(2), 0.0, soon())) == 2

    run(scenario())


# --- who goes first


@pytest.mark.parametrize(
    ("patience", "later", "order"),
    [
        (10.0, 0.02, [8, 64]),  # 1.1 ms of work against 5.1 ms: up to 40 ms later it overtakes
        (10.0, 0.06, [64, 8]),  # nobody is overtaken for ever
        (0.0, 0.02, [64, 8]),  # first come, first served
    ],
)
def test_a_thumbnail_overtakes_a_large_image_that_came_a_little_earlier(
    patience: float, later: float, order: list[int]
) -> None:
    async def scenario() -> None:
        engine = FakeEngine(costs=Costs(Line(1e-3, 1e-6)))
        engine.gate.clear()
        with closing(Scheduler(1, ROOMY, patience=patience)) as scheduler:
            tasks = [
                await submitted(scheduler, engine, grey(0, 2, 2)),  # keeps the worker busy
                await submitted(scheduler, engine, grey(1, 64, 64), arrived=100.0),
                await submitted(scheduler, engine, grey(2, 8, 8), arrived=100.0 + later),
            ]
            engine.gate.set()
            await asyncio.gather(*tasks)
        assert [ran.sizes[0][0] for ran in engine.ran] == [2, *order]

    run(scenario())


def test_a_thumbnail_s_decode_does_not_wait_behind_large_photos() -> None:
    async def scenario() -> None:
        gate, order = threading.Event(), list[str]()
        with closing(Scheduler(1, ROOMY)) as scheduler:
            busy = asyncio.create_task(scheduler.decode(gate.wait, QUICK, 0.0, soon()))
            tasks = []
            for name, seconds in (("photo", 0.2), ("photo", 0.2), ("thumbnail", 1e-3)):
                await asyncio.sleep(0)
                job = scheduler.decode(
                    partial(order.append, name), Cost("JPEG", seconds), 100.0, soon()
                )
                tasks.append(asyncio.create_task(job))
            await asyncio.sleep(0)
            gate.set()
            await asyncio.gather(busy, *tasks)
        assert order == ["thumbnail", "photo", "photo"]

    run(scenario())


def test_another_device_runs_while_all_cores_are_busy() -> None:
    async def scenario() -> None:
        busy, gpu = FakeEngine(), FakeEngine(devices=("cuda:0",))
        busy.gate.clear()
        with closing(Scheduler(2, ROOMY)) as scheduler:
            tasks = [await submitted(scheduler, busy, grey(value, 8 + value)) for value in range(3)]
            assert score(await scheduler.infer(gpu, grey(7), 0.0, soon())) == 7
            assert busy.batches == []
            busy.gate.set()
            await asyncio.gather(*tasks)

    run(scenario())


def test_another_device_that_hangs_leaves_the_cores_alone() -> None:
    async def scenario() -> None:
        gpu, engine = FakeEngine(devices=("cuda:0",), stubborn=True), FakeEngine()
        gpu.gate.clear()
        with closing(Scheduler(1, HASTY)) as scheduler:
            with pytest.raises(DeadlineExceeded):
                await scheduler.infer(gpu, grey(1), 0.0, soon())
            with pytest.raises(NotReady):
                await scheduler.infer(gpu, grey(1), 0.0, soon())
            assert score(await scheduler.infer(engine, grey(2), 0.0, soon())) == 2
            assert scheduler.lost == 1
            gpu.gate.set()
            await until(lambda: scheduler.lost == 0)

    run(scenario())


# --- several GPUs

GPUS = ("cuda:0", "cuda:1")


def test_two_gpus_share_the_work() -> None:
    async def scenario() -> None:
        gpus = FakeEngine(devices=GPUS)
        gpus.gate.clear()
        with closing(Scheduler(1, ROOMY)) as scheduler:
            tasks = [await submitted(scheduler, gpus, grey(value)) for value in range(20)]
            gpus.gate.set()
            assert [score(timed) for timed in await asyncio.gather(*tasks)] == [*range(20)]
            assert {ran.device for ran in gpus.ran} == {*GPUS}

    run(scenario())


def test_a_huge_run_on_one_gpu_does_not_hold_the_other_up() -> None:
    async def scenario() -> None:
        gpus = FakeEngine(devices=GPUS)
        held = gpus.gates["cuda:0"] = threading.Event()
        with closing(Scheduler(1, ROOMY)) as scheduler:
            huge = await submitted(scheduler, gpus, grey(1, 30, 30))
            for value in range(5):
                assert score(await scheduler.infer(gpus, grey(value), 0.0, soon())) == value
            assert [ran.device for ran in gpus.ran] == ["cuda:1"] * 5
            held.set()
            assert score(await huge) == 1

    run(scenario())


def test_of_free_gpus_the_one_that_has_worked_least_is_next() -> None:
    async def scenario() -> None:
        gpus = FakeEngine(devices=GPUS)
        held = gpus.gates["cuda:0"] = threading.Event()
        with closing(Scheduler(1, ROOMY)) as scheduler:
            first = await submitted(scheduler, gpus, grey(1))
            await until(lambda: time.monotonic() - begun > 0.05)
            held.set()
            await first
            while scheduler.busy["cuda:1"] < scheduler.busy["cuda:0"] and len(gpus.ran) < 9:
                await scheduler.infer(gpus, grey(2), 0.0, soon())
            assert [ran.device for ran in gpus.ran[:9]] == ["cuda:0"] + ["cuda:1"] * 8

    begun = time.monotonic()
    run(scenario())


def test_memory_that_runs_out_on_a_gpu_splits_the_batch_there() -> None:
    async def scenario() -> None:
        gpu = FakeEngine(memory=2, devices=("cuda:3",))
        gpu.gate.clear()
        with closing(Scheduler(1, ROOMY)) as scheduler:
            tasks = [await submitted(scheduler, gpu, grey(value)) for value in range(5)]
            gpu.gate.set()
            assert [score(timed) for timed in await asyncio.gather(*tasks)] == [*range(5)]
            assert {ran.device for ran in gpu.ran} == {"cuda:3"}
            assert not scheduler.broken

    run(scenario())


def test_the_images_of_a_gpu_that_is_lost_are_told_to_try_again_and_it_runs_nothing_more() -> None:
    async def scenario() -> None:
        gpus = FakeEngine(devices=GPUS)
        gpus.lost = {"cuda:0"}
        with closing(Scheduler(1, ROOMY)) as scheduler:
            with pytest.raises(NotReady, match="cuda:0") as caught:
                await scheduler.infer(gpus, grey(1), 0.0, soon())
            assert caught.value.retry_after >= 1
            assert "illegal memory access" in scheduler.broken["cuda:0"]
            for value in range(3):  # what was accepted is answered by the other one
                assert score(await scheduler.infer(gpus, grey(value), 0.0, soon())) == value
            assert [ran.device for ran in gpus.ran] == ["cuda:0"] + ["cuda:1"] * 3

    run(scenario())


def test_a_lost_gpu_is_not_tried_again_in_halves_and_who_waits_for_it_is_told() -> None:
    async def scenario() -> None:
        gpu = FakeEngine(devices=("cuda:0",), costs=Costs(Line(1.0, 1e-9)))
        gpu.lost = {"cuda:0"}
        gpu.gate.clear()
        patient = Limits(queue_pixels=10_000, batch_pixels=10_000, run_s=10_000)
        with closing(Scheduler(1, patient)) as scheduler:
            tasks = [await submitted(scheduler, gpu, grey(value)) for value in range(4)]
            tasks.append(await submitted(scheduler, gpu, grey(9, 5, 5)))
            gpu.gate.set()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(error, NotReady) for error in found), found
            assert len(gpu.ran) == 1
            with pytest.raises(NotReady, match="cuda:0"):
                await scheduler.infer(gpu, grey(1), 0.0, soon())
            assert score(await scheduler.infer(FakeEngine(), grey(2), 0.0, soon())) == 2
            assert scheduler.idle

    run(scenario())


# --- memory


def test_a_large_run_waits_while_another_holds_the_memory() -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        engine.gate.clear()
        limits = Limits(queue_pixels=10_000, batch_pixels=10_000, running_pixels=100)
        with closing(Scheduler(2, limits)) as scheduler:
            first = await submitted(scheduler, engine, grey(1))  # 64 pixels
            second = await submitted(scheduler, engine, grey(2))
            # The second worker is still free: a decode, which takes no room, runs there.
            decoded = await scheduler.decode(lambda: "fine", QUICK, 0.0, soon())
            assert decoded.value == "fine"
            assert not second.done()
            engine.gate.set()
            assert score(await first) == 1
            assert score(await second) == 2

    run(scenario())


def test_small_runs_share_the_memory() -> None:
    async def scenario() -> None:
        held, engine = FakeEngine(), FakeEngine()
        held.gate.clear()
        limits = Limits(queue_pixels=10_000, batch_pixels=10_000, running_pixels=128)
        with closing(Scheduler(2, limits)) as scheduler:
            first = await submitted(scheduler, held, grey(1))
            assert score(await scheduler.infer(engine, grey(2), 0.0, soon())) == 2
            held.gate.set()
            await first

    run(scenario())


def test_an_image_larger_than_the_memory_waits_for_the_others_but_not_for_ever() -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        engine.gate.clear()
        limits = Limits(queue_pixels=10_000, batch_pixels=100, running_pixels=100)
        with closing(Scheduler(2, limits)) as scheduler:
            tasks = [await submitted(scheduler, engine, grey(1))]
            tasks += [await submitted(scheduler, engine, grey(v, 16, 16)) for v in (2, 3)]
            engine.gate.set()
            assert [score(answer) for answer in await asyncio.gather(*tasks)] == [1, 2, 3]
            assert score(await scheduler.infer(engine, grey(4, 16, 16), 0.0, soon())) == 4
        assert engine.batches == [1, 1, 1, 1]

    run(scenario())


def test_a_batch_takes_only_the_memory_that_is_left() -> None:
    async def scenario() -> None:
        held, engine = FakeEngine(), FakeEngine()
        held.gate.clear()
        limits = Limits(queue_pixels=10_000, batch_pixels=10_000, running_pixels=64 * 3)
        with closing(Scheduler(2, limits)) as scheduler:
            gate = threading.Event()
            decoding = asyncio.create_task(scheduler.decode(gate.wait, QUICK, 0.0, soon()))
            tasks = [await submitted(scheduler, held, grey(1))]
            tasks += [await submitted(scheduler, engine, grey(value)) for value in range(4)]
            gate.set()
            await decoding
            await asyncio.gather(*tasks[1:])
            held.gate.set()
            await tasks[0]
        assert engine.batches == [2, 2]

    run(scenario())


# --- admission


def test_admission_is_by_pixels_whole_and_given_back() -> None:
    with closing(Scheduler(2, Limits(queue_pixels=100, batch_pixels=100))) as scheduler:
        with scheduler.admit(60, [QUICK]):
            with pytest.raises(Overloaded) as refused, scheduler.admit(50, [QUICK]):
                pass
            assert refused.value.retry_after >= 1
            assert scheduler.admitted_pixels == 60
            with scheduler.admit(40, [QUICK]):
                assert scheduler.admitted_pixels == 100
        assert scheduler.admitted_pixels == 0
        with pytest.raises(TooManyPixels, match="fewer images"), scheduler.admit(101, [QUICK]):
            pass
        assert scheduler.admitted_pixels == 0


def test_a_key_gets_no_more_of_the_queue_than_it_leaves_free() -> None:
    with closing(Scheduler(2, Limits(queue_pixels=100, batch_pixels=100))) as scheduler:
        with scheduler.admit(50, [QUICK], "greedy"):
            with pytest.raises(Overloaded, match="your share"), scheduler.admit(1, [], "greedy"):
                pass
            with scheduler.admit(25, [QUICK], "thrifty"):
                assert scheduler.admitted_pixels == 75
        assert scheduler.admitted_pixels == 0
        with pytest.raises(TooManyPixels, match="one key"), scheduler.admit(51, [QUICK], "greedy"):
            pass


def test_jobs_of_two_clients_run_by_turns() -> None:
    async def scenario() -> None:
        engine = FakeEngine(costs=Costs(Line(0.0, 1e-6)))  # company saves nothing
        engine.gate.clear()
        with closing(Scheduler(1, ROOMY)) as scheduler:
            tasks = [await submitted(scheduler, engine, grey(1, 9, 9))]
            for client, width in [("many", 8), ("many", 8), ("many", 8), ("few", 7)]:
                coroutine = scheduler.infer(engine, grey(1, 8, width), 0.0, soon(), client=client)
                tasks.append(asyncio.create_task(coroutine))
                await asyncio.sleep(0)
            engine.gate.set()
            await asyncio.gather(*tasks)
        assert [run.sizes[0][1] for run in engine.ran] == [9, 7, 8, 8, 8]

    run(scenario())


def test_retry_after_is_when_the_predicted_backlog_should_be_gone() -> None:
    with closing(Scheduler(2, Limits(queue_pixels=100, batch_pixels=100))) as scheduler:
        assert scheduler.retry_after() == 1
        with scheduler.admit(50, [Cost("JPEG", 3.0), Cost("net", 4.5)]):
            assert scheduler.backlog_seconds == pytest.approx(7.5)
            assert scheduler.retry_after() == 4
            with scheduler.admit(50, [Cost("net", 2.6)]):
                with pytest.raises(Overloaded, match="6 s") as refused, scheduler.admit(1, []):
                    pass
                assert refused.value.retry_after == 6
            assert scheduler.retry_after() == 4
        assert scheduler.backlog_seconds == 0


def test_room_is_given_back_when_a_request_fails() -> None:
    with closing(Scheduler(2, Limits(queue_pixels=100, batch_pixels=100))) as scheduler:
        with pytest.raises(ValueError, match="broken"), scheduler.admit(100, [QUICK]):
            raise ValueError("broken")
        assert scheduler.admitted_pixels == 0
        assert scheduler.backlog_seconds == 0


def test_work_that_takes_longer_than_predicted_lengthens_the_backlog_of_its_kind() -> None:
    async def scenario() -> None:
        slow, other = Cost("slow", 1e-6), Cost("other", 1e-6)
        with closing(Scheduler(1, ROOMY)) as scheduler:
            for _ in range(30):
                await scheduler.decode(lambda: time.sleep(1e-3), slow, 0.0, soon())
            with scheduler.admit(1, [slow]):
                assert scheduler.backlog_seconds > 3 * slow.seconds
            with scheduler.admit(1, [other]):
                assert scheduler.backlog_seconds == pytest.approx(other.seconds)

    run(scenario())


def test_work_that_failed_teaches_nothing_of_what_work_takes() -> None:
    def broken() -> None:
        raise UndecodableImage("broken after the header")

    async def scenario() -> None:
        cost = Cost("JPEG", 1.0)
        with closing(Scheduler(1, ROOMY)) as scheduler:
            for _ in range(50):
                with pytest.raises(UndecodableImage):
                    await scheduler.decode(broken, cost, 0.0, soon())
            with scheduler.admit(1, [cost]):
                assert scheduler.backlog_seconds == pytest.approx(1.0)

    run(scenario())


def test_images_that_cannot_be_decoded_do_not_make_the_network_look_fast() -> None:
    async def scenario() -> None:
        engine = FakeEngine(costs=Costs(Line(1.0, 0.0)))
        with closing(Scheduler(1, ROOMY)) as scheduler:
            for _ in range(50):
                with pytest.raises(UndecodableImage):
                    await scheduler.infer(engine, undecodable(), 0.0, soon())
            with scheduler.admit(1, [inference_cost(engine, 64)]):
                assert scheduler.backlog_seconds == pytest.approx(1.0)
        assert engine.batches == []

    run(scenario())


def test_a_worker_that_waited_for_room_starts_again_when_there_is_some() -> None:
    both = threading.Barrier(2)

    class Together(FakeEngine):
        def run(
            self,
            pictures: Sequence[NDArray[np.uint8]],
            stop: Stop | None = None,
            canvas: Canvas | None = None,
            classes: Sequence[Sequence[int]] = (),
            device: str | None = None,
        ) -> Scores:
            if pictures[0].shape[:2] == (10, 7):
                both.wait(10)  # fails unless two run at once
            return super().run(pictures, stop, canvas, classes, device)

    async def scenario() -> None:
        engine = Together()
        limits = Limits(queue_pixels=10_000, batch_pixels=100, running_pixels=150)
        engine.gate.clear()
        with closing(Scheduler(2, limits)) as scheduler:
            first = await submitted(scheduler, engine, grey(1, 10, 14))
            others = [await submitted(scheduler, engine, grey(2, 10, 7)) for _ in range(2)]
            engine.gate.set()
            await asyncio.gather(first, *others)

    run(scenario())


# --- what an observer hears


class Listener:
    """Remembers what it hears."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int, int]] = []
        self.gone = 0

    def ran(self, batch: Batch) -> None:
        self.shapes.append(batch.shape)

    def cancelled(self) -> None:
        self.gone += 1


def test_an_observer_hears_of_runs_and_not_of_decodes() -> None:
    async def scenario() -> None:
        engine, listener = FakeEngine(), Listener()
        engine.gate.clear()
        with closing(Scheduler(1, ROOMY, listener)) as scheduler:
            await scheduler.decode(lambda: "fine", QUICK, 0.0, soon())
            tasks = [await submitted(scheduler, engine, grey(1, 6, 5)) for _ in range(4)]
            engine.gate.set()
            await asyncio.gather(*tasks)
        assert listener.shapes == [(1, 6, 5), (3, 6, 5)]
        assert listener.gone == 0

    run(scenario())


def test_an_observer_does_not_hear_of_a_run_when_nothing_could_be_decoded() -> None:
    async def scenario() -> None:
        listener = Listener()
        with (
            closing(Scheduler(1, ROOMY, listener)) as scheduler,
            pytest.raises(UndecodableImage),
        ):
            await scheduler.infer(FakeEngine(), undecodable(), 0.0, soon())
        assert listener.shapes == []

    run(scenario())


def test_an_observer_hears_of_clients_that_go_away_while_they_wait_or_run() -> None:
    async def scenario() -> None:
        engine, listener = FakeEngine(), Listener()
        engine.gate.clear()
        with closing(Scheduler(1, ROOMY, listener)) as scheduler:
            tasks = [await submitted(scheduler, engine, grey(value)) for value in range(3)]
            for task in tasks[:2]:  # one runs, one waits
                task.cancel()
            await asyncio.gather(*tasks[:2], return_exceptions=True)
            assert listener.gone == 2
            engine.gate.set()
            assert score(await tasks[2]) == 2
        assert listener.gone == 2

    run(scenario())


class Groups:
    """An observer that notes whose runs they were."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def ran(self, batch: Batch) -> None:
        self.seen.append(batch.jobs[0].group)

    def cancelled(self) -> None:
        pass


def test_an_engine_that_nobody_uses_any_more_is_freed_and_leaves_nothing_to_the_next() -> None:
    async def use(scheduler: Scheduler) -> "weakref.ref[FakeEngine]":
        engine = FakeEngine(costs=Costs(Line(1e-9, 0.0)))  # runs take longer: it has a pace
        cost = inference_cost(engine, 64)
        with scheduler.admit(64, [cost]):
            assert scheduler.backlog_seconds == cost.seconds  # of another engine's pace, nothing
        await scheduler.infer(engine, grey(1), 0.0, soon())
        return weakref.ref(engine)

    async def until_freed(engine: "weakref.ref[FakeEngine]") -> None:
        await until(lambda: gc.collect() >= 0 and engine() is None)

    async def scenario() -> None:
        groups = Groups()
        with closing(Scheduler(1, ROOMY, groups)) as scheduler:
            for _ in range(20):  # the next engine often lies where the last one lay
                freed = await use(scheduler)
                await until_freed(freed)
        assert len(groups.seen) == len(set(groups.seen)) == 20

    run(scenario())
