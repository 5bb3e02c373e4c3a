"""Reductions over space: global pooling, ReduceMean and its kin, softmax over positions."""

from collections.abc import Callable

import onnx_ir as ir

from export.rewrite.builder import Builder
from export.rewrite.ragged.errors import Unsupported
from export.rewrite.ragged.masks import LOWEST, Masks
from export.rewrite.ragged.region import Region

_HIGHEST = -LOWEST


def reduce(masks: Masks, node: ir.Node) -> None:
    """Reduce*: over ragged axes only what lies inside takes part."""
    x = masks.subject(node)
    axes = _axes(node, x)
    keep = node.attributes["keepdims"].as_int() if "keepdims" in node.attributes else 1
    region = masks.regions[x]
    if 0 in axes:
        raise Unsupported(node, "it mixes the images of a batch")
    build = Builder(before=node)
    over = [axis for axis in axes if axis in region.axes]
    kept = {axis: level for axis, level in region.levels if axis not in axes}
    if not keep:
        kept = {axis - sum(a < axis for a in axes): level for axis, level in kept.items()}
    if over:
        y = _REDUCE[node.op_type](masks, build, x, axes, keep)
        build.replace(node, y)
    else:
        y = node.outputs[0]
    if kept:
        masks.regions[y] = Region.of(
            kept,
            nonnegative=region.nonnegative,
            finite=region.finite and node.op_type in ("ReduceSum", "ReduceMean"),
        )


def _sum(masks: Masks, build: Builder, x: ir.Value, axes: list[int], keep: int) -> ir.Value:
    return build("ReduceSum", masks.zeroed(build, x), build.ints(axes), keepdims=keep)


def mean(masks: Masks, build: Builder, x: ir.Value, axes: list[int], keep: int) -> ir.Value:
    """The mean of what lies inside."""
    total = _sum(masks, build, x, axes, keep)
    count = masks.extent(build, x, axes[0])  # (n,) or (1,)
    for axis in axes[1:]:
        count = build("Mul", count, masks.extent(build, x, axis))
    assert x.shape is not None
    rank = len(x.shape) if keep else len(x.shape) - len(axes)
    count = build.reshaped(build("Cast", count, to=ir.DataType.FLOAT), [-1] + [1] * (rank - 1))
    return build("Div", total, count)


def _maximum(masks: Masks, build: Builder, x: ir.Value, axes: list[int], keep: int) -> ir.Value:
    return build("ReduceMax", masks.lowered(build, x), build.ints(axes), keepdims=keep)


def _minimum(masks: Masks, build: Builder, x: ir.Value, axes: list[int], keep: int) -> ir.Value:
    return build("ReduceMin", masks.filled(build, x, _HIGHEST), build.ints(axes), keepdims=keep)


def _log_sum_exp(masks: Masks, build: Builder, x: ir.Value, axes: list[int], keep: int) -> ir.Value:
    filled = masks.filled(build, x, LOWEST)
    return build("ReduceLogSumExp", filled, build.ints(axes), keepdims=keep)


def _over_zeros(op_type: str) -> "_Reduction":
    def reduction(
        masks: Masks, build: Builder, x: ir.Value, axes: list[int], keep: int
    ) -> ir.Value:
        return build(op_type, masks.zeroed(build, x), build.ints(axes), keepdims=keep)

    return reduction


_Reduction = Callable[[Masks, Builder, ir.Value, list[int], int], ir.Value]
_REDUCE: dict[str, _Reduction] = {
    "ReduceSum": _sum,
    "ReduceMean": mean,
    "ReduceMax": _maximum,
    "ReduceMin": _minimum,
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceL1": _over_zeros("ReduceL1"),
    "ReduceL2": _over_zeros("ReduceL2"),
    "ReduceSumSquare": _over_zeros("ReduceSumSquare"),
}


def global_average(masks: Masks, node: ir.Node) -> None:
    """GlobalAveragePool: the mean over every axis behind the channels."""
    global_pool(masks, node, average=True)


def global_max(masks: Masks, node: ir.Node) -> None:
    """GlobalMaxPool: the maximum over every axis behind the channels."""
    global_pool(masks, node, average=False)


def global_pool(masks: Masks, node: ir.Node, *, average: bool) -> None:
    """Reduce a map to one value a channel and image."""
    x = masks.subject(node)
    assert x.shape is not None
    if any(axis < 2 for axis in masks.regions[x].axes):
        raise Unsupported(node, "images vary along its batch or channel axis")
    build = Builder(before=node)
    reduction = mean if average else _maximum
    build.replace(node, reduction(masks, build, x, list(range(2, len(x.shape))), 1))


def softmax(masks: Masks, node: ir.Node) -> None:
    """Softmax and LogSoftmax: along a ragged axis only positions inside get a share."""
    x = masks.subject(node)
    region = masks.regions[x]
    assert x.shape is not None
    axis = (node.attributes["axis"].as_int() if "axis" in node.attributes else -1) % len(x.shape)
    if axis == 0:
        raise Unsupported(node, "it mixes the images of a batch")
    if axis in region.axes:
        build = Builder(before=node)
        node.replace_input_with(0, masks.filled(build, x, LOWEST, (axis,)))
    masks.regions[node.outputs[0]] = Region.of(
        region.axes, nonnegative=node.op_type == "Softmax", finite=False
    )


def _axes(node: ir.Node, x: ir.Value) -> list[int]:
    assert x.shape is not None
    rank = len(x.shape)
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if given is None:
        if (
            "noop_with_empty_axes" in node.attributes
            and node.attributes["noop_with_empty_axes"].as_int()
        ):
            raise Unsupported(node, "it has no axes")
        return list(range(rank))
    if given.const_value is None:
        raise Unsupported(node, "its axes are computed")
    axes = sorted(int(axis) % rank for axis in given.const_value.numpy().tolist())
    return axes or list(range(rank))


RULES = {
    **{("", op_type): reduce for op_type in _REDUCE},
    ("", "GlobalAveragePool"): global_average,
    ("", "GlobalMaxPool"): global_max,
    ("", "Softmax"): softmax,
    ("", "LogSoftmax"): softmax,
}
