"""Whether answers under load were those that each image gets alone.

Each picture is asked about alone after the run: before it, its shape would be warm; and from the
service itself, so that a remote one is checked like our own. Whether the artifact is right at all
is what `anypool verify` checks.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.load.record import Seen

TOLERANCE = 1e-4  # of a probability


@dataclass(slots=True)
class Verdict:
    """Answers that were wrong, in words, and how many were; and how many could not be checked."""

    checked: int = 0
    wrong: int = 0
    unchecked: int = 0
    examples: list[str] = field(default_factory=list)


def right(index: int, probability: float, alone: Mapping[int, float]) -> bool:
    """Whether the class is the most probable one, or ties with it, and has its probability."""
    expected = alone.get(index)
    return (
        expected is not None
        and abs(probability - expected) <= TOLERANCE
        and expected >= max(alone.values()) - TOLERANCE
    )


def check(answers: Counter[Seen], alone: Callable[[int], Mapping[int, float]]) -> Verdict:
    """Ask about each picture alone (probabilities by class; none if there was no answer)."""
    verdict = Verdict()
    by_picture: dict[int, list[tuple[int, float, int]]] = defaultdict(list)
    for (picture, index, probability), count in answers.items():
        by_picture[picture].append((index, probability, count))
    for picture, seen in sorted(by_picture.items()):
        expected = alone(picture)
        for index, probability, count in seen:
            if not expected:
                verdict.unchecked += count
            elif right(index, probability, expected):
                verdict.checked += count
            else:
                verdict.checked += count
                verdict.wrong += count
                best = max(expected, key=lambda each: expected[each])
                verdict.examples.append(
                    f"picture {picture}: class {index}, {probability:.6f}, {count} times; "
                    f"alone class {best}, {expected[best]:.6f}"
                )
    return verdict
