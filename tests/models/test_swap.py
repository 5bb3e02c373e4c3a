"""Another pooling for a trained network: what it is called, what it computes, what it refuses."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.classifier import PoolingClassifier
from models.pool import POOLS
from models.swap import Swap, SwapError
from models.weights import seeded

CHANNELS, CLASSES = 8, 5
# Every pooling, with as few arguments as it needs.
LEAST = {name: ["output_size=(2, 3)"] if name.startswith("adaptive") else [] for name in POOLS}
WINDOWS = ["avg_window", "max_window", "stochastic_window", "strided_conv"]


def trained() -> PoolingClassifier:
    """A network whose weights and running statistics are anything but fresh."""
    with seeded(0):
        norm = nn.BatchNorm2d(CHANNELS)
        backbone = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, padding=1), norm, nn.ReLU())
        for values in (*norm.parameters(), norm.running_mean, norm.running_var):
            assert values is not None
            nn.init.uniform_(values, 0.5, 1.5)
        head = nn.Linear(CHANNELS, CLASSES)
    return PoolingClassifier(backbone, POOLS["avg"](), head).eval()


def images(*shape: int) -> Tensor:
    with seeded(1):
        return torch.randn(shape)


IMAGES = images(2, 3, 20, 24)


def swapped(classifier: PoolingClassifier, pool: str, *arguments: str) -> PoolingClassifier:
    return Swap.parse(pool, arguments).apply(classifier, IMAGES)


def logits(classifier: PoolingClassifier, x: Tensor = IMAGES) -> Tensor:
    with torch.no_grad():
        y: Tensor = classifier(x)
    return y


# By name -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool", "arguments", "values", "text"),
    [
        ("avg", [], {}, "avg()"),
        ("gem", [], {}, "gem(p=3.0, eps=1e-06)"),
        ("gem", ["p=4"], {"p": 4}, "gem(p=4, eps=1e-06)"),
        ("gem", ["eps=1e-3", "p=2.5"], {"p": 2.5, "eps": 1e-3}, "gem(p=2.5, eps=0.001)"),
        ("spp", ["levels=(1, 2)"], {"levels": (1, 2)}, "spp(levels=(1, 2), kind=max)"),
        ("spp", ["kind=avg"], {"kind": "avg"}, "spp(levels=(1, 2, 4), kind=avg)"),
        ("spp", ["kind='avg'"], {"kind": "avg"}, "spp(levels=(1, 2, 4), kind=avg)"),
        ("attention", ["heads=2"], {"heads": 2}, "attention(heads=2)"),
        ("class_channel", [], {}, "class_channel(kind=avg)"),
        ("adaptive_max", ["output_size=(2, 3)"], {"output_size": (2, 3)},
         "adaptive_max(output_size=(2, 3))"),
        ("max_window", ["ceil_mode=True"], {"ceil_mode": True},
         "max_window(kernel_size=2, stride=None, padding=0, ceil_mode=True)"),
        ("class_channel", ["kind=a=b"], {"kind": "a=b"}, "class_channel(kind=a=b)"),
    ],
)  # fmt: skip
def test_a_swap_is_read_from_a_command_line_and_written_as_python(
    pool: str, arguments: list[str], values: dict[str, Any], text: str
) -> None:
    swap = Swap.parse(pool, arguments)
    assert swap == Swap(pool, values)
    assert str(swap) == text


def test_an_unknown_pooling_lists_the_known_ones() -> None:
    with pytest.raises(SwapError) as error:
        Swap.parse("mean", [])
    assert str(error.value) == f"no pooling is named 'mean'; there are: {', '.join(POOLS)}"


@pytest.mark.parametrize(
    ("pool", "arguments", "says"),
    [
        ("gem", ["q=3"], "'q=3': gem takes p, eps; write NAME=VALUE"),
        ("gem", ["p=3", "q=3"], "'q=3': gem takes p, eps; write NAME=VALUE"),
        ("gem", ["p"], "'p': gem takes p, eps; write NAME=VALUE"),
        ("gem", ["=3"], "'=3': gem takes p, eps; write NAME=VALUE"),
        ("max", ["p=3"], "'p=3': max takes no arguments"),
        # the network decides these
        ("attention", ["channels=3"], "'channels=3': attention takes heads; write NAME=VALUE"),
        ("class_channel", ["classes=3"], "'classes=3': class_channel takes kind; write NAME=VALUE"),
        ("gated", ["channels=3"], "'channels=3': gated takes no arguments"),
        ("adaptive_avg", [], "adaptive_avg needs an argument: output_size=VALUE"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_those_that_do(
    pool: str, arguments: list[str], says: str
) -> None:
    with pytest.raises(SwapError) as error:
        Swap.parse(pool, arguments)
    assert str(error.value) == says


def test_a_value_that_only_looks_like_python_is_text() -> None:
    assert Swap.parse("spp", ["kind={[]: 1}"]).arguments == {"kind": "{[]: 1}"}


# What it computes --------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", POOLS)
def test_every_pooling_can_take_the_place_of_the_old_one_at_any_size(pool: str) -> None:
    network = swapped(trained(), pool, *LEAST[pool])
    assert network.explains
    assert not any(module.training for module in network.modules())
    for h, w in ((20, 24), (9, 31), (40, 13)):
        y = logits(network, images(3, 3, h, w))
        assert y.shape == (3, CLASSES)
        assert y.isfinite().all()


def test_the_average_for_the_average_changes_nothing() -> None:
    assert torch.equal(logits(swapped(trained(), "avg")), logits(trained()))


@pytest.mark.parametrize(
    ("pool", "arguments"),
    [
        ("attention", []),
        ("attention", ["heads=4"]),
        ("class_channel", []),
        ("adaptive_avg", ["output_size=1"]),
        ("spp", ["levels=(1,)", "kind=avg"]),
        ("gem", ["p=1"]),
        ("mixed", ["alpha=0"]),
        ("lp", ["p=1"]),  # behind a ReLU
        ("avg_window", ["kernel_size=4"]),  # which divides both sides
        ("adaptive_avg", ["output_size=(4, 4)"]),  # likewise
    ],
)
def test_what_is_the_average_in_another_form_answers_as_before(
    pool: str, arguments: list[str]
) -> None:
    network = swapped(trained(), pool, *arguments)
    torch.testing.assert_close(logits(network), logits(trained()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("pool", "arguments", "made"),
    [
        ("max", [], POOLS["max"]()),
        ("gem", ["p=4"], POOLS["gem"](p=4)),
        ("adaptive_avg", ["output_size=(2, 3)"], POOLS["adaptive_avg"]((2, 3))),
        ("adaptive_max", ["output_size=3"], POOLS["adaptive_max"](3)),
        ("fractional_max", ["output_size=(2, 3)"], POOLS["fractional_max"]((2, 3))),
        ("spp", ["levels=(1, 3)"], POOLS["spp"]((1, 3))),
        ("spp", ["levels=(1, 3)", "kind=avg"], POOLS["spp"]((1, 3), "avg")),
        ("max_window", ["kernel_size=3", "stride=2"], POOLS["max_window"](3, 2)),
        ("avg_window", ["kernel_size=(2, 3)"], POOLS["avg_window"]((2, 3))),
        ("stochastic_window", [], POOLS["stochastic_window"]()),
        ("strided_conv", ["stride=3"], POOLS["strided_conv"](CHANNELS, stride=3)),
    ],
)
def test_the_old_classifier_reads_the_mean_over_cells_or_places(
    pool: str, arguments: list[str], made: nn.Module
) -> None:
    old, network = trained(), swapped(trained(), pool, *arguments)
    for x in (IMAGES, images(3, 3, 17, 11)):
        with torch.no_grad():
            pooled = made.eval()(old.backbone(x))
            expected = old.head(pooled.mean((2, 3)))
        torch.testing.assert_close(logits(network, x), expected, rtol=1e-4, atol=1e-5)


def test_a_maximum_of_class_maps_is_the_maximum_of_what_the_classifier_says_of_each_place() -> None:
    old, network = trained(), swapped(trained(), "class_channel", "kind=max")
    with torch.no_grad():
        places = old.head(old.backbone(IMAGES).movedim(1, 3))  # (n, h, w, classes)
    torch.testing.assert_close(logits(network), places.amax((1, 2)))
    assert isinstance(network.head, nn.Identity)


@pytest.mark.parametrize("pool", WINDOWS)
def test_a_map_is_followed_by_the_global_average(pool: str) -> None:
    old = trained()
    network = swapped(old, pool)
    assert isinstance(network.pool, POOLS["avg"])  # type: ignore[arg-type]  # it is a class
    assert isinstance(network.backbone, nn.Sequential)
    assert network.backbone[0] is old.backbone
    assert isinstance(network.backbone[1], POOLS[pool])  # type: ignore[arg-type]
    assert network.head is old.head


@pytest.mark.parametrize("pool", ["attention", "avg", "gem", "lp", "max", "stochastic"])
def test_one_cell_keeps_the_very_trunk(pool: str) -> None:
    old = trained()
    network = swapped(old, pool)
    assert network.backbone is old.backbone
    assert torch.equal(network.head.weight, old.head.weight)  # type: ignore[arg-type]
    assert torch.equal(network.head.bias, old.head.bias)  # type: ignore[arg-type]


@pytest.mark.parametrize("pool", ["spp", "adaptive_avg", "fractional_max", "avg_window"])
def test_a_classifier_without_a_bias_keeps_none(pool: str) -> None:
    old = trained()
    old.head = nn.Linear(CHANNELS, CLASSES, bias=False)
    network = swapped(old, pool, *LEAST[pool])
    assert network.head.bias is None
    assert not logits(network, torch.zeros(1, 3, 20, 24)).isnan().any()


def test_class_channels_of_a_classifier_without_a_bias_answer_as_before() -> None:
    old = trained()
    old.head = nn.Linear(CHANNELS, CLASSES, bias=False)
    torch.testing.assert_close(logits(swapped(old, "class_channel")), logits(old))


@pytest.mark.parametrize("pool", POOLS)
def test_the_network_that_was_given_is_not_changed(pool: str) -> None:
    old = trained()
    state = {key: value.clone() for key, value in old.state_dict().items()}
    parts, before = list(old.modules()), logits(old)
    network = swapped(old.train(), pool, *LEAST[pool])
    logits(network)
    assert list(old.modules()) == parts
    assert old.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in old.state_dict().items())
    assert torch.equal(logits(old.eval()), before)
    if network.head is not old.head:  # its weights are copies
        with torch.no_grad():
            for part in (network.head, network.pool):
                for parameter in part.parameters():
                    parameter.add_(1)
        assert torch.equal(logits(old), before)


# What it refuses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool", "arguments", "says"),
    [
        ("gem", ["p=0"], r"gem\(p=0, eps=1e-06\) cannot be used here: p=0, .*must be above 0"),
        ("gem", ["p=three"], r"gem\(p=three, eps=1e-06\) cannot be used here: "),
        ("lp", ["p=0.5"], "cannot be used here: .*a norm needs 1 or more"),
        ("attention", ["heads=3"], "cannot be used here: heads=3: must divide the 8 channels"),
        ("spp", ["kind=sum"], "cannot be used here: kind='sum': choose avg or max"),
        ("spp", ["levels=3"], r"spp\(levels=3, kind=max\) cannot be used here: "),
        ("class_channel", ["kind=sum"], "cannot be used here: kind='sum': choose avg or max"),
        ("adaptive_avg", ["output_size=-1"], "cannot be used here: "),
        ("adaptive_max", ["output_size=big"], "cannot be used here: "),
        ("fractional_max", ["output_size=21"], "cannot be used here: 21 .* need 22 places, not 20"),
        ("max_window", ["kernel_size=99"], "cannot be used here: "),
        ("strided_conv", ["stride=0"], "cannot be used here: "),
    ],
)
def test_a_value_that_the_pooling_does_not_take_is_refused_with_the_reason(
    pool: str, arguments: list[str], says: str
) -> None:
    with pytest.raises(SwapError, match=says):
        swapped(trained(), pool, *arguments)


@pytest.mark.parametrize("size", ["(None, 1)", "(1, None)", "0", "(0, 2)"])
def test_a_size_that_leaves_no_fixed_number_of_cells_is_refused(size: str) -> None:
    with pytest.raises(SwapError, match="cannot be used here"):
        swapped(trained(), "adaptive_avg", f"output_size={size}")


class Cosine(nn.Module):
    """Reads one value a channel, but adds them up in its own way."""

    in_features, out_features, bias = CHANNELS, CLASSES, None

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(CLASSES, CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.cosine_similarity(x[:, None], self.weight, dim=2)


@pytest.mark.parametrize(
    "head",
    [
        nn.Sequential(nn.Linear(CHANNELS, 16), nn.ReLU(), nn.Linear(16, CLASSES)),
        nn.Identity(),
        Cosine(),
        nn.Linear(CHANNELS * 6, CLASSES),
    ],
    ids=["two layers", "none", "cosine", "one that reads six cells"],
)
def test_only_a_linear_classifier_of_one_value_a_channel_can_be_kept(head: nn.Module) -> None:
    old = trained()
    old.pool, old.head = POOLS["adaptive_avg"]((2, 3)), head
    with pytest.raises(SwapError, match="only a linear classifier of one value a channel"):
        swapped(old, "avg")


def test_a_swapped_network_of_one_cell_can_be_swapped_again_and_others_say_why_not() -> None:
    old = trained()
    again = swapped(swapped(old, "max"), "avg")
    assert torch.equal(logits(again), logits(old))
    for pool in ("spp", "class_channel"):
        with pytest.raises(SwapError, match="only a linear classifier"):
            swapped(swapped(old, pool), "avg")
