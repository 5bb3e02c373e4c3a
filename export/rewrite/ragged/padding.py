"""Pad: each image is padded at its own edge, not at the canvas's."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.rewrite.builder import Builder
from export.rewrite.ragged.errors import Unsupported
from export.rewrite.ragged.masks import Masks
from export.rewrite.ragged.number import Number
from export.rewrite.ragged.region import Extent, Region
from export.rewrite.ragged.staircase import Level


@dataclass(frozen=True, slots=True)
class _Amount:
    """Places added along an axis; fewer than 0 are taken away."""

    begin: int
    end: int | Level  # a staircase where it depends on the size

    def grow(self, level: Level) -> Level:
        """How far each image reaches with it."""
        return level + self.end + self.begin


def pad(masks: Masks, node: ir.Node) -> None:
    """Pad with a constant, or with what lies at each image's edge."""
    x = masks.subject(node)
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "constant"
    amounts = _amounts(masks, node, x)
    levels: dict[int, Extent] = {}
    for axis in masks.regions[x].axes:
        level = masks.level(x, axis)
        levels[axis] = grown = amounts[axis].grow(level)
        if not grown.climbs:
            raise Unsupported(node, "a larger image gets a smaller map")
    if mode == "constant":
        _with_constant(masks, node, x, levels, amounts)
    elif mode in _SHIFTS:
        _with_edge(masks, node, x, levels, amounts, mode)
    else:
        raise Unsupported(node, f"padding of kind {mode} looks at the canvas's other edge")


def _with_constant(
    masks: Masks,
    node: ir.Node,
    x: ir.Value,
    levels: dict[int, Extent],
    amounts: list[_Amount],
) -> None:
    fill, region = _fill(node), masks.regions[x]
    build = Builder(before=node)
    padded = masks.zeroed(build, x) if fill == 0 else masks.filled(build, x, fill)
    node.replace_input_with(0, padded)
    cropped = any(
        isinstance(amounts[axis].end, int) and amounts[axis].end < 0  # type: ignore[operator]
        for axis in levels
    )
    masks.regions[node.outputs[0]] = Region.of(
        levels,
        zero=fill == 0 and not cropped,
        nonnegative=region.nonnegative and fill >= 0,
        finite=bool(np.isfinite(fill)) and masks.regions.get(padded, region).finite,
    )


def _with_edge(
    masks: Masks,
    node: ir.Node,
    x: ir.Value,
    levels: dict[int, Extent],
    amounts: list[_Amount],
    mode: str,
) -> None:
    """The start is the canvas's too; what follows an image's end is copied from before it."""
    build, region, y = Builder(before=node), masks.regions[x], x
    rank = len(amounts)
    for axis, amount in enumerate(amounts):
        begin, end = amount.begin, amount.end
        if not isinstance(end, int) or min(begin, end) < 0:
            raise Unsupported(node, f"padding of kind {mode} crops, or depends on the size")
        if axis not in levels:
            y = _padded(build, y, rank, axis, (begin, end), mode)
            continue
        y = _padded(build, y, rank, axis, (begin, 0), mode)
        y = _padded(build, y, rank, axis, (0, end), "constant")
        positions = masks.positions_of(build, masks.level(x, axis) + (begin + end))
        side = masks.side(build, masks.level(x, axis)).valid
        for place in range(end):
            moved = _moved(build, y, rank, axis, _SHIFTS[mode](place))
            at = build.reshaped(
                build("Add", side, build.scalar(begin + place)), [-1, *[1] * (rank - 1)]
            )
            here = build("Equal", build.reshaped(positions, [-1] + [1] * (rank - axis - 1)), at)
            y = build("Where", here, moved, y)
            masks.placed += 1
    if y is x:
        y = build("Identity", x)
    build.replace(node, y)
    masks.regions[y] = Region.of(levels, nonnegative=region.nonnegative, finite=region.finite)


# How far before a place behind the edge the value lies that belongs there.
_SHIFTS: dict[str, Callable[[int], int]] = {
    "reflect": lambda place: 2 * place + 2,
    "edge": lambda place: place + 1,
}


def _moved(build: Builder, y: ir.Value, rank: int, axis: int, shift: int) -> ir.Value:
    """`y`, `shift` places further."""
    kept = build("Slice", y, build.ints([0]), build.ints([-shift]), build.ints([axis]))
    return _padded(build, kept, rank, axis, (shift, 0), "constant")


def _padded(
    build: Builder, y: ir.Value, rank: int, axis: int, amounts: tuple[int, int], mode: str
) -> ir.Value:
    if amounts == (0, 0):
        return y
    pads = [0] * (2 * rank)
    pads[axis], pads[rank + axis] = amounts
    return build("Pad", y, build.ints(pads), mode=mode)


def _amounts(masks: Masks, node: ir.Node, x: ir.Value) -> list[_Amount]:
    """What is added along each axis."""
    assert x.shape is not None
    rank = len(x.shape)
    known = masks.counts.of(node.inputs[1])
    axes = node.inputs[3] if len(node.inputs) > 3 else None
    in_order = axes is None or (
        axes.const_value is not None and axes.const_value.numpy().tolist() == list(range(rank))
    )
    if not in_order or known is None or any(number is None for number in known.flat):
        raise Unsupported(node, "how much it adds is computed")
    numbers: list[Number] = list(known.flat)
    amounts = []
    for axis in range(rank):
        begin, end = numbers[axis].constant, numbers[rank + axis]
        if begin is None:
            raise Unsupported(
                node,
                "how much it adds at the start depends on the size (as TensorFlow's SAME "
                "padding does): the windows of each image then start elsewhere on the canvas",
            )
        amounts.append(_Amount(begin, _at_end(masks, node, x, axis, end)))
    return amounts


def _at_end(masks: Masks, node: ir.Node, x: ir.Value, axis: int, end: Number) -> int | Level:
    if end.constant is not None:
        return end.constant
    region, level = masks.regions[x], end.level
    if level is None or axis not in region.axes or level.source != masks.level(x, axis).source:
        raise Unsupported(node, "how much it adds does not follow the image's side")
    if level.rise < 0 or min(level.sides) < 0:
        raise Unsupported(node, "whether it adds or takes away depends on the size")
    return level


def _fill(node: ir.Node) -> float:
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    if fill is None:
        return 0.0
    if fill.const_value is None:
        raise Unsupported(node, "what it adds is computed")
    return float(fill.const_value.numpy())


RULES = {("", "Pad"): pad}
