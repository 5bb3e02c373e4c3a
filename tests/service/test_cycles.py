"""What was refused is let go when it is answered, not when the garbage collector comes."""

import asyncio
import gc
import logging
import time
import weakref
from collections.abc import Coroutine, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from starlette.types import Message, Receive, Scope, Send

from service.api.disconnect import unless_gone
from service.api.envelope import Envelope
from service.app import create_app
from service.classify import Classifier, Options, Picture
from service.engine import Engine
from service.errors import (
    AnypoolError,
    BadParameter,
    Overloaded,
    UndecodableImage,
    UnsupportedFormat,
)
from service.images import FORMATS, Pixels, SourceLimits
from service.outcome import Outcome, check_all
from service.resize import InferenceLimits
from service.scheduler import Limits, Scheduler
from service.settings import Settings
from service.work import Cost, Undecoded
from tests.e2e.test_statuses import png
from tests.service.fakes import FakeEngine, grey

QUICK = Cost("quick", 1e-4)
ROOMY = Limits(queue_pixels=10_000_000, batch_pixels=1_000_000)


class Body:
    """Stands for what a request sent."""

    def refuse(self) -> Pixels:
        raise UndecodableImage("broken")

    async def refused(self) -> None:
        await asyncio.sleep(0)
        raise Overloaded("full")


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 5))


async def gone(*references: "weakref.ref[Any]") -> None:
    """Return once nothing is left of them: a worker thread may still be on its way out."""
    while any(reference() is not None for reference in references):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("turn", ["own", "shared", "infer", "late"])
def test_an_image_that_fails_keeps_neither_itself_nor_its_engine(
    turn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("service.work"), "disabled", True)  # pytest keeps records

    async def fail(scheduler: Scheduler, engine: FakeEngine, body: Body) -> None:
        deadline = time.monotonic() + (40 if turn != "late" else -1)
        undecoded = Undecoded(body.refuse, 8, 8, QUICK)
        if turn == "own":
            await scheduler.decode(body.refuse, QUICK, 0.0, deadline)
        else:
            image = grey(7) if turn == "infer" else undecoded
            await scheduler.infer(engine, image, 0.0, deadline)

    async def scenario() -> None:
        engine, body = FakeEngine(poison=7), Body()
        left = weakref.ref(engine), weakref.ref(body)
        with closing(Scheduler(1, ROOMY)) as scheduler:
            with suppress(AnypoolError):
                await fail(scheduler, engine, body)
                pytest.fail("nothing was refused")
            del engine, body
            await gone(*left)

    run(scenario())


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (png(40, 40)[:-30], UndecodableImage),  # decoded with the run
        (png(400, 400)[:-30], UndecodableImage),  # in a turn of its own
        (b"no image", UnsupportedFormat),
        (bytes(20_000), UnsupportedFormat),  # so long that its header is read on a thread
    ],
    ids=["small", "large", "no image", "long"],
)
@pytest.mark.parametrize("count", [1, 2])
def test_a_broken_image_does_not_keep_its_engine(
    store: Path, image: bytes, error: type[AnypoolError], count: int
) -> None:
    async def scenario() -> None:
        engine = Engine(store / "seed_cnn" / "1", "cpu")
        left = weakref.ref(engine)
        source, inference = SourceLimits(10**6, 10**4, 100), InferenceLimits(1000, 10**6)
        broken = [Picture(None, image)] * count
        with closing(Scheduler(1, ROOMY)) as scheduler:
            classifier = Classifier(scheduler, source, inference, FORMATS, 30)
            found = await classifier.classify(engine, broken, Options(policy="native"))
            assert {type(outcome.error) for outcome in found} == {error}
            del engine, found
            await gone(left)

    run(scenario())


def test_the_outcomes_of_a_request_are_let_go_though_its_scope_is_kept() -> None:
    class Images(list[Outcome]):
        """Can be referred to weakly."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found = Images()
        left.append(weakref.ref(found))
        scope["state"]["facts"].outcomes = found

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    left: list[weakref.ref[Images]] = []
    parts = create_app(Settings()).state.service
    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    run(Envelope(app, parts)(scope, receive, send))
    assert scope["state"]
    assert left[0]() is None


def test_a_request_that_is_refused_as_a_whole_does_not_keep_its_body() -> None:
    async def stay() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def scenario() -> None:
        body = Body()
        left = weakref.ref(body)
        with suppress(Overloaded):
            await unless_gone(Request({"type": "http"}, stay), body.refused())
        del body
        await gone(left)

    run(scenario())


@pytest.mark.parametrize("count", [1, 2])
def test_an_image_that_refuses_the_request_does_not_keep_it(count: int) -> None:
    def refuse(body: Body) -> None:
        check_all([body] * (count - 1) + [BadParameter("wrong")])

    body = Body()
    left = weakref.ref(body)
    with suppress(BadParameter):
        refuse(body)
    del body
    assert left() is None
