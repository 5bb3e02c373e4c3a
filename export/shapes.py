"""Short names for the sizes of maps, without which torch.export takes for ever over some networks.

Padding as TensorFlow does it ("SAME") makes a map's side a formula of the one before, and torch
nests them without seeing that forty of them come to ceil(height / 32). While `ShortSizes` is
active, the side of a map is written as floor((side of the image + a) / d) + b wherever that is
the same at every size. And what is reckoned by way of fractions is written in whole numbers.
Imports torch only.
"""

import math
import operator
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import sympy
import torch
from torch import Tensor, fx
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from export.errors import CaptureError

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


def in_whole_numbers(program: torch.export.ExportedProgram) -> None:
    """Write math.ceil(a / b) as -(-a // b) and math.floor(a / b) as a // b in a program's graph.

    A saved program has no other place for them, and no fraction can be too coarse for a size.
    Raises CaptureError for those of other fractions, such as math.ceil(a * 0.3).
    """
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target not in (math.ceil, math.floor):
            continue
        with graph.inserting_before(node):
            node.replace_all_uses_with(_whole(node))
        graph.erase_node(node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()


def _whole(node: fx.Node) -> fx.Node:
    (fraction,) = node.args
    parts = fraction.args if isinstance(fraction, fx.Node) else ()
    divided = isinstance(fraction, fx.Node) and fraction.target is operator.truediv
    if not divided or not all(isinstance(_value(part), int | torch.SymInt) for part in parts):
        raise CaptureError(
            f"forward reckons a size by math.{node.target.__name__} of a fraction that is not one "  # type: ignore[union-attr]
            "whole number divided by another: write it in whole numbers, such as -(-n // 2) for "
            "n / 2 rounded up"
        )
    a, b = parts
    if node.target is math.floor:
        return _called(node, operator.floordiv, a, b)
    return _called(
        node,
        operator.neg,
        _called(node, operator.floordiv, _called(node, operator.neg, a), b),
    )


def _called(node: fx.Node, function: Callable[..., Any], *args: Any) -> fx.Node:
    called = node.graph.call_function(function, args)
    called.meta = {**node.meta, "val": function(*map(_value, args))}
    return called


def _value(argument: Any) -> Any:
    return argument.meta["val"] if isinstance(argument, fx.Node) else argument
