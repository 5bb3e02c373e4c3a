"""Convolution, max pooling and average pooling over a canvas of different sizes."""

import math

import onnx_ir as ir

from export.rewrite.builder import Builder
from export.rewrite.ragged.errors import Unsupported
from export.rewrite.ragged.masks import Masks
from export.rewrite.ragged.region import Extent, Merged, Region
from export.rewrite.ragged.staircase import Window

_FIRST = 2  # the first spatial axis: n, c, then space


def convolve(masks: Masks, node: ir.Node) -> None:
    """Conv: whatever its end padding can see must be 0."""
    x = _map(masks, node)
    if any(v in masks.regions for v in node.inputs[1:] if v is not None):
        raise Unsupported(node, "its weights depend on the image")
    windows = _windows(node)
    if _sees_outside(masks.regions[x], windows):
        node.replace_input_with(0, masks.zeroed(Builder(before=node), x))
    finite = masks.regions[masks.subject(node)].finite
    levels = _through(masks, x, windows)
    masks.regions[node.outputs[0]] = Region.of(levels, finite=finite)


def max_pool(masks: Masks, node: ir.Node) -> None:
    """MaxPool: whatever its end padding can see must be lower than everything inside."""
    x = _map(masks, node)
    if len(node.outputs) > 1:
        raise Unsupported(node, "it also returns indices")
    region, windows = masks.regions[x], _windows(node)
    if _sees_outside(region, windows):
        node.replace_input_with(0, masks.lowered(Builder(before=node), x))
        finite = region.nonnegative
    else:
        finite = region.finite
    masks.regions[node.outputs[0]] = Region.of(
        _through(masks, x, windows), nonnegative=region.nonnegative, finite=finite
    )


def average_pool(masks: Masks, node: ir.Node) -> None:
    """AveragePool: zeros outside, and divided by the pixels of the image, not of the canvas."""
    x = _map(masks, node)
    region, windows = masks.regions[x], _windows(node)
    ceil, include = _flag(node, "ceil_mode"), _flag(node, "count_include_pad")
    build = Builder(before=node)
    if ceil or (not include and _sees_outside(region, windows)):
        _counted_average(masks, build, node, x, windows, include=include)
        return
    if _sees_outside(region, windows):
        node.replace_input_with(0, masks.zeroed(build, x))
    finite = masks.regions[masks.subject(node)].finite
    masks.regions[node.outputs[0]] = Region.of(
        _through(masks, x, windows), nonnegative=region.nonnegative, finite=finite
    )


def _counted_average(
    masks: Masks,
    build: Builder,
    node: ir.Node,
    x: ir.Value,
    windows: dict[int, Window],
    *,
    include: bool,
) -> None:
    """Sum each window over zeros, and divide by how much of it lies in the image.

    As torch counts: with padding up to the padded edge of the image, without only real pixels.
    """
    if any(w.dilation != 1 for w in windows.values()):
        raise Unsupported(node, "average pooling with dilation and padding at the end")
    region = masks.regions[x]
    begins = [w.begin for w in windows.values()]
    ends = [w.end for w in windows.values()]
    pads = build.ints([0, 0, *begins, 0, 0, *ends])
    padded = build("Pad", masks.zeroed(build, x), pads)
    # Scaled here, since ONNX Runtime would melt Pad and AveragePool into one, and refuse the
    # paddings that may result.
    scaled = build("Mul", padded, build.float(math.prod(w.kernel for w in windows.values())))
    y = build(
        "AveragePool",
        scaled,
        kernel_shape=[w.kernel for w in windows.values()],
        strides=[w.stride for w in windows.values()],
    )
    margins = _margins(node, len(windows)) if include else [0] * len(windows)
    rank = _FIRST + len(windows)
    for (axis, w), margin in zip(windows.items(), margins, strict=True):
        start = build.positions(y, axis)  # (out,)
        start = build("Sub", build("Mul", start, build.scalar(w.stride)), build.scalar(w.begin))
        start = build.reshaped(start, [-1] + [1] * (rank - axis - 1))
        side = build.reshaped(masks.extent(build, x, axis), [-1] + [1] * (rank - 1))
        stop = build("Add", start, build.scalar(w.kernel))
        edge = build("Add", side, build.scalar(margin)) if margin else side
        first = start if include else build("Max", start, build.scalar(0))
        count = build("Sub", build("Min", stop, edge), first)
        count = build("Cast", build("Max", count, build.scalar(1)), to=ir.DataType.FLOAT)
        y = build("Div", y, count)
    levels = _through(masks, x, windows)
    build.replace(node, y)
    masks.regions[y] = Region.of(levels, nonnegative=region.nonnegative)


def _through(masks: Masks, x: ir.Value, windows: dict[int, Window]) -> dict[int, Extent]:
    return {axis: masks.level(x, axis).through(windows[axis]) for axis in masks.regions[x].axes}


def _sees_outside(region: Region, windows: dict[int, Window]) -> bool:
    return any(windows[axis].end > 0 for axis, _ in region.levels)


def _map(masks: Masks, node: ir.Node) -> ir.Value:
    x = masks.subject(node)
    if any(axis < _FIRST for axis in masks.regions[x].axes):
        raise Unsupported(node, "images vary along its batch or channel axis")
    if any(isinstance(extent, Merged) for extent in masks.regions[x].axes.values()):
        raise Unsupported(node, "it slides along several axes made one")
    return x


def _flag(node: ir.Node, name: str) -> bool:
    return name in node.attributes and bool(node.attributes[name].as_int())


def _windows(node: ir.Node) -> dict[int, Window]:
    """What the node does along each spatial axis."""
    auto = node.attributes.get("auto_pad")
    if auto is not None and auto.as_string() not in ("NOTSET", "VALID", ""):
        raise Unsupported(node, f"auto_pad {auto.as_string()} depends on the canvas's size")
    kernel = _kernel(node)
    count = len(kernel)

    def ints(name: str, default: int, length: int = count) -> list[int]:
        attribute = node.attributes.get(name)
        return [default] * length if attribute is None else list(attribute.as_ints())

    strides, dilations = ints("strides", 1), ints("dilations", 1)
    pads = ints("pads", 0, 2 * count)
    windows = {
        _FIRST + i: Window(kernel[i], strides[i], dilations[i], pads[i], pads[count + i])
        for i in range(count)
    }
    if _flag(node, "ceil_mode"):
        return {axis: window.ceiling() for axis, window in windows.items()}
    return windows


def _margins(node: ir.Node, count: int) -> list[int]:
    """The padding at the end of each axis."""
    pads = node.attributes.get("pads")
    return [0] * count if pads is None else list(pads.as_ints())[count:]


def _kernel(node: ir.Node) -> list[int]:
    if "kernel_shape" in node.attributes:
        return list(node.attributes["kernel_shape"].as_ints())
    weight = node.inputs[1]
    if weight is None or weight.shape is None:
        raise Unsupported(node, "its kernel's size is not known")
    return [int(side) for side in weight.shape[2:] if isinstance(side, int)]


RULES = {("", "Conv"): convolve, ("", "MaxPool"): max_pool, ("", "AveragePool"): average_pool}
