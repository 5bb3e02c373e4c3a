"""Whole numbers that a graph computes from the canvas's size, such as the shape for a Reshape.

Each is followed as a product of staircases (staircase.py). Where only the canvas's size can be
meant, in the shape of a tensor, it may be used; everywhere else it would take the place of the
image's own size, which is refused.
"""

from collections.abc import Callable
from math import prod
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.rewrite.ragged.number import Number

CANVAS = "it takes the canvas's size for the image's"


Numbers: TypeAlias = NDArray[Any]  # of Number, or None where nothing is known


class Counts:
    """The numbers of a graph, by tensor."""

    def __init__(self) -> None:
        self._known: dict[ir.Value, Numbers] = {}

    def of(self, value: ir.Value | None) -> Numbers | None:
        """What is known of a tensor of whole numbers."""
        if value is None:
            return None
        if value.const_value is not None and value.dtype == ir.DataType.INT64:
            array = np.asarray(value.const_value.numpy())
            if array.size <= _LONGEST:
                return _objects([Number(int(i)) for i in array.flat], array.shape)
        return self._known.get(value)

    def tells(self, value: ir.Value) -> bool:
        """Whether a tensor depends on the canvas's size."""
        known = self._known.get(value)
        return known is not None and any(number.levels for number in known.flat if number)

    def shape(self, value: ir.Value, numbers: list[Number | None]) -> None:
        """Set what Shape gives."""
        self._known[value] = _objects(numbers, (len(numbers),))

    def follow(self, node: ir.Node) -> bool:
        """Compute what a node does to numbers; whether that is known."""
        rule = _RULES.get(node.op_type) if node.domain == "" else None
        inputs = [self.of(value) for value in node.inputs]
        if rule is None or any(known is None for known in inputs):
            return False
        if not any(value in self._known for value in node.inputs if value is not None):
            return False
        try:
            result = np.asarray(rule(node, *inputs), dtype=object)
        except (ValueError, TypeError, AttributeError):
            return False  # a number that is not known, or a sum of what has no sum here
        self._known[node.outputs[0]] = result
        return True


_LONGEST = 16


def _objects(numbers: list[Number | None], shape: tuple[int, ...]) -> Numbers:
    array = np.empty(len(numbers), dtype=object)
    array[:] = numbers
    return array.reshape(shape)


def _constants(array: Numbers) -> list[int]:
    found = [number.constant for number in array.flat]
    if None in found:
        raise ValueError("not known")
    return [int(number) for number in found]


def _axis(node: ir.Node) -> int:
    return node.attributes["axis"].as_int() if "axis" in node.attributes else 0


def _slice(_: ir.Node, data: Numbers, starts: Numbers, ends: Numbers, *more: Numbers) -> Numbers:
    axes = _constants(more[0]) if more else [0]
    (start,), (end,) = _constants(starts), _constants(ends)
    step = _constants(more[1])[0] if len(more) > 1 else 1
    if axes != [0] or data.ndim != 1:
        raise ValueError("not known")
    return data[start:end:step]


def _gather(node: ir.Node, data: Numbers, indices: Numbers) -> Numbers:
    chosen = np.array(_constants(indices)).reshape(indices.shape)
    return np.take(data, chosen, axis=_axis(node))


def _squeeze(_: ir.Node, data: Numbers, *axes: Numbers) -> Numbers:
    return data.reshape([side for side in data.shape if side != 1])


def _unsqueeze(_: ir.Node, data: Numbers, axes: Numbers) -> Numbers:
    return np.expand_dims(data, tuple(_constants(axes)))


def _reshape(_: ir.Node, data: Numbers, shape: Numbers) -> Numbers:
    return data.reshape(_constants(shape))


def _product(node: ir.Node, data: Numbers, *axes: Numbers) -> Numbers:
    keep = node.attributes["keepdims"].as_int() if "keepdims" in node.attributes else 1
    whole = prod(data.flat, start=Number())
    return _objects([whole], (1,) * data.ndim if keep else ())


def _cast(node: ir.Node, data: Numbers) -> Numbers:
    if node.attributes["to"].as_int() != ir.DataType.INT64:
        raise ValueError("not known")
    return data


_RULES: dict[str, Callable[..., Any]] = {
    "Identity": lambda _, a: a,
    "Cast": _cast,
    "Slice": _slice,
    "Gather": _gather,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Concat": lambda node, *parts: np.concatenate(parts, axis=_axis(node)),
    "Add": lambda _, a, b: a + b,
    "Sub": lambda _, a, b: a - b,
    "Mul": lambda _, a, b: a * b,
    "Div": lambda _, a, b: a // b,
    "Mod": lambda node, a, b: _whole(node, a % b),
    "Neg": lambda _, a: -a,
    "ReduceProd": _product,
}


def _whole(node: ir.Node, result: Numbers) -> Numbers:
    if "fmod" in node.attributes and node.attributes["fmod"].as_int():
        raise ValueError("not known")
    return result
