"""Call the free dimensions of the graph batch, height and width, wherever they appear."""

import re

import onnx_ir as ir

NAMES = ("batch", "height", "width")
CLASSES = ("batch", "maps")


def name_dimensions(model: ir.Model) -> None:
    """Rename the symbols that the exporter made up (s77, s31 // 2) after the axes of the inputs."""
    renamed = {
        str(dim): name
        for value, names in zip(model.graph.inputs, (NAMES, CLASSES), strict=False)
        for dim, name in zip(value.shape or (), names, strict=False)
        if not isinstance(dim, int)
    }

    def rename(dim: int | ir.SymbolicDim) -> int | ir.SymbolicDim:
        if isinstance(dim, int) or dim.value is None:
            return dim
        return ir.SymbolicDim(re.sub(r"\w+", lambda m: renamed.get(m[0], m[0]), str(dim.value)))

    produced = (value for node in model.graph for value in node.outputs)
    for value in (*model.graph.inputs, *produced):
        if value.shape is not None:
            value.shape = ir.Shape([rename(dim) for dim in value.shape])
