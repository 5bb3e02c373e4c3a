"""The scheduler on real threads, with a fake engine."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine import Scores
from service.errors import DeadlineExceeded, InferenceFailed, Overloaded, TooManyPixels
from service.resize import Size
from service.scheduler import Scheduler
from tests.service.fakes import FakeEngine, grey


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 30))


def soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


def test_images_of_one_size_that_wait_together_run_together() -> None:
    async def scenario() -> None:
        engine, scheduler = FakeEngine(), Scheduler(1, 10_000, 10_000)
        engine.gate.clear()
        tasks = [
            asyncio.create_task(scheduler.infer(engine, grey(value), soon())) for value in range(5)
        ]
        await asyncio.sleep(0)  # all are queued; the first already runs
        engine.gate.set()
        scores = [(await task).value for task in tasks]
        assert [float(score.logits[0, 0]) for score in scores] == [0, 1, 2, 3, 4]
        assert engine.batches == [1, 4]
        scheduler.close()

    run(scenario())


def test_different_sizes_never_share_a_run() -> None:
    async def scenario() -> None:
        engine, scheduler = FakeEngine(), Scheduler(1, 10_000, 10_000)
        pictures = [grey(1, 8, 4), grey(2, 4, 8), grey(3, 8, 4), grey(4, 4, 8)]
        results = await asyncio.gather(
            *(scheduler.infer(engine, picture, soon()) for picture in pictures)
        )
        assert [float(result.value.logits[0, 0]) for result in results] == [1, 2, 3, 4]
        scheduler.close()

    run(scenario())


def test_a_poisoned_image_fails_alone() -> None:
    async def scenario() -> None:
        engine, scheduler = FakeEngine(poison=13), Scheduler(1, 10_000, 10_000)
        engine.gate.clear()
        tasks = [
            asyncio.create_task(scheduler.infer(engine, grey(value), soon()))
            for value in (7, 1, 13, 2)
        ]
        await asyncio.sleep(0)
        engine.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[2], InferenceFailed)
        assert [isinstance(result, BaseException) for result in results] == [
            False, False, True, False,
        ]  # fmt: skip
        scheduler.close()

    run(scenario())


def test_what_a_decoder_raises_reaches_whoever_waits_and_frees_the_worker() -> None:
    def broken() -> None:
        raise ValueError("broken")

    async def scenario() -> None:
        scheduler = Scheduler(1, 10_000, 10_000)
        with pytest.raises(ValueError, match="broken"):
            await scheduler.decode(broken, Size(2, 5), soon())
        assert (await scheduler.decode(lambda: "fine", Size(2, 5), soon())).value == "fine"
        scheduler.close()

    run(scenario())


def test_a_job_whose_deadline_passes_while_it_waits_is_not_run() -> None:
    async def scenario() -> None:
        engine, scheduler = FakeEngine(), Scheduler(1, 10_000, 10_000)
        engine.gate.clear()
        first = asyncio.create_task(scheduler.infer(engine, grey(1), soon()))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded):
            await scheduler.infer(engine, grey(2), soon(0.05))
        engine.gate.set()
        await first
        assert engine.batches == [1]
        scheduler.close()

    run(scenario())


def test_a_client_that_goes_away_takes_its_job_along() -> None:
    async def scenario() -> None:
        engine, scheduler = FakeEngine(), Scheduler(1, 10_000, 10_000)
        engine.gate.clear()
        first = asyncio.create_task(scheduler.infer(engine, grey(1), soon()))
        await asyncio.sleep(0)
        gone = asyncio.create_task(scheduler.infer(engine, grey(2), soon()))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        engine.gate.set()
        await first
        assert engine.batches == [1]
        scheduler.close()

    run(scenario())


def test_admission_is_by_pixels_whole_and_given_back() -> None:
    scheduler = Scheduler(2, queue_pixels=100, batch_pixels=100)
    with scheduler.admit(60):
        with pytest.raises(Overloaded) as refused, scheduler.admit(50):
            pass
        assert refused.value.retry_after >= 1
        assert scheduler.admitted_pixels == 60
        with scheduler.admit(40):
            assert scheduler.admitted_pixels == 100
    assert scheduler.admitted_pixels == 0
    with pytest.raises(TooManyPixels), scheduler.admit(101):
        pass
    scheduler.close()


@pytest.mark.parametrize("turns", range(6))
def test_a_client_that_goes_away_at_any_moment_costs_no_worker(turns: int) -> None:
    async def scenario() -> None:
        engine, scheduler = FakeEngine(), Scheduler(1, 10_000, 10_000)
        engine.gate.clear()
        first = asyncio.create_task(scheduler.infer(engine, grey(1), soon()))
        await asyncio.sleep(0)
        gone = asyncio.create_task(scheduler.infer(engine, grey(2), soon()))
        await asyncio.sleep(0)
        engine.gate.set()
        time.sleep(0.05)  # noqa: ASYNC251  # the run ends while the loop stands still, on purpose
        for _ in range(turns):
            await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(first, gone, return_exceptions=True)
        assert float((await scheduler.infer(engine, grey(3), soon())).value.logits[0, 0]) == 3
        scheduler.close()

    run(scenario())


def test_an_engine_that_fails_in_an_unforeseen_way_is_answered_too() -> None:
    class Broken(FakeEngine):
        def run(self, pictures: Sequence[NDArray[np.uint8]]) -> Scores:
            raise ValueError("nobody foresaw this")

    async def scenario() -> None:
        scheduler = Scheduler(1, 10_000, 10_000)
        for _ in range(2):
            with pytest.raises(InferenceFailed):
                await scheduler.infer(Broken(), grey(1), soon())
        assert (await scheduler.infer(FakeEngine(), grey(1), soon())).batch == 1
        scheduler.close()

    run(scenario())
