"""Reshape: axes that are split and made one, where images vary too."""

from math import prod
from typing import TypeAlias

import onnx_ir as ir

from export.rewrite.ragged.counts import CANVAS
from export.rewrite.ragged.errors import Unsupported
from export.rewrite.ragged.masks import Masks
from export.rewrite.ragged.number import Number
from export.rewrite.ragged.region import Extent, Merged, Region
from export.rewrite.ragged.staircase import Level

_WHOLE = Number()
_Part: TypeAlias = int | Level


def reshape(masks: Masks, node: ir.Node) -> None:
    """Reshape: axes are split and made one, ragged ones too."""
    x = node.inputs[0]
    if x is None or x not in masks.regions:
        raise Unsupported(node, CANVAS)
    sides = [side for side in masks.sides_of(x) if side is not None]
    if x.shape is None or len(sides) != len(x.shape):
        raise Unsupported(node, "the shape it starts from is not known")
    wanted = _wanted(masks, node, sides)
    if wanted[0] != Number(images=1) or any(number.images for number in wanted[1:]):
        raise Unsupported(node, "it mixes the images of a batch")
    axes = [_normal(parts) for parts in _regroup(node, _parts(masks, x), wanted[1:])]
    _place(masks, node.outputs[0], masks.regions[x], [1, *axes])


def _place(masks: Masks, y: ir.Value, region: Region, axes: list[int | Extent]) -> None:
    """Note the region and, where the exporter did not, the shape of a result."""
    levels = {axis: extent for axis, extent in enumerate(axes) if not isinstance(extent, int)}
    masks.regions[y] = region.moved(levels)
    known = list(y.shape) if y.shape is not None and len(y.shape) == len(axes) else None
    y.shape = ir.Shape(
        [
            extent if axis and isinstance(extent, int) else known[axis] if known else None
            for axis, extent in enumerate(axes)
        ]
    )


def _wanted(masks: Masks, node: ir.Node, sides: list[Number]) -> list[Number]:
    """The shape that is asked for, 0 and -1 resolved."""
    known = masks.counts.of(node.inputs[1])
    if known is None or any(number is None for number in known.flat):
        raise Unsupported(node, "the shape it makes is computed")
    wanted = list(known.flat)
    if not ("allowzero" in node.attributes and node.attributes["allowzero"].as_int()):
        wanted = [
            sides[axis] if number == Number(0) and axis < len(sides) else number
            for axis, number in enumerate(wanted)
        ]
    if Number(-1) not in wanted:
        return wanted
    rest = prod((number for number in wanted if number != Number(-1)), start=_WHOLE)
    try:
        missing = prod(sides, start=_WHOLE).quotient(rest)
    except ValueError:
        raise Unsupported(node, "the shape it makes does not follow the image's") from None
    return [missing if number == Number(-1) else number for number in wanted]


def _parts(masks: Masks, x: ir.Value) -> list[_Part]:
    """What the axes behind the batch consist of, row by row."""
    assert x.shape is not None
    region = masks.regions[x]
    parts: list[_Part] = []
    for axis, side in list(enumerate(x.shape))[1:]:
        extent = region.axes.get(axis)
        if isinstance(extent, Merged):
            parts += extent.parts
        else:
            assert isinstance(side, int) or extent is not None
            parts.append(side if extent is None and isinstance(side, int) else extent)  # type: ignore[arg-type]
    return parts


def _regroup(node: ir.Node, parts: list[_Part], wanted: list[Number]) -> list[list[_Part]]:
    """The parts of each axis of the result."""
    parts = _joined(parts)
    groups = []
    for number in wanted:
        group: list[_Part] = []
        while number != _WHOLE:
            if not parts:
                raise Unsupported(node, "the shape it makes does not follow the image's")
            taken, rest = _take(node, parts.pop(0), number)
            group.append(taken)
            number = number.quotient(_number(taken))
            if rest != 1:
                parts.insert(0, rest)
        groups.append(group)
    if parts:
        raise Unsupported(node, "the shape it makes does not follow the image's")
    return groups


def _take(node: ir.Node, part: _Part, number: Number) -> tuple[_Part, int]:
    """The part, or the outer factor of it, that belongs to an axis of `number` places."""
    own = _number(part)
    whole = all(level in number.levels for level in own.levels)
    if whole and number.factor % own.factor == 0:
        return part, 1
    if number.levels == own.levels and own.factor % number.factor == 0:
        outer = number.level or number.factor
        return outer, own.factor // number.factor
    raise Unsupported(node, "it splits an axis where images vary otherwise than into equal blocks")


def _number(part: _Part) -> Number:
    return Number(part) if isinstance(part, int) else Number.of(1, part)


def _joined(parts: list[_Part]) -> list[_Part]:
    """Fixed neighbours made one, none of one place."""
    joined: list[_Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, int) and isinstance(last, int):
            joined[-1] = last * part
        elif part != 1:
            joined.append(part)
    return joined


def _normal(parts: list[_Part]) -> int | Extent:
    """One axis of these parts: blocks of a fixed size make an image's side that much longer."""
    joined: list[_Part] = []
    for part in _joined(parts):
        last = joined[-1] if joined else None
        if isinstance(part, int) and isinstance(last, Level):
            joined[-1] = last * part
        else:
            joined.append(part)
    if not joined:
        return 1
    return joined[0] if len(joined) == 1 else Merged(tuple(joined))


RULES = {("", "Reshape"): reshape}
