"""What is counted, as Prometheus reads it."""

import platform
import re
import weakref
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families as families

from service.batching import Batch, Group, Job
from service.costs import Canvas
from service.engine import Engine
from service.errors import Overloaded, TooManyPixels, UndecodableImage
from service.metrics import Metrics
from service.outcome import Outcome, Result
from service.resize import Size
from service.scheduler import Limits, Scheduler
from service.scores import Scores
from service.shares import Shares
from service.version import version
from service.work import Cost, Phase
from tests.service.fakes import PLAIN

GROUP = Group("net", PLAIN)


def batch(*sizes: tuple[int, int], canvas: Canvas | None = None, group: Group = GROUP) -> Batch:
    """A run of images of those (height, width)."""
    jobs = (Job(key, group, *size, 1e-3, 0.0, 1.0) for key, size in enumerate(sizes))
    return Batch(tuple(jobs), canvas)


def result(source: Size, used: Size) -> Result:
    nothing = np.zeros((1, 1), np.float32)
    scores = Scores(nothing, nothing, None, np.zeros((1, 1), np.int64))
    return Result(source, used, "fit", [], None, scores)


def took(decode: float, queue: float, infer: float) -> list[Phase]:
    spent: list[tuple[Literal["decode", "queue", "infer"], float]] = [
        ("queue", queue / 2), ("decode", decode), ("queue", queue / 2), ("infer", infer)
    ]  # fmt: skip
    return [Phase(name, 1.0, 1.0 + seconds) for name, seconds in spent]


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """A sample's value; 0 where there is none."""
    metrics.refresh()
    return metrics.registry.get_sample_value(f"anypool_{name}", labels) or 0.0


@pytest.mark.parametrize(
    ("run", "kind"),
    [
        (batch((8, 8)), "alone"),
        (batch((8, 8), (8, 8)), "equal"),
        (batch((8, 8), (8, 4)), "mixed"),
        (batch((4, 8), (8, 4)), "mixed"),  # of equal area
        (batch((8, 8), canvas=Canvas(4, 8, 8)), "pinned"),
        (batch((8, 8), (8, 4), canvas=Canvas(4, 8, 8)), "pinned"),
    ],
)
def test_a_run_is_counted_once_by_who_shared_it(run: Batch, kind: str) -> None:
    metrics = Metrics()
    metrics.ran(run)
    for each in ("alone", "equal", "mixed", "pinned"):
        assert value(metrics, "runs_total", kind=each) == (each == kind)
    assert value(metrics, "run_images_sum") == len(run.jobs)


@pytest.mark.parametrize(
    ("run", "images", "padding"),
    [
        (batch((8, 4)), 32, 0),
        (batch((8, 4), (8, 4), (8, 4)), 96, 0),
        (batch((8, 4), (4, 8)), 64, 2 * 64 - 64),
        (batch((8, 4), (1, 1)), 33, 2 * 32 - 33),
        (batch((8, 4), canvas=Canvas(3, 10, 10)), 32, 300 - 32),
    ],
)
def test_computed_pixels_are_those_of_images_and_the_padding_around_them(
    run: Batch, images: int, padding: int
) -> None:
    metrics = Metrics()
    metrics.ran(run)
    assert value(metrics, "run_pixels_total", of="images") == images
    assert value(metrics, "run_pixels_total", of="padding") == padding


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=8))
def test_images_and_padding_add_up_to_what_the_run_computes(sizes: list[tuple[int, int]]) -> None:
    metrics = Metrics()
    metrics.ran(batch(*sizes))
    found = [value(metrics, "run_pixels_total", of=of) for of in ("images", "padding")]
    highest, widest = max(h for h, _ in sizes), max(w for _, w in sizes)
    assert sum(found) == len(sizes) * highest * widest
    assert found[0] == sum(h * w for h, w in sizes)
    assert min(found) >= 0


def test_a_shape_is_seen_first_once_for_each_network_and_graph() -> None:
    metrics = Metrics()
    steps: Sequence[tuple[Batch, int]] = [
        (batch((8, 4)), 1),
        (batch((8, 4)), 1),
        (batch((4, 8)), 2),
        (batch((8, 4), (8, 4)), 3),
        (batch((8, 4), (8, 3)), 4),  # 2×8×4 again, on the ragged graph
        (batch((8, 3), (8, 4)), 4),
        (batch((8, 4), group=Group("other", PLAIN)), 5),
        (batch((8, 4)), 5),
    ]
    for run, seen in steps:
        metrics.ran(run)
        assert value(metrics, "first_seen_shapes_total") == seen


def test_a_canvas_is_one_shape_whatever_lies_on_it() -> None:
    metrics, canvas = Metrics(), Canvas(4, 64, 64)
    for sizes in ([(8, 4)], [(8, 4), (8, 4)], [(8, 4), (3, 3)], [(64, 64)] * 4):
        metrics.ran(batch(*sizes, canvas=canvas))
    assert value(metrics, "first_seen_shapes_total") == 1
    metrics.ran(batch(*[(64, 64)] * 4))  # the same shape in another session
    assert value(metrics, "first_seen_shapes_total") == 2


def test_the_shapes_of_a_model_are_forgotten_with_it() -> None:
    metrics, group = Metrics(), Group("unloaded", PLAIN)
    left = weakref.ref(group)
    for side in range(1, 10_101):
        metrics.ran(batch((1, side), group=group))
    del group
    assert left() is None
    metrics.ran(batch((8, 4)))
    assert value(metrics, "first_seen_shapes_total") == 10_001


def test_no_more_than_ten_thousand_shapes_are_remembered() -> None:
    metrics = Metrics()
    for side in range(1, 10_101):
        metrics.ran(batch((1, side)))
    assert value(metrics, "first_seen_shapes_total") == 10_000
    assert value(metrics, "runs_total", kind="alone") == 10_100


@pytest.mark.parametrize(
    ("size", "pixels"),
    [
        (Size(1, 1), "128x128"),
        (Size(128, 128), "128x128"),
        (Size(64, 256), "128x128"),
        (Size(129, 128), "512x512"),
        (Size(512, 512), "512x512"),
        (Size(513, 512), "1024x1024"),
        (Size(1024, 1024), "1024x1024"),
        (Size(1025, 1024), "larger"),
        (Size(16_000, 12_000), "larger"),
    ],
)
def test_an_image_is_classed_by_its_pixels(size: Size, pixels: str) -> None:
    metrics = Metrics()
    small = Size(8, 8)
    metrics.image("net", Outcome(None, result(size, small), phases=took(0.25, 0.5, 2.0)))
    metrics.image("net", Outcome(None, result(small, size), phases=took(0.25, 0.5, 2.0)))
    sent = {"model": "net", "phase": "decode", "pixels": pixels}
    assert value(metrics, "phase_seconds_sum", **sent) >= 0.25
    for phase, seconds in (("queue", 0.5), ("infer", 2.0)):
        used = {"model": "net", "phase": phase, "pixels": pixels}
        assert value(metrics, "phase_seconds_sum", **used) >= seconds


sides = st.integers(1, 20_000)


@given(st.lists(st.builds(Size, sides, sides), max_size=20))
def test_images_of_any_size_fall_in_four_classes(sizes: list[Size]) -> None:
    metrics = Metrics()
    for size in sizes:
        metrics.image("net", Outcome(None, result(size, size)))
    found = {
        sample.labels["pixels"]
        for metric in metrics.registry.collect()
        for sample in metric.samples
        if "pixels" in sample.labels
    }
    assert found <= {"128x128", "512x512", "1024x1024", "larger"}
    total = sum(
        value(metrics, "phase_seconds_count", model="net", phase="infer", pixels=pixels)
        for pixels in found
    )
    assert total == len(sizes)


def test_an_image_is_counted_by_what_became_of_it() -> None:
    metrics = Metrics()
    size = Size(8, 8)
    metrics.image("net", Outcome("a", result(size, size)))
    metrics.image("net", Outcome("b", error=UndecodableImage("broken")))
    metrics.image("net", Outcome("c", error=UndecodableImage("broken")))
    assert value(metrics, "images_total", model="net", outcome="ok") == 1
    assert value(metrics, "images_total", model="net", outcome="undecodable-image") == 2
    assert value(metrics, "phase_seconds_count", model="net", phase="infer", pixels="128x128") == 1


def test_images_that_were_refused_whole_are_counted_apart() -> None:
    metrics = Metrics()
    metrics.rejected("net", Overloaded("full", 3), images=5)
    metrics.rejected("net", Overloaded("full", 3), images=2)
    metrics.rejected("net", TooManyPixels("large"), images=1)
    assert value(metrics, "rejected_images_total", model="net", reason="overloaded") == 7
    assert value(metrics, "rejected_images_total", model="net", reason="too-many-pixels") == 1
    assert value(metrics, "images_total", model="net", outcome="overloaded") == 0


def test_images_whose_client_went_away_are_counted() -> None:
    metrics = Metrics()
    assert value(metrics, "cancelled_images_total") == 0
    metrics.cancelled()
    metrics.cancelled()
    assert value(metrics, "cancelled_images_total") == 2


def test_requests_are_counted_by_route_and_status() -> None:
    metrics = Metrics()
    metrics.request("/v1/classify", 200)
    metrics.request("/v1/classify", 503)
    metrics.request("/v1/classify", 503)
    assert value(metrics, "requests_total", route="/v1/classify", status="503") == 2


def test_the_scheduler_is_read_whenever_the_metrics_are() -> None:
    metrics = Metrics()
    with closing(Scheduler(2, Limits(queue_pixels=100, batch_pixels=100))) as scheduler:
        metrics.watch(scheduler)
        with scheduler.admit(60, [Cost("JPEG", 2.5)]):
            assert value(metrics, "admitted_pixels") == 60
            assert value(metrics, "backlog_seconds") == 2.5
        assert value(metrics, "admitted_pixels") == 0
        assert value(metrics, "backlog_seconds") == 0
        assert value(metrics, "workers_lost") == 0
        assert b"anypool_admitted_pixels 0.0" in metrics.text()


def test_bodies_are_read_whenever_the_metrics_are() -> None:
    metrics, bodies = Metrics(), Shares(100)
    metrics.watch_bodies(bodies)
    bodies.take(30, "shop")
    assert value(metrics, "body_bytes") == 30
    bodies.give_back(30, "shop")
    assert value(metrics, "body_bytes") == 0


def test_models_are_named_with_what_runs_them_as_long_as_they_are_loaded(store: Path) -> None:
    metrics = Metrics()
    engines = [Engine(store / "seed_cnn" / "1", "cpu")]
    metrics.watch_models(engines)
    info = {"model": "seed_cnn", "version": "1", "provider": "CPUExecutionProvider"}
    info["devices"] = "cpu"
    assert value(metrics, "model_info", **info) == 1
    engines.clear()
    assert b"seed_cnn" not in metrics.text()


def test_models_that_are_not_on_the_gpu_are_counted(store: Path) -> None:
    metrics = Metrics()
    engines = [Engine(store / "seed_cnn" / "1", "cpu"), Engine(store / "seed_cnn" / "1", "cpu")]
    metrics.watch_models(engines)
    assert value(metrics, "fallback_models") == 0
    engines[1].fallback = "no GPU"
    assert value(metrics, "fallback_models") == 1


def test_the_build_is_named() -> None:
    (build,) = [family for family in Metrics().registry.collect() if "build" in family.name]
    (sample,) = build.samples
    assert sample.labels == {
        "version": version(),
        "onnxruntime": onnxruntime.__version__,
        "python": platform.python_version(),
    }
    assert sample.value == 1


def test_the_process_is_measured() -> None:
    found = {family.name for family in Metrics().registry.collect()}
    assert {
        "process_cpu_seconds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    } <= found


def test_names_are_as_prometheus_wants_them() -> None:
    metrics = Metrics()
    with closing(Scheduler(1, Limits(queue_pixels=1, batch_pixels=1))) as scheduler:
        metrics.watch(scheduler)
        found = list(families(metrics.text().decode()))
    assert len(found) > 15
    for family in found:
        assert re.fullmatch(r"(anypool|process)(_[a-z]+)+", family.name)
        assert family.documentation
        if family.type == "counter":
            assert {s.name for s in family.samples} <= {f"{family.name}_total"}
        if any(word in family.name for word in ("millisecond", "megapixel", "mb")):
            pytest.fail(f"{family.name}: base units")
