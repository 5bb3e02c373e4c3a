"""Staircases against the functions they stand for, side by side, and against torch's poolings."""

import operator
import random
from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch.nn import functional as F

from export.rewrite.builder import Builder
from export.rewrite.ragged.extents import Extents, Side
from export.rewrite.ragged.number import Number
from export.rewrite.ragged.staircase import Level, Window
from export.sizes import round_up
from tests.export.lowering import session


def chain(seed: int, unit: int) -> tuple[Level, Callable[[int], int]]:
    """Some steps that a network may take, as a staircase and as a function."""
    rng = random.Random(seed)
    level = Level.start("height", unit)
    steps: list[Callable[[int], int]] = []
    for _ in range(rng.randint(1, 4)):
        kind, k = rng.choice(["window", "upsample", "pad", "divide"]), rng.randint(1, 4)
        if kind == "window":
            w = Window(rng.randint(1, 5), k, rng.randint(1, 2), rng.randint(0, 2), 1)
            level = level.through(w)
            steps.append(partial(_windows, w))
        elif kind == "upsample":
            level = level * k
            steps.append(partial(operator.mul, k))
        elif kind == "pad":
            level = level + (level * -1) % k
            steps.append(partial(round_up, multiple=k))
        else:
            level = level // k
            steps.append(partial(_parts, k))

    def function(v: int) -> int:
        for step in steps:
            v = step(v)
        return v

    return level, function


def _windows(w: Window, side: int) -> int:
    return (side + w.begin + w.end - w.dilation * (w.kernel - 1) - 1) // w.stride + 1


def _parts(count: int, side: int) -> int:
    return side // count


@pytest.mark.parametrize("unit", [1, 2, 6])
def test_a_staircase_is_the_function_at_every_side(unit: int) -> None:
    for seed in range(60):
        level, function = chain(seed, unit)
        assert [level(step) for step in range(1, 80)] == [function(unit * s) for s in range(1, 80)]


def test_equal_functions_are_equal_staircases_and_only_these() -> None:
    chains = [chain(seed, 2) for seed in range(80)]
    for (a, f), (b, g) in product(chains, chains):
        assert (a == b) == all(f(2 * s) == g(2 * s) for s in range(300))


def test_a_staircase_with_a_line_is_that_line() -> None:
    lines = 0
    for seed in range(60):
        level, function = chain(seed, 3)
        line = level.line()
        if line is not None:
            factor, offset, stride = line
            lines += 1
            assert all((factor * v + offset) // stride + 1 == function(v) for v in range(3, 200, 3))
    assert lines > 30


def test_the_graph_computes_the_same() -> None:
    sides = np.arange(2, 200, 2)
    for seed in range(30):
        level, function = chain(seed, 2)
        kept = [int(v) for v in sides if function(int(v)) > 0]
        x = ir.val("x", ir.DataType.INT64, ["n"])
        y = ir.node("Identity", [x], name="y")
        graph = ir.Graph([x], y.outputs, nodes=[y], name="g", opset_imports={"": 20})
        y.outputs[0].name, y.outputs[0].type = "y", ir.TensorType(ir.DataType.INT64)
        extents = Extents({"height": Side(x, x)})
        y.replace_input_with(0, extents.side(Builder(before=y), level).valid)
        proto = ir.to_proto(ir.Model(graph, ir_version=10))
        got = session(proto).run(None, {"x": np.array(kept, np.int64)})[0]
        assert got.tolist() == [function(v) for v in kept]


def test_ceil_mode_is_torchs() -> None:
    for kernel, stride, pad, dilation in product((1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (1, 2)):
        if 2 * pad > kernel:
            continue
        window = Window(kernel, stride, dilation, pad, pad).ceiling()
        level = Level.start("height").through(window)
        for side in range(window.reach + 1, 40):
            x = torch.zeros(1, 1, side)
            want = F.max_pool1d(x, kernel, stride, pad, dilation, ceil_mode=True).shape[2]
            assert level(side) == want


def test_numbers_are_exact_or_unknown() -> None:
    height, width = Number.of(1, Level.start("height")), Number.of(1, Level.start("width"))
    assert (height * width * Number(6)).quotient(width * Number(2)) == height * Number(3)
    assert (height + height) == height * Number(2)
    assert (height * Number(4)) // Number(2) == height * Number(2)
    unknown: dict[str, Callable[[], Number]] = {
        "height and width": lambda: height + width,
        "no whole quotient": lambda: height // width,
        "several sides": lambda: (height * width) % Number(2),
        "no whole": lambda: height.quotient(Number(2)),
        "rounds less than 0": lambda: (height - Number(5)) // Number(2),
    }
    for said, compute in unknown.items():
        with pytest.raises(ValueError, match=said):
            compute()
