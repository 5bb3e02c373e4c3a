"""Poolings over cells, every image with cells of its own."""

import onnx_ir as ir

from export.lower import MARKERS
from export.rewrite.builder import Builder
from export.rewrite.cells import Grid, cross, grids
from export.rewrite.ragged.errors import Unsupported
from export.rewrite.ragged.masks import LOWEST, Masks
from export.rewrite.ragged.reduction import global_pool
from export.rewrite.ragged.region import Region

_HEIGHT, _WIDTH = 2, 3


def cell_pool(masks: Masks, node: ir.Node) -> None:
    """CellPool: the plain lowering's cells, over each image's own sides."""
    x = _map(masks, node)
    layout = dict(zip((_HEIGHT, _WIDTH), grids(node), strict=True))
    average = node.attributes["kind"].as_string() == "average"
    region = masks.regions[x]
    if {grid.cells for grid in layout.values()} == {1}:
        global_pool(masks, node, average=average)
        return
    build = Builder(before=node)
    if average and not region.finite:  # outside counts 0 times, and 0 · NaN is NaN
        x = masks.zeroed(build, x)
    y = x
    order = (_WIDTH, _HEIGHT) if average else (_HEIGHT, _WIDTH)
    for axis in order:
        if layout[axis].cells:
            pool = _average if average else _maximum
            y = pool(masks, build, x, y, axis, layout[axis])
    if y is x:
        y = build("Identity", x)
    build.replace(node, y)
    kept = {axis: level for axis, level in region.levels if not layout[axis].cells}
    if kept:
        masks.regions[y] = Region.of(kept, nonnegative=region.nonnegative, finite=average)


def cells(masks: Masks, node: ir.Node) -> None:
    """Cells: those of each image, none outside it."""
    x = _map(masks, node)
    layout = grids(node)
    build = Builder(before=node)
    flags = [
        build("Squeeze", _inside(masks, build, x, axis, grid), build.ints([1]))  # (n, o, side)
        for axis, grid in zip((_HEIGHT, _WIDTH), layout, strict=True)
    ]
    y = cross(build, layout, flags[0], flags[1], x.dtype or ir.DataType.FLOAT)
    build.replace(node, y)
    masks.regions[y] = Region.of(masks.regions[x].axes, zero=True, nonnegative=True)


def _map(masks: Masks, node: ir.Node) -> ir.Value:
    x = node.inputs[0]
    if x is None or x not in masks.regions or set(masks.regions[x].axes) - {_HEIGHT, _WIDTH}:
        raise Unsupported(node, "images vary along its batch or channel axis")
    return x


def _inside(masks: Masks, build: Builder, x: ir.Value, axis: int, grid: Grid) -> ir.Value:
    side = build.reshaped(masks.extent(build, x, axis), [-1, 1, 1, 1])
    return grid.inside(build, masks.positions(build, x, axis), side)  # (n, 1, o, side)


def _average(
    masks: Masks, build: Builder, x: ir.Value, y: ir.Value, axis: int, grid: Grid
) -> ir.Value:
    """Average `y`, which is `x` pooled along the other axis or not yet."""
    side = build.reshaped(masks.extent(build, x, axis), [-1, 1, 1, 1])
    dtype = x.dtype or ir.DataType.FLOAT
    weights = grid.averaging(build, masks.positions(build, x, axis), side, dtype)  # (n, 1, o, side)
    if axis == _WIDTH:
        return build("MatMul", y, build("Transpose", weights, perm=[0, 1, 3, 2]))
    return build("MatMul", weights, y)


def _maximum(
    masks: Masks, build: Builder, x: ir.Value, y: ir.Value, axis: int, grid: Grid
) -> ir.Value:
    """Reduce `y` once for each cell, all but the cell's places lowered."""
    inside = _inside(masks, build, x, axis, grid)  # (n, 1, o, side)
    lowest = build.float(LOWEST)
    masks.placed += 1
    highest = []
    for cell in range(grid.cells):
        at = build.ints([cell]), build.ints([cell + 1]), build.ints([2])
        mask = build("Slice", inside, *at)  # (n, 1, 1, side)
        if axis == _HEIGHT:
            mask = build("Transpose", mask, perm=[0, 1, 3, 2])  # (n, 1, side, 1)
        highest.append(build("ReduceMax", build("Where", mask, y, lowest), build.ints([axis])))
    return highest[0] if grid.cells == 1 else build("Concat", *highest, axis=axis)


RULES = {(MARKERS, "CellPool"): cell_pool, (MARKERS, "Cells"): cells}
