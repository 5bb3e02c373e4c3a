"""Turn marker nodes of poolings over cells into stock ONNX operators, exact at any size.

models/pool/regions.py says which places y of a side lie in cell i of o, in whole numbers; here the
same is computed in the graph, from the map's own size.

The average multiplies with the row-normalised 0/1 matrix of those cells, height and width apart:
A_h @ (x @ A_wᵀ). The maximum gathers each cell (short ones repeat their last place) and reduces.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.lower import MARKERS
from export.rewrite.builder import Builder

_HEIGHT, _WIDTH = 2, 3


@dataclass(frozen=True, slots=True)
class Grid:
    """How many cells a side has (0: as many as places), and how wide they are (0: adaptive)."""

    cells: int
    kernel: int

    def spans(self, build: Builder, n: ir.Value) -> tuple[ir.Value, ir.Value]:
        """First place of each cell over n places and the one after its last, int64 (…, o, 1).

        n is a scalar, or (images, 1, 1, 1) when every image of the batch has its own.
        """
        i = np.arange(self.cells, dtype=np.int64)[:, None]  # (o, 1)
        if self.kernel:
            gaps = build.scalar(2 * (self.cells - 1))
            free = build("Sub", n, build.scalar(self.kernel))
            reached = build("Div", build("Mul", build.constant(2 * i + 1), free), gaps)
            start = build("Sub", reached, build("Div", free, gaps))
            return start, build("Add", start, build.scalar(self.kernel))
        o = build.scalar(self.cells)
        i_n = build("Mul", build.constant(i), n)  # whole numbers, none negative: Div rounds down
        end = build("Add", build("Add", i_n, n), build.scalar(self.cells - 1))
        return build("Div", i_n, o), build("Div", end, o)

    def inside(self, build: Builder, positions: ir.Value, n: ir.Value) -> ir.Value:
        """bool (…, o, side): whether a position (side,) lies in cell i over n places."""
        start, end = self.spans(build, n)
        not_before = build("GreaterOrEqual", positions, start)
        return build("And", not_before, build("Less", positions, end))

    def averaging(
        self, build: Builder, positions: ir.Value, n: ir.Value, dtype: ir.DataType
    ) -> ir.Value:
        """Averaging weights (…, o, side): row i is 1/length inside cell i and 0 elsewhere."""
        inside = build("Cast", self.inside(build, positions, n), to=dtype)  # (…, o, side)
        return build("Div", inside, build("ReduceSum", inside, build.ints([-1]), keepdims=1))


def grids(node: ir.Node) -> tuple[Grid, Grid]:
    """What a marker node lays over height and width."""
    sizes, kernels = (node.attributes[name].as_ints() for name in ("output_size", "kernel"))
    return Grid(sizes[0], kernels[0]), Grid(sizes[1], kernels[1])


def expand_cells(model: ir.Model) -> None:
    """Replace every marker node; leaves only operators of the ONNX standard."""
    for node in tuple(model.graph):
        if node.domain != MARKERS:
            continue
        build = Builder(before=node)
        x = node.inputs[0]
        assert x is not None
        y = _MARKERS[node.op_type](build, node, x)
        build.replace(node, build("Identity", x) if y is x else y)  # (None, None) keeps both sides
    model.opset_imports.pop(MARKERS, None)


def _pool(build: Builder, node: ir.Node, x: ir.Value) -> ir.Value:
    return _KINDS[node.attributes["kind"].as_string()](build, x, *grids(node))


def _average(build: Builder, x: ir.Value, rows: Grid, columns: Grid) -> ir.Value:
    if (rows.cells, columns.cells) == (1, 1):
        return build("GlobalAveragePool", x)  # (n, c, 1, 1)
    dtype = x.dtype or ir.DataType.FLOAT
    if columns.cells == 1:
        x = build("ReduceMean", x, build.ints([_WIDTH]), keepdims=1)  # (n, c, h, 1)
    elif columns.cells:
        weights = _matrix(build, x, _WIDTH, columns, dtype)  # (ow, w)
        x = build("MatMul", x, build("Transpose", weights, perm=[1, 0]))  # (n, c, h, ow)
    if rows.cells == 1:
        x = build("ReduceMean", x, build.ints([_HEIGHT]), keepdims=1)  # (n, c, 1, ow)
    elif rows.cells:
        x = build("MatMul", _matrix(build, x, _HEIGHT, rows, dtype), x)  # (n, c, oh, ow)
    return x


def _maximum(build: Builder, x: ir.Value, rows: Grid, columns: Grid) -> ir.Value:
    if (rows.cells, columns.cells) == (1, 1):
        return build("GlobalMaxPool", x)  # (n, c, 1, 1)
    # Height first: its Gather copies whole rows.
    for axis, grid in ((_HEIGHT, rows), (_WIDTH, columns)):
        if grid.cells == 1:
            x = build("ReduceMax", x, build.ints([axis]), keepdims=1)
        elif grid.cells:
            gathered = build("Gather", x, _indices(build, x, axis, grid), axis=axis)
            x = build("ReduceMax", gathered, build.ints([axis + 1]), keepdims=0)
    return x  # (n, c, oh, ow)


_KINDS: dict[str, Callable[[Builder, ir.Value, Grid, Grid], ir.Value]] = {
    "average": _average,
    "max": _maximum,
}


def _cells(build: Builder, node: ir.Node, x: ir.Value) -> ir.Value:
    layout = rows, columns = grids(node)
    y = rows.inside(build, build.positions(x, _HEIGHT), _side(build, x, _HEIGHT))  # (oh, h)
    z = columns.inside(build, build.positions(x, _WIDTH), _side(build, x, _WIDTH))  # (ow, w)
    whole = cross(build, layout, y, z, x.dtype or ir.DataType.FLOAT)  # (oh·ow, h, w)
    images = build("Shape", x, start=0, end=1)
    return build("Expand", whole, build("Concat", images, build.ints([1, 1, 1]), axis=0))


def cross(
    build: Builder, layout: tuple[Grid, Grid], rows: ir.Value, columns: ir.Value, dtype: ir.DataType
) -> ir.Value:
    """bool (…, oh, h) and (…, ow, w) to all cells, row by row: 1 or 0, (…, oh·ow, h, w)."""
    oh, ow = (grid.cells for grid in layout)
    of_row, of_column = np.divmod(np.arange(oh * ow, dtype=np.int64), ow)
    up = build("Gather", rows, build.constant(of_row), axis=-2)  # (…, oh·ow, h)
    across = build("Gather", columns, build.constant(of_column), axis=-2)  # (…, oh·ow, w)
    both = build(
        "And",
        build("Unsqueeze", up, build.ints([-1])),  # (…, oh·ow, h, 1)
        build("Unsqueeze", across, build.ints([-2])),  # (…, oh·ow, 1, w)
    )
    return build("Cast", both, to=dtype)


_MARKERS: dict[str, Callable[[Builder, ir.Node, ir.Value], ir.Value]] = {
    "CellPool": _pool,
    "Cells": _cells,
}


def _side(build: Builder, x: ir.Value, axis: int) -> ir.Value:
    """The length of an axis, as a scalar."""
    return build("Squeeze", build("Shape", x, start=axis, end=axis + 1))


def _matrix(build: Builder, x: ir.Value, axis: int, grid: Grid, dtype: ir.DataType) -> ir.Value:
    return grid.averaging(build, build.positions(x, axis), _side(build, x, axis), dtype)


def _indices(build: Builder, x: ir.Value, axis: int, grid: Grid) -> ir.Value:
    """Place numbers (o, longest): row i lists cell i, its last place repeated to fill."""
    start, end = grid.spans(build, _side(build, x, axis))  # (o, 1)
    longest = build("ReduceMax", build("Sub", end, start), keepdims=0)  # scalar
    offsets = build("Range", build.scalar(0), longest, build.scalar(1))  # (longest,)
    return build("Min", build("Add", start, offsets), build("Sub", end, build.scalar(1)))
