"""What a run has seen; small enough to be sent from workers to the master."""

from collections import Counter
from typing import Any, NamedTuple

from tests.load.forms import Answer

# Of images as sent; the same bounds as the label `pixels` of the metrics.
CLASSES = {"≤ 128²": 128**2, "≤ 512²": 512**2, "≤ 1024²": 1024**2, "larger": 10**12}
ANSWERED, REFUSED, FAILED = "answered", "refused", "failed"
_ROUNDED = 6  # digits of a probability that are kept


def size_class(pixels: int) -> str:
    """The class that an image belongs to; a request belongs to that of its largest."""
    return next(name for name, most in CLASSES.items() if pixels <= most)


class Sample(NamedTuple):
    """One request.

    at: when it was due, in seconds since 1970
    seconds: from then to the end of the answer
    lag: by how much the generator itself was late
    first: whether it had an image of a shape that this run had not had answered before
    """

    at: float
    seconds: float
    lag: float
    pixels: str
    first: bool
    outcome: str
    images: int


Seen = tuple[int, int, float]  # picture, class, probability


class Record:
    """Samples, why some failed, and each picture's answers with how often they came."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.failures: Counter[str] = Counter()
        self.answers: Counter[Seen] = Counter()
        self._shapes: set[tuple[int, int]] = set()

    def first(self, shape: tuple[int, int]) -> bool:
        """Whether that was not asked before."""
        known = shape in self._shapes
        self._shapes.add(shape)
        return not known

    def answer(self, picture: int, answer: Answer) -> None:
        """Keep the most probable class for the check afterwards."""
        index, probability = max(answer.probabilities.items(), key=lambda pair: pair[1])
        self.answers[picture, index, round(probability, _ROUNDED)] += 1

    def take(self) -> dict[str, Any]:
        """What is new since the last time, as plain lists."""
        told = {
            "samples": [list(sample) for sample in self.samples],
            "failures": list(self.failures.items()),
            "answers": [[*seen, count] for seen, count in self.answers.items()],
        }
        self.samples, self.failures, self.answers = [], Counter(), Counter()
        return told

    def add(self, told: dict[str, Any]) -> None:
        """What another one took."""
        self.samples += [Sample(*row) for row in told["samples"]]
        self.failures.update(dict(told["failures"]))
        for picture, index, probability, count in told["answers"]:
            self.answers[picture, index, probability] += count
