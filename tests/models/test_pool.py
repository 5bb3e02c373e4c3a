"""Every pool: by hand, by formula, against torch at any size, and at its limits."""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import import_module
from itertools import pairwise
from math import floor, inf, log
from pkgutil import iter_modules
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models import pool as pools
from models.pool import POOLS
from models.pool.regions import cells, fractional_max_pool2d
from models.weights import seeded

Array = NDArray[np.float64]
Options = dict[str, Any]
Reduce = Callable[[Array], Any]


def test_table_names_every_pool() -> None:
    assert set(POOLS) == {
        "adaptive_avg", "adaptive_max", "attention", "avg", "avg_window", "class_channel",
        "fractional_max", "gated", "gem", "log_sum_exp", "lp", "max", "max_window", "mixed", "spp",
        "stochastic", "stochastic_window", "strided_conv",
    }  # fmt: skip


def test_table_has_the_pool_of_every_module() -> None:
    modules = [import_module(f"{pools.__name__}.{m.name}") for m in iter_modules(pools.__path__)]
    defined = {
        kind
        for module in modules
        for name, kind in vars(module).items()
        if name.endswith("Pool") and kind.__module__ == module.__name__
    }
    assert defined == set(POOLS.values())


# By hand -----------------------------------------------------------------------------------------

ROW = [[[1, 2, 3, 4, 5]]]
PAIR = [[[1, 5]]]
SQUARE = [[[1, 2], [3, 6]], [[-1, -2], [-3, -6]]]  # two channels
GRID = [[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]


@dataclass(frozen=True)
class Case:
    """One image (c, h, w), what its pooling must give, and how the pooling is made."""

    pool: str
    x: object
    y: object
    options: Options = field(default_factory=dict)
    weights: Options = field(default_factory=dict)

    def __str__(self) -> str:
        made = [f"{name}={value}" for name, value in (self.options | self.weights).items()]
        return f"{self.pool}({', '.join(made)})"


# fmt: off
CASES = [
    # 5 pixels in 2 cells: 1 2 3 | 3 4 5; in 3 cells: 1 2 | 2 3 4 | 4 5
    Case("adaptive_avg", ROW, [[[2, 4]]], {"output_size": (1, 2)}),
    Case("adaptive_avg", ROW, [[[1.5, 3, 4.5]]], {"output_size": (1, 3)}),
    Case("adaptive_max", ROW, [[[3, 5]]], {"output_size": (1, 2)}),
    Case("adaptive_max", [[[-1, -2, -3, -4, -5]]], [[[-1, -2, -4]]], {"output_size": (1, 3)}),
    # a side shorter than the output repeats pixels
    Case("adaptive_avg", PAIR, [[[1, 3, 5], [1, 3, 5]]], {"output_size": (2, 3)}),
    Case("adaptive_max", PAIR, [[[1, 5, 5], [1, 5, 5]]], {"output_size": (2, 3)}),
    # None keeps a side
    Case("adaptive_avg", [[[1, 2], [3, 6]]], [[[1.5], [4.5]]], {"output_size": (None, 1)}),
    Case("adaptive_avg", SQUARE, SQUARE, {"output_size": (None, None)}),
    Case("adaptive_max", [[[1, 2], [3, 6]]], [[[3, 6]]], {"output_size": (1, None)}),
    # every channel alone
    Case("avg", SQUARE, [[[3]], [[-3]]]),
    Case("max", SQUARE, [[[6]], [[-1]]]),
    Case("mixed", SQUARE, [[[4.5]], [[-2]]]),
    Case("mixed", SQUARE, [[[3.75]], [[-2.5]]], {"alpha": 0.25}),
    # a gate of 3/4 where weight·mean + bias = log 3; untrained 1/2
    Case("gated", SQUARE, [[[4.5]], [[-2]]], {"channels": 2}),
    Case("gated", SQUARE, [[[5.25]], [[-1.5]]], {"channels": 2},
         {"weight": [1, 2], "bias": [log(3) - 3, log(3) + 6]}),
    # (1 + 25 + 25 + 49) / 4 is the square of 5
    Case("lp", [[[1, -5], [5, -7]]], [[[5]]]),
    Case("lp", [[[1, -5], [5, -7]]], [[[4.5]]], {"p": 1}),
    Case("gem", [[[1, 5], [5, 7]]], [[[5]]], {"p": 2}),
    Case("gem", [[[1, 2], [3, 6]]], [[[(252 / 4) ** (1 / 3)]]]),  # 1 + 8 + 27 + 216
    Case("gem", [[[-5, 3]]], [[[1.75]]], {"p": 1, "eps": 0.5}),
    # e^0 = 1, e^log 3 = 3: their mean is 2
    Case("log_sum_exp", [[[0, log(3)]]], [[[log(2)]]], {"r": 1}),
    Case("log_sum_exp", [[[0, log(3)]]], [[[log(5) / 2]]], {"r": 2}),  # of 1 and 9: 5
    # odds of 1 to 3, whatever the bias; of two heads the second looks at nothing
    Case("attention", SQUARE, [[[3]], [[-3]]], {"channels": 2}),
    Case("attention", [[[0, 1]]], [[[0.75]]], {"channels": 1},
         {"score.weight": [[[[log(3)]]]], "score.bias": [7]}),
    Case("attention", [[[0, 1]], [[0, 8]]], [[[0.75]], [[4]]], {"channels": 2, "heads": 2},
         {"score.weight": [[[[log(3)]], [[0]]], [[[0]], [[0]]]]}),
    # 2a + b + 10 is 15 and 14
    Case("class_channel", [[[1, 2]], [[3, 0]]], [[[14.5]]], {"channels": 2, "classes": 1},
         {"conv.weight": [[[[2]], [[1]]]], "conv.bias": [10]}),
    Case("class_channel", [[[1, 2]], [[3, 0]]], [[[15]]],
         {"channels": 2, "classes": 1, "kind": "max"},
         {"conv.weight": [[[[2]], [[1]]]], "conv.bias": [10]}),
    # (1 + 9) / (1 + 3); what is negative counts as 0
    Case("stochastic", [[[1, 3]], [[-4, -1]]], [[[2.5]], [[0]]]),
    Case("stochastic", [[[1, -7, 3, 0]]], [[[2.5]]]),
    Case("stochastic_window", [[[1, 3, -2], [0, 0, 0]]], [[[2.5, 3]]],
         {"kernel_size": 2, "stride": 1}),
    # one cell, then four, row by row
    Case("spp", GRID, [[[9], [5], [6], [8], [9]]], {"levels": (1, 2)}),
    Case("spp", GRID, [[[3], [4], [6], [7], [5]]], {"levels": (2, 1), "kind": "avg"}),
    # over 5 places 3 regions of 2 start at 0, 2 and 3; over 2 places 2 of 1 at 0 and 1
    Case("fractional_max", [[[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]]], [[[2, 4, 5], [5, 3, 2]]],
         {"output_size": (2, 3), "kernel_size": (1, 2)}),
    Case("avg_window", GRID, [[[3]]]),
    Case("avg_window", GRID, [[[3, 4.5], [7.5, 9]]], {"ceil_mode": True}),
    Case("avg_window", GRID, [[[3, 4], [6, 7]]], {"stride": 1}),
    Case("avg_window", GRID, [[[1.5, 2.5], [7.5, 8.5]]], {"kernel_size": (1, 2), "stride": (2, 1)}),
    Case("avg_window", GRID, [[[0.25, 1.25], [2.75, 7]]], {"padding": 1}),
    Case("avg_window", GRID, [[[1, 2.5], [5.5, 7]]], {"padding": 1, "count_include_pad": False}),
    Case("max_window", GRID, [[[5]]]),
    Case("max_window", GRID, [[[5, 6], [8, 9]]], {"ceil_mode": True}),
    Case("max_window", GRID, [[[2, 3], [8, 9]]], {"kernel_size": (1, 2), "stride": (2, 1)}),
    Case("max_window", [[[-1, -2, -3]]], [[[-1, -2]]], {"padding": 1}),
    # untrained it averages: the corner sees 1 2 4 5 among 9, the others are alike
    Case("strided_conv", GRID, [[[12 / 9, 16 / 9], [24 / 9, 28 / 9]]], {"channels": 1}),
    Case("strided_conv", SQUARE, [[[3]], [[-3]]], {"channels": 2, "kernel_size": 2, "padding": 0}),
    Case("strided_conv", GRID, [[[51.5, 62.5], [84.5, 95.5]]],
         {"channels": 1, "kernel_size": 2, "stride": 1, "padding": 0},
         {"conv.weight": [[[[1, 0], [0, 10]]]], "conv.bias": [0.5]}),
]
# fmt: on


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pool_equals_what_was_worked_out_by_hand(case: Case) -> None:
    pool = POOLS[case.pool](**case.options).eval()
    pool.load_state_dict({k: torch.tensor(v) for k, v in case.weights.items()}, strict=False)
    y = pool(torch.tensor([case.x], dtype=torch.float32)).detach()
    assert y.dtype == torch.float32
    np.testing.assert_allclose(y, np.array([case.y]), rtol=1e-6, atol=1e-9)


def test_every_pool_has_a_case_worked_out_by_hand() -> None:
    assert {case.pool for case in CASES} == set(POOLS)


# By formula --------------------------------------------------------------------------------------


def by_cells(x: Array, rows: list[slice], columns: list[slice], reduce: Reduce) -> Array:
    """One loop a cell; nothing shared with torch or ONNX."""
    return np.array(
        [
            [[[reduce(channel[r, c]) for c in columns] for r in rows] for channel in image]
            for image in x
        ]
    )  # (n, c, oh, ow)


def everywhere(x: Array, reduce: Reduce) -> Array:
    return by_cells(x, [slice(None)], [slice(None)], reduce)


def adaptive_cells(n: int, o: int | None) -> list[slice]:
    """The windows as torch documents them: floor(i·n/o) up to ceil((i+1)·n/o)."""
    cells = n if o is None else o
    return [slice(i * n // cells, -(-(i + 1) * n // cells)) for i in range(cells)]


def fractional_cells(n: int, o: int, k: int) -> list[slice]:
    """As the paper has them, with u = 1/2, in exact fractions."""
    alpha, u = Fraction(n - k, o - 1), Fraction(1, 2)
    starts = [floor(alpha * (i + u)) - floor(alpha * u) for i in range(o)]
    return [slice(start, start + k) for start in starts]


def window_cells(n: int, k: int, s: int, p: int, *, ceil: bool) -> list[slice]:
    """Windows over n places with p more at either end; the last must begin before the right pad."""
    steps = -(-(n + 2 * p - k) // s) if ceil else (n + 2 * p - k) // s
    return [slice(i * s, i * s + k) for i in range(steps + 1) if not ceil or i * s < n + p]


def both(size: Any) -> tuple[Any, Any]:
    return size if isinstance(size, tuple) else (size, size)


def padded(x: Array, padding: Any, fill: float) -> Array:
    (ph, pw) = both(padding)
    return np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=fill)


def by_windows(
    x: Array, kernel_size: Any, stride: Any, padding: Any, fill: float, reduce: Reduce,
    *, ceil: bool,
) -> Array:  # fmt: skip
    (h, w), (kh, kw), (ph, pw) = x.shape[2:], both(kernel_size), both(padding)
    sh, sw = both(kernel_size if stride is None else stride)
    rows, columns = window_cells(h, kh, sh, ph, ceil=ceil), window_cells(w, kw, sw, pw, ceil=ceil)
    return by_cells(padded(x, padding, fill), rows, columns, reduce)


def by_grid(x: Array, output_size: Any, reduce: Reduce) -> Array:
    (h, w), (oh, ow) = x.shape[2:], both(output_size)
    return by_cells(x, adaptive_cells(h, oh), adaptive_cells(w, ow), reduce)


def attention(x: Array, channels: int, heads: int, score_weight: Array, score_bias: Array) -> Array:
    pooled = np.empty((*x.shape[:2], 1, 1))
    for i, image in enumerate(x):
        for c in range(channels):
            head = c * heads // channels
            score = sum(w * v for w, v in zip(score_weight[head].ravel(), image, strict=True))
            weight = np.exp(score + score_bias[head])
            pooled[i, c] = (weight * image[c]).sum() / weight.sum()
    return pooled


def avg_window(
    x: Array, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool
) -> Array:
    fill = 0 if count_include_pad else np.nan
    return by_windows(x, kernel_size, stride, padding, fill, np.nanmean, ceil=ceil_mode)


def class_channel(
    x: Array, channels: int, classes: int, kind: str, conv_weight: Array, conv_bias: Array
) -> Array:
    maps = np.empty((len(x), classes, *x.shape[2:]))
    for k in range(classes):
        maps[:, k] = conv_bias[k] + sum(conv_weight[k, c, 0, 0] * x[:, c] for c in range(channels))
    return everywhere(maps, np.mean if kind == "avg" else np.max)


def fractional_max(x: Array, output_size: Any, kernel_size: Any) -> Array:
    (h, w), (oh, ow), (kh, kw) = x.shape[2:], both(output_size), both(kernel_size)
    return by_cells(x, fractional_cells(h, oh, kh), fractional_cells(w, ow, kw), np.max)


def gated(x: Array, channels: int, weight: Array, bias: Array) -> Array:
    pooled = np.empty((*x.shape[:2], 1, 1))
    for i, image in enumerate(x):
        for c in range(channels):
            gate = 1 / (1 + np.exp(-weight[c] * image[c].mean() - bias[c]))
            pooled[i, c] = gate * image[c].max() + (1 - gate) * image[c].mean()
    return pooled


def max_window(x: Array, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool) -> Array:
    return by_windows(x, kernel_size, stride, padding, np.nan, np.nanmax, ceil=ceil_mode)


def spp(x: Array, levels: tuple[int, ...], kind: str) -> Array:
    grids = [by_grid(x, level, np.mean if kind == "avg" else np.max) for level in levels]
    return np.concatenate([grid.reshape(*x.shape[:2], -1, 1) for grid in grids], 2)


def expected(values: Array) -> Any:
    """Of a value drawn with a probability in proportion to itself."""
    values = np.maximum(values, 0)
    return (values * (values / values.sum())).sum() if values.any() else 0.0


def strided_conv(
    x: Array, channels: int, kernel_size: int, stride: int, padding: int, conv_weight: Array,
    conv_bias: Array,
) -> Array:  # fmt: skip
    h, w = x.shape[2:]
    wide = padded(x, padding, 0)
    rows = window_cells(h, kernel_size, stride, padding, ceil=False)
    columns = window_cells(w, kernel_size, stride, padding, ceil=False)
    return np.array(
        [
            [
                [[(conv_weight[k] * image[:, r, c]).sum() + conv_bias[k] for c in columns]
                 for r in rows]
                for k in range(channels)
            ]
            for image in wide
        ]
    )  # fmt: skip


# Each takes x, the pool's arguments, and its parameters, which count where both have a name.
FORMULAS: dict[str, Callable[..., Array]] = {
    "adaptive_avg": lambda x, output_size: by_grid(x, output_size, np.mean),
    "adaptive_max": lambda x, output_size: by_grid(x, output_size, np.max),
    "attention": attention,
    "avg": lambda x: everywhere(x, np.mean),
    "avg_window": avg_window,
    "class_channel": class_channel,
    "fractional_max": fractional_max,
    "gated": gated,
    "gem": lambda x, p, eps: everywhere(np.maximum(x, eps), lambda v: (v**p).mean() ** (1 / p)),
    "log_sum_exp": lambda x, r: everywhere(x, lambda v: np.log(np.exp(r * v).mean()) / r),
    "lp": lambda x, p: everywhere(x, lambda v: (np.abs(v) ** p).mean() ** (1 / p)),
    "max": lambda x: everywhere(x, np.max),
    "max_window": max_window,
    "mixed": lambda x, alpha: everywhere(x, lambda v: alpha * v.max() + (1 - alpha) * v.mean()),
    "spp": spp,
    "stochastic": lambda x: everywhere(x, expected),
    "stochastic_window": lambda x, kernel_size, stride: by_windows(
        x, kernel_size, stride, 0, 0, expected, ceil=False
    ),
    "strided_conv": strided_conv,
}

GRIDS = st.tuples(st.none() | st.integers(1, 9), st.none() | st.integers(1, 9))
SMALL = st.integers(1, 3)


@st.composite
def windows(draw: st.DrawFn) -> Options:
    kernel = draw(st.integers(1, 4) | st.tuples(st.integers(1, 4), st.integers(1, 4)))
    kh, kw = both(kernel)
    return {
        "kernel_size": kernel,
        "stride": draw(st.none() | SMALL | st.tuples(SMALL, SMALL)),
        "padding": draw(st.tuples(st.integers(0, kh // 2), st.integers(0, kw // 2))),
        "ceil_mode": draw(st.booleans()),
    }


def options(**arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Options]:
    return st.fixed_dictionaries(arguments)


KINDS = st.sampled_from(["avg", "max"])
OPTIONS: dict[str, st.SearchStrategy[Options]] = {
    "adaptive_avg": options(output_size=GRIDS | st.integers(1, 9)),
    "adaptive_max": options(output_size=GRIDS | st.integers(1, 9)),
    "attention": st.tuples(SMALL, SMALL).map(lambda t: {"channels": t[0] * t[1], "heads": t[0]}),
    "avg": options(),
    "avg_window": st.tuples(windows(), st.booleans()).map(
        lambda t: t[0] | {"count_include_pad": t[1]}
    ),
    "class_channel": options(channels=SMALL, classes=st.integers(1, 4), kind=KINDS),
    "fractional_max": options(
        output_size=st.integers(2, 6) | st.tuples(st.integers(2, 6), st.integers(2, 6)),
        kernel_size=SMALL | st.tuples(SMALL, SMALL),
    ),
    "gated": options(channels=SMALL),
    "gem": options(p=st.floats(0.25, 20), eps=st.sampled_from([1e-6, 1e-3, 0.5])),
    "log_sum_exp": options(r=st.floats(0.1, 20)),
    "lp": options(p=st.floats(1, 20)),
    "max": options(),
    "max_window": windows(),
    "mixed": options(alpha=st.floats(-1, 2)),
    "spp": options(levels=st.lists(st.integers(1, 5), min_size=1, max_size=4), kind=KINDS),
    "stochastic": options(),
    "stochastic_window": options(kernel_size=st.integers(1, 4), stride=SMALL),
    "strided_conv": options(
        channels=SMALL, kernel_size=st.integers(1, 4), stride=SMALL, padding=st.integers(0, 1)
    ),
}


def places(arguments: Options) -> int:
    """How many a side must have for these windows or fractional regions."""
    if "kernel_size" not in arguments:
        return 1
    k, o = max(both(arguments["kernel_size"])), max(both(arguments.get("output_size", 1)))
    return int(k + o - 1)


def features(seed: int, *shape: int) -> Array:
    """Noise about 0: of the responses before a ReLU, and of no other."""
    return np.random.default_rng(seed).standard_normal(shape)


def randomised(pool: nn.Module, seed: int) -> nn.Module:
    """In float64 and at inference, every vector of weights drawn; single numbers stay as given."""
    with seeded(seed), torch.no_grad():
        for parameter in pool.double().eval().parameters():
            if parameter.ndim:
                parameter.normal_()
    return pool


@pytest.mark.parametrize("name", POOLS)
@settings(max_examples=40)
@given(data=st.data())
def test_pool_equals_its_formula_at_any_size(name: str, data: st.DataObject) -> None:
    arguments = data.draw(OPTIONS[name])
    sides = st.integers(places(arguments), 14)
    n, c, h, w = data.draw(st.tuples(SMALL, SMALL, sides, sides))
    x = features(data.draw(st.integers(0, 99)), n, arguments.get("channels", c), h, w)
    pool = randomised(POOLS[name](**arguments), seed=h * 41 + w)
    weights = {k.replace(".", "_"): v.numpy() for k, v in pool.state_dict().items()}
    y = pool(torch.from_numpy(x)).detach()
    np.testing.assert_allclose(y, FORMULAS[name](x, **arguments | weights), rtol=1e-9, atol=1e-12)


# Against torch -----------------------------------------------------------------------------------

SIDES = st.integers(1, 40)


@settings(max_examples=60)
@given(n=SMALL, h=SIDES, w=SIDES, size=GRIDS)
def test_adaptive_pools_equal_torch_at_any_size(
    n: int, h: int, w: int, size: tuple[int | None, int | None]
) -> None:
    x = torch.from_numpy(features(h * 41 + w, n, 2, h, w)).float()
    assert torch.equal(POOLS["adaptive_avg"](output_size=size)(x), nn.AdaptiveAvgPool2d(size)(x))
    assert torch.equal(POOLS["adaptive_max"](output_size=size)(x), nn.AdaptiveMaxPool2d(size)(x))


@settings(max_examples=60)
@given(h=st.integers(4, 24), w=st.integers(4, 24), window=windows(), pad_counts=st.booleans())
def test_window_pools_equal_torch_at_any_size(
    h: int, w: int, window: Options, pad_counts: bool
) -> None:
    x = torch.from_numpy(features(h * 41 + w, 2, 2, h, w)).float()
    average = nn.AvgPool2d(**window, count_include_pad=pad_counts)(x)
    assert torch.equal(POOLS["avg_window"](**window, count_include_pad=pad_counts)(x), average)
    assert torch.equal(POOLS["max_window"](**window)(x), nn.MaxPool2d(**window)(x))


@settings(max_examples=60)
@given(
    n=SMALL,
    sides=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    size=st.tuples(st.integers(2, 6), st.integers(2, 6)),
    kernel=st.tuples(SMALL, SMALL),
)
def test_fractional_max_equals_torch_with_its_draw_at_a_half(
    n: int, sides: tuple[int, int], size: tuple[int, int], kernel: tuple[int, int]
) -> None:
    for side, o, k in zip(sides, size, kernel, strict=True):
        # where a region starts at a whole number, torch's float32 may fall short of it
        assume(all((2 * i + 1) * (side - k) % (2 * (o - 1)) for i in range(o - 1)))
    x = torch.from_numpy(features(sum(sides), n, 2, *sides)).float()
    half = torch.full((n, 2, 2), 0.5)
    theirs = F.fractional_max_pool2d(x, kernel, output_size=size, _random_samples=half)
    assert torch.equal(POOLS["fractional_max"](size, kernel).eval()(x), theirs)


@settings(max_examples=30)
@given(h=SIDES, w=SIDES, p=st.floats(1, 6))
def test_lp_equals_torch_without_the_growth_with_the_image(h: int, w: int, p: float) -> None:
    x = torch.from_numpy(features(h * 41 + w, 2, 2, h, w))
    theirs = nn.LPPool2d(p, (h, w))(x.abs()) * (h * w) ** (-1 / p)
    torch.testing.assert_close(POOLS["lp"](p=p)(x), theirs)


@settings(max_examples=30)
@given(h=SIDES, w=SIDES)
def test_global_pools_are_adaptive_and_pyramids_of_one_cell(h: int, w: int) -> None:
    x = torch.from_numpy(features(h * 41 + w, 2, 2, h, w))
    for kind in ("avg", "max"):
        y = POOLS[kind]()(x)
        torch.testing.assert_close(POOLS[f"adaptive_{kind}"](output_size=1)(x), y)
        torch.testing.assert_close(POOLS["spp"](levels=(1,), kind=kind)(x), y)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("adaptive_avg", "output_size"),
        ("adaptive_max", "output_size"),
        ("fractional_max", "output_size"),
        ("fractional_max", "kernel_size"),
        ("avg_window", "kernel_size"),
        ("avg_window", "stride"),
        ("max_window", "kernel_size"),
        ("max_window", "stride"),
    ],
)
@settings(max_examples=10)
@given(number=st.integers(2, 4), h=st.integers(8, 20), w=st.integers(8, 20))
def test_one_number_stands_for_both_sides(
    name: str, argument: str, number: int, h: int, w: int
) -> None:
    x = torch.from_numpy(features(1, 1, 1, h, w))
    one = POOLS[name](**{argument: number}).eval()
    two = POOLS[name](**{argument: (number, number)}).eval()
    assert torch.equal(one(x), two(x))


# At the limits -----------------------------------------------------------------------------------


def random_map(*shape: int) -> Tensor:
    return torch.from_numpy(features(0, *shape))


def test_log_sum_exp_does_not_overflow() -> None:
    pool = POOLS["log_sum_exp"](r=5)
    x = torch.tensor([[[[1e4, 0], [-1e4, 0]]]])
    assert pool(x).item() == pytest.approx(1e4 - log(4) / 5)
    assert pool(x - 2e4).item() == pytest.approx(-1e4 - log(4) / 5)


def test_log_sum_exp_lies_between_average_and_maximum() -> None:
    x = random_map(2, 3, 7, 5)
    average, highest = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    soft = [POOLS["log_sum_exp"](r=r)(x) for r in (1e-3, 0.1, 1, 10, 1e6)]
    torch.testing.assert_close(soft[0], average, atol=2e-3, rtol=0)
    torch.testing.assert_close(soft[-1], highest, atol=1e-5, rtol=0)
    assert all((softer < harder).all() for softer, harder in pairwise(soft))


def test_gem_lies_between_average_and_maximum() -> None:
    x = random_map(2, 3, 7, 5).abs() + 0.1
    average, highest = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    means = [POOLS["gem"](p=p).double()(x) for p in (1, 2, 3, 10, 500)]
    torch.testing.assert_close(means[0], average)
    torch.testing.assert_close(means[-1], highest, atol=0, rtol=1e-2)
    assert all((lower < higher).all() for lower, higher in pairwise(means))


def test_gem_counts_what_is_below_eps_as_eps() -> None:
    x = -random_map(2, 3, 7, 5).abs()
    torch.testing.assert_close(
        POOLS["gem"](eps=0.01).double()(x), torch.full((2, 3, 1, 1), 0.01).double()
    )


@pytest.mark.parametrize("name", ["gem", "lp"])
@pytest.mark.parametrize("scale", [1e-4, 1, 1e4])
def test_high_powers_neither_overflow_nor_vanish(name: str, scale: float) -> None:
    x = torch.tensor([[[[1, 5], [5, 7]]]]) * scale
    expected = scale * 7 * ((1 + 2 * (5 / 7) ** 40) / 4) ** (1 / 40)
    assert POOLS[name](p=40)(x).item() == pytest.approx(expected)


def test_lp_is_blind_to_signs() -> None:
    x = random_map(2, 3, 7, 5)
    for p in (1, 2, 2.5, 3):
        y = POOLS["lp"](p=p)(x)
        assert (y > 0).all()
        assert torch.equal(POOLS["lp"](p=p)(x.abs()), y)
        assert torch.equal(POOLS["lp"](p=p)(-x), y)


def test_attention_starts_as_the_average() -> None:
    x = random_map(2, 6, 7, 5)
    for heads in (1, 2, 6):
        y = POOLS["attention"](6, heads=heads).double()(x)
        torch.testing.assert_close(y, x.mean((2, 3), keepdim=True))


def test_heads_of_attention_share_the_channels_in_order() -> None:
    x = random_map(2, 6, 7, 5)
    pool = randomised(POOLS["attention"](6, heads=3), 0)
    before = pool(x)
    with torch.no_grad():
        pool.get_parameter("score.weight")[1] += 1
    changed = (pool(x) != before).flatten(2).any(2)
    assert changed.tolist() == [[False, False, True, True, False, False]] * 2


def test_attention_does_not_overflow() -> None:
    pool = POOLS["attention"](1)
    pool.load_state_dict({"score.weight": torch.ones(1, 1, 1, 1), "score.bias": torch.zeros(1)})
    assert pool(torch.tensor([[[[1e4, 0, -1e4]]]])).item() == pytest.approx(1e4)


def test_average_of_class_maps_is_a_linear_layer_behind_the_average() -> None:
    x = random_map(2, 6, 7, 5)
    pool = randomised(POOLS["class_channel"](6, classes=4), 0)
    weight, bias = pool.get_parameter("conv.weight"), pool.get_parameter("conv.bias")
    y = F.linear(x.mean((2, 3)), weight[:, :, 0, 0], bias)
    torch.testing.assert_close(pool(x).flatten(1), y)


def test_strided_conv_starts_as_the_average_of_windows() -> None:
    x = random_map(2, 3, 9, 8)
    for kernel, stride, padding in ((3, 2, 1), (2, 2, 0), (4, 3, 2)):
        conv = POOLS["strided_conv"](3, kernel, stride, padding).double()
        torch.testing.assert_close(conv(x), F.avg_pool2d(x, kernel, stride, padding))


@pytest.mark.parametrize("mode", ["training", "inference"])
@pytest.mark.parametrize("name", ["stochastic", "stochastic_window", "lp"])
def test_nothing_but_zeros_gives_zeros(name: str, mode: str) -> None:
    y = POOLS[name]().train(mode == "training")(torch.zeros(2, 3, 5, 5))
    assert torch.equal(y, torch.zeros_like(y))


def small(name: str) -> nn.Module:
    """A pool of 4 channels that any 5×5 map suits."""
    required: dict[str, Options] = {
        "adaptive_avg": {"output_size": 2},
        "adaptive_max": {"output_size": (2, 3)},
        "attention": {"channels": 4},
        "class_channel": {"channels": 4, "classes": 3},
        "gated": {"channels": 4},
        "strided_conv": {"channels": 4},
    }
    return POOLS[name](**required.get(name, {}))


@pytest.mark.parametrize("mode", ["training", "inference"])
@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize(
    "x",
    [torch.zeros(2, 4, 5, 5), torch.full((2, 4, 5, 5), -3.0), torch.full((2, 4, 5, 5), 1e4)],
    ids=["zeros", "negative", "large"],
)
def test_no_pool_makes_nan_or_infinity_of_numbers(name: str, x: Tensor, mode: str) -> None:
    assert small(name).train(mode == "training")(x).isfinite().all()


@pytest.mark.parametrize("name", POOLS)
def test_an_image_is_pooled_alike_in_any_company(name: str) -> None:
    x, pool = random_map(3, 4, 7, 6), randomised(small(name), 0)
    alone = torch.cat([pool(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(pool(x), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("attention", {"channels": 6, "heads": 4}, "heads=4: must divide the 6 channels"),
        ("attention", {"channels": 6, "heads": 0}, "heads=0: must divide"),
        ("attention", {"channels": 6, "heads": -2}, "heads=-2: must divide"),
        ("class_channel", {"channels": 2, "classes": 2, "kind": "sum"}, "'sum': choose avg or max"),
        ("fractional_max", {"output_size": 1}, "output_size=1, .* at least 2 regions a side"),
        ("fractional_max", {"output_size": (3, 1)}, "at least 2 regions a side"),
        ("fractional_max", {"kernel_size": (2, 0)}, r"kernel_size=\(2, 0\).* at least 1 place"),
        ("gem", {"p": 0}, "p=0, .*must be above 0"),
        ("gem", {"p": -1.5}, "p=-1.5, .*must be above 0"),
        ("gem", {"eps": 0}, "eps=0: both must be above 0"),
        ("gem", {"p": inf}, "p=inf, .*finite"),
        ("lp", {"p": inf}, "p=inf: .*finite"),
        ("log_sum_exp", {"r": inf}, "r=inf: .*finite"),
        ("log_sum_exp", {"r": 0}, "r=0: must be 0.001 or more"),
        ("log_sum_exp", {"r": -1}, "r=-1: must be 0.001 or more"),
        ("lp", {"p": 0.5}, "p=0.5: a norm needs 1 or more"),
        ("spp", {"levels": ()}, r"levels=\(\): give cells a side for each level"),
        ("spp", {"levels": (2, 0)}, r"levels=\(2, 0\): give cells"),
        ("spp", {"kind": "sum"}, "'sum': choose avg or max"),
    ],
)
def test_wrong_arguments_are_refused(name: str, arguments: Options, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        POOLS[name](**arguments)


def test_fractional_max_refuses_an_image_too_small_for_its_regions() -> None:
    pool = POOLS["fractional_max"](output_size=3, kernel_size=2).eval()
    assert pool(torch.zeros(1, 1, 4, 4)).shape == (1, 1, 3, 3)
    with pytest.raises(ValueError, match="3 fractional regions of 2 places need 4 places, not 3"):
        pool(torch.zeros(1, 1, 4, 3))


@pytest.mark.parametrize("operator", [cells, fractional_max_pool2d])
def test_operators_kept_whole_for_export_are_what_they_declare(operator: Any) -> None:
    x = torch.from_numpy(features(0, 2, 3, 8, 9)).float()
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(operator, (x, (4, 3), (2, 3)), test_utils=checks)


def test_fractional_max_kept_whole_for_export_is_the_pool() -> None:
    x = torch.from_numpy(features(0, 2, 3, 8, 9)).float()
    pool = POOLS["fractional_max"](output_size=(4, 3), kernel_size=(2, 3)).eval()
    assert torch.equal(fractional_max_pool2d(x, (4, 3), (2, 3)), pool(x))


def test_pools_say_how_they_were_made() -> None:
    assert str(POOLS["adaptive_avg"](output_size=(2, None))) == (
        "AdaptiveAvgPool(output_size=(2, None))"
    )
    assert str(POOLS["fractional_max"](4)) == (
        "FractionalMaxPool(output_size=(4, 4), kernel_size=(2, 2))"
    )
    assert str(POOLS["gem"](2.5)) == "GeMPool(p=2.5)"
    assert str(POOLS["log_sum_exp"]()) == "LogSumExpPool(r=5)"
    assert str(POOLS["lp"](3)) == "LpPool(p=3)"
    assert str(POOLS["stochastic_window"]()) == "StochasticWindowPool(kernel_size=3, stride=2)"
