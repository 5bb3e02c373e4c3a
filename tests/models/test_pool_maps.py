"""Where pooled values come from: maps that add up to them, and class maps to the logits."""

from math import log, sqrt
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models.classifier import PoolingClassifier
from models.pool import POOLS, Head
from models.weights import seeded

Options = dict[str, Any]
CHANNELS = 6
REGIONS = st.tuples(st.integers(2, 4), st.integers(2, 4))
GRIDS = st.tuples(st.integers(1, 5), st.integers(1, 5))
LEVELS = st.lists(st.integers(1, 4), min_size=1, max_size=3)
KINDS = st.sampled_from(["avg", "max"])


def options(**arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Options]:
    return st.fixed_dictionaries({}, optional=arguments)


# Every pool that says where its values come from, and the arguments it may have.
HEADS: dict[str, st.SearchStrategy[Options]] = {
    "adaptive_avg": GRIDS.map(lambda size: {"output_size": size}),
    "adaptive_max": GRIDS.map(lambda size: {"output_size": size}),
    "attention": st.sampled_from([1, 2, 3, 6]).map(lambda n: {"channels": CHANNELS, "heads": n}),
    "avg": options(),
    "class_channel": KINDS.map(lambda kind: {"channels": CHANNELS, "classes": 4, "kind": kind}),
    "fractional_max": options(output_size=REGIONS, kernel_size=GRIDS.map(lambda s: (s[0], s[1]))),
    "gated": st.just({"channels": CHANNELS}),
    "gem": options(p=st.floats(0.5, 20)),
    "log_sum_exp": options(r=st.floats(0.1, 20)),
    "lp": options(p=st.floats(1, 20)),
    "max": options(),
    "mixed": options(alpha=st.floats(-1, 2)),
    "spp": options(levels=LEVELS, kind=KINDS),
    "stochastic": options(),
}
# What a trunk may end in: seen from the noise in it.
FEATURES = {
    "signed": lambda noise: noise,
    "negative": lambda noise: -noise.abs(),
    "after a ReLU": lambda noise: noise.relu(),
    "with ties": lambda noise: noise.round(),
    "zero": lambda noise: noise * 0,
    "constant": lambda noise: noise * 0 + 1.7,
    "constant below 0": lambda noise: noise * 0 - 1.7,
    "large": lambda noise: noise * 1e3,
    "small": lambda noise: noise * 1e-3,
}


def noise(seed: int, *shape: int) -> Tensor:
    with seeded(seed):
        return torch.randn(shape)


def randomised(pool: nn.Module, seed: int) -> nn.Module:
    """At inference, every vector of weights drawn; single numbers stay as given."""
    with seeded(seed), torch.no_grad():
        for parameter in pool.eval().parameters():
            if parameter.ndim:
                parameter.normal_()
    return pool


def head(name: str, arguments: Options, seed: int) -> tuple[Head, nn.Module]:
    """A pool with random weights, as the head that it is and as a module."""
    pool = randomised(POOLS[name](**arguments), seed)
    assert isinstance(pool, Head)
    return pool, pool


def mean(maps: Tensor) -> Tensor:
    return maps.mean((2, 3))


def test_every_pool_but_windows_says_where_its_values_come_from() -> None:
    assert {name for name, pool in POOLS.items() if hasattr(pool, "maps")} == set(HEADS)
    assert set(POOLS) - set(HEADS) == {
        "avg_window", "max_window", "stochastic_window", "strided_conv"
    }  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
@settings(max_examples=60)
@given(data=st.data())
def test_each_cell_is_the_mean_of_its_map(name: str, data: st.DataObject) -> None:
    arguments = data.draw(HEADS[name])
    kind, seed = data.draw(st.sampled_from(sorted(FEATURES))), data.draw(st.integers(0, 99))
    least = 8 if name == "fractional_max" else 1
    n, h, w = data.draw(st.tuples(st.integers(1, 2), *[st.integers(least, 12)] * 2))
    x = FEATURES[kind](noise(seed, n, CHANNELS, h, w))
    pool, _ = head(name, arguments, seed)
    with torch.no_grad():
        maps, y = pool.maps(x), pool(x).flatten(2)
    cancelled = 1e-6 * x.abs().amax((1, 2, 3))[:, None] + 1e-12
    assert len(maps) == y.shape[2]
    for one, cell in zip(maps, y.unbind(2), strict=True):
        assert one.shape == (n, y.shape[1], h, w)
        assert one.isfinite().all()
        rounding = 1e-5 * mean(one.abs()) + cancelled
        assert ((mean(one) - cell).abs() <= rounding).all()


MAPS: list[tuple[str, Options, Options, object, object]] = [
    # of one image (c, h, w), the map of its only cell
    ("avg", {}, {}, [[[1, 2, -6]]], [[[1, 2, -6]]]),
    ("max", {}, {}, [[[1, 2, -6]]], [[[0, 6, 0]]]),
    ("mixed", {"alpha": 0.25}, {}, [[[1, 2, -6]]], [[[0.75, 3, -4.5]]]),
    ("gated", {"channels": 1}, {"weight": [1], "bias": [1 + log(3)]}, [[[1, 2, -6]]],
     [[[0.25, 5, -1.5]]]),  # a gate of 3/4
    # the pooled value in proportion to 1, 9 and 25, whose mean is 35/3, or to 1, 4 and 1
    ("lp", {}, {}, [[[1, -3, 5]]],
     [[[sqrt(35 / 3) * 3 / 35, sqrt(35 / 3) * 27 / 35, sqrt(35 / 3) * 75 / 35]]]),
    ("gem", {"p": 2}, {}, [[[1, 2, 1]]], [[[sqrt(2) / 2, sqrt(2) * 2, sqrt(2) / 2]]]),
    ("gem", {"p": 2, "eps": 1}, {}, [[[-7, 2, 1]]], [[[sqrt(2) / 2, sqrt(2) * 2, sqrt(2) / 2]]]),
    # log 2, in proportion to 1 and 3
    ("log_sum_exp", {"r": 1}, {}, [[[0, log(3)]]], [[[log(2) * 0.5, log(2) * 1.5]]]),
    # weights of 1 to 3 to 1, 1 on average
    ("attention", {"channels": 1}, {"score.weight": [[[[log(3)]]]]}, [[[1, 2, 1]]],
     [[[0.6, 3.6, 0.6]]]),
    ("attention", {"channels": 2}, {"score.weight": [[[[log(3)]], [[0]]]]},
     [[[1, 2, 1]], [[-1, 0, 5]]], [[[0.6, 3.6, 0.6]], [[-0.6, 0, 3]]]),
    # a probability of 1/4, 3/4 and 0
    ("stochastic", {}, {}, [[[1, 3, -2]]], [[[0.75, 6.75, 0]]]),
    ("class_channel", {"channels": 2, "classes": 1},
     {"conv.weight": [[[[2]], [[1]]]], "conv.bias": [10]}, [[[1, 2]], [[3, 0]]], [[[15, 14]]]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "weights", "x", "expected"), MAPS)
def test_map_equals_what_was_worked_out_by_hand(
    name: str, arguments: Options, weights: Options, x: object, expected: object
) -> None:
    pool, module = head(name, arguments, 0)
    module.load_state_dict({k: torch.tensor(v) for k, v in weights.items()}, strict=False)
    (one,) = pool.maps(torch.tensor([x], dtype=torch.float32))
    torch.testing.assert_close(one, torch.tensor([expected], dtype=torch.float32))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("adaptive_avg", {"output_size": (2, 3)}),
        ("adaptive_max", {"output_size": (2, 3)}),
        ("avg", {}),
        ("gem", {"p": 2.5}),
        ("lp", {"p": 2.5}),
        ("max", {}),
        ("mixed", {"alpha": 0.3}),
        ("spp", {"levels": (1, 2)}),
    ],
)
def test_maps_of_pools_that_scale_with_their_input_are_those_of_hirescam(
    name: str, arguments: Options
) -> None:
    with seeded(0):  # places differ by more than the hundredth within which maxima share
        x = 1.05 ** (torch.randperm(2 * 3 * 5 * 7) / 3).double().reshape(2, 3, 5, 7)
    pool, module = head(name, arguments, 0)
    module.double()
    maps = pool.maps(x)
    pooled = module(x.requires_grad_()).flatten(2)
    for i, one in enumerate(maps):
        (slope,) = torch.autograd.grad(pooled[:, :, i].sum(), x, retain_graph=True)
        torch.testing.assert_close(one, x * slope * (5 * 7))


@pytest.mark.parametrize("p", [8, 20])
def test_maps_of_gem_are_numbers_where_nothing_responds(p: float) -> None:
    pool, _ = head("gem", {"p": p}, 0)
    assert pool.maps(torch.zeros(1, 2, 3, 3))[0].isfinite().all()


@pytest.mark.parametrize(("p", "value"), [(8, 1e-4), (20, 0.03), (20, 1e-3)])
def test_map_of_lp_means_the_pooled_value_where_it_is_small(p: float, value: float) -> None:
    pool, _ = head("lp", {"p": p}, 0)
    (one,) = pool.maps(torch.full((1, 1, 3, 3), value))
    assert one.mean().item() == pytest.approx(value)


# The places of a maximum -------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
def test_map_of_a_maximum_is_zero_where_values_fall_short_of_it_by_a_hundredth(sign: int) -> None:
    for seed in range(20):
        x = noise(seed, 2, 3, 30, 30).abs() * sign - 0.1 * (sign < 0)
        (one,) = head("max", {}, 0)[0].maps(x)
        highest = x.amax((2, 3), keepdim=True)
        assert (one[x < highest - 0.010001 * highest.abs()] == 0).all()
        assert (one[x == highest] != 0).all()
        assert (one * sign >= 0).all()


@pytest.mark.parametrize("highest", [100.0, -100.0])
def test_places_near_a_maximum_share_it_by_how_near_they_come(highest: float) -> None:
    x = highest - torch.tensor([[[[0, 0.5, 0.75], [1, 2, 200]]]])
    (one,) = head("max", {}, 0)[0].maps(x)
    shares = torch.tensor([[[[1, 0.5, 0.25], [0, 0, 0]]]])
    torch.testing.assert_close(one, 6 * highest * shares / 1.75, rtol=1e-4, atol=0)


@pytest.mark.parametrize("value", [5.0, -5.0])
def test_equal_maxima_share_equally(value: float) -> None:
    x = torch.full((1, 1, 4, 5), value - 3)
    x[0, 0, 1, 2] = x[0, 0, 3, 4] = value
    (one,) = head("max", {}, 0)[0].maps(x)
    torch.testing.assert_close(one, torch.where(x == value, value * 20 / 2, 0.0))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", sorted(HEADS))
def test_rounding_moves_no_map(name: str, seed: int) -> None:
    required: dict[str, Options] = {
        "adaptive_avg": {"output_size": (2, 3)},
        "adaptive_max": {"output_size": (2, 3)},
        "attention": {"channels": CHANNELS, "heads": 2},
        "class_channel": {"channels": CHANNELS, "classes": 4, "kind": "max"},
        "gated": {"channels": CHANNELS},
    }
    x = noise(seed, 2, CHANNELS, 14, 11)
    x -= 5 * (seed % 2)  # often all below 0
    x[..., ::3] = x.amax((2, 3), keepdim=True)  # many equal: the last bit decides which is largest
    disturbed = x * (1 + 1e-7 * noise(seed + 100, *x.shape).clamp(-1, 1))
    pool, _ = head(name, required.get(name, {}), seed)
    with torch.no_grad():
        pairs = zip(pool.maps(x), pool.maps(disturbed), strict=True)
    assert not torch.equal(x, disturbed)
    for one, other in pairs:
        largest = one.abs().amax((2, 3), keepdim=True)
        assert ((one - other).abs() <= 1e-3 * largest).all()


# The places of a cell ----------------------------------------------------------------------------


def adaptive(n: int, o: int) -> list[slice]:
    return [slice(i * n // o, -(-(i + 1) * n // o)) for i in range(o)]


def outside(h: int, w: int, rows: list[slice], columns: list[slice]) -> list[Tensor]:
    """For each cell, row by row, True at the places that are not in it."""
    masks = [torch.ones(h, w, dtype=torch.bool) for _ in range(len(rows) * len(columns))]
    for i, mask in enumerate(masks):
        mask[rows[i // len(columns)], columns[i % len(columns)]] = False
    return masks


@settings(max_examples=40)
@given(h=st.integers(1, 14), w=st.integers(1, 14), size=GRIDS)
def test_maps_of_adaptive_pools_stay_inside_their_cells(
    h: int, w: int, size: tuple[int, int]
) -> None:
    x = noise(h * 41 + w, 2, 3, h, w).abs() + 0.1
    masks = outside(h, w, adaptive(h, size[0]), adaptive(w, size[1]))
    averages = head("adaptive_avg", {"output_size": size}, 0)[0].maps(x)
    maxima = head("adaptive_max", {"output_size": size}, 0)[0].maps(x)
    for mask, average, highest in zip(masks, averages, maxima, strict=True):
        torch.testing.assert_close(average, x * ~mask * (h * w / int((~mask).sum())))
        assert (highest[..., mask] == 0).all()
        assert (highest[..., ~mask].amax(2) > 0).all()


@settings(max_examples=20)
@given(h=st.integers(1, 14), w=st.integers(1, 14), levels=LEVELS, kind=KINDS)
def test_maps_of_a_pyramid_are_those_of_its_levels(
    h: int, w: int, levels: list[int], kind: str
) -> None:
    x = noise(h * 41 + w, 2, 3, h, w)
    maps = head("spp", {"levels": levels, "kind": kind}, 0)[0].maps(x)
    pools = [head(f"adaptive_{kind}", {"output_size": level}, 0)[0] for level in levels]
    expected = [one for pool in pools for one in pool.maps(x)]
    assert all(torch.equal(one, other) for one, other in zip(maps, expected, strict=True))


def test_maps_of_fractional_regions_stay_inside_them() -> None:
    x = noise(0, 2, 3, 5, 7).abs() + 0.1
    # over 5 places 3 regions of 2 start at 0, 2 and 3; over 7 places 2 of 3 at 0 and 4
    rows, columns = [slice(0, 2), slice(2, 4), slice(3, 5)], [slice(0, 3), slice(4, 7)]
    pool, _ = head("fractional_max", {"output_size": (3, 2), "kernel_size": (2, 3)}, 0)
    for mask, one in zip(outside(5, 7, rows, columns), pool.maps(x), strict=True):
        assert (one[..., mask] == 0).all()
        assert (one[..., ~mask].amax(2) > 0).all()


@pytest.mark.parametrize("name", ["adaptive_avg", "adaptive_max"])
@pytest.mark.parametrize("size", [(None, 2), (2, None), (0, 2), 0])
def test_a_side_that_is_kept_or_without_cells_has_no_maps(name: str, size: object) -> None:
    pool, _ = head(name, {"output_size": size}, 0)
    with pytest.raises(ValueError, match="no fixed number of cells"):
        pool.maps(torch.zeros(1, 1, 4, 4))


def test_maps_of_stochastic_pooling_are_those_of_inference_in_training_too() -> None:
    x, pool = noise(0, 2, 3, 5, 7), POOLS["stochastic"]()
    assert isinstance(pool, Head)
    (training,) = pool.train().maps(x)
    (inference,) = pool.eval().maps(x)
    assert torch.equal(training, inference)


# Class maps --------------------------------------------------------------------------------------


def linear(features: int, classes: int, seed: int) -> nn.Linear:
    with seeded(seed):
        return nn.Linear(features, classes)


@settings(max_examples=30)
@given(n=st.integers(1, 3), h=st.integers(1, 9), w=st.integers(1, 9), seed=st.integers(0, 99))
def test_class_maps_of_the_average_are_those_of_zhou(n: int, h: int, w: int, seed: int) -> None:
    x, last = noise(seed, n, CHANNELS, h, w), linear(CHANNELS, 5, seed)
    classifier = PoolingClassifier(nn.Identity(), POOLS["avg"](), last)
    classes = torch.tensor([[3, 0, 3]] * n)
    with torch.no_grad():
        maps, logits = classifier.class_maps(x, classes), classifier(x)
        zhou = torch.einsum("kf,nfhw->nkhw", last.weight, x)
    torch.testing.assert_close(maps, zhou[:, [3, 0, 3]])
    torch.testing.assert_close(mean(maps) + last.bias[[3, 0, 3]], logits[:, [3, 0, 3]])


@pytest.mark.parametrize("name", HEADS)
@settings(max_examples=15)
@given(data=st.data())
def test_a_logit_is_the_mean_of_its_class_map_and_the_bias(name: str, data: st.DataObject) -> None:
    arguments, seed = data.draw(HEADS[name]), data.draw(st.integers(0, 99))
    x = noise(seed, 2, CHANNELS, 9, 8).double()
    pool = head(name, arguments, seed)[1].double()
    last = linear(pool(x).flatten(1).shape[1], 5, seed).double()
    classifier = PoolingClassifier(nn.Identity(), pool, last).eval()
    classes = torch.tensor([[4, 1], [2, 2]])  # each image its own
    assert classifier.explains
    with torch.no_grad():
        maps, logits = classifier.class_maps(x, classes), classifier(x)
    assert maps.shape == (2, 2, 9, 8)
    torch.testing.assert_close(mean(maps) + last.bias[classes], logits.gather(1, classes))


def test_class_maps_need_no_bias() -> None:
    x, last = noise(0, 1, CHANNELS, 4, 4), nn.Linear(CHANNELS, 3, bias=False)
    classifier = PoolingClassifier(nn.Identity(), POOLS["avg"](), last)
    maps = classifier.class_maps(x, torch.tensor([[0, 1, 2]]))
    torch.testing.assert_close(mean(maps), classifier(x))


@pytest.mark.parametrize("kind", ["avg", "max"])
def test_class_maps_of_class_channels_are_their_own(kind: str) -> None:
    x = noise(0, 2, CHANNELS, 5, 7)
    arguments = {"channels": CHANNELS, "classes": 4, "kind": kind}
    pool, module = head("class_channel", arguments, 0)
    classifier = PoolingClassifier(nn.Identity(), module, nn.Identity())
    classes = torch.tensor([[3, 0], [1, 1]])
    assert classifier.explains
    with torch.no_grad():
        maps, logits = classifier.class_maps(x, classes), classifier(x)
        own = pool.maps(x)[0]
    for i, chosen in enumerate(classes):
        torch.testing.assert_close(maps[i], own[i, chosen])
    torch.testing.assert_close(mean(maps), logits.gather(1, classes), rtol=1e-5, atol=1e-5)


def test_class_maps_of_class_channels_keep_the_type_of_the_features() -> None:
    pool = POOLS["class_channel"](CHANNELS, classes=4)
    classifier = PoolingClassifier(nn.Identity(), pool, nn.Identity()).double()
    maps = classifier.class_maps(noise(0, 1, CHANNELS, 5, 7).double(), torch.tensor([[3]]))
    assert maps.dtype == torch.float64


def test_classes_that_are_cells_of_several_have_maps_or_are_not_said_to() -> None:
    classifier = PoolingClassifier(nn.Identity(), POOLS["spp"](levels=(1, 2)), nn.Identity())
    x, last = noise(0, 1, CHANNELS, 4, 4), 5 * CHANNELS - 1
    if classifier.explains:
        maps = classifier.class_maps(x, torch.tensor([[last]]))
        torch.testing.assert_close(mean(maps), classifier(x)[:, [last]])


class OtherLinear(nn.Linear):
    """Called linear, and perhaps not."""


@pytest.mark.parametrize("name", sorted(HEADS))
def test_a_linear_head_behind_a_pool_that_knows_its_places_explains(name: str) -> None:
    required: dict[str, Options] = {
        "adaptive_avg": {"output_size": 1},
        "adaptive_max": {"output_size": 2},
        "attention": {"channels": CHANNELS},
        "class_channel": {"channels": CHANNELS, "classes": 4},
        "gated": {"channels": CHANNELS},
    }
    pool = POOLS[name](**required.get(name, {}))
    assert PoolingClassifier(nn.Identity(), pool, nn.Linear(CHANNELS, 5)).explains


@pytest.mark.parametrize(
    "last",
    [
        nn.Sequential(nn.Linear(CHANNELS, 8), nn.ReLU(), nn.Linear(8, 5)),
        nn.Sequential(nn.Linear(CHANNELS, 5)),
        nn.Sigmoid(),
        OtherLinear(CHANNELS, 5),
    ],
    ids=["two layers", "a sequence", "a sigmoid", "a subclass"],
)
def test_a_head_that_is_not_known_to_be_linear_does_not_explain(last: nn.Module) -> None:
    assert not PoolingClassifier(nn.Identity(), POOLS["avg"](), last).explains


@pytest.mark.parametrize("name", ["avg_window", "max_window", "stochastic_window", "strided_conv"])
def test_a_pool_that_leaves_a_map_does_not_explain(name: str) -> None:
    pool = POOLS[name](**({"channels": CHANNELS} if name == "strided_conv" else {}))
    assert not PoolingClassifier(nn.Identity(), pool, nn.Linear(CHANNELS, 5)).explains
