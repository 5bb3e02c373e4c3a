"""Counters for Prometheus, in a registry of their own."""

import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from weakref import WeakKeyDictionary

import onnxruntime
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    multiprocess,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.batching import Batch, Group
from service.engine import Engine
from service.errors import AnypoolError
from service.outcome import Outcome, Result
from service.resize import Size
from service.scheduler import Scheduler
from service.shares import Shares
from service.version import version
from service.workers import Folder

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)
# Label `pixels`: the smallest square that has no fewer pixels than the image.
_CLASSES = {"128x128": 128**2, "512x512": 512**2, "1024x1024": 1024**2}
_LARGER = "larger"
_KINDS = ("alone", "equal", "mixed", "pinned")
_BUILD = ("version", "onnxruntime", "python")
_SHAPES = 10_000  # of a model that are remembered while it is loaded, to count those seen first


class Metrics:
    """What happened, by model, outcome and phase."""

    def __init__(self, folder: Folder | None = None) -> None:
        """folder: of several workers, whose metrics are shown as one."""
        self.registry = CollectorRegistry()
        self._shown = self.registry
        self._gauges: list[tuple[Gauge, Callable[[], float]]] = []
        self._folder = folder
        if folder is None:
            ProcessCollector(registry=self.registry)
        else:
            self._shown = CollectorRegistry()
            multiprocess.MultiProcessCollector(self._shown)  # type: ignore[no-untyped-call]
        build = Gauge(
            "anypool_build_info",
            "1, for these versions",
            _BUILD,
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        build.labels(version(), onnxruntime.__version__, platform.python_version()).set(1)
        self._shapes: WeakKeyDictionary[Group, set[tuple[object, ...]]] = WeakKeyDictionary()
        # Labels are looked up once: that takes longer than to count.
        requests = self._counter("requests", "Requests answered", "route", "status")
        self._requests = cache(requests.labels)
        images = self._counter("images", "Images by outcome", "model", "outcome")
        self._images = cache(images.labels)
        self._rejected = self._counter(
            "rejected_images", "Images of requests that were refused whole", "model", "reason"
        )
        self._cancelled = self._counter(
            "cancelled_images", "Images whose client went away before they were done"
        )
        phases = Histogram(
            "anypool_phase_seconds",
            "Time of an image in each phase; decode by pixels sent, queue and infer by pixels used",
            ["model", "phase", "pixels"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._phases = cache(phases.labels)
        self._runs = self._counter(
            "runs", "Runs of the network, by who shared them: alone, equal, mixed, pinned", "kind"
        )
        self._by_kind = {kind: self._runs.labels(kind) for kind in _KINDS}
        self._batch = Histogram(
            "anypool_run_images", "Images in a run", buckets=_IMAGES, registry=self.registry
        )
        self._pixels = self._counter(
            "run_pixels", "Pixels computed: those of images, and padding around them", "of"
        )
        self._used, self._padding = (self._pixels.labels(of) for of in ("images", "padding"))
        self._first_seen = self._counter(
            "first_seen_shapes", "Runs of a shape (images, height, width) not run before"
        )

        self._device_seconds = self._counter(
            "device_busy_seconds",
            "Time that runs, and on the CPU decodes, have taken, all workers together",
            "device",
        )
        self._busy: Callable[[], Mapping[str, float]] = dict
        self._counted: dict[str, float] = {}

    def watch(self, scheduler: Scheduler) -> None:
        """Show how the scheduler stands."""
        self._gauge(
            "admitted_pixels",
            "Network pixels admitted and not answered yet",
            lambda: scheduler.admitted_pixels,
        )
        self._gauge(
            "backlog_seconds",
            "Predicted work admitted and not answered yet, on one worker",
            lambda: scheduler.backlog_seconds,
        )
        self._gauge("workers_lost", "Worker threads that hang", lambda: scheduler.lost)
        self._gauge("devices_lost", "GPUs that run nothing any more", lambda: len(scheduler.broken))
        self._busy = lambda: scheduler.busy

    def watch_models(self, engines: Iterable[Engine]) -> None:
        """Show which models can be used; of several workers, those of the one that is asked."""
        self._shown.register(_Models(engines))

    def watch_readiness(self, ready: Callable[[], bool]) -> None:
        """Show how many workers can classify."""
        self._gauge("processes_ready", "Worker processes that are ready", ready)

    def watch_bodies(self, bodies: Shares) -> None:
        """Show what is held of bodies."""
        self._gauge("body_bytes", "Bytes of requests not answered yet", lambda: bodies.used)

    def request(self, route: str, status: int) -> None:
        """Count one answer."""
        self._requests(route, str(status)).inc()

    def rejected(self, model: str, error: AnypoolError, images: int) -> None:
        """Count the images of a request that was refused whole."""
        self._rejected.labels(model, error.type).inc(images)

    def image(self, model: str, outcome: Outcome) -> None:
        """Count one image and how long it took."""
        error, result = outcome.error, outcome.result
        self._images(model, "ok" if error is None else error.type).inc()
        if result is not None:
            self._observe(model, outcome, result)

    def cancelled(self) -> None:
        """Count an image whose client went away."""
        self._cancelled.inc()

    def ran(self, batch: Batch) -> None:
        """Count a run of the network."""
        self._by_kind[_kind(batch)].inc()
        self._batch.observe(len(batch.jobs))
        used = sum(job.pixels for job in batch.jobs)
        self._used.inc(used)
        self._padding.inc(batch.pixels - used)
        group = batch.jobs[0].group
        assert group is not None  # only what is decoded has none
        seen = self._shapes.setdefault(group, set())
        shape = (batch.canvas or batch.mixed, *batch.shape)
        if shape not in seen and len(seen) < _SHAPES:
            seen.add(shape)
            self._first_seen.inc()

    def refresh(self) -> None:
        """Note how things stand, for whoever reads the metrics, here or through another worker."""
        for gauge, value in self._gauges:
            gauge.set(value())
        for device, seconds in self._busy().items():
            self._device_seconds.labels(device).inc(seconds - self._counted.get(device, 0.0))
            self._counted[device] = seconds

    def close(self) -> None:
        """What stands now ends with this process; what was counted stays."""
        if self._folder is not None:
            self._folder.forget(os.getpid())

    def text(self) -> bytes:
        """The Prometheus exposition; of several workers, of all together."""
        self.refresh()
        return generate_latest(self._shown)

    def _observe(self, model: str, outcome: Outcome, result: Result) -> None:
        sent, used = _pixel_class(result.source), _pixel_class(result.used)
        self._phases(model, "decode", sent).observe(outcome.decoding)
        self._phases(model, "queue", used).observe(outcome.queued)
        self._phases(model, "infer", used).observe(outcome.inferring)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"anypool_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        gauge = Gauge(f"anypool_{name}", text, registry=self.registry, multiprocess_mode="livesum")
        self._gauges.append((gauge, value))


class _Models(Collector):
    """What is loaded now: nothing is left of what was."""

    def __init__(self, engines: Iterable[Engine]) -> None:
        self._engines = engines

    def collect(self) -> Iterator[Metric]:
        labels = ("model", "version", "provider", "devices")
        models = GaugeMetricFamily("anypool_model_info", "1 for each loaded model", labels=labels)
        fallen = 0
        for engine in self._engines:
            card = engine.card
            what = [card.name, str(card.version), engine.provider, ",".join(engine.devices)]
            models.add_metric(what, 1)
            fallen += engine.fallback is not None
        yield models
        yield GaugeMetricFamily(
            "anypool_fallback_models",
            "Loaded models that run on the CPU, though the GPU build is installed",
            value=fallen,
        )


def _kind(batch: Batch) -> str:
    if batch.canvas is not None:
        return "pinned"
    if len(batch.jobs) == 1:
        return "alone"
    return "mixed" if batch.mixed else "equal"


def _pixel_class(size: Size) -> str:
    return next((name for name, most in _CLASSES.items() if size.pixels <= most), _LARGER)
