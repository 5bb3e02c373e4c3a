"""Which classes are answered: how many, how probable, of which kind of model; and at whose cost."""

import asyncio
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from models.card import Activation, Card
from service.budget import Budget
from service.classify import Classifier, Options, Picture, predictions
from service.engine import Engine
from service.errors import Overloaded, RateLimited
from service.images import FORMATS, SourceLimits
from service.keys import Client
from service.resize import InferenceLimits
from service.scheduler import Limits, Scheduler
from service.scores import Scores
from service.work import Cost
from tests.e2e.test_statuses import png
from tests.models.test_card import make_card


def card(activation: Activation) -> Card:
    return make_card().model_copy(update={"activation": activation})


def scores(*probabilities: float) -> Scores:
    row = np.array([probabilities], np.float32)
    return Scores(row, row, None, np.argsort(-row, axis=1, kind="stable"))


MANY = scores(0.2, 0.9, 0.5, 0.1, 0.9, 0.6, 0.7, 0.5, 0.0, 1.0)  # several classes at once


@pytest.mark.parametrize(
    ("options", "answered"),
    [
        (Options(), [9, 1, 4, 6, 5]),
        (Options(threshold=0.5), [9, 1, 4, 6, 5, 2, 7]),
        (Options(threshold=0), [9, 1, 4, 6, 5, 2, 7, 0, 3, 8]),
        (Options(threshold=1), [9]),
        (Options(threshold=0.5, top_k=2), [9, 1]),
        (Options(threshold=0.5, min_probability=0.8), [9, 1, 4]),
        (Options(threshold=0.8, min_probability=0.5), [9, 1, 4]),
        (Options(threshold=0.6, classes=(0, 4, 5)), [4, 5]),
    ],
)
def test_a_threshold_answers_all_classes_from_it_up(options: Options, answered: list[int]) -> None:
    found = predictions(card("sigmoid"), MANY, options)
    assert [prediction.index for prediction in found] == answered


def test_scores_that_are_no_probabilities_may_be_negative() -> None:
    raw = scores(-3.0, -1.0, -7.5, *[-9.0] * 7)
    found = predictions(card("none"), raw, Options(top_k=3))
    assert [(p.index, p.probability) for p in found] == [(1, -1.0), (0, -3.0), (2, -7.5)]


def test_a_budget_pays_for_what_is_admitted_and_for_nothing_else(store: Path) -> None:
    engine, options = Engine(store / "seed_cnn" / "1", "cpu"), Options(policy="native")
    source, inference = SourceLimits(10**6, 10**4, 100), InferenceLimits(100, 10**6)
    client = Client("shop", budget=Budget(1.0, 250, lambda: 0.0))
    image, broken = [Picture(None, png(10, 10))], [Picture(None, b"no image")]

    async def scenario() -> None:
        with closing(Scheduler(1, Limits(queue_pixels=1000, batch_pixels=1000))) as scheduler:
            classifier = Classifier(scheduler, source, inference, FORMATS, 30)
            with scheduler.admit(900, []), pytest.raises(Overloaded):
                await classifier.classify(engine, image, options, client)
            await classifier.classify(engine, broken, options, client)
            for _ in range(2):
                await classifier.classify(engine, image, options, client)
            with pytest.raises(RateLimited, match="in 50 s"):
                await classifier.classify(engine, image, options, client)
            assert scheduler.admitted_pixels == 0
            await classifier.classify(engine, image, options)

    asyncio.run(scenario())


def test_the_images_of_two_clients_run_by_turns(store: Path) -> None:
    engine, options = Engine(store / "seed_cnn" / "1", "cpu"), Options(policy="native")
    source, inference = SourceLimits(10**6, 10**4, 100), InferenceLimits(100, 10**6)
    many, few, held, order = Client("many"), Client("few"), threading.Event(), []

    async def scenario() -> None:
        with closing(Scheduler(1, Limits(queue_pixels=10_000, batch_pixels=1000))) as scheduler:
            classifier = Classifier(scheduler, source, inference, FORMATS, 30)

            async def classified(client: Client, width: int) -> None:
                image = [Picture(None, png(width, 10))]
                await classifier.classify(engine, image, options, client)
                order.append(client.name)

            holding = asyncio.create_task(
                scheduler.decode(held.wait, Cost("held", 1e-4), 0.0, time.monotonic() + 40)
            )
            await asyncio.sleep(0)
            asked = [(many, 10), (many, 11), (many, 12), (few, 13)]
            tasks = [asyncio.create_task(classified(*each)) for each in asked]
            while scheduler.admitted_pixels < 460:
                await asyncio.sleep(0.01)
            held.set()
            await asyncio.gather(holding, *tasks)

    asyncio.run(scenario())
    assert order == ["many", "few", "many", "many"]
