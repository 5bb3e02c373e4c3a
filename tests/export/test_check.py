"""A graph that is not what it should be does not pass."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from export.check import check
from export.errors import ExportError


def graph(
    pixels: str = "uint8[batch, height, width, 1]",
    logits: str = "float[batch, 1]",
    body: str = "y = GlobalAveragePool (x)",
    domains: str = '"" : 20',
) -> onnx.ModelProto:
    """A network that averages its pixels."""
    return parser.parse_model(
        f"<ir_version: 10, opset_import: [{domains}]>\n"
        f"net ({pixels} pixels) => ({logits} logits) {{\n"
        "  planes = Transpose <perm = [0, 3, 1, 2]> (pixels)\n"
        "  x = Cast <to = 1> (planes)\n"
        f"  {body}\n"
        "  logits = Flatten (y)\n"
        "}"
    )


def test_a_sound_graph_passes() -> None:
    check(graph(), channels=1)


@pytest.mark.parametrize(
    "pixels",
    [
        "uint8[2, height, width, 1]",
        "uint8[batch, 61, width, 1]",
        "uint8[batch, height, 83, 1]",
        "uint8[batch, height, width, channels]",
        "uint8[batch, height, height, 1]",
        "uint8[height, width, batch, 1]",
    ],
)
def test_an_input_that_is_baked_or_misnamed_is_refused(pixels: str) -> None:
    with pytest.raises(ExportError, match=r"should be .*'height', 'width', 1\]}, not"):
        check(graph(pixels), channels=1)


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(ExportError, match=r"should be .*'height', 'width', 3\]}, not"):
        check(graph(), channels=3)


def test_a_baked_batch_in_an_output_is_refused() -> None:
    with pytest.raises(ExportError, match=r"batch size of output logits is baked: \[2, 1\]"):
        check(graph(logits="float[2, 1]"), channels=1)


@pytest.mark.parametrize(
    "body",
    [
        'y = anypool.CellPool <output_size = [1, 1], kernel = [0, 0], kind = "max"> (x)',
        "yes = Constant <value = bool {1}> ()\n"
        "  y = If (yes) <then_branch = t () => (float[n, c, h, w] z) { z = anypool.Secret (x) },"
        " else_branch = e () => (float[n, c, h, w] z) { z = Identity (x) }>",
    ],
)
def test_an_operator_outside_the_standard_is_refused_wherever_it_hides(body: str) -> None:
    with pytest.raises(ExportError, match=r"outside the standard: \['anypool::"):
        check(graph(body=body, domains='"" : 20, "anypool" : 1'), channels=1)


@pytest.mark.parametrize("place", ["initializer", "constant"])
def test_weights_in_another_file_are_refused(place: str) -> None:
    weight = numpy_helper.from_array(np.ones((1,), np.float32), "weight")
    model = graph(body="y = Mul (x, weight)" if place == "initializer" else "y = Identity (x)")
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    if place == "initializer":
        model.graph.initializer.append(weight)
    else:
        constant = onnx.helper.make_node("Constant", [], ["unused"], value=weight)
        model.graph.node.insert(0, constant)
    with pytest.raises(ExportError, match="in another file"):
        check(model, channels=1)


def test_a_graph_that_is_not_valid_onnx_is_refused() -> None:
    for body in ("y = NoSuchOperator (x)", "y = Add (x, absent)", "y = Add (x, pixels)"):
        with pytest.raises(ExportError, match="not valid ONNX"):
            check(graph(body=body), channels=1)


def test_weights_that_no_onnx_file_can_hold_are_refused() -> None:
    large = graph(body="z = Add (x, w)\n  y = GlobalAveragePool (z)")
    large.graph.initializer.append(numpy_helper.from_array(np.zeros(300, np.float32), "w"))
    with pytest.raises(ExportError, match=r"weights have 0\.0 GB; an ONNX file holds at most"):
        check(large, channels=1, largest=1000)
