"""Adaptive poolings on ONNX Runtime equal torch at every size."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from export.rewrite.cells import expand_cells
from tests.export.lowering import Function, Pixels, lower, relative_error, run, session

Size = int | tuple[int | None, int | None]
SIZES: tuple[Size, ...] = (
    1, (1, 1), (7, 7), (4, 4), (3, 1), (1, 3), (3, 5),
    (None, 1), (1, None), (None, 3), (3, None), (None, None),
)  # fmt: skip

AVERAGES: list[Function] = [
    *(nn.AdaptiveAvgPool2d(size) for size in SIZES),
    *(partial(F.adaptive_avg_pool2d, output_size=size) for size in SIZES),
    partial(F.interpolate, size=(3, 5), mode="area"),
]
MAXIMA: list[Function] = [
    *(nn.AdaptiveMaxPool2d(size) for size in SIZES),
    *(partial(F.adaptive_max_pool2d, output_size=size) for size in SIZES),
]


class Pools(NamedTuple):
    """All poolings above, in torch and in ONNX Runtime."""

    module: nn.Module
    runner: Any


@pytest.fixture(scope="module")
def pools() -> Pools:
    module = Pixels([*AVERAGES, *MAXIMA])
    return Pools(module, session(lower(module, len(AVERAGES) + len(MAXIMA))))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 3), h=st.integers(1, 90), w=st.integers(1, 90))
@example(n=1, h=1, w=1)
@example(n=2, h=2, w=3)  # smaller than the output
@example(n=3, h=1, w=90)
@example(n=1, h=7, w=4)  # as large as the output
@example(n=1, h=90, w=89)
def test_every_adaptive_pool_equals_torch_at_any_size(pools: Pools, n: int, h: int, w: int) -> None:
    x = np.random.default_rng(h * 91 + w).standard_normal((n, h, w, 2)).astype(np.float32)
    with torch.no_grad():
        expected = [y.numpy() for y in pools.module(torch.from_numpy(x))]
    got = run(pools.runner, x)
    for i, _ in enumerate(AVERAGES):
        assert relative_error(got[i], expected[i]) <= 2e-5, AVERAGES[i]
    for i, function in enumerate(MAXIMA, start=len(AVERAGES)):
        assert np.array_equal(got[i], expected[i]), function


def test_pools_of_uint8_pixels_equal_torch_also_one_after_the_other() -> None:
    chain = nn.Sequential(
        nn.AdaptiveMaxPool2d((9, None)), nn.AdaptiveAvgPool2d((5, 4)), nn.AdaptiveMaxPool2d(3)
    )
    module = Pixels([chain, lambda x: F.adaptive_avg_pool2d(F.relu(x - 99), (None, None))])
    runner = session(lower(module, 2, torch.uint8))
    for shape in ((1, 31, 44, 2), (2, 5, 3, 2), (3, 64, 64, 2)):
        pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
        for got, want in zip(run(runner, pixels), module(torch.from_numpy(pixels)), strict=True):
            assert relative_error(got, want.numpy()) <= 2e-5


def marked(size: Sequence[int], kind: str, dtype: str = "float") -> ir.Model:
    """A graph that is one adaptive pooling, straight from input to output."""
    return ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20, "anypool" : 1]>\n'
        f"pool ({dtype}[n, c, h, w] pixels) => ({dtype}[n, c, oh, ow] y) {{\n"
        f"  y = anypool.CellPool <output_size = {list(size)}, kernel = [0, 0], "
        f'kind = "{kind}"> (pixels)\n}}'
    )


@pytest.mark.parametrize(
    ("kind", "size", "operators"),
    [
        ("average", (1, 1), ["GlobalAveragePool"]),
        ("max", (1, 1), ["GlobalMaxPool"]),
        ("average", (0, 1), ["ReduceMean"]),
        ("average", (1, 0), ["ReduceMean"]),
        ("max", (0, 1), ["ReduceMax"]),
        ("max", (1, 0), ["ReduceMax"]),
        ("average", (0, 0), ["Identity"]),
        ("max", (0, 0), ["Identity"]),
    ],
)
def test_one_cell_stays_one_operator(
    kind: str, size: tuple[int, int], operators: list[str]
) -> None:
    model = marked(size, kind)
    expand_cells(model)
    assert [node.op_type for node in model.graph] == operators


@pytest.mark.parametrize("kind", ["average", "max"])
@pytest.mark.parametrize("size", [(3, 5), (3, 1), (1, 3), (0, 3), (1, 1), (0, 0)])
def test_only_standard_operators_remain_in_a_small_graph(kind: str, size: tuple[int, int]) -> None:
    model = marked(size, kind)
    expand_cells(model)
    assert set(model.opset_imports) == {""}
    assert {node.domain for node in model.graph} == {""}
    assert len(list(model.graph)) <= 40


@pytest.mark.parametrize("kind", ["average", "max"])
def test_double_precision_stays_double(kind: str) -> None:
    model = marked((3, 5), kind, "double")
    expand_cells(model)
    x = np.random.default_rng(2).standard_normal((2, 3, 17, 11))
    function = F.adaptive_avg_pool2d if kind == "average" else F.adaptive_max_pool2d
    (got,) = run(session(ir.to_proto(model)), x)
    want = function(torch.from_numpy(x), (3, 5)).numpy()
    assert got.dtype == np.float64
    assert relative_error(got, want) <= 1e-12
