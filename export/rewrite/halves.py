"""Let convolutions, and what lies between them, compute in 16 bits (fp16), and nothing else.

Inputs and outputs stay what they are, and so do normalisation, sizes and masks, poolings but the
maximum, and the last linear layer: there 11 bits would be seen, or numbers beyond 65504 occur.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError

_HEAVY = "Conv"
# What need not leave 16 bits between two convolutions. An average is a sum, and is left out.
_BETWEEN = {
    "Add", "BatchNormalization", "Clip", "Concat", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu",
    "MaxPool", "Mish", "Mul", "PRelu", "Relu", "Selu", "Sigmoid", "Where",
}  # fmt: skip
_SHAPES = {"Shape", "Size"}  # from here on it is no longer the image
LARGEST = float(np.finfo(np.float16).max)


def make_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with float16 where that is safe; raises ExportError where weights are too large."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    _Halving(made).run()
    return made


def halved(whole: onnx.ModelProto, half: onnx.ModelProto) -> dict[str, str]:
    """The values that 16 bits have to hold, and what kind of node makes each of them."""
    types = _types(whole)
    made = {name for node in half.graph.node for name in node.output}
    return {
        name: node.op_type
        for node in whole.graph.node
        for name in node.output
        if f"{name}_half" in made and types.get(name) == TensorProto.FLOAT
    }


class _Halving:
    """Each value that has a half also has a name for it; the whole one is made where it is used."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.types = _types(model)
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}
        self.types |= {name: tensor.data_type for name, tensor in self.weights.items()}
        self.makers = {out: node for node in self.graph.node for out in node.output}
        self.image = {"pixels"}  # what is made of the image itself, not of its size
        self.halves: dict[str, str] = {}  # a value's half
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        self._choose()
        whole = self._wanted_whole()
        for node in self.graph.node:
            if node.output[0] not in self.chosen:
                self.nodes.append(node)
                continue
            inputs = [self._half(name) for name in node.input]
            node.input[:] = inputs
            for index, name in enumerate(node.output):
                if name:
                    node.output[index] = self.halves[name] = f"{name}_half"
            self.nodes.append(node)
            for name in self.chosen_outputs[self.nodes[-1].output[0]]:
                if name in whole:
                    cast = helper.make_node(
                        "Cast", [self.halves[name]], [name], f"{name}_whole", to=TensorProto.FLOAT
                    )
                    self.nodes.append(cast)
        self._describe(whole)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        used = {name for node in self.graph.node for name in _names(node)}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _choose(self) -> None:
        """Find the nodes that compute in 16 bits, by their first output."""
        self.chosen: set[str] = set()
        self.chosen_outputs: dict[str, list[str]] = {}
        halved: set[str] = set()
        for node in self.graph.node:
            of_image = any(name in self.image for name in node.input)
            if of_image and node.op_type not in _SHAPES:
                self.image.update(node.output)
            heavy = node.op_type == _HEAVY and of_image
            between = node.op_type in _BETWEEN and any(name in halved for name in node.input)
            if (heavy or between) and all(self._may_be_half(name) for name in node.input):
                self.chosen.add(node.output[0])
                outputs = [name for name in node.output if name]
                self.chosen_outputs[f"{node.output[0]}_half"] = outputs
                halved.update(outputs)

    def _may_be_half(self, name: str) -> bool:
        """Not numbers that were computed of sizes: those of a large image are beyond 65504."""
        if not name or self.types.get(name) != TensorProto.FLOAT:
            return bool(not name or name in self.types)
        return name in self.image or name in self.weights or self._is_mask(name)

    def _is_mask(self, name: str) -> bool:
        """Zeros and ones, also of many channels, which a convolution with ones makes of one."""
        maker = self.makers.get(name)
        if maker is None:
            return False
        if maker.op_type == _HEAVY and maker.input[1] in self.weights:
            kernel = numpy_helper.to_array(self.weights[maker.input[1]])
            same = kernel[0].size == 1 and bool((kernel == 1).all())
            return same and len(maker.input) == 2 and self._is_mask(maker.input[0])
        return maker.op_type == "Cast" and self.types.get(maker.input[0]) == TensorProto.BOOL

    def _wanted_whole(self) -> set[str]:
        """What is used by nodes that stay as they are, also inside of them, and the outputs."""
        nodes = [node for node in self.graph.node if node.output[0] not in self.chosen]
        return {name for node in nodes for name in _names(node)} | {
            value.name for value in self.graph.output
        }

    def _half(self, name: str) -> str:
        """What a value's half is called; made if there is none yet."""
        if self.types.get(name) != TensorProto.FLOAT:
            return name
        if name not in self.halves:
            self.halves[name] = f"{name}_half"
            if name in self.weights:
                self.graph.initializer.append(_rounded(self.weights[name], self.halves[name]))
            else:
                half = self.halves[name]
                self.nodes.append(
                    helper.make_node("Cast", [name], [half], half, to=TensorProto.FLOAT16)
                )
        return self.halves[name]

    def _describe(self, whole: set[str]) -> None:
        """The shapes of halves, which are those of the whole."""
        known = list(self.graph.value_info)
        del self.graph.value_info[:]
        for value in known:
            made = {name for names in self.chosen_outputs.values() for name in names}
            if value.name not in made or value.name in whole:
                self.graph.value_info.append(value)
            if value.name in self.halves:
                half = onnx.ValueInfoProto()
                half.CopyFrom(value)
                half.name = self.halves[value.name]
                half.type.tensor_type.elem_type = TensorProto.FLOAT16
                self.graph.value_info.append(half)


def _types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }


def _rounded(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    finite = values[np.isfinite(values)]
    if finite.size and float(np.abs(finite).max()) > LARGEST:
        raise ExportError(f"{tensor.name} has numbers that 16 bits cannot hold (above 65504)")
    return numpy_helper.from_array(values.astype(np.float16), name)


def _names(node: onnx.NodeProto) -> Iterator[str]:
    """What a node uses, also inside of it."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from _names(inner)
