"""Short names for the sizes of maps, without which torch.export takes for ever over some networks.

Padding as TensorFlow does it ("SAME") makes a map's side a formula of the one before, and torch
nests them without seeing that forty of them come to ceil(height / 32). While `ShortSizes` is
active, the side of a map is written as floor((side of the image + a) / d) + b wherever that is
the same at every size. Imports torch only.
"""

import math
import operator
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_SHORT = 8  # operations of a formula that is short enough
_TRIED = 1024  # sides at which two formulas must agree; what they are made of repeats much sooner
IN_PYTHON: dict[str, Callable[..., Any]] = {  # what torch calls in formulas of sizes
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "IntTrueDiv": operator.truediv,
    "FloatTrueDiv": operator.truediv,
    "PythonMod": operator.mod,
    "Mod": operator.mod,
    "CeilToInt": math.ceil,
    "FloorToInt": math.floor,
    "TruncToInt": math.trunc,
    "ToFloat": float,
    "Max": max,
    "Min": min,
}
_FAR = (1 << 14, (1 << 14) + 1, (1 << 15) - 1)


@torch.library.custom_op("anypool::sized", mutates_args=())
def sized(x: Tensor, height: int, width: int) -> Tensor:
    """The map x (n, c, h, w) itself, of which height and width are said in another way."""
    if x.shape[2:] != (height, width):
        raise RuntimeError(f"a map of {tuple(x.shape[2:])} was taken for one of {height, width}")
    return x.clone()


@sized.register_fake
def _(x: Tensor, height: int, width: int) -> Tensor:
    return x.new_empty([*x.shape[:2], height, width])


class ShortSizes(TorchFunctionMode):
    """While active, maps from convolutions and poolings have sides with short formulas."""

    _MAPS = (F.conv2d, F.avg_pool2d, F.max_pool2d, torch.max_pool2d)

    def __init__(self) -> None:
        super().__init__()
        self._images: dict[Any, torch.SymInt] = {}  # the image's own sides, by symbol

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._images and isinstance(result, Tensor):
            sides: list[Any] = [side for side in result.shape if isinstance(side, torch.SymInt)]
            self._images = {s.node.expr: s for s in sides if s.node.expr.is_Symbol}
        if func not in self._MAPS or not isinstance(result, Tensor) or result.dim() != 4:
            return result
        height, width = (self._shortened(side) for side in result.shape[2:])
        if height is result.shape[2] and width is result.shape[3]:
            return result
        return sized(result, height, width)

    def _shortened(self, side: Any) -> Any:
        if not isinstance(side, torch.SymInt):
            return side
        formula = side.node.expr
        symbols = formula.free_symbols
        if formula.count_ops() <= _SHORT or len(symbols) != 1 or not symbols <= set(self._images):
            return side
        found = _steps(formula)
        if found is None:
            return side
        a, d, b = found
        return (self._images[symbols.pop()] + a) // d + b


@cache
def _steps(formula: Any) -> tuple[int, int, int] | None:
    """a, d, b such that floor((side + a) / d) + b is the formula at every side, or None."""
    (symbol,) = formula.free_symbols

    try:
        at = sympy.lambdify(symbol, formula, modules=[IN_PYTHON])
        values = [int(at(side)) for side in range(1, _TRIED + 1)]
        far = [int(at(side)) for side in _FAR]
    except Exception:  # a formula that cannot be reckoned with numbers stays as it is
        return None
    rises = [side for side, (v, w) in enumerate(pairwise(values), 1) if w > v]
    if len(rises) < 2:
        return None
    d = rises[-1] - rises[-2]
    a = -(rises[0] + 1) % d
    b = values[0] - (1 + a) // d
    sides = [*range(1, _TRIED + 1), *_FAR]
    agree = all(
        (side + a) // d + b == value for side, value in zip(sides, values + far, strict=True)
    )
    return (a, d, b) if agree else None
