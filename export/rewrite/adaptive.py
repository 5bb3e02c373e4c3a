"""Turn marker nodes of adaptive pooling into stock ONNX operators, exact at any size.

Over a side of n pixels, cell i of o covers the pixels y with floor(i·n/o) ≤ y < ceil((i+1)·n/o).
In whole numbers, without division: (y+1)·o > i·n and y·o < (i+1)·n.

The average multiplies with the row-normalised 0/1 matrix of those windows, height and width apart:
A_h @ (x @ A_wᵀ). The maximum gathers each window (short ones repeat their last pixel) and reduces.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from export.lower import MARKERS
from export.rewrite.builder import Builder

_HEIGHT, _WIDTH = 2, 3


def expand_adaptive_pools(model: ir.Model) -> None:
    """Replace every `anypool::AdaptivePool` node; leaves only operators of the ONNX standard."""
    for node in tuple(model.graph):
        if node.domain != MARKERS:
            continue
        build = Builder(before=node)
        x, sizes = node.inputs[0], node.attributes["output_size"].as_ints()
        assert x is not None
        y = _KINDS[node.attributes["kind"].as_string()](build, x, sizes[0], sizes[1])
        build.replace(node, build("Identity", x) if y is x else y)  # (None, None) keeps both sides
    model.opset_imports.pop(MARKERS, None)


def _average(build: Builder, x: ir.Value, oh: int, ow: int) -> ir.Value:
    if (oh, ow) == (1, 1):
        return build("GlobalAveragePool", x)  # (n, c, 1, 1)
    dtype = x.dtype or ir.DataType.FLOAT
    if ow == 1:
        x = build("ReduceMean", x, build.ints([_WIDTH]), keepdims=1)  # (n, c, h, 1)
    elif ow:
        weights = _window_matrix(build, x, _WIDTH, ow, dtype)  # (ow, w)
        x = build("MatMul", x, build("Transpose", weights, perm=[1, 0]))  # (n, c, h, ow)
    if oh == 1:
        x = build("ReduceMean", x, build.ints([_HEIGHT]), keepdims=1)  # (n, c, 1, ow)
    elif oh:
        x = build("MatMul", _window_matrix(build, x, _HEIGHT, oh, dtype), x)  # (n, c, oh, ow)
    return x


def _maximum(build: Builder, x: ir.Value, oh: int, ow: int) -> ir.Value:
    if (oh, ow) == (1, 1):
        return build("GlobalMaxPool", x)  # (n, c, 1, 1)
    for axis, out in ((_HEIGHT, oh), (_WIDTH, ow)):  # height first: its Gather copies whole rows
        if out == 1:
            x = build("ReduceMax", x, build.ints([axis]), keepdims=1)
        elif out:
            windows = build("Gather", x, _window_indices(build, x, axis, out), axis=axis)
            x = build("ReduceMax", windows, build.ints([axis + 1]), keepdims=0)
    return x  # (n, c, oh, ow)


_KINDS: dict[str, Callable[[Builder, ir.Value, int, int], ir.Value]] = {
    "average": _average,
    "max": _maximum,
}


def _side(build: Builder, x: ir.Value, axis: int) -> ir.Value:
    """The length of an axis, as a scalar."""
    return build("Squeeze", build("Shape", x, start=axis, end=axis + 1))


def _cells(build: Builder, out: int) -> ir.Value:
    return build.constant(np.arange(out, dtype=np.int64)[:, None])  # (o, 1)


def windows(build: Builder, positions: ir.Value, n: ir.Value, out: int) -> ir.Value:
    """bool (…, o, side): whether a position (side,) lies in window i of a side of n pixels.

    n is a scalar, or (images, 1, 1, 1) when every image of the batch has its own.
    """
    o = build.scalar(out)
    y_o = build("Mul", positions, o)  # (side,)
    i_n = build("Mul", _cells(build, out), n)  # (…, o, 1)
    started = build("Greater", build("Add", y_o, o), i_n)  # (…, o, side)
    not_over = build("Less", y_o, build("Add", i_n, n))  # (…, o, side)
    return build("And", started, not_over)


def averaging(
    build: Builder, positions: ir.Value, n: ir.Value, out: int, dtype: ir.DataType
) -> ir.Value:
    """Averaging weights (…, o, side): row i is 1/length inside window i and 0 elsewhere."""
    inside = build("Cast", windows(build, positions, n, out), to=dtype)  # (…, o, side)
    return build("Div", inside, build("ReduceSum", inside, build.ints([-1]), keepdims=1))


def _window_matrix(
    build: Builder, x: ir.Value, axis: int, out: int, dtype: ir.DataType
) -> ir.Value:
    return averaging(build, build.positions(x, axis), _side(build, x, axis), out, dtype)


def _window_indices(build: Builder, x: ir.Value, axis: int, out: int) -> ir.Value:
    """Pixel numbers (o, longest): row i lists window i, its last pixel repeated to fill."""
    n, o = _side(build, x, axis), build.scalar(out)
    i_n = build("Mul", _cells(build, out), n)  # (o, 1)
    start = build("Div", i_n, o)  # (o, 1); whole numbers, none negative: rounds down
    end = build("Div", build("Add", build("Add", i_n, n), build.scalar(out - 1)), o)  # (o, 1)
    longest = build("ReduceMax", build("Sub", end, start), keepdims=0)  # scalar
    offsets = build("Range", build.scalar(0), longest, build.scalar(1))  # (longest,)
    return build("Min", build("Add", start, offsets), build("Sub", end, build.scalar(1)))
