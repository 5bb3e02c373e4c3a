"""Counters for Prometheus, in a registry of their own."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from service.classify import Outcome
from service.engine import Engine
from service.scheduler import KINDS, Scheduler

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """What happened, by model, outcome and phase."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "anypool_requests", "Requests answered", ["route", "status"], registry=self.registry
        )
        self._images = Counter(
            "anypool_images", "Images by outcome", ["model", "outcome"], registry=self.registry
        )
        self._phases = Histogram(
            "anypool_phase_seconds",
            "Time of an image in each phase",
            ["model", "phase"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._models = Gauge(
            "anypool_model_info",
            "1 for each loaded model",
            ["model", "version", "provider"],
            registry=self.registry,
        )
        runs = Gauge(
            "anypool_runs",
            "Runs of the network: one image alone, several of equal size, or of mixed sizes",
            ["kind"],
            registry=self.registry,
        )
        for kind in KINDS:
            runs.labels(kind).set_function(partial(scheduler.runs.__getitem__, kind))
        pixels = Gauge(
            "anypool_admitted_pixels",
            "Network pixels admitted and not answered yet",
            registry=self.registry,
        )
        pixels.set_function(lambda: scheduler.admitted_pixels)

    def loaded(self, engine: Engine) -> None:
        """Note a model that can be used."""
        card = engine.card
        self._models.labels(card.name, str(card.version), engine.provider).set(1)

    def request(self, route: str, status: int) -> None:
        """Count one answer."""
        self._requests.labels(route, str(status)).inc()

    def image(self, model: str, outcome: Outcome) -> None:
        """Count one image and how long it took."""
        if outcome.error is not None:
            self._images.labels(model, outcome.error.type).inc()
            return
        self._images.labels(model, "ok").inc()
        self._phases.labels(model, "decode").observe(outcome.decoding)
        self._phases.labels(model, "queue").observe(outcome.queued)
        self._phases.labels(model, "infer").observe(outcome.inferring)

    def text(self) -> bytes:
        """The Prometheus exposition."""
        return generate_latest(self.registry)
