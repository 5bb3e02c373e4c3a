"""Make a graph whose batch may mix sizes: `ragged.onnx` from the same graph as `model.onnx`.

It gets a second input, `sizes` (n, 2): the valid height and width of each image, which lies at the
top left of the canvas. Every tensor's valid region is followed through the graph. Since the last
window of the valid region ends at v + end - 1, an operator sees invalid data only if its END
padding is above 0 (or in ceil_mode): only there, and where something is reduced over space, the
region outside is cleared first. Numbers that come from the canvas's size are followed too, and may
only say what shape a tensor gets. An operator that no rule covers makes the pass refuse, and the
service then batches equal sizes only: it fails closed, never wrong.

The method is ours; DESIGN §6 has the argument, tests/export/rewrite/ragged the proof.
"""

import onnx_ir as ir

from export.lower import MARKERS
from export.rewrite.builder import Builder
from export.rewrite.cells import expand_cells
from export.rewrite.ragged import (
    axes,
    cells,
    elementwise,
    layout,
    normalisation,
    padding,
    product,
    reduction,
    regroup,
    resize,
    window,
)
from export.rewrite.ragged.counts import CANVAS
from export.rewrite.ragged.errors import Unsupported
from export.rewrite.ragged.extents import Side
from export.rewrite.ragged.masks import Masks
from export.rewrite.ragged.region import Region
from export.rewrite.ragged.staircase import Level
from export.rewrite.ragged.turns import join_transposes

__all__ = ["RULES", "Unsupported", "make_ragged"]

SIZES = "sizes"
MAPS, MAPS_SIZES = "cam", "cam_sizes"  # the one output that may keep the canvas's size, and how
RULES = {
    **axes.RULES,
    **window.RULES,
    **reduction.RULES,
    **elementwise.RULES,
    **layout.RULES,
    **cells.RULES,
    **product.RULES,
    **normalisation.RULES,
    **padding.RULES,
    **regroup.RULES,
    **resize.RULES,
}
_SHAPED = {"Reshape", "Expand", "Resize", "Slice", "Pad"}  # may know the canvas's size
_NORMALISING = {"Transpose", "Cast", "Add", "Sub", "Mul", "Div"}


def make_ragged(model: ir.Model, multiple: int = 1) -> int:
    """Rewrite `model` in place (markers still in it); returns how many masks were placed.

    multiple: what both sides of every image, and of the canvas, must be divisible by
    Raises Unsupported, naming the node and the reason; the model is then spoilt.
    """
    graph = model.graph
    pixels = graph.inputs[0]
    join_transposes(graph)
    sizes = ir.val(SIZES, ir.DataType.INT64, ["batch", 2])
    nodes = tuple(graph)
    start = Builder(before=nodes[0])
    sides = {
        name: Side(
            valid=start("Gather", sizes, start.scalar(column), axis=1),  # (n,)
            canvas=start("Shape", pixels, start=1 + column, end=2 + column),  # (1,)
        )
        for column, name in enumerate(("height", "width"))
    }
    masks = Masks(sides)
    masks.regions[pixels] = Region.of(
        {1: Level.start("height", multiple), 2: Level.start("width", multiple)}
    )
    cleared = False
    for node in nodes:
        ragged = [x for x in node.inputs if x is not None and x in masks.regions]
        if (node.domain, node.op_type) == ("", "Shape"):
            layout.shape(masks, node)
            continue
        if not ragged and (masks.counts.follow(node) or not _told(masks, node)):
            continue
        floats = [x for x in ragged if x.dtype == ir.DataType.FLOAT]
        if floats and not cleared and node.op_type not in _NORMALISING:
            _clear(masks, node, floats)  # bytes of 0 are not 0 any more here
            cleared = True
        _told(masks, node)
        rule = RULES.get((node.domain, node.op_type))
        if rule is None:
            raise Unsupported(node, "no rule says what it does to images of different sizes")
        rule(masks, node)
    for output in graph.outputs:
        if output in masks.regions and output.name != MAPS:
            raise Unsupported(None, f"output {output.name} still has the canvas's size")
    graph.inputs.append(sizes)
    maps = next((output for output in graph.outputs if output.name == MAPS), None)
    if maps is not None:
        graph.outputs.append(_sizes_of(masks, sizes, maps))
    expand_cells(model)
    model.opset_imports.pop(MARKERS, None)
    return masks.placed


def _told(masks: Masks, node: ir.Node) -> bool:
    """Whether a node learns the canvas's size; raises Unsupported unless it may."""
    told = any(masks.counts.tells(x) for x in node.inputs if x is not None)
    if told and node.op_type not in _SHAPED:
        raise Unsupported(node, CANVAS)
    return told


def _sizes_of(masks: Masks, sizes: ir.Value, maps: ir.Value) -> ir.Value:
    """The valid height and width of each image's maps, int64 (n, 2), as an output."""
    last = maps.producer()
    assert last is not None
    build = Builder(before=last)
    none = build("Mul", build("Gather", sizes, build.scalar(0), axis=1), build.scalar(0))  # (n,)
    sides = [
        build.reshaped(build("Add", none, _side(masks, build, maps, axis)), [-1, 1])
        for axis in (2, 3)
    ]
    y = build("Concat", *sides, axis=1)  # (n, 2)
    y.name, y.type, y.shape = MAPS_SIZES, ir.TensorType(ir.DataType.INT64), ir.Shape(["batch", 2])
    return y


def _side(masks: Masks, build: Builder, maps: ir.Value, axis: int) -> ir.Value:
    """How far the maps reach along an axis, int64: (n,) where it is ragged, (1,) where fixed."""
    region = masks.regions.get(maps)
    if region is not None and isinstance(region.axes.get(axis), Level):
        return masks.extent(build, maps, axis)
    length = None if maps.shape is None else maps.shape[axis]
    if not isinstance(length, int):
        raise Unsupported(maps.producer(), "the size of its maps does not follow the image's")
    return build.ints([length])


def _clear(masks: Masks, node: ir.Node, ragged: list[ir.Value]) -> None:
    build = Builder(before=node)
    for x in ragged:
        clean = masks.zeroed(build, x)
        for index, value in enumerate(node.inputs):
            if value is x:
                node.replace_input_with(index, clean)
