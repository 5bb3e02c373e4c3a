"""Matrix products that take each place of a map by itself."""

import onnx_ir as ir

from export.rewrite.ragged.errors import Unsupported
from export.rewrite.ragged.masks import Masks
from export.rewrite.ragged.region import Region


def multiply(masks: Masks, node: ir.Node) -> None:
    """MatMul of a map and weights that sums over channels: all other axes are batches or kept."""
    left, right = node.inputs
    assert left is not None
    assert right is not None
    x, weights = (left, right) if left in masks.regions else (right, left)
    region = masks.regions[x]
    if weights in masks.regions:
        raise Unsupported(node, "its weights depend on the image's place")
    if x.shape is None or weights.shape is None or not 2 <= len(weights.shape) <= len(x.shape):
        raise Unsupported(
            node, "the number of its dimensions is not known, or its weights have more"
        )
    rank, shift = len(x.shape), len(x.shape) - len(weights.shape)
    summed = rank - 1 if x is left else rank - 2
    if summed in region.axes or 0 in region.axes:
        raise Unsupported(node, "it sums along an axis where images vary")
    for axis in region.axes:
        if shift <= axis < rank - 2 and weights.shape[axis - shift] != 1:
            raise Unsupported(node, "its weights have a value for each place of the canvas")
    masks.regions[node.outputs[0]] = Region.of(region.axes, finite=region.finite)


RULES = {("", "MatMul"): multiply}
