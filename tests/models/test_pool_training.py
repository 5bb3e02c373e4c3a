"""Poolings in training: gradients, what is learnt, and what is drawn at random."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from models.pool import POOLS
from models.weights import seeded

Options = dict[str, Any]
CHANNELS = 2


def distinct(*shape: int) -> Tensor:
    """Values between -2 and 2 in random order, none near another or 0, where maxima have kinks."""
    count = torch.Size(shape).numel()
    with seeded(1):
        order = torch.randperm(count).double()
    return ((order + 0.5) / count * 4 - 2).reshape(shape)


def randomised(pool: nn.Module) -> nn.Module:
    """In float64, every vector of weights drawn; single numbers stay as given."""
    with seeded(2), torch.no_grad():
        for parameter in pool.double().parameters():
            if parameter.ndim:
                parameter.normal_()
    return pool


# Gradients ---------------------------------------------------------------------------------------

LEARNABLE: list[tuple[str, Options]] = [
    ("attention", {"channels": CHANNELS}),
    ("attention", {"channels": CHANNELS, "heads": 2}),
    ("class_channel", {"channels": CHANNELS, "classes": 3}),
    ("class_channel", {"channels": CHANNELS, "classes": 3, "kind": "max"}),
    ("gated", {"channels": CHANNELS}),
    ("gem", {}),
    ("gem", {"p": 1.5, "eps": 0.3}),
    ("mixed", {"alpha": 0.3}),
    ("strided_conv", {"channels": CHANNELS}),
]
FIXED: list[tuple[str, Options]] = [
    ("adaptive_avg", {"output_size": (2, 3)}),
    ("adaptive_max", {"output_size": (2, 3)}),
    ("avg", {}),
    ("avg_window", {"padding": 1}),
    ("log_sum_exp", {}),
    ("lp", {}),
    ("lp", {"p": 3.5}),
    ("max", {}),
    ("max_window", {"padding": 1}),
    ("spp", {"levels": (1, 3), "kind": "avg"}),
    ("spp", {"levels": (1, 3), "kind": "max"}),
]


@pytest.mark.parametrize(("name", "arguments"), LEARNABLE + FIXED)
def test_gradients_are_those_of_small_differences(name: str, arguments: Options) -> None:
    pool = randomised(POOLS[name](**arguments)).train()
    parameters = dict(pool.named_parameters())

    def pooled(x: Tensor, *values: Tensor) -> Tensor:
        y: Tensor = functional_call(pool, dict(zip(parameters, values, strict=True)), (x,))
        return y

    x = distinct(2, CHANNELS, 5, 4).requires_grad_()
    assert torch.autograd.gradcheck(pooled, (x, *parameters.values()))


def test_every_parameter_is_among_those_whose_gradients_are_checked() -> None:
    learnable = {name for name, _ in LEARNABLE}
    assert all(list(POOLS[name](**arguments).parameters()) for name, arguments in LEARNABLE)
    assert not any(list(POOLS[name](**arguments).parameters()) for name, arguments in FIXED)
    drawn = {"fractional_max", "stochastic", "stochastic_window"}
    assert not any(list(POOLS[name]().parameters()) for name in drawn)
    assert learnable | {name for name, _ in FIXED} | drawn == set(POOLS)


def slopes(pool: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """How each parameter changes a sum of the pooled values in which each has its own weight."""
    y = pool.train()(x)
    pool.zero_grad()
    (y * torch.arange(1, y.numel() + 1).reshape(y.shape)).sum().backward()
    return {name: p.grad for name, p in pool.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("name", "arguments"), LEARNABLE)
def test_one_step_changes_all_that_can_be_learnt(name: str, arguments: Options) -> None:
    pool = POOLS[name](**arguments)
    x = distinct(3, CHANNELS, 5, 4).float()
    before = {key: value.clone() for key, value in pool.named_parameters()}
    slopes(pool, x)
    torch.optim.SGD(pool.parameters(), lr=0.1).step()
    for key, value in pool.named_parameters():
        assert value.isfinite().all(), key
        if key != "score.bias":  # a softmax does not see what all its scores share
            assert (value != before[key]).all(), key


@pytest.mark.parametrize("start", ["zero", "random"])
def test_the_bias_of_attention_has_no_slope_and_its_weights_have_one(start: str) -> None:
    pool = POOLS["attention"](CHANNELS).double()
    found = slopes(randomised(pool) if start == "random" else pool, distinct(2, CHANNELS, 5, 4))
    torch.testing.assert_close(found["score.bias"], torch.zeros(1).double(), atol=1e-12, rtol=0)
    assert (found["score.weight"].abs() > 1e-3).all()


def test_training_tells_gem_to_sharpen_or_soften() -> None:
    x, pool = distinct(2, CHANNELS, 5, 4).abs(), POOLS["gem"]().double()
    assert slopes(pool, x)["p"] > 0  # the mean grows with p
    with torch.no_grad():
        lower = pool(x)
        pool.get_parameter("p").add_(1)
        assert (pool(x) > lower).all()


ZERO_SAFE = [
    "avg",
    "gem",
    "log_sum_exp",
    "lp",
    "max",
    "mixed",
    "spp",
    "stochastic",
    "stochastic_window",
]


@pytest.mark.parametrize("name", ZERO_SAFE)
def test_a_channel_that_never_responds_spoils_no_gradient(name: str) -> None:
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    pool = POOLS[name]().train()
    pool(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pool.parameters())


def test_a_channel_that_never_responds_spoils_no_gradient_of_a_sharp_gem() -> None:
    pool = POOLS["gem"](p=8)
    pool(torch.zeros(1, 1, 4, 4)).sum().backward()
    slope = pool.get_parameter("p").grad
    assert slope is not None
    assert slope.isfinite()


# Drawn at random ---------------------------------------------------------------------------------

DRAWS = 4000
REGION = torch.tensor([[1.0, -5, 2], [3, 0, 4]])  # drawn with 1/10, 0, 2/10, 3/10, 0 and 4/10
ODDS = {1.0: 0.1, 2.0: 0.2, 3.0: 0.3, 4.0: 0.4}


def assert_frequencies(drawn: Tensor) -> None:
    """Within 4 standard deviations of the binomial distribution, and nothing else drawn."""
    count = drawn.numel()
    assert set(drawn.flatten().tolist()) == set(ODDS)
    for value, odds in ODDS.items():
        frequency = (drawn == value).float().mean().item()
        assert abs(frequency - odds) <= 4 * sqrt(odds * (1 - odds) / count), value


def test_stochastic_draws_each_response_as_often_as_it_is_strong() -> None:
    x = REGION.expand(DRAWS, 2, 2, 3)
    with seeded(0):
        y = POOLS["stochastic"]().train()(x)
    assert y.shape == (DRAWS, 2, 1, 1)
    for channel in (0, 1):
        assert_frequencies(y[:, channel])
    same = (y[:, 0] == y[:, 1]).float().mean().item()
    expected = sum(odds**2 for odds in ODDS.values())  # channels are drawn independently
    assert abs(same - expected) <= 4 * sqrt(expected * (1 - expected) / DRAWS)


def test_stochastic_window_draws_each_response_as_often_as_it_is_strong() -> None:
    square = nn.functional.pad(REGION, (0, 0, 0, 1))  # 3×3, the last row 0
    x = square.repeat(1, 2).expand(DRAWS, 1, 3, 6)
    with seeded(0):
        y = POOLS["stochastic_window"](kernel_size=3, stride=3).train()(x)
    assert y.shape == (DRAWS, 1, 1, 2)
    for window in (0, 1):
        assert_frequencies(y[..., window])


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 1), (2, 3), (1, 1)])
def test_stochastic_window_draws_from_the_window_it_says(kernel: int, stride: int) -> None:
    x = distinct(2, 3, 8, 7)
    pool = POOLS["stochastic_window"](kernel, stride)
    expectation = pool.eval()(x)
    with seeded(0):
        draws = [pool.train()(x) for _ in range(20)]
    for y in draws:
        assert y.shape == expectation.shape
        for i in range(y.shape[2]):
            for j in range(y.shape[3]):
                top, left = i * stride, j * stride
                window = x[:, :, top : top + kernel, left : left + kernel].relu().flatten(2)
                assert (window == y[:, :, i, j, None]).any(2).all()
                assert (y[:, :, i, j] > 0).eq(window.amax(2) > 0).all()


def both_stochastic() -> list[Callable[[], nn.Module]]:
    return [POOLS["stochastic"], lambda: POOLS["stochastic_window"](kernel_size=2, stride=2)]


@pytest.mark.parametrize("make", both_stochastic(), ids=["stochastic", "stochastic_window"])
def test_the_mean_of_many_draws_is_the_answer_at_inference(make: Callable[[], nn.Module]) -> None:
    x, pool = distinct(1, 3, 4, 4), make()
    answer = pool.eval()(x)
    assert torch.equal(pool(x), answer)  # always the same
    with seeded(0):
        y = pool.train()(x.expand(DRAWS, 3, 4, 4))
    deviation = y.std(0) / sqrt(DRAWS)
    assert ((y.mean(0) - answer[0]).abs() <= 4.5 * deviation + 1e-9).all()


@pytest.mark.parametrize("make", both_stochastic(), ids=["stochastic", "stochastic_window"])
def test_what_is_drawn_differs_between_calls_and_not_between_equal_seeds(
    make: Callable[[], nn.Module],
) -> None:
    x, pool = distinct(2, 3, 8, 8), make().train()
    with seeded(0):
        first, second = pool(x), pool(x)
    with seeded(0):
        again = pool(x)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("make", both_stochastic(), ids=["stochastic", "stochastic_window"])
def test_the_gradient_goes_to_what_was_drawn(make: Callable[[], nn.Module]) -> None:
    x = distinct(2, 3, 4, 4).requires_grad_()
    with seeded(0):
        y = make().train()(x)
    y.sum().backward()
    assert x.grad is not None
    drawn = (x.detach()[..., None] == y.detach().reshape(2, 3, 1, 1, -1)).any(4)
    assert torch.equal(x.grad, drawn.double())


@pytest.mark.parametrize("make", both_stochastic(), ids=["stochastic", "stochastic_window"])
def test_where_nothing_responds_zero_is_drawn(make: Callable[[], nn.Module]) -> None:
    x = distinct(2, 2, 4, 4).abs()
    x[0, 0] = 0
    x[1, 1] *= -1
    y = make().train()(x)
    assert (y[0, 0] == 0).all()
    assert (y[1, 1] == 0).all()
    assert (y[0, 1] > 0).all()
    assert (y[1, 0] > 0).all()


def test_fractional_max_draws_its_regions_as_torch_does() -> None:
    x, pool = distinct(2, 3, 11, 9), POOLS["fractional_max"]((4, 3), (3, 2)).train()
    theirs = nn.FractionalMaxPool2d((3, 2), output_size=(4, 3))
    for seed in range(10):
        with seeded(seed):
            ours = [pool(x), pool(x)]
        with seeded(seed):
            assert all(torch.equal(y, theirs(x)) for y in ours)


def test_fractional_max_draws_anew_in_training_and_never_at_inference() -> None:
    x, pool = distinct(2, 3, 11, 9), POOLS["fractional_max"]((4, 3))
    with seeded(0):
        draws = [pool.train()(x) for _ in range(10)]
    assert all(y.shape == (2, 3, 4, 3) for y in draws)
    assert any(not torch.equal(draws[0], y) for y in draws)
    answers = [pool.eval()(x) for _ in range(3)]
    assert all(torch.equal(answers[0], y) for y in answers)


def test_the_gradient_of_fractional_max_goes_to_the_maxima() -> None:
    x = distinct(2, 3, 11, 9).requires_grad_()
    with seeded(0):
        y = POOLS["fractional_max"]((4, 3)).train()(x)
    y.sum().backward()
    assert x.grad is not None
    for image, slope, maxima in zip(
        x.detach().flatten(0, 1), x.grad.flatten(0, 1), y.detach().flatten(0, 1), strict=True
    ):
        counts = [int((maxima == value).sum()) for value in image.ravel()]
        assert slope.ravel().tolist() == counts


def test_fractional_max_has_gradients_at_inference_too() -> None:
    x = distinct(1, 1, 6, 6).requires_grad_()
    POOLS["fractional_max"]().eval()(x).sum().backward()
    assert x.grad is not None
    assert x.grad.sum() == 9
