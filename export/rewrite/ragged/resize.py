"""Resize to the nearest place: by a whole factor, or to a size that follows the image's."""

from dataclasses import replace

import onnx_ir as ir

from export.rewrite.builder import Builder
from export.rewrite.ragged.errors import Unsupported
from export.rewrite.ragged.masks import Masks
from export.rewrite.ragged.number import Number
from export.rewrite.ragged.region import Extent
from export.rewrite.ragged.staircase import Level

_SAME_PLACE = {  # both give place p of the result what stands at floor(p / k)
    ("asymmetric", "floor"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
}


def resize(masks: Masks, node: ir.Node) -> None:
    """Resize of the nearest kind."""
    x = masks.subject(node)
    region = masks.regions[x]
    kind = tuple(
        node.attributes[name].as_string() if name in node.attributes else default
        for name, default in (
            ("mode", "nearest"),
            ("coordinate_transformation_mode", "half_pixel"),
            ("nearest_mode", "round_prefer_floor"),
        )
    )
    if kind[0] != "nearest" or kind[1:] not in _SAME_PLACE:
        raise Unsupported(node, f"resizing ({', '.join(kind)}) looks beyond an image's edge")
    if (len(node.inputs) > 1 and node.inputs[1] is not None) or "axes" in node.attributes:
        raise Unsupported(node, "it resizes a part of the canvas")
    wanted = _wanted(masks, node, x)
    factors = [_factor(number, side) for number, side in wanted]
    levels: dict[int, Extent] = {}
    for axis, ((number, _), factor) in enumerate(zip(wanted, factors, strict=True)):
        level = number.level
        if axis not in region.axes and factor != 1:
            raise Unsupported(node, "it resizes the batch, the channels, or what is one size")
        if axis in region.axes:
            if level is None or level.source != masks.level(x, axis).source or not level.climbs:
                raise Unsupported(node, "the size it makes does not follow the image's")
            levels[axis] = level
    y = node.outputs[0]
    if None in factors:
        if kind[1:] != ("asymmetric", "floor"):
            raise Unsupported(node, f"resizing ({', '.join(kind)}) by no whole factor")
        y = _each_for_itself(masks, Builder(before=node), x, levels)
        Builder(before=node).replace(node, y)
    masks.regions[y] = replace(region.moved(levels), zero=region.zero and None not in factors)


def _each_for_itself(
    masks: Masks, build: Builder, x: ir.Value, levels: dict[int, Extent]
) -> ir.Value:
    """Place p of each image from floor(p / (out / in)), in the floats that Resize uses."""
    assert x.shape is not None
    y, rank = x, len(x.shape)
    for axis, level in levels.items():
        assert isinstance(level, Level)
        old, new = (masks.side(build, one).valid for one in (masks.level(x, axis), level))
        floats = [build("Cast", side, to=ir.DataType.FLOAT) for side in (old, new)]
        scale = build.reshaped(build("Div", floats[1], floats[0]), [-1, 1])
        places = build("Cast", masks.positions_of(build, level), to=ir.DataType.FLOAT)
        found = build("Cast", build("Floor", build("Div", places, scale)), to=ir.DataType.INT64)
        last = build("Sub", build.reshaped(old, [-1, 1]), build.scalar(1))
        found = build("Min", found, last)  # (n, side)
        shape = [0] + [1] * (axis - 1) + [-1] + [1] * (rank - axis - 1)
        ones = [build("Shape", y, start=0, end=axis), build.ints([1])]
        rest = [build("Shape", y, start=axis + 1, end=rank)] if axis + 1 < rank else []
        whole = build("Concat", *ones, *rest, axis=0)
        indices = build("Expand", build.reshaped(found, shape), whole)
        y = build("GatherElements", y, indices, axis=axis)
    masks.placed += 1
    return y


def _factor(number: Number, side: Number) -> int | None:
    try:
        return number.quotient(side).constant
    except ValueError:
        return None


def _wanted(masks: Masks, node: ir.Node, x: ir.Value) -> list[tuple[Number, Number]]:
    """The size of each axis, behind and in front."""
    sides = [side for side in masks.sides_of(x) if side is not None]
    scales = node.inputs[2] if len(node.inputs) > 2 else None
    if scales is None:
        known = masks.counts.of(node.inputs[3])
        numbers = [] if known is None else [number for number in known.flat if number is not None]
    else:
        if scales.const_value is None:
            raise Unsupported(node, "its factors are computed")
        factors = [float(factor) for factor in scales.const_value.numpy().reshape(-1)]
        if any(factor < 1 or factor != int(factor) for factor in factors):
            raise Unsupported(node, "it does not grow by whole factors")
        numbers = [side * Number(int(factor)) for side, factor in zip(sides, factors, strict=True)]
    if x.shape is None or not len(numbers) == len(sides) == len(x.shape):
        raise Unsupported(node, "the size it makes is computed")
    return list(zip(numbers, sides, strict=True))


RULES = {("", "Resize"): resize}
