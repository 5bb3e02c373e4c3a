"""Operators that work pixel by pixel: they keep the region, and change what is known of values."""

from collections.abc import Callable, Set
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from export.rewrite.ragged.errors import Unsupported
from export.rewrite.ragged.masks import Masks
from export.rewrite.ragged.region import Extent, Region

# What f does to 0, to signs, and to what lies outside.
_KEEP_ZERO = {
    "Abs", "Cast", "Celu", "Elu", "Erf", "Gelu", "HardSwish", "Identity", "LeakyRelu", "Mish",
    "Neg", "PRelu", "Relu", "Selu", "Sign", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu",
    "Dropout",
}  # fmt: skip
_NONNEGATIVE = {"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softplus", "Sqrt"}
_KEEP_SIGN = {"Cast", "Dropout", "Identity", "LeakyRelu"}
_MAY_OVERFLOW = {"Exp", "Log", "Reciprocal", "Sqrt", "Softplus"}
_UNARY = _KEEP_ZERO | _NONNEGATIVE | {"Floor", "Ceil", "Round", "Log", "Reciprocal"}


def unary(masks: Masks, node: ir.Node) -> None:
    """One image in, one out; other inputs (slopes, bounds) are constants."""
    x = node.inputs[0]
    region = None if x is None else masks.regions.get(x)
    if x is None or region is None:
        raise Unsupported(node, "its parameters depend on the image")
    for other in node.inputs[1:]:
        _check_constant(masks, node, other, x, region)
    op = node.op_type
    masks.regions[node.outputs[0]] = Region.of(
        region.axes,
        zero=region.zero and op in _KEEP_ZERO,
        nonnegative=op in _NONNEGATIVE or (op in _KEEP_SIGN and region.nonnegative),
        finite=region.finite and op not in _MAY_OVERFLOW,
    )


def clip(masks: Masks, node: ir.Node) -> None:
    """Clip: keeps zeros if 0 lies between its bounds; a lower bound of 0 or more shows the sign."""
    x = node.inputs[0]
    if x is None or x not in masks.regions:
        raise Unsupported(node, "its bounds depend on the image")
    region = masks.regions[x]
    low = _scalar(masks, node, 1, -np.inf)
    high = _scalar(masks, node, 2, np.inf)
    masks.regions[node.outputs[0]] = Region.of(
        region.axes,
        zero=region.zero and low <= 0 <= high,
        nonnegative=(low >= 0 or region.nonnegative) and high >= 0,
        finite=region.finite,
    )


def normalise_batch(masks: Masks, node: ir.Node) -> None:
    """BatchNormalization in inference: a factor and a term for each channel."""
    x = node.inputs[0]
    if x is None or x not in masks.regions or len(node.outputs) > 1:
        raise Unsupported(node, "its parameters depend on the image")
    region = masks.regions[x]
    if 1 in region.axes:
        raise Unsupported(node, "images vary along its channel axis")
    masks.regions[node.outputs[0]] = Region.of(region.axes, finite=region.finite)


def combine(masks: Masks, node: ir.Node) -> None:
    """Add, Mul and their kin, of maps of one region, or of a map and something for each image."""
    inputs = [value for value in node.inputs if value is not None]
    rank = max(_rank(node, value) for value in inputs)
    levels: dict[int, Extent] = {}
    for value in inputs:
        shift = rank - _rank(node, value)
        region = masks.regions.get(value)
        for axis, level in () if region is None else region.levels:
            if levels.setdefault(axis + shift, level) != level:
                raise Unsupported(
                    node, "its inputs' regions differ: their paths shrink differently"
                )
    for value in inputs:
        _check_broadcast(masks, node, value, rank, levels)
    states = [_state(masks, value, rank - _rank(node, value), levels) for value in inputs]
    masks.regions[node.outputs[0]] = _COMBINED[node.op_type](levels, states)


def _state(masks: Masks, value: ir.Value, shift: int, levels: dict[int, Extent]) -> Region:
    """What is known of an operand; constants are looked at.

    An operand that is ragged along fewer axes than the result is zero outside those only: where
    it is repeated along the others, it is not zero.
    """
    region = masks.regions.get(value)
    if region is not None:
        everywhere = {axis + shift for axis in region.axes} == set(levels)
        return replace(region, zero=region.zero and everywhere)
    if value.const_value is None:
        return Region.of({})
    array = value.const_value.numpy()
    return Region.of(
        {},
        zero=bool((array == 0).all()),
        nonnegative=bool((array >= 0).all()),
        finite=bool(np.isfinite(array).all()),
    )


def _add(levels: dict[int, Extent], states: list[Region]) -> Region:
    return Region.of(
        levels,
        zero=all(state.zero for state in states),
        nonnegative=all(state.nonnegative for state in states),
        finite=all(state.finite for state in states),
    )


def _subtract(levels: dict[int, Extent], states: list[Region]) -> Region:
    both = _add(levels, states)
    return Region.of(levels, zero=both.zero, finite=both.finite)


def _multiply(levels: dict[int, Extent], states: list[Region]) -> Region:
    both = _add(levels, states)
    zero = both.finite and any(state.zero for state in states)
    return Region.of(levels, zero=zero, nonnegative=both.nonnegative, finite=both.finite)


def _divide(levels: dict[int, Extent], states: list[Region]) -> Region:
    both = _add(levels, states)
    return Region.of(levels, nonnegative=both.nonnegative, finite=False)


def _power(levels: dict[int, Extent], states: list[Region]) -> Region:
    return Region.of(levels, nonnegative=states[0].nonnegative, finite=False)


def _choose(levels: dict[int, Extent], states: list[Region]) -> Region:
    return Region.of(levels, finite=all(state.finite for state in states))


def _highest(levels: dict[int, Extent], states: list[Region]) -> Region:
    both = _add(levels, states)
    any_positive = any(state.nonnegative for state in states)
    return Region.of(levels, zero=both.zero, nonnegative=any_positive, finite=both.finite)


_COMBINED: dict[str, Callable[[dict[int, Extent], list[Region]], Region]] = {
    "Add": _add,
    "Sum": _add,
    "Sub": _subtract,
    "Mul": _multiply,
    "Div": _divide,
    "Pow": _power,
    "Max": _highest,
    "Min": _add,
    "Where": _choose,
    "Equal": _choose,
    "Greater": _choose,
    "GreaterOrEqual": _choose,
    "Less": _choose,
    "LessOrEqual": _choose,
}


def _check_broadcast(
    masks: Masks, node: ir.Node, value: ir.Value, rank: int, levels: dict[int, Extent]
) -> None:
    """Along a ragged axis every operand must be ragged too, or have one value for all positions."""
    region = masks.regions.get(value)
    shift = rank - _rank(node, value)
    assert value.shape is not None
    for axis in levels:
        own = axis - shift
        ragged = region is not None and own in region.axes
        if own >= 0 and not ragged and value.shape[own] != 1:
            raise Unsupported(node, "one of its inputs has a value for each place of the canvas")


def _check_constant(
    masks: Masks, node: ir.Node, value: ir.Value | None, x: ir.Value, region: Region
) -> None:
    if value is None:
        return
    if value in masks.regions or value.const_value is None:
        raise Unsupported(node, "its parameters are computed")
    _check_broadcast(masks, node, value, _rank(node, x), region.axes)


def _scalar(masks: Masks, node: ir.Node, index: int, default: float) -> float:
    value = node.inputs[index] if len(node.inputs) > index else None
    if value is None:
        return default
    if value in masks.regions or value.const_value is None:
        raise Unsupported(node, "its bounds are computed")
    return float(value.const_value.numpy())


def _rank(node: ir.Node, value: ir.Value) -> int:
    if value.shape is None:
        raise Unsupported(node, "the number of an input's dimensions is not known")
    return len(value.shape)


def _table(names: Set[str]) -> dict[tuple[str, str], Callable[[Masks, ir.Node], None]]:
    return {("", name): unary for name in sorted(names)}


RULES = {
    **_table(_UNARY),
    **{("", name): combine for name in _COMBINED},
    ("", "Clip"): clip,
    ("", "BatchNormalization"): normalise_batch,
}
