"""Which ways to serve are tried, and which is taken."""

from pathlib import Path

import pytest

from models.card import Card
from service.trials import Knob, Way, compare, knobs, table, usual_sizes

SIZES = [(32, 32), (48, 64), (100, 90), (320, 240)]


@pytest.fixture
def card(store: Path) -> Card:
    return Card.load(store / "efficientnet_lite0" / "1" / "card.json")


def test_the_median_decides_and_the_ways_take_turns() -> None:
    fake = {"auto": [10.0, 10.0, 10.0], "equal": [99.0, 9.0, 9.0], "mixed": [1.0, 12.0, 12.0]}
    asked: list[str] = []

    def measure(way: Way) -> float:
        asked.append(way.batching)
        return fake[way.batching].pop(0)

    tried = [("batching", ["auto", "equal", "mixed"])]
    ((best, rows),) = compare(Way(2), tried, measure, rounds=3)
    assert asked == ["auto", "equal", "mixed"] * 3
    assert best.batching == "mixed"
    assert [(row.median, row.slowest, row.fastest, row.chosen) for row in rows] == [
        (10, 10, 10, False),
        (9, 9, 99, False),
        (12, 1, 12, True),
    ]


@pytest.mark.parametrize(("other", "chosen"), [(102.0, 2), (104.0, 1)])
def test_what_is_hardly_faster_than_the_default_is_not_taken(other: float, chosen: int) -> None:
    found = compare(Way(2), [("cores", [2, 1])], lambda w: 100.0 if w.cores == 2 else other, 1)
    assert next(found)[0].cores == chosen


def test_each_knob_is_tried_with_the_best_of_those_before() -> None:
    def measure(way: Way) -> float:
        return 10 * (way.cores == 1) + (way.batch_megapixels == 4.2)

    tried: list[Knob] = [("cores", [2, 1]), ("batch_megapixels", [2.1, 4.2])]
    *_, (best, rows) = compare(Way(2), tried, measure, 1)
    assert best == Way(1, batch_megapixels=4.2)
    assert [row.median for row in rows] == [10, 11]


def test_a_cpu_and_a_gpu_have_other_knobs(card: Card) -> None:
    assert dict(knobs(card, False, 4, SIZES)) == {
        "cores": [4, 2, 3],
        "batching": ["auto", "equal", "mixed"],
        "batch_megapixels": [2.1, 0.5, 1.0, 4.2],
    }
    assert dict(knobs(card, False, 1, SIZES))["cores"] == [1]
    on_gpu = dict(knobs(card, True, 4, SIZES))
    assert on_gpu["search"] == ["HEURISTIC", "EXHAUSTIVE", "DEFAULT"]
    assert on_gpu["canvases"][0] == ()  # native shapes
    assert len(on_gpu["canvases"]) == 4
    alone = card.model_copy(update={"mixed": card.mixed.model_copy(update={"supported": False})})
    assert dict(knobs(alone, True, 4, SIZES))["canvases"] == [()]
    assert dict(knobs(alone, True, 4, SIZES))["batching"] == ["equal"]


def test_tables_hold_every_image_and_keep_to_the_pixels() -> None:
    assert table(SIZES, 1, 1_000_000) == ((12, 320, 256),)
    two = table(SIZES, 2, 1_000_000)
    assert two == ((64, 64, 64), (12, 320, 256))
    for height, width in SIZES:
        assert any(h >= height and w >= width for _, h, w in two)
    assert table([(2000, 2000)], 4, 1_000_000) == ((1, 2016, 2016),)


def test_usual_sizes_are_those_of_the_resize_policy(card: Card) -> None:
    fit = usual_sizes(card)
    assert all(max(size) == 320 for size in fit)
    crop = {"policy": "crop", "size": 256, "crop": 224}
    cropped = card.model_copy(update={"preprocessing": card.preprocessing.model_copy(update=crop)})
    assert usual_sizes(cropped) == [(224, 224)]
    native = card.model_copy(
        update={
            "preprocessing": card.preprocessing.model_copy(
                update={"policy": "native", "size": None}
            )
        }
    )
    assert len(set(usual_sizes(native))) > 3
    assert all(card.limits.allow(*size) for size in usual_sizes(native))
