"""Every pool: by hand, by formula, and against torch at any size."""

from collections.abc import Callable
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from models.pool import POOLS

Array = NDArray[np.float32]
Size = tuple[int | None, int | None]

SIDES = st.integers(1, 40)
OUTPUTS = st.none() | st.integers(1, 9)


def windows(n: int, o: int | None) -> list[slice]:
    """The windows as torch documents them: floor(i·n/o) up to ceil((i+1)·n/o)."""
    cells = n if o is None else o
    return [slice(i * n // cells, -(-(i + 1) * n // cells)) for i in range(cells)]


def by_formula(x: Array, size: Size, reduce: Callable[[Array], np.float32]) -> Array:
    """One loop a cell; nothing shared with torch or ONNX."""
    rows, columns = windows(x.shape[2], size[0]), windows(x.shape[3], size[1])
    return np.array(
        [
            [[[reduce(channel[r, c]) for c in columns] for r in rows] for channel in image]
            for image in x
        ]
    )  # (n, c, oh, ow)


def features(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def pooled(name: str, x: Array, **options: object) -> Array:
    y: Array = POOLS[name](**options)(torch.from_numpy(x)).numpy()
    return y


def test_table_names_every_pool() -> None:
    assert set(POOLS) == {"adaptive_avg", "adaptive_max", "global_avg", "global_max"}


ROW = np.arange(1, 6, dtype=np.float32).reshape(1, 1, 1, 5)  # 1 2 3 4 5


def test_adaptive_avg_windows_overlap_where_the_side_does_not_divide() -> None:
    # 5 pixels in 2 cells: 1 2 3 | 3 4 5; in 3 cells: 1 2 | 2 3 4 | 4 5
    assert pooled("adaptive_avg", ROW, output_size=(1, 2)).ravel().tolist() == [2, 4]
    assert pooled("adaptive_avg", ROW, output_size=(1, 3)).ravel().tolist() == [1.5, 3, 4.5]


def test_adaptive_max_windows_overlap_where_the_side_does_not_divide() -> None:
    assert pooled("adaptive_max", ROW, output_size=(1, 2)).ravel().tolist() == [3, 5]
    assert pooled("adaptive_max", -ROW, output_size=(1, 3)).ravel().tolist() == [-1, -2, -4]


def test_a_side_shorter_than_the_output_repeats_pixels() -> None:
    x = np.array([[[[1, 5]]]], dtype=np.float32)
    assert pooled("adaptive_avg", x, output_size=(2, 3)).tolist() == [[[[1, 3, 5], [1, 3, 5]]]]
    assert pooled("adaptive_max", x, output_size=(2, 3)).tolist() == [[[[1, 5, 5], [1, 5, 5]]]]


def test_none_keeps_a_side() -> None:
    x = np.array([[[[1, 2], [3, 6]]]], dtype=np.float32)
    assert pooled("adaptive_avg", x, output_size=(None, 1)).tolist() == [[[[1.5], [4.5]]]]
    assert pooled("adaptive_max", x, output_size=(1, None)).tolist() == [[[[3, 6]]]]
    assert pooled("adaptive_avg", x, output_size=(None, None)).tolist() == x.tolist()


def test_global_pools_reduce_each_channel_alone() -> None:
    x = np.array([[[[1, 2], [3, 6]], [[-1, -2], [-3, -6]]]], dtype=np.float32)
    assert pooled("global_avg", x).tolist() == [[[[3]], [[-3]]]]
    assert pooled("global_max", x).tolist() == [[[[6]], [[-1]]]]


@pytest.mark.parametrize("size", [(4, 4), (3, 1), (1, 3), (3, 5), (None, 2), (7, None)])
@pytest.mark.parametrize("shape", [(2, 3, 11, 7), (1, 2, 1, 1), (1, 1, 2, 13)])
def test_adaptive_pools_equal_the_formula(size: Size, shape: tuple[int, ...]) -> None:
    x = features(prod(shape), *shape)
    average = by_formula(x, size, np.mean)
    np.testing.assert_allclose(pooled("adaptive_avg", x, output_size=size), average, atol=1e-6)
    highest = by_formula(x, size, np.max)
    np.testing.assert_array_equal(pooled("adaptive_max", x, output_size=size), highest)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 3), h=SIDES, w=SIDES, oh=OUTPUTS, ow=OUTPUTS)
def test_adaptive_pools_equal_torch_at_any_size(
    n: int, h: int, w: int, oh: int | None, ow: int | None
) -> None:
    x = torch.from_numpy(features(h * 41 + w, n, 2, h, w))
    average, highest = nn.AdaptiveAvgPool2d((oh, ow))(x), nn.AdaptiveMaxPool2d((oh, ow))(x)
    assert torch.equal(POOLS["adaptive_avg"](output_size=(oh, ow))(x), average)
    assert torch.equal(POOLS["adaptive_max"](output_size=(oh, ow))(x), highest)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 3), h=SIDES, w=SIDES)
def test_global_pools_equal_adaptive_pools_to_one_cell(n: int, h: int, w: int) -> None:
    x = features(h * 41 + w, n, 2, h, w)
    average = by_formula(x, (1, 1), np.mean)
    np.testing.assert_allclose(pooled("global_avg", x), average, atol=1e-6)
    np.testing.assert_array_equal(pooled("global_max", x), by_formula(x, (1, 1), np.max))


@settings(max_examples=30, deadline=None)
@given(out=st.integers(1, 9), h=SIDES, w=SIDES)
def test_one_number_is_the_size_of_both_sides(out: int, h: int, w: int) -> None:
    x = features(1, 1, 1, h, w)
    for name in ("adaptive_avg", "adaptive_max"):
        both = pooled(name, x, output_size=(out, out))
        np.testing.assert_array_equal(pooled(name, x, output_size=out), both)
