"""Insert ONNX nodes in front of a node, one expression at a time."""

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


class Builder:
    """`build("Add", a, b)` inserts a node before `before` and returns its output."""

    def __init__(self, before: ir.Node) -> None:
        assert isinstance(before.graph, ir.Graph)  # a node of a graph, not of a function
        self.graph = before.graph
        self.before = before
        self._prefix = before.outputs[0].name
        self._numbers = self.graph.meta.setdefault("anypool.numbers", count())

    def __call__(self, op_type: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        node = ir.node(op_type, inputs, attributes=attributes or None)
        node.outputs[0].name = self._name(op_type)
        self.graph.insert_before(self.before, node)
        return node.outputs[0]

    def constant(self, array: NDArray[Any]) -> ir.Value:
        """An initializer that holds `array`."""
        value = ir.val(self._name("constant"), const_value=ir.tensor(array))
        self.graph.initializers.add(value)
        return value

    def scalar(self, number: int) -> ir.Value:
        """A scalar int64."""
        return self.constant(np.array(number, dtype=np.int64))

    def ints(self, numbers: Sequence[int]) -> ir.Value:
        """A one-dimensional int64 tensor."""
        return self.constant(np.array(numbers, dtype=np.int64))

    def float(self, number: float) -> ir.Value:
        """A scalar float32."""
        return self.constant(np.array(number, dtype=np.float32))

    def reshaped(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        """`value` in a fixed shape, of which one side may be -1."""
        return self("Reshape", value, self.ints(shape))

    def positions(self, x: ir.Value, axis: int) -> ir.Value:
        """0, 1, 2, … along an axis of `x`: int64 (side,)."""
        side = self("Squeeze", self("Shape", x, start=axis, end=axis + 1))
        return self("Range", self.scalar(0), side, self.scalar(1))

    def replace(self, node: ir.Node, value: ir.Value) -> None:
        """Let `value` stand for the output of `node`, and drop the node with its constants."""
        old = node.outputs[0]
        value.shape, value.type = old.shape, old.type
        name = old.name
        ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
        inputs = [x for x in node.inputs if x is not None]
        self.graph.remove(node, safe=True)
        for x in inputs:
            if x.is_initializer() and not x.uses() and x.name is not None:
                self.graph.initializers.pop(x.name, None)
        value.name = name

    def _name(self, what: str) -> str:
        return f"{self._prefix}/{what}_{next(self._numbers)}"  # of no other builder either
