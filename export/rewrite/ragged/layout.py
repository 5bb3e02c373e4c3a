"""Operators that move pixels without looking at them."""

from dataclasses import replace

import onnx_ir as ir

from export.rewrite.ragged.errors import Unsupported
from export.rewrite.ragged.masks import Masks
from export.rewrite.ragged.number import Number
from export.rewrite.ragged.region import Region
from export.rewrite.ragged.staircase import Level, Window

_NO_END = 2**31 - 1


def transpose(masks: Masks, node: ir.Node) -> None:
    """Transpose: ragged axes move along."""
    x, y = masks.subject(node), node.outputs[0]
    region = masks.regions[x]
    order = list(node.attributes["perm"].as_ints())
    if order[0] != 0:
        raise Unsupported(node, "it moves the batch axis")
    levels = {order.index(axis): level for axis, level in region.levels}
    masks.regions[y] = region.moved(levels)
    if x.shape is not None:  # the exporter does not always say
        y.shape = ir.Shape([x.shape[axis] for axis in order])


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


def split(masks: Masks, node: ir.Node) -> None:
    """Split along an axis that is not ragged, such as channels."""
    x = masks.subject(node)
    _check_free(masks, node, x, [_axis(node, _rank_of(node, x))])
    for output in node.outputs:
        masks.regions[output] = masks.regions[x]


def gather(masks: Masks, node: ir.Node) -> None:
    """Gather along an axis that is not ragged; a single index drops it."""
    x = masks.subject(node)
    rank, indices = _rank_of(node, x), node.inputs[1]
    axis = _axis(node, rank)
    _check_free(masks, node, x, [axis])
    assert indices is not None
    if indices in masks.regions:
        raise Unsupported(node, "its indices depend on the image")
    grown = _rank_of(node, indices) - 1
    levels = {a + grown if a > axis else a: level for a, level in masks.regions[x].levels}
    masks.regions[node.outputs[0]] = masks.regions[x].moved(levels)


def cut(masks: Masks, node: ir.Node) -> None:
    """Slice: from a ragged axis the first places, the last of the image, or every other one."""
    x = masks.subject(node)
    rank = _rank_of(node, x)
    starts, ends, axes, steps = (_whole(masks, node, index) for index in range(1, 5))
    chosen = [axis.constant for axis in axes] if axes else list(range(len(starts)))
    region = masks.regions[x]
    levels = region.axes
    for index, given in enumerate(chosen):
        if given is None:
            raise Unsupported(node, "its axes are not fixed")
        axis = given % rank
        if axis == 0:
            raise Unsupported(node, "it mixes the images of a batch")
        if axis in levels:
            step = steps[index].constant if steps else 1
            stop = _stop(masks, node, x, axis, ends[index])
            start = starts[index].constant
            if start is None or start < 0 or step is None or step < 1:
                raise Unsupported(
                    node, "it cuts where images vary: it counts from the canvas's end"
                )
            levels[axis] = stop.through(Window(1, step, 1, -start, 0))
    zero = region.zero and levels == region.axes
    masks.regions[node.outputs[0]] = replace(region.moved(levels), zero=zero)


def _stop(masks: Masks, node: ir.Node, x: ir.Value, axis: int, end: Number) -> Level:
    """Where each image is cut, if the canvas is cut at `end`."""
    level = masks.level(x, axis)
    if end.constant is not None and end.constant >= _NO_END:
        return level
    if end.constant is not None and end.constant < 0:
        return level + end.constant
    stop = end.level
    if stop is None or stop.source != level.source or not stop.never_above(level):
        raise Unsupported(node, "it cuts where images vary, at the same place for all")
    return stop


def _whole(masks: Masks, node: ir.Node, index: int) -> list[Number]:
    if len(node.inputs) <= index or node.inputs[index] is None:
        return []
    known = masks.counts.of(node.inputs[index])
    if known is None or any(number is None for number in known.flat):
        raise Unsupported(node, "where it cuts is computed")
    return list(known.flat)


def _check_free(masks: Masks, node: ir.Node, x: ir.Value, axes: list[int]) -> None:
    if 0 in axes or any(axis in masks.regions[x].axes for axis in axes):
        raise Unsupported(node, "it cuts along an axis where images vary")


def shape(masks: Masks, node: ir.Node) -> None:
    """Shape: numbers that tell the canvas's size, for those who may know it."""
    x = node.inputs[0]
    assert x is not None
    start = node.attributes["start"].as_int() if "start" in node.attributes else 0
    end = node.attributes["end"].as_int() if "end" in node.attributes else None
    masks.counts.shape(node.outputs[0], masks.sides_of(x)[start:end])


def _axis(node: ir.Node, rank: int) -> int:
    return (node.attributes["axis"].as_int() if "axis" in node.attributes else 0) % rank


def _rank(node: ir.Node) -> int:
    return _rank_of(node, node.outputs[0])


def _rank_of(node: ir.Node, value: ir.Value) -> int:
    if value.shape is None:
        raise Unsupported(node, "the number of its dimensions is not known")
    return len(value.shape)


RULES = {
    ("", "Transpose"): transpose,
    ("", "Concat"): concatenate,
    ("", "Slice"): cut,
    ("", "Split"): split,
    ("", "Gather"): gather,
    ("", "Shape"): shape,
}
