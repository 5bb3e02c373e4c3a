"""Step 3: look at the graph itself, before anything runs it."""

from collections.abc import Iterator

import onnx
from onnx import checker

from export.errors import ExportError
from export.rewrite.dimensions import CLASSES, NAMES

LARGEST = 2**31 - 2**20  # bytes: protobuf ends at 2 GiB
_STANDARD = ("", "ai.onnx")


def check(
    model: onnx.ModelProto,
    channels: int,
    *,
    explains: bool = False,
    ragged: bool = False,
    largest: int = LARGEST,
) -> None:
    """Raise ExportError unless the graph is valid, standard, self-contained and not baked.

    Baked means that a size of the example stands where batch, height or width belongs.
    explains: the graph also takes `classes`; ragged: it also takes `sizes`;
    largest: how many bytes its weights may have
    """
    graphs = list(_graphs(model.graph))
    nodes = [node for graph in graphs for node in graph.node]
    tensors = [tensor for graph in graphs for tensor in graph.initializer]
    tensors += [attribute.t for node in nodes for attribute in node.attribute]
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        raise ExportError("the graph keeps weights in another file")
    size = sum(len(tensor.raw_data) for tensor in tensors)
    if size > largest:
        raise ExportError(
            f"the weights have {size / 1e9:.1f} GB; an ONNX file holds at most {largest / 1e9:.1f}"
        )
    try:
        checker.check_model(model, full_check=True)
    except (checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise ExportError(f"the graph is not valid ONNX: {exc}") from exc
    foreign = {f"{n.domain}::{n.op_type}" for n in nodes if n.domain not in _STANDARD}
    if foreign:
        raise ExportError(f"the graph needs operators outside the standard: {sorted(foreign)}")
    inputs = {value.name: _dimensions(value) for value in model.graph.input}
    expected: dict[str, list[str | int]] = {"pixels": [*NAMES, channels]}
    if explains:
        expected["classes"] = [*CLASSES]
    if ragged:
        expected["sizes"] = [NAMES[0], 2]
    if inputs != expected:
        raise ExportError(f"the inputs should be {expected}, not {inputs}")
    for value in model.graph.output:
        if _dimensions(value)[:1] != [NAMES[0]]:
            raise ExportError(
                f"the batch size of output {value.name} is baked: {_dimensions(value)}"
            )


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and those inside its nodes: branches of If, bodies of Loop and Scan."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _graphs(inner)


def _dimensions(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
