"""What torch, the service and the stock exporter make of the same digits, as a Markdown table."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.classifier import PoolingClassifier
from tests.digits.answers import Answers, torch_logits
from tests.digits.cnn import normalised
from tests.digits.data import Digits
from tests.digits.stock import Stock
from tests.export.lowering import relative_error

_EXACT = 2e-5  # of the largest logit, as our own artifacts have to be


@dataclass(slots=True)
class Comparison:
    """One pooling's answers to each of several sets of digits.

    by_stock: for each set the accuracy of the stock exporter's graph, in percent; "fails", or
    "refused" where there is none; "wrong: " before an accuracy whose logits are not torch's
    refused: what the stock exporter raised instead of writing a graph
    """

    pool: str
    sets: Sequence[Digits]
    by_torch: list[Answers]
    by_stock: list[str]
    refused: str | None
    by_service: list[Answers] = field(default_factory=list)

    @classmethod
    def of(cls, pool: str, network: PoolingClassifier, sets: Sequence[Digits]) -> "Comparison":
        """All but the service's part."""
        logits = [torch_logits(network, digits) for digits in sets]
        stock = Stock(network)
        outcomes = [_outcome(stock, *each) for each in zip(sets, logits, strict=True)]
        return cls(pool, sets, [Answers.of(each) for each in logits], outcomes, stock.refused)

    @property
    def served_as_trained(self) -> bool:
        """At every size the service is right as often as torch is, give or take one image."""
        both = zip(self.sets, self.by_torch, self.by_service, strict=True)
        return all(abs(want.right(set_) - got.right(set_)) <= 1 for set_, want, got in both)

    @property
    def other_classes(self) -> int:
        """Images that the service takes for something else than torch does."""
        both = zip(self.by_torch, self.by_service, strict=True)
        return sum(int((want.classes != got.classes).sum()) for want, got in both)

    @property
    def difference(self) -> float:
        """The largest between a probability of the service and torch's of the same image."""
        both = zip(self.by_torch, self.by_service, strict=True)
        return max(float((a.probabilities - b.probabilities).abs().max()) for a, b in both)

    @property
    def rows(self) -> list[str]:
        """Torch, service and stock exporter, a row each."""
        cells = {
            "torch": [_percent(a, d) for a, d in zip(self.by_torch, self.sets, strict=True)],
            "service": [_percent(a, d) for a, d in zip(self.by_service, self.sets, strict=True)],
            "stock exporter": self.by_stock,
        }
        return [f"| {self.pool} | {who} | {' | '.join(each)} |" for who, each in cells.items()]


def markdown(comparisons: Sequence[Comparison]) -> str:
    """The table: a column for each size, three rows for each pooling."""
    sizes = ("{}×{}".format(*digits.images.shape[1:]) for digits in comparisons[0].sets)
    header = ["pooling", "correct, %", *sizes]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    lines += [row for comparison in comparisons for row in comparison.rows]
    return "\n".join(lines) + "\n"


def _outcome(stock: Stock, digits: Digits, want: Tensor) -> str:
    if stock.refused is not None:
        return "refused"
    got = stock.logits(normalised(digits.images))
    if got is None:
        return "fails"
    accuracy = _percent(Answers.of(torch.from_numpy(got)), digits)
    return accuracy if relative_error(got, want.numpy()) <= _EXACT else f"wrong: {accuracy}"


def _percent(answers: Answers, digits: Digits) -> str:
    return f"{100 * answers.right(digits) / len(digits):.1f}"
