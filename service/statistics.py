"""What was asked of each model and how long it took, as Triton's clients count it."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from service.outcome import Outcome
from service.workers import Folder

Key = tuple[str, int]  # a model's name and version
_NAME = "statistics"


@dataclass(slots=True)
class Duration:
    """How often, and how long altogether."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        self.seconds += seconds

    def merge(self, other: "Duration") -> None:
        """Count what another has counted."""
        self.count += other.count
        self.seconds += other.seconds


@dataclass(slots=True)
class Record:
    """Of one model version. Durations are of requests, each of its slowest image.

    images: answered; runs: images by how many shared their run, so that runs[n] / n are runs of n
    """

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    decode: Duration = field(default_factory=Duration)
    infer: Duration = field(default_factory=Duration)
    answer: Duration = field(default_factory=Duration)
    images: int = 0
    runs: dict[int, Duration] = field(default_factory=lambda: defaultdict(Duration))
    last: float = 0.0  # when an inference ended, seconds since 1970

    @property
    def executions(self) -> int:
        """Runs of the network."""
        return round(sum(images.count / n for n, images in self.runs.items()))

    def merge(self, other: "Record") -> None:
        """Count what another has counted."""
        for name in ("success", "fail", "queue", "decode", "infer", "answer"):
            getattr(self, name).merge(getattr(other, name))
        self.images += other.images
        for n, duration in other.runs.items():
            self.runs[n].merge(duration)
        self.last = max(self.last, other.last)


_RECORDS = TypeAdapter(list[tuple[Key, Record]])


class Statistics:
    """A record of each model version, since the service began."""

    def __init__(self, folder: Folder | None = None) -> None:
        """folder: of several workers, whose records are shown as one, with those of the dead."""
        self._records: dict[Key, Record] = defaultdict(Record)
        self._folder = folder

    def of(self, name: str, version: int) -> Record:
        """The record of a model version; all zeros if nothing was asked of it.

        What other workers counted is there as of their last `publish`.
        """
        found: dict[Key, Record] = defaultdict(Record)
        found[name, version].merge(self._records[name, version])
        for text in [] if self._folder is None else self._folder.published(_NAME):
            for key, record in _RECORDS.validate_json(text):
                found[key].merge(record)
        return found[name, version]

    def publish(self) -> None:
        """Show the other workers what this one has counted."""
        if self._folder is not None:
            self._folder.publish(_NAME, _RECORDS.dump_json(list(self._records.items())).decode())

    def answered(self, model: Key, outcomes: Sequence[Outcome], seconds: float) -> None:
        """Note a request of that length and what became of its images."""
        record = self._records[model]
        done = [outcome for outcome in outcomes if outcome.error is None]
        if len(done) < len(outcomes):
            record.fail.add(seconds)
        else:
            record.success.add(seconds)
        if not done:
            return
        decoding = max(outcome.decoding for outcome in done)
        queued = max(outcome.queued for outcome in done)
        inferring = max(outcome.inferring for outcome in done)
        record.decode.add(decoding)
        record.queue.add(queued)
        record.infer.add(inferring)
        record.answer.add(max(0.0, seconds - decoding - queued - inferring))
        record.images += len(done)
        for outcome in done:
            record.runs[outcome.batch].add(outcome.inferring)
        record.last = time.time()

    def refused(self, model: Key, seconds: float) -> None:
        """Note a request that was refused whole."""
        self._records[model].fail.add(seconds)
