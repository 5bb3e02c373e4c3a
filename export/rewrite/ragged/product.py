"""Matrix products of maps with weights, and of maps with each other."""

import onnx_ir as ir

from export.rewrite.builder import Builder
from export.rewrite.ragged.errors import Unsupported
from export.rewrite.ragged.masks import Masks
from export.rewrite.ragged.region import Extent, Region

_NONE = Region.of({})


def multiply(masks: Masks, node: ir.Node) -> None:
    """MatMul: where it sums along a ragged axis, only what lies inside both takes part."""
    left, right = node.inputs
    assert left is not None
    assert right is not None
    if left.shape is None or right.shape is None or min(len(left.shape), len(right.shape)) < 2:
        raise Unsupported(node, "the number of its dimensions is not known, or is 1")
    rank = max(len(left.shape), len(right.shape))
    a, b = _aligned(masks, node, left, rank), _aligned(masks, node, right, rank)
    rows, columns = rank - 2, rank - 1
    if a.get(columns) != b.get(rows):
        raise Unsupported(
            node, "it sums along an axis where images vary: its weights depend on the place"
        )
    levels = _batches(node, left, right, a, b, rank)
    if rows in a:
        levels[rows] = a[rows]
    if columns in b:
        levels[columns] = b[columns]
    if columns in a:
        _clear(masks, node, left, right)
    regions = [masks.regions.get(x, _NONE) for x in node.inputs if x is not None]
    if levels:
        finite = all(region.finite for region in regions)
        masks.regions[node.outputs[0]] = Region.of(levels, finite=finite)


def _aligned(masks: Masks, node: ir.Node, x: ir.Value, rank: int) -> dict[int, Extent]:
    """The extents of an operand, by axis of the result (of the operand itself, the last two)."""
    region = masks.regions.get(x, _NONE)
    assert x.shape is not None
    if region.axes and (len(x.shape) < rank or len(x.shape) < 3 or 0 in region.axes):
        raise Unsupported(node, "it mixes the images of a batch")
    return region.axes


def _batches(
    node: ir.Node,
    left: ir.Value,
    right: ir.Value,
    a: dict[int, Extent],
    b: dict[int, Extent],
    rank: int,
) -> dict[int, Extent]:
    """Extents of the axes in front of the last two: as of sums (elementwise.py)."""
    levels: dict[int, Extent] = {}
    for axis in range(rank - 2):
        for own, other, others in ((a, b, right), (b, a, left)):
            assert others.shape is not None
            place = axis - (rank - len(others.shape))
            if axis in own:
                alone = place < 0 or others.shape[place] == 1
                if not alone and other.get(axis) != own[axis]:
                    raise Unsupported(node, "its weights have a value for each place of the canvas")
                levels[axis] = own[axis]
    return levels


def _clear(masks: Masks, node: ir.Node, left: ir.Value, right: ir.Value) -> None:
    """0 in one operand is enough where the other is finite."""
    build = Builder(before=node)
    node.replace_input_with(0, masks.zeroed(build, left))
    if not masks.regions[right].finite:
        node.replace_input_with(1, masks.zeroed(build, right))


RULES = {("", "MatMul"): multiply}
