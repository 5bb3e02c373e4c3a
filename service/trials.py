"""Ways to serve an artifact, tried one against the other. What is measured comes in as a function.

One knob after the other, each with the best of those before it. The ways take turns, and the median
of the rounds counts: a machine is never quiet for long.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from models.card import Card
from service.engine import Batching
from service.sessions import Search

_WORTH = 1.03  # times as fast as the default, or it stays: less is noise
_STEP = 32  # sides of canvases
_MOST_ROWS = 64
# Width over height of photos, in both directions.
_ASPECTS = ((4, 3), (3, 4), (3, 2), (2, 3), (1, 1), (16, 9))
_NATIVE = ((48, 64), (64, 48), (96, 96), (120, 160), (240, 320), (320, 240), (480, 640))

Size = tuple[int, int]  # (height, width)
Table = tuple[tuple[int, int, int], ...]  # (rows, height, width) of each canvas


@dataclass(frozen=True, slots=True)
class Way:
    """A way to serve, by the names that settings have."""

    cores: int
    batching: Batching = "auto"
    batch_megapixels: float = 2.1
    search: Search = "HEURISTIC"
    canvases: Table = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One way, and images a second: the median, the slowest and the fastest round."""

    knob: str
    value: str
    median: float
    slowest: float
    fastest: float
    chosen: bool


Knob = tuple[str, Sequence[Any]]  # a field of Way, and its values, the default first


def knobs(card: Card, on_gpu: bool, cores: int, sizes: Sequence[Size]) -> list[Knob]:
    """What to try here."""
    mixes = card.mixed.supported
    batching = ("batching", ["auto", "equal", "mixed"] if mixes else ["equal"])
    if not on_gpu:
        fewer = sorted({max(1, cores // 2), max(1, cores - 1)} - {cores})
        budgets = ("batch_megapixels", [2.1, 0.5, 1.0, 4.2])
        return [("cores", [cores, *fewer]), batching, budgets]
    tables = [(), *(table(sizes, n, 2_100_000) for n in (1, 2, 4))] if mixes else [()]
    return [
        ("search", ["HEURISTIC", "EXHAUSTIVE", "DEFAULT"]),
        ("canvases", list(dict.fromkeys(tables))),
        batching,
        ("batch_megapixels", [2.1, 1.0, 4.2, 8.4]),
    ]


def compare(
    start: Way, tried: Sequence[Knob], measure: Callable[[Way], float], rounds: int
) -> Iterator[tuple[Way, list[Row]]]:
    """For each knob the best way so far, and what was measured."""
    best = start
    for knob, values in tried:
        ways = [replace(best, **{knob: value}) for value in values]
        turns = [[measure(way) for way in ways] for _ in range(rounds)]
        speeds = list(zip(*turns, strict=True))  # of each way, every round
        medians = [median(speed) for speed in speeds]
        first = medians.index(max(medians))
        if medians[first] < _WORTH * medians[0]:
            first = 0
        best = ways[first]
        yield (
            best,
            [
                Row(knob, _told(value), median(speed), min(speed), max(speed), index == first)
                for index, (value, speed) in enumerate(zip(values, speeds, strict=True))
            ],
        )


def table(sizes: Sequence[Size], canvases: int, pixels: int) -> Table:
    """That many canvases, or fewer, for images of those sizes, of about so many pixels each."""
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    share = -(-len(ordered) // canvases)
    made = []
    for first in range(0, len(ordered), share):
        group = ordered[first : first + share]
        height, width = (-(-max(side) // _STEP) * _STEP for side in zip(*group, strict=True))
        rows = max(1, min(_MOST_ROWS, pixels // (height * width)))
        made.append((rows, height, width))
    return tuple(dict.fromkeys(made))


def usual_sizes(card: Card) -> list[Size]:
    """Sizes that the card's resize policy makes of photos, as the network takes them."""
    p = card.preprocessing
    if p.crop is not None:
        return [(p.crop, p.crop)]
    if p.size is None:
        found = list(_NATIVE)
    else:
        of = min if p.policy == "short" else max
        found = [(p.size * h // of(w, h), p.size * w // of(w, h)) for w, h in _ASPECTS]
    (least_h, least_w), step = card.limits.smallest(), card.limits.multiple
    return [(max(least_h, h // step * step), max(least_w, w // step * step)) for h, w in found]


def _told(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join("×".join(map(str, canvas)) for canvas in value) or "none"
    return str(value)
