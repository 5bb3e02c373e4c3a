"""Operators that move pixels without looking at them."""

import onnx_ir as ir

from export.rewrite.builder import Builder
from export.rewrite.ragged.errors import Unsupported
from export.rewrite.ragged.masks import Masks
from export.rewrite.ragged.region import Level, Region


def transpose(masks: Masks, node: ir.Node) -> None:
    """Transpose: ragged axes move along."""
    region = masks.regions[masks.subject(node)]
    order = list(node.attributes["perm"].as_ints())
    if order[0] != 0:
        raise Unsupported(node, "it moves the batch axis")
    levels = {order.index(axis): level for axis, level in region.levels}
    masks.regions[node.outputs[0]] = _with(region, levels)


def concatenate(masks: Masks, node: ir.Node) -> None:
    """Concat along an axis that is not ragged, of maps of one region."""
    inputs = [value for value in node.inputs if value is not None]
    regions = [masks.regions.get(value) for value in inputs]
    axis = node.attributes["axis"].as_int() % _rank(node)
    first = regions[0]
    if first is None or any(r is None or r.levels != first.levels for r in regions):
        raise Unsupported(node, "its inputs' regions differ: their paths shrink differently")
    if axis == 0 or axis in first.axes:
        raise Unsupported(node, "it joins along an axis where images vary")
    known = [region for region in regions if region is not None]
    masks.regions[node.outputs[0]] = Region(
        first.levels,
        all(region.zero for region in known),
        all(region.nonnegative for region in known),
        all(region.finite for region in known),
    )


def pad(masks: Masks, node: ir.Node) -> None:
    """Pad with a constant of 0: zeros outside, and the region grows by the padding."""
    x = masks.subject(node)
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "constant"
    amounts = node.inputs[1].const_value if node.inputs[1] is not None else None
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    axes = node.inputs[3] if len(node.inputs) > 3 else None
    zero = fill is None or (fill.const_value is not None and not fill.const_value.numpy().any())
    numbers = [] if amounts is None else amounts.numpy().tolist()
    if mode != "constant" or not zero or axes is not None or not numbers or min(numbers) < 0:
        raise Unsupported(
            node, "only padding with zeros, of fixed width, can follow an image's edge"
        )
    rank = _rank(node)
    region = masks.regions[x]
    node.replace_input_with(0, masks.zeroed(Builder(before=node), x))
    levels = {}
    for axis, level in region.levels:
        grown = numbers[axis] + numbers[rank + axis]
        levels[axis] = Level(level.source, level.offset + level.stride * grown, level.stride)
    masks.regions[node.outputs[0]] = Region.of(levels, zero=True, nonnegative=region.nonnegative)


def along_other_axes(masks: Masks, node: ir.Node) -> None:
    """Slice, Split and Gather of axes that are not ragged, such as channels."""
    x = masks.subject(node)
    region, rank = masks.regions[x], _rank_of(node, x)
    axes = _touched(node, rank)
    if 0 in axes or any(axis in region.axes for axis in axes):
        raise Unsupported(node, "it cuts along an axis where images vary")
    for output in node.outputs:
        if output.shape is None or len(output.shape) != rank:
            raise Unsupported(node, "it drops an axis")
        masks.regions[output] = region


def shape(masks: Masks, node: ir.Node) -> None:
    """Shape, as long as nobody learns the canvas's size from it."""
    x = masks.subject(node)
    rank = _rank_of(node, x)
    start = node.attributes["start"].as_int() if "start" in node.attributes else 0
    end = node.attributes["end"].as_int() if "end" in node.attributes else rank
    asked = range(rank)[start:end]
    if any(axis in masks.regions[x].axes for axis in asked):
        raise Unsupported(node, "it takes the canvas's size for the image's")


def _touched(node: ir.Node, rank: int) -> list[int]:
    if node.op_type in ("Split", "Gather"):
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
        return [axis % rank]
    given = node.inputs[3] if len(node.inputs) > 3 else None
    if given is None or given.const_value is None:
        raise Unsupported(node, "its axes are not fixed")
    return [int(axis) % rank for axis in given.const_value.numpy().tolist()]


def _with(region: Region, levels: dict[int, Level]) -> Region:
    return Region.of(levels, zero=region.zero, nonnegative=region.nonnegative, finite=region.finite)


def _rank(node: ir.Node) -> int:
    return _rank_of(node, node.outputs[0])


def _rank_of(node: ir.Node, value: ir.Value) -> int:
    if value.shape is None:
        raise Unsupported(node, "the number of its dimensions is not known")
    return len(value.shape)


RULES = {
    ("", "Transpose"): transpose,
    ("", "Concat"): concatenate,
    ("", "Pad"): pad,
    ("", "Slice"): along_other_axes,
    ("", "Split"): along_other_axes,
    ("", "Gather"): along_other_axes,
    ("", "Shape"): shape,
}
