"""Adaptive pooling, every image with windows of its own."""

import onnx_ir as ir

from export.lower import MARKERS
from export.rewrite.adaptive import averaging, windows
from export.rewrite.builder import Builder
from export.rewrite.ragged.errors import Unsupported
from export.rewrite.ragged.masks import LOWEST, Masks
from export.rewrite.ragged.reduction import global_pool
from export.rewrite.ragged.region import Region

_HEIGHT, _WIDTH = 2, 3


def adaptive_pool(masks: Masks, node: ir.Node) -> None:
    """AdaptivePool: the plain lowering's windows, over each image's own sides."""
    x = node.inputs[0]
    if x is None or x not in masks.regions or set(masks.regions[x].axes) - {_HEIGHT, _WIDTH}:
        raise Unsupported(node, "images vary along its batch or channel axis")
    sizes = dict(zip((_HEIGHT, _WIDTH), node.attributes["output_size"].as_ints(), strict=True))
    average = node.attributes["kind"].as_string() == "average"
    region = masks.regions[x]
    if set(sizes.values()) == {1}:
        global_pool(masks, node, average=average)
        return
    build = Builder(before=node)
    if average and not region.finite:  # outside counts 0 times, and 0 · NaN is NaN
        x = masks.zeroed(build, x)
    y = x
    order = (_WIDTH, _HEIGHT) if average else (_HEIGHT, _WIDTH)
    for axis in order:
        if sizes[axis]:
            pool = _average if average else _maximum
            y = pool(masks, build, x, y, axis, sizes[axis])
    if y is x:
        y = build("Identity", x)
    build.replace(node, y)
    kept = {axis: level for axis, level in region.levels if not sizes[axis]}
    if kept:
        masks.regions[y] = Region.of(kept, nonnegative=region.nonnegative, finite=average)


def _average(
    masks: Masks, build: Builder, x: ir.Value, y: ir.Value, axis: int, out: int
) -> ir.Value:
    """Average `y`, which is `x` pooled along the other axis or not yet."""
    side = build.reshaped(masks.extent(build, x, axis), [-1, 1, 1, 1])
    dtype = x.dtype or ir.DataType.FLOAT
    weights = averaging(build, masks.positions(build, x, axis), side, out, dtype)  # (n, 1, o, side)
    if axis == _WIDTH:
        return build("MatMul", y, build("Transpose", weights, perm=[0, 1, 3, 2]))
    return build("MatMul", weights, y)


def _maximum(
    masks: Masks, build: Builder, x: ir.Value, y: ir.Value, axis: int, out: int
) -> ir.Value:
    """Reduce `y` once for each cell, all but the cell's window lowered."""
    side = build.reshaped(masks.extent(build, x, axis), [-1, 1, 1, 1])
    inside = windows(build, masks.positions(build, x, axis), side, out)  # (n, 1, o, side)
    lowest = build.float(LOWEST)
    masks.placed += 1
    cells = []
    for cell in range(out):
        at = build.ints([cell]), build.ints([cell + 1]), build.ints([2])
        mask = build("Slice", inside, *at)  # (n, 1, 1, side)
        if axis == _HEIGHT:
            mask = build("Transpose", mask, perm=[0, 1, 3, 2])  # (n, 1, side, 1)
        cells.append(build("ReduceMax", build("Where", mask, y, lowest), build.ints([axis])))
    return cells[0] if out == 1 else build("Concat", *cells, axis=axis)


RULES = {(MARKERS, "AdaptivePool"): adaptive_pool}
