"""Which sizes a network takes, and at which of them it is tried. Imports torch only."""

from collections.abc import Callable, Sequence, Set
from itertools import count, product
from math import prod
from operator import ge

import numpy as np
import torch
from numpy.typing import NDArray

from export.decisions import Decision, Size
from export.diagnosis import brief, explain
from export.errors import CaptureError
from export.served import Served
from models.card import SizeLimits

EXAMPLE = (2, 61, 83)  # batch, height, width: odd, not square, not divisible, so that nothing hides
# Where probing starts: the first that works. Networks of one size only take one of the latter.
_SIDES = (64, 128, 256, 512, 224, 32, 28, 299, 96, 48, 112, 160, 192, 227, 240, 288, 320, 331, 384,
          448, 336, 252)  # fmt: skip
_LARGEST_MULTIPLE = 128
_MULTIPLES = (1, 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31)  # networks repeat after 32 at most
_ROOMY = 512  # a side that a network of any size takes
_FARTHEST = 8192  # how large a side may be for a decision to be worth a try


def probe_limits(works: Callable[[int, int], bool]) -> SizeLimits:
    """The smallest sides for which `works(height, width)`, and what they must be divisible by.

    Raises CaptureError when no usual size works, or only small ones do.
    """
    side = next((side for side in _SIDES if works(side, side)), None)
    if side is None:
        raise CaptureError(f"the network fails at every size tried: {_SIDES}")
    multiple = next(
        (m for m in range(1, _LARGEST_MULTIPLE + 1) if side % m == 0 and _steps(works, side, m)),
        None,
    )
    larger = next((s for s in _roomy(side, multiple or side) if not works(s, s)), None)
    if larger is not None:
        raise FixedSizeError(side, larger)
    if multiple is None:
        raise CaptureError(
            f"the network takes {side}×{side} and larger squares, but no other shape: "
            "forward must not take one side for both, or the number of places for a square"
        )
    height = _first(lambda h: works(h, side), side, multiple)
    width = _first(lambda w: works(side, w), side, multiple)
    while not works(height, width):  # each side alone may be smaller than both together
        height, width = height + multiple, width + multiple
    return SizeLimits(min_height=height, min_width=width, multiple=multiple)


def _steps(works: Callable[[int, int], bool], side: int, multiple: int) -> bool:
    """Whether each side can grow by `multiple`, alone and with the other, and by more of them."""
    larger = side + multiple
    if not (works(larger, larger) and works(larger, side) and works(side, larger)):
        return False
    further = [k * multiple for k in _MULTIPLES if k * multiple <= _SIDES[0]]
    return all(works(side + step, side + step) for step in further)


def _first(works: Callable[[int], bool], side: int, multiple: int) -> int:
    """The smallest length that works, as do those from there to `side`, as far as tried."""
    for length in count(multiple, multiple):
        further = (length + k * multiple for k in (0, *_MULTIPLES))
        if length >= side or all(works(between) for between in further if between < side):
            return length
    raise AssertionError("count ends only with its caller")


def _roomy(side: int, multiple: int) -> list[int]:
    return [round_up(2 * side, multiple), round_up(_ROOMY, multiple)]


class FixedSizeError(CaptureError):
    """The network takes a square of `side` and not one of `larger`."""

    def __init__(self, side: int, larger: int) -> None:
        super().__init__(f"the network takes {side}×{side} but not {larger}×{larger}")
        self.side, self.larger = side, larger


def find_limits(served: Served, channels: int) -> SizeLimits:
    """Run the network at small sizes until its smallest is known; raises CaptureError."""
    problems: list[str] = []

    def works(height: int, width: int) -> bool:
        pixels = torch.from_numpy(content(0, 1, height, width, channels))
        try:
            with torch.no_grad():
                logits = served(pixels)[0]
        except CaptureError:
            raise  # not about the size
        except Exception as exc:  # "kernel size can't be greater than actual input size", …
            problems.append(brief(exc))
            return False
        if len(logits) != 1:  # view(-1, 512) takes the places of a larger map for images
            problems.append(f"{len(logits)} answers for one image")
            return False
        return bool(torch.isfinite(logits).all())  # the mean of an empty map is NaN, no error

    try:
        return probe_limits(works)
    except FixedSizeError as exc:
        pixels = [
            torch.from_numpy(content(0, 1, side, side, channels)) for side in (exc.side, exc.larger)
        ]
        raise CaptureError(f"{exc}. {explain(served, *pixels)}") from exc
    except CaptureError as exc:
        said = f". It says: {problems[-1]}" if problems else ""
        raise CaptureError(f"{exc}{said}") from exc


def grid(limits: SizeLimits, decisions: Sequence[Decision] = ()) -> list[Size]:
    """The sizes (batch, height, width) at which ONNX Runtime must equal torch.

    Smallest, next to smallest, odd, prime, square, portrait, landscape, 1:16, beyond 1024, and
    larger than the example on both sides; and where none of these decides something otherwise than
    the example does, one that does.
    """
    h, w = limits.smallest()
    m = limits.multiple
    wanted = [
        (1, h, w), (3, h, w), (2, h, w + 1), (2, h + 1, w), (1, h + 1, w + 2),
        (2, 37, 53), (1, 53, 37), (3, 61, 61), (1, 64, 64), (1, 97, 131), (1, 131, 97),
        (2, 3 * h + 95, 3 * w + 129),
        (2, 128, 128), (1, 127, 255), (1, 224, 224), (1, 333, 190), (1, 190, 333),
        (1, h, 16 * w), (1, 16 * h, w), (1, 33, 1031), (1, 1031, 33),
    ]  # fmt: skip
    sizes = [(n, round_up(max(y, h), m), round_up(max(x, w), m)) for n, y, x in wanted]
    sizes = list(dict.fromkeys(sizes))
    for decision in decisions:
        size = otherwise(decision, sizes, limits)
        if size is not None and size not in sizes:
            sizes.append(size)
    return sizes


def otherwise(decision: Decision, sizes: Sequence[Size], limits: SizeLimits) -> Size | None:
    """A size at which forward decides otherwise, one of `sizes` if possible; None if there is none.

    One that torch.export can follow, if there is one: it takes batches and sides of 1 for fixed.
    """
    candidates = [*sizes, *_others(limits, decision.numbers())]
    roomy = example_size(limits)
    usable = [size for size in candidates if decision.otherwise(*size)]
    followed = (size for size in usable if all(map(ge, size, roomy)))
    return next(followed, usable[0] if usable else None)


def _others(limits: SizeLimits, numbers: Set[int]) -> list[Size]:
    """Sizes near and far and about the numbers of a condition, the smallest images first."""
    m = limits.multiple
    about = {n - n % m + step * m for n in numbers if n <= _FARTHEST for step in (-1, 0, 1)}
    heights, widths = (
        sorted({*_ladder(side, m), *(n for n in about if n >= side)}) for side in limits.smallest()
    )
    sizes = [(n, y, x) for n in (1, 2, 3) for y, x in product(heights, widths)]
    return sorted(sizes, key=prod)


def _ladder(smallest: int, multiple: int) -> list[int]:
    """Legal sides: each of the first few, then each half as large again as the one before."""
    sides = [smallest + step * multiple for step in range(8)]
    while sides[-1] < _FARTHEST:
        side = round_up(sides[-1] * 3 // 2, multiple)
        sides += [side, side + multiple]
    return sides


def content(seed: int, n: int, h: int, w: int, c: int) -> NDArray[np.uint8]:
    """Random pixels (n, h, w, c) with structure: flat blocks under noise.

    Noise alone averages to the same grey in every window, and would hide windows that are off.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.arange(h) * 7 // max(h, 7), np.arange(w) * 7 // max(w, 7)
    blocks = rng.integers(16, 240, (n, 7, 7, c))[:, rows][:, :, columns]  # (n, h, w, c)
    return (blocks + rng.integers(-16, 16, (n, h, w, c))).astype(np.uint8)


def example_size(limits: SizeLimits) -> tuple[int, int, int]:
    """EXAMPLE, or what comes next that is legal, larger than the smallest size and not square.

    Thrice the smallest: torch.export takes a map's side for fixed when the example makes it 1.
    """
    (h, w), m = limits.smallest(), limits.multiple
    height = round_up(max(EXAMPLE[1], 3 * h + m), m)
    width = round_up(max(EXAMPLE[2], 3 * w + 2 * m), m)
    return EXAMPLE[0], height, width + m if width == height else width


def round_up(number: int, multiple: int) -> int:
    """The next multiple, or the number itself."""
    return number + -number % multiple
