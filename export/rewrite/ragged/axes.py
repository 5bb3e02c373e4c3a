"""Axes of one place that come, go and are repeated."""

import onnx_ir as ir

from export.rewrite.ragged.errors import Unsupported
from export.rewrite.ragged.masks import Masks
from export.rewrite.ragged.number import Number
from export.rewrite.ragged.region import Extent, Region

_ONE = Number()


def squeeze(masks: Masks, node: ir.Node) -> None:
    """Squeeze: axes of one place go."""
    x = masks.subject(node)
    assert x.shape is not None
    gone = _axes(node, len(x.shape))
    region = masks.regions[x]
    if any(axis in region.axes or axis == 0 for axis in gone):
        raise Unsupported(node, "it drops an axis where images vary")
    masks.regions[node.outputs[0]] = region.moved(
        {axis - sum(a < axis for a in gone): level for axis, level in region.levels}
    )


def unsqueeze(masks: Masks, node: ir.Node) -> None:
    """Unsqueeze: axes of one place come."""
    x = masks.subject(node)
    assert x.shape is not None
    new = _axes(node, len(x.shape) + len(_given(node)))
    if 0 in new:
        raise Unsupported(node, "it moves the batch axis")
    kept = [axis for axis in range(len(x.shape) + len(new)) if axis not in new]
    region = masks.regions[x]
    masks.regions[node.outputs[0]] = region.moved(
        {kept[axis]: level for axis, level in region.levels}
    )


def expand(masks: Masks, node: ir.Node) -> None:
    """Expand: one place is repeated over the canvas, a map stays as it is."""
    x = node.inputs[0]
    known = masks.counts.of(node.inputs[1])
    assert x is not None
    if known is None or any(number is None for number in known.flat):
        raise Unsupported(node, "the shape it makes is computed")
    region = masks.regions.get(x, Region.of({}))
    given, sides = list(known.flat), masks.sides_of(x)
    if len(given) < len(sides) or (region.levels and len(given) != len(sides)):
        raise Unsupported(node, "it adds axes to a map")
    shift = len(given) - len(sides)
    levels: dict[int, Extent] = dict(region.axes)
    for axis, number in enumerate(given):
        side = sides[axis - shift] if axis >= shift else _ONE
        if number in (_ONE, side) or (side == _ONE and number.constant is not None):
            continue
        level = number.level
        if axis == 0 and number == Number(images=1):
            continue
        if side != _ONE or level is None or axis == 0:
            raise Unsupported(node, "it repeats what is not one place")
        levels[axis] = level
    zero = region.zero and levels == region.axes
    masks.regions[node.outputs[0]] = Region.of(
        levels, zero=zero, nonnegative=region.nonnegative, finite=region.finite
    )


def _given(node: ir.Node) -> list[int]:
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    if axes is None or axes.const_value is None:
        raise Unsupported(node, "its axes are computed")
    return [int(axis) for axis in axes.const_value.numpy().reshape(-1)]


def _axes(node: ir.Node, rank: int) -> list[int]:
    return [axis % rank for axis in _given(node)]


RULES = {("", "Squeeze"): squeeze, ("", "Unsqueeze"): unsqueeze, ("", "Expand"): expand}
