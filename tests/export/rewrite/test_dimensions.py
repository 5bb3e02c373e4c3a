"""Free dimensions are called batch, height and width."""

import onnx
import onnx_ir as ir
import torch
from torch import nn

from export.rewrite.dimensions import name_dimensions
from tests.export.lowering import Pixels, lower


def dimensions(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_an_exported_graph_names_its_free_dimensions() -> None:
    halves = nn.MaxPool2d(2)
    graph = lower(Pixels([nn.AdaptiveAvgPool2d((1, 5)), halves]), 2, torch.uint8, 3).graph
    assert [value.name for value in graph.input] == ["pixels"]
    assert dimensions(graph.input[0]) == ["batch", "height", "width", 3]
    assert [value.name for value in graph.output] == ["y0", "y1"]
    assert dimensions(graph.output[0]) == ["batch", 3, 1, 5]
    n, c, h, w = dimensions(graph.output[1])
    assert (n, c) == ("batch", 3)
    assert "height" in str(h)
    assert "width" in str(w)


def test_symbols_are_renamed_inside_expressions_and_nowhere_else() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        "g (float[s7, s77, s3, 2] pixels) => (float[s7, s77, s3, 2] y) { y = Relu (pixels) }"
    )
    model.graph.outputs[0].shape = ir.Shape(["s7", "s77//2 + 1", "s3*s77", 2])
    name_dimensions(model)
    got = [
        str(d.value) if isinstance(d, ir.SymbolicDim) else d for d in model.graph.outputs[0].shape
    ]
    assert got == ["batch", "height//2 + 1", "width*height", 2]
