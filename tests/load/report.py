"""What a run says: per class of size, over time, and whether it passed."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Self

import numpy as np

from tests.load.check import Verdict
from tests.load.record import ANSWERED, CLASSES, FAILED, REFUSED, Record, Sample
from tests.load.steps import SHARE, Step, late, within

_BUCKETS = 60  # of time, at most
_BUCKET_S = 1.0  # at least


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of a run."""

    host: str
    mix: str
    files: str
    count: int
    seed: int
    formats: str
    form: str
    together: int
    loop: str
    pace: float
    resize: str
    model: str
    connections: int
    timeout_s: float
    objective_ms: float
    steps: int
    step_s: float
    key: str
    out: str

    OPTIONS: ClassVar[tuple[str, ...]] = (
        "mix", "files", "count", "seed", "formats", "form", "together", "loop", "pace", "resize",
        "model", "connections", "timeout_s", "objective_ms", "steps", "step_s", "key", "out",
    )  # fmt: skip

    @property
    def images(self) -> int:
        """In a request."""
        return 1 if self.form == "raw" else self.together

    @property
    def objective_s(self) -> float:
        """Within which 99 of 100 requests must be answered; infinite for 0."""
        return self.objective_ms / 1e3 or float("inf")

    def classify(self, top_k: int) -> str:
        """Path and query of REST v1."""
        policy, _, size = self.resize.partition(":")
        route = f"/v1/models/{self.model}/classify" if self.model else "/v1/classify"
        return f"{route}?top_k={top_k}&resize={policy}" + (f"&size={size}" if size else "")


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of requests that were answered, in milliseconds from when they were due."""

    requests: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> Self | None:
        """None if there are none."""
        ms = [1e3 * sample.seconds for sample in samples if sample.outcome == ANSWERED]
        if not ms:
            return None
        p50, p90, p99, most = (round(float(v), 2) for v in np.percentile(ms, (50, 90, 99, 100)))
        return cls(len(ms), p50, p90, p99, most)


@dataclass(frozen=True, slots=True)
class Row:
    """A class of size: all its requests, those with a first-seen shape, and the others."""

    pixels: str
    all: Latencies | None
    first: Latencies | None
    warm: Latencies | None
    refused: int
    failed: int


@dataclass(frozen=True, slots=True)
class Moment:
    """Requests that were due in one stretch of the run, from so many seconds on, a second."""

    at_s: float
    answered_per_s: float
    refused_per_s: float
    failed_per_s: float
    p50_ms: dict[str, float]  # by class, and of all
    p99_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run; `passed` is what the exit code says."""

    settings: Settings
    begun: float  # in seconds since 1970
    seconds: float
    requests: int
    images: int  # answered
    images_per_s: float
    answered: int
    refused: int
    failed: int
    failures: dict[str, int]
    checked: int
    wrong: int
    unchecked: int
    examples: list[str]
    late: int  # not answered within the objective
    lag_p99_ms: float
    cpu_ms: float | None  # of the generator, a request; unknown of workers
    classes: list[Row]
    timeline: list[Moment]
    queue: list[tuple[float, int]]  # seconds, pixels
    steps: list[Step]
    capacity: int | None
    passed: bool

    @classmethod
    def of(
        cls,
        settings: Settings,
        begun: float,
        ended: float,
        record: Record,
        verdict: Verdict,
        queue: Sequence[tuple[float, int]],
        steps: Sequence[Step],
        capacity: int | None,
        cpu_s: float | None = None,
    ) -> Self:
        """Of what was recorded between the two moments (of time.time())."""
        samples = record.samples
        counts = {name: sum(s.outcome == name for s in samples) for name in OUTCOMES}
        images = sum(s.images for s in samples if s.outcome == ANSWERED)
        in_time = within(samples, settings.objective_s)
        if capacity is not None:  # the steps are meant to go too far
            in_time = capacity > 0
        elif not settings.objective_ms:
            in_time = counts[ANSWERED] > 0 and counts[FAILED] == 0
        lags = [s.lag for s in samples] or [0.0]
        return cls(
            settings=settings,
            begun=begun,
            seconds=round(ended - begun, 1),
            requests=len(samples),
            images=images,
            images_per_s=round(images / (ended - begun), 2),
            answered=counts[ANSWERED],
            refused=counts[REFUSED],
            failed=counts[FAILED],
            failures=dict(record.failures),
            checked=verdict.checked,
            wrong=verdict.wrong,
            unchecked=verdict.unchecked,
            examples=verdict.examples[:20],
            late=late(samples, settings.objective_s),
            lag_p99_ms=round(1e3 * float(np.percentile(lags, 99)), 2),
            cpu_ms=round(1e3 * cpu_s / len(samples), 2) if cpu_s is not None and samples else None,
            classes=[_row(name, samples) for name in CLASSES if _any(name, samples)],
            timeline=_timeline(samples, begun, ended),
            queue=[(round(at - begun, 1), pixels) for at, pixels in queue],
            steps=list(steps),
            capacity=capacity,
            passed=in_time and verdict.wrong == verdict.unchecked == 0,
        )

    def as_json(self) -> dict[str, object]:
        """Everything but the key."""
        told = asdict(self)
        del told["settings"]["key"]
        return json.loads(json.dumps(told))  # type: ignore[no-any-return]

    def text(self) -> str:
        """For a terminal."""
        lines = [
            f"{self.requests} requests in {self.seconds:g} s: {self.answered} answered, "
            f"{self.refused} refused, {self.failed} failed; {self.images_per_s:g} images/s",
            f"answers checked {self.checked}, wrong {self.wrong}, not checked {self.unchecked}",
            f"{'pixels sent':<14}{'requests':>9}{'p50':>9}{'p90':>9}{'p99':>9}{'max':>9} ms",
        ]
        for row in self.classes:
            for name, found in ((row.pixels, row.all), ("  first seen", row.first),
                                ("  warm", row.warm)):  # fmt: skip
                if found is not None:
                    times = (found.p50_ms, found.p90_ms, found.p99_ms, found.max_ms)
                    shown = "".join(f"{ms:9.1f}" for ms in times)
                    lines.append(f"{name:<14}{found.requests:>9}{shown}")
        lines += [f"failed: {count} × {why}" for why, count in self.failures.items()]
        lines += [f"WRONG {example}" for example in self.examples]
        if self.lag_p99_ms > 50:
            lines.append(f"the generator itself was late by {self.lag_p99_ms:g} ms (p99): give it "
                         "more cores, or workers")  # fmt: skip
        lines += [f"{s.rate} requests/s: {'held' if s.held else 'broke'}" for s in self.steps]
        if self.capacity is not None:
            lines.append(
                f"CAPACITY {self.capacity} requests/s, {self.capacity * self.settings.images} "
                f"images/s, 99 % within {self.settings.objective_ms:g} ms"
            )
        elif self.settings.objective_ms:
            lines.append(
                f"{self.late} not answered within {self.settings.objective_ms:g} ms "
                f"({SHARE:.0%} should be)"
            )
        return "\n".join([*lines, "passed" if self.passed else "FAILED"])


OUTCOMES = (ANSWERED, REFUSED, FAILED)


def _any(name: str, samples: Sequence[Sample]) -> bool:
    return any(sample.pixels == name for sample in samples)


def _row(name: str, samples: Sequence[Sample]) -> Row:
    mine = [sample for sample in samples if sample.pixels == name]
    return Row(
        name,
        Latencies.of(mine),
        Latencies.of(s for s in mine if s.first),
        Latencies.of(s for s in mine if not s.first),
        sum(s.outcome == REFUSED for s in mine),
        sum(s.outcome == FAILED for s in mine),
    )


def _timeline(samples: Sequence[Sample], begun: float, ended: float) -> list[Moment]:
    width = max(_BUCKET_S, (ended - begun) / _BUCKETS)
    buckets: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        buckets[max(0, int((sample.at - begun) / width))].append(sample)
    return [_moment(number * width, width, buckets[number]) for number in sorted(buckets)]


def _moment(at: float, width: float, samples: Sequence[Sample]) -> Moment:
    found = {"all": Latencies.of(samples)}
    found |= {name: Latencies.of(s for s in samples if s.pixels == name) for name in CLASSES}
    rates = [round(sum(s.outcome == name for s in samples) / width, 2) for name in OUTCOMES]
    return Moment(
        at_s=round(at, 2),
        answered_per_s=rates[0],
        refused_per_s=rates[1],
        failed_per_s=rates[2],
        p50_ms={name: each.p50_ms for name, each in found.items() if each is not None},
        p99_ms={name: each.p99_ms for name, each in found.items() if each is not None},
    )
