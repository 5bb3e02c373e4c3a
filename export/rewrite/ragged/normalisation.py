"""Normalisation over space, each image over its own places."""

import onnx_ir as ir

from export.rewrite.builder import Builder
from export.rewrite.ragged.errors import Unsupported
from export.rewrite.ragged.masks import Masks
from export.rewrite.ragged.reduction import mean
from export.rewrite.ragged.region import Region


def normalise_layer(masks: Masks, node: ir.Node) -> None:
    """LayerNormalization: position by position, so only over axes that are not ragged."""
    x = masks.subject(node)
    region = masks.regions[x]
    assert x.shape is not None
    axis = (node.attributes["axis"].as_int() if "axis" in node.attributes else -1) % len(x.shape)
    if any(ragged >= axis for ragged in region.axes) or len(node.outputs) > 1 or axis == 0:
        raise Unsupported(node, "it normalises over the canvas")
    masks.regions[node.outputs[0]] = Region.of(region.axes, finite=region.finite)


def normalise_instance(masks: Masks, node: ir.Node) -> None:
    """InstanceNormalization: mean and variance of each image and channel, over what lies inside."""
    x = masks.subject(node)
    region = masks.regions[x]
    assert x.shape is not None
    rank = len(x.shape)
    if any(axis < 2 for axis in region.axes):
        raise Unsupported(node, "images vary along its batch or channel axis")
    factor, term = node.inputs[1:]
    if factor is None or term is None or {factor, term} & masks.regions.keys():
        raise Unsupported(node, "its parameters depend on the image")
    build = Builder(before=node)
    axes = list(range(2, rank))
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    clean = masks.zeroed(build, x)
    centred = build("Sub", clean, mean(masks, build, x, axes, 1))
    centred.shape, centred.type = x.shape, x.type
    masks.regions[centred] = Region.of(region.axes)
    squares = build("Mul", centred, centred)
    squares.shape, squares.type = x.shape, x.type
    masks.regions[squares] = Region.of(region.axes)
    variance = mean(masks, build, squares, axes, 1)  # (n, c, 1, …)
    deviation = build("Sqrt", build("Add", variance, build.float(epsilon)))
    shape = [-1] + [1] * (rank - 2)
    scale = build("Div", build.reshaped(factor, shape), deviation)
    y = build("Add", build("Mul", centred, scale), build.reshaped(term, shape))
    build.replace(node, y)
    masks.regions[y] = Region.of(region.axes)


RULES = {
    ("", "LayerNormalization"): normalise_layer,
    ("", "InstanceNormalization"): normalise_instance,
}
