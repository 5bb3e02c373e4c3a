"""How far a network's own answers can be trusted: no further than float32 is from float64.

Nothing that computes in float32 can be nearer to torch than torch is to itself. Imports torch only.
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.served import OUTPUTS, Served
from export.sizes import content
from models.card import SizeLimits

_USUAL = (1500, 13_000)  # pixels of the batches on which rounding is measured
_UNSETTLED = 1.5e-5  # a fourth of the most that ONNX Runtime may differ by: see pipeline
_LARGEST = 32  # the longest side that is doubted
_IMAGES, _PIXELS = 64, 4096  # of each size: rounding is enlarged in some images, not in all


def rounding(served: Served, batches: Iterable[NDArray[np.uint8]]) -> float:
    """How far torch's answers in float32 are from those in float64; 0 where that cannot be told.

    Of the largest number of each output, on the batches (n, h, w, c) of usual size.
    """
    usual = [p for p in batches if _USUAL[0] <= p[..., 0].size <= _USUAL[1]]
    return _apart(served, usual) or 0.0


def settled(served: Served, channels: int, limits: SizeLimits) -> SizeLimits:
    """`limits`, raised to where torch's own answers in float32 can be trusted.

    On a map of a pixel or two group normalisation divides what is left of two almost equal numbers
    by itself: a resnet50_gn is 15 % away from float64 there, and 1e-6 from 8 pixels on.
    """
    h, w = limits.smallest()
    times = [k for k in (1, 2, 4, 8, 16, 32) if k * max(h, w) <= _LARGEST]
    doubtful = [k for k in times if _unsettled(served, k * h, k * w, channels)]
    first = next((k for k in times if k > max(doubtful)), None) if doubtful else 1
    if first is None:  # nor does it settle further on: that is the network, not its size
        return limits
    return limits.model_copy(update={"min_height": first * h, "min_width": first * w})


def _unsettled(served: Served, height: int, width: int, channels: int) -> bool:
    n = max(1, min(_IMAGES, _PIXELS // (height * width)))
    apart = _apart(served, [content(0, n, height, width, channels)])
    return apart is not None and apart > _UNSETTLED


def _apart(served: Served, batches: Sequence[NDArray[np.uint8]]) -> float | None:
    """The largest distance of any output of any batch; None where it cannot be told."""
    try:
        wide = deepcopy(served).double()
        with torch.no_grad():
            found = [
                _distance(narrow.numpy(), exact.numpy())
                for batch in map(torch.from_numpy, batches)
                for name, narrow, exact in zip(OUTPUTS, served(batch), wide(batch), strict=False)
                if name != "probabilities"  # exp turns what is absolute there into relative
            ]
    except Exception:  # a forward with float32 written into it takes nothing else
        return None
    worst = max(found, default=0.0)
    return worst if np.isfinite(worst) else None


def _distance(got: NDArray[Any], want: NDArray[Any]) -> float:
    """Of the image that is farthest off, relative to its largest number."""
    axes = tuple(range(1, want.ndim))
    largest = np.abs(want).max(axes).clip(min=1e-30)  # (n,)
    return float((np.abs(got - want).max(axes) / largest).max())
