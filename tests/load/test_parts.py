"""The parts of the load test that need no server."""

import random
from collections import Counter
from dataclasses import replace
from heapq import merge
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import pytest

from tests.load.arrivals import poisson
from tests.load.charts import lines
from tests.load.check import check, right
from tests.load.forms import Answer
from tests.load.mixes import MIXES, folder, mix
from tests.load.page import page
from tests.load.record import ANSWERED, FAILED, REFUSED, Record, Sample, size_class
from tests.load.report import Report, Settings
from tests.load.soak import drift, slope
from tests.load.steps import Climb, within

SETTINGS = Settings(
    host="http://x", mix="web", files="", count=1, seed=0, formats="", form="raw", together=1,
    loop="open", pace=1.0, resize="limit:640", model="", connections=1, timeout_s=30,
    objective_ms=1000, steps=0, step_s=15, key="secret", out="build/load",
)  # fmt: skip


def sample(seconds: float, outcome: str = ANSWERED, at: float = 0.0, first: bool = False) -> Sample:
    return Sample(at, seconds, 0.0, "≤ 512²", first, outcome, 1)


def report(*samples: Sample, settings: Settings = SETTINGS, wrong: bool = False) -> Report:
    record = Record()
    record.samples += samples
    record.answers[0, 7, 0.25 if wrong else 0.5] += 3
    verdict = check(record.answers, lambda number: {7: 0.5})
    return Report.of(settings, 0.0, 10.0, record, verdict, [(1.0, 5_000_000)], [], None)


def test_arrivals_of_many_users_together_are_poisson_with_their_rates_sum() -> None:
    rng = random.Random(1)
    each = [poisson(rng, 2.0, begin=100.0) for _ in range(25)]
    times = list(takewhile(lambda at: at < 300, merge(*each)))
    assert len(times) == pytest.approx(50 * 200, rel=0.04)  # 4 standard deviations
    per_tenth = Counter(int(10 * (at - 100)) for at in times)
    counts = [per_tenth[k] for k in range(2000)]
    mean = sum(counts) / 2000
    variance = sum((count - mean) ** 2 for count in counts) / 2000
    assert variance / mean == pytest.approx(1, abs=0.13)  # evenly spaced: near 0
    gaps = sorted(b - a for a, b in pairwise(times))
    assert gaps[len(gaps) // 2] * 50 == pytest.approx(0.693, rel=0.06)  # exponential: ln 2


@pytest.mark.parametrize(
    ("name", "smallest", "largest"),
    [("web", 64, 1400), ("thumbs", 32, 160), ("phone", 3000, 4000), ("mixed", 32, 4000)],
)
def test_a_mix_is_the_same_for_the_same_seed(name: str, smallest: int, largest: int) -> None:
    count = 3 if name == "phone" else 12
    made = list(mix(name, count, seed=5))
    assert made == list(mix(name, count, seed=5))
    assert [p.data for p in made] != [p.data for p in mix(name, count, seed=6)]
    for picture in made:
        assert smallest * 9 // 16 - 1 <= min(picture.width, picture.height)
        assert max(picture.width, picture.height) <= largest
    assert set(MIXES) == {"web", "thumbs", "phone", "mixed"}


def test_a_web_mix_has_thousands_of_sizes_and_three_formats() -> None:
    rng = random.Random(0)
    (sort,) = MIXES["web"]
    assert len({sort(rng) for _ in range(4000)}) > 2500
    assert {picture.kind for picture in mix("web", 30, 0)} == {
        "image/jpeg", "image/webp", "image/png"
    }  # fmt: skip
    assert {picture.kind for picture in mix("web", 5, 0, ["png"])} == {"image/png"}


def test_a_folder_gives_the_images_in_it(tmp_path: Path) -> None:
    (made,) = mix("thumbs", 1, 0, ["png"])
    (tmp_path / "a.png").write_bytes(made.data)
    (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
    (found,) = folder(tmp_path, 10)
    assert found == made


def test_an_answer_is_right_with_the_class_and_probability_that_the_image_has_alone() -> None:
    alone = {3: 0.6, 4: 0.2, 5: 0.19999}
    assert right(3, 0.60001, alone)
    assert not right(3, 0.61, alone)
    assert not right(4, 0.2, alone)
    assert not right(9, 0.6, alone)
    assert right(5, 0.19999, {4: 0.2, 5: 0.19999})  # a tie


def test_what_could_not_be_asked_alone_counts_as_unchecked() -> None:
    answers = Counter({(0, 7, 0.5): 2, (1, 7, 0.5): 1, (1, 7, 0.4): 3})
    verdict = check(answers, lambda number: {7: 0.5} if number else {})
    assert (verdict.checked, verdict.wrong, verdict.unchecked) == (4, 3, 2)
    assert verdict.examples == ["picture 1: class 7, 0.400000, 3 times; alone class 7, 0.500000"]


def test_refusals_are_no_failures_but_they_miss_the_objective() -> None:
    mostly = [sample(0.1)] * 199
    assert report(*mostly, sample(0.1, REFUSED)).passed
    refused = report(*mostly[:150], *[sample(0.1, REFUSED)] * 50)
    assert (refused.refused, refused.failed, refused.late) == (50, 0, 50)
    assert not refused.passed
    assert report(*mostly[:150], *[sample(0.1, REFUSED)] * 50,
                  settings=replace(SETTINGS, objective_ms=0)).passed  # fmt: skip


def test_a_run_passes_with_right_answers_within_the_objective() -> None:
    good = [sample(0.5)] * 99
    assert report(*good, sample(1.1)).passed
    assert not report(*good, sample(1.1), sample(1.1)).passed
    assert not report(*good, sample(0.1, FAILED), sample(1.1)).passed
    assert not report(*good, wrong=True).passed
    assert not report().passed


def test_percentiles_are_by_class_and_tell_first_seen_shapes_apart() -> None:
    found = report(*[sample(0.1)] * 98, sample(0.9, first=True), sample(0.2, REFUSED))
    (row,) = found.classes
    assert (row.pixels, row.refused, row.failed) == ("≤ 512²", 1, 0)
    assert row.all is not None
    assert row.first is not None
    assert row.warm is not None
    assert (row.all.requests, row.first.requests, row.warm.requests) == (99, 1, 98)
    assert (row.first.p50_ms, row.warm.p99_ms, row.all.max_ms) == (900, 100, 900)
    assert [size_class(side**2) for side in (128, 129, 512, 1024, 1025)] == [
        "≤ 128²", "≤ 512²", "≤ 512²", "≤ 1024²", "larger"
    ]  # fmt: skip


def test_the_page_stands_alone_and_neither_file_has_the_key() -> None:
    found = report(*(sample(0.1 * (k + 1), at=float(k)) for k in range(9)))
    html = page(found)
    assert html.count("<polyline") >= 5
    assert "http://x" in html
    assert "src=" not in html
    assert "secret" not in html + str(found.as_json())


def test_a_chart_places_values_by_their_axis() -> None:
    svg = lines("t", "ms", {"a": [(0, 1), (5, 10), (10, 100)]}, log=True)
    (points,) = (line for line in svg.splitlines() if "polyline" in line)
    pairs = points.split('"')[1].split()
    xs, ys = zip(*(map(float, pair.split(",")) for pair in pairs), strict=True)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1])
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2])  # powers of ten are evenly apart
    assert "nothing to show" in lines("t", "ms", {"a": []})


def test_what_workers_take_adds_up_to_what_one_would_have() -> None:
    whole, one = Record(), Record()
    for record in (whole, one):
        record.samples.append(sample(0.1))
        record.failures["timeout"] += 1
        record.answer(4, Answer({1: 0.25, 2: 0.75}))
    told = one.take()
    assert one.take() == {"samples": [], "failures": [], "answers": []}
    gathered = Record()
    gathered.add(told)
    assert gathered.samples == whole.samples
    assert gathered.failures == whole.failures
    assert gathered.answers == whole.answers == Counter({(4, 2, 0.75): 1})


@pytest.mark.parametrize("capacity", [1, 3, 37, 40, 1000])
@pytest.mark.parametrize("first", [1, 10, 64])
def test_the_climb_finds_a_capacity_to_a_tenth(capacity: int, first: int) -> None:
    climb = Climb(first)
    while (rate := climb.next()) is not None:
        climb.judge(rate, rate <= capacity)
    assert climb.capacity <= capacity
    assert climb.capacity >= capacity / 1.1 - 1
    assert len(climb.steps) < 20


def test_the_climb_of_what_carries_nothing_ends_at_nothing() -> None:
    climb = Climb(8)
    while (rate := climb.next()) is not None:
        climb.judge(rate, held=False)
    assert climb.capacity == 0


def test_a_step_holds_when_99_of_100_are_in_time() -> None:
    assert within([sample(0.1)] * 99 + [sample(3)], 1.0)
    assert not within([sample(0.1)] * 98 + [sample(3), sample(0.1, REFUSED)], 1.0)
    assert not within([], 1.0)


def test_a_leak_is_seen_after_the_warm_up_and_only_there() -> None:
    grows = [(float(t), 300 + max(0, 120 - t) * -2 + 2.0 * t / 60) for t in range(0, 1800, 2)]
    assert slope(grows) == pytest.approx(2.0)


def test_drift_compares_the_last_third_with_the_first_after_the_warm_up() -> None:
    timeline: list[dict[str, Any]] = [{"p50_ms": {"all": 900.0}}] * 6 + [
        {"p50_ms": {"all": 50.0}}
    ] * 12
    timeline += [{"p50_ms": {}}] + [{"p50_ms": {"all": 60.0}}] * 12
    assert drift(timeline) == pytest.approx(1.2)
