"""Networks that take some sizes only: the limits found, or the layer to change and how."""

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.capture import references
from export.errors import CaptureError
from export.served import Served
from export.sizes import find_limits, grid, probe_limits
from models.card import Preprocessing, SizeLimits
from tests.export.lowering import Calls, Function

COLOUR = Preprocessing(channels=3, mean=(100,) * 3, std=(50,) * 3, policy="native")


class Net(nn.Module):
    """Two convolutions of stride 2, a pooling, a flatten, and a linear layer of 3 classes."""

    def __init__(
        self,
        pool: Function | nn.Module = nn.Identity(),  # noqa: B008  # it has no state
        features: int = 4,
        flatten: Function = lambda x: torch.flatten(x, 1),
    ) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1))
        self.pool = pool
        self.flatten = flatten
        self.classify = nn.Sequential(nn.Linear(features, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.flatten(self.pool(self.trunk(x))))
        return logits


class Positions(nn.Module):
    """Adds a table to a map."""

    def __init__(self, shape: tuple[int, ...], *, buffer: bool = False) -> None:
        super().__init__()
        self.name = "fixed" if buffer else "table"
        if buffer:
            self.register_buffer("fixed", torch.zeros(shape))
        else:
            self.table = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        table: Tensor = getattr(self, self.name)
        return x + table


class Tokens(nn.Module):
    """Its table belongs to the network itself, and to places in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 4, 8, 8)
        self.places = nn.Parameter(torch.zeros(1, 64, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.trunk(x).flatten(2).transpose(1, 2)  # (n, places, 4)
        logits: Tensor = self.head((tokens + self.places).mean(1))
        return logits


def refusal(network: nn.Module) -> str:
    with pytest.raises(CaptureError) as refused:
        find_limits(Served(network, COLOUR), channels=3)
    return str(refused.value)


def averaged(pool: nn.Module) -> Net:
    return Net(pool, flatten=lambda x: x.mean((2, 3)))


GRID = "the map before it is flattened at whatever size it has. "


@pytest.mark.parametrize("flatten", [lambda x: torch.flatten(x, 1), nn.Flatten()])
def test_a_flatten_at_a_fixed_size_is_told_with_the_pooling_that_helps(flatten: Function) -> None:
    said = refusal(Net(features=4 * 16 * 16, flatten=flatten))
    assert said == (
        "the network takes 64×64 but not 128×128. Layer classify.0, Linear of 1024 features, gets "
        f"4096 from an image of 128×128: {GRID}Put nn.AdaptiveAvgPool2d((16, 16)) between pool and "
        "the flatten: it changes nothing where the map is 16×16 already, and takes any other"
    )


@torch.no_grad()
def test_what_the_refusal_says_to_put_there_changes_nothing_and_takes_any_size() -> None:
    network = Net(features=4 * 16 * 16)
    x = torch.rand(1, 3, 64, 64)
    before = network(x)
    network.pool = nn.AdaptiveAvgPool2d((16, 16))
    assert torch.equal(network(x), before)
    assert find_limits(Served(network, COLOUR), 3) == SizeLimits(min_height=1, min_width=1)


def test_a_network_for_224_is_told_with_its_own_size() -> None:
    said = refusal(Net(nn.AvgPool2d(8), features=4 * 7 * 7))
    assert said.startswith("the network takes 224×224 but not 448×448. Layer classify.0, Linear ")
    assert "Put nn.AdaptiveAvgPool2d((7, 7)) between pool and the flatten" in said


def test_a_pooling_with_a_fixed_window_is_to_be_replaced() -> None:
    said = refusal(Net(lambda x: F.avg_pool2d(x, 16)))
    assert "Linear of 4 features, gets 16 from an image of 128×128" in said
    assert said.endswith(
        "Let nn.AdaptiveAvgPool2d((1, 1)) follow trunk, in the place of the pooling with a fixed "
        "window: it is the same where the network works now, and takes any other size"
    )


def test_a_flatten_that_no_square_grid_explains_is_told_without_one() -> None:
    said = refusal(Net(lambda x: F.avg_pool2d(x, (8, 4))[:, :3], features=3 * 8))
    assert said.endswith(
        f"{GRID}Pool to a fixed size before the flatten, with nn.AdaptiveAvgPool2d"
    )


def test_places_taken_for_images_are_told() -> None:
    said = refusal(Net(nn.MaxPool2d(16), flatten=lambda x: x.view(-1, 4)))
    assert said == (
        "the network takes 64×64 but not 128×128. Layer classify.0 gets 4 rows of 4 features from "
        "1 image of 128×128: a view(-1, 4) behind pool takes places for images. Put "
        "nn.AdaptiveAvgPool2d(1) in the place of the pooling before it, and flatten with "
        "x.flatten(1)"
    )


TABLE = (1, 4, 16, 16)


@pytest.mark.parametrize(
    ("network", "who", "table"),
    [
        (averaged(Positions(TABLE)), "Layer pool, Positions", f"table {TABLE}"),
        (
            averaged(Positions((4, 16, 16), buffer=True)),
            "Layer pool, Positions",
            "fixed (4, 16, 16)",
        ),
        (averaged(nn.Sequential(nn.ReLU(), Positions(TABLE))), "Layer pool.1, Positions", "table"),
        (Tokens(), "Forward of Tokens", "places (1, 64, 4)"),
    ],
)
def test_a_table_of_fixed_size_is_named(network: nn.Module, who: str, table: str) -> None:
    said = refusal(network)
    assert f"but not 128×128. {who} has a table of fixed size, {table}" in said
    assert ", that fits images of 64×64 and not of 128×128: RuntimeError: The size of " in said
    assert said.endswith("F.interpolate(table, size=x.shape[2:], mode=\"bilinear\"), and any size "
                         "will do")  # fmt: skip


def only(works: Callable[[int, int], bool]) -> Net:
    """A network that raises where `works(height, width)` does not hold."""

    def pool(x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def check(x: Tensor) -> Tensor:
        if not works(int(x.shape[2]), int(x.shape[3])):
            raise ValueError("such an image I will not take")
        return x

    network = Net(pool)
    network.trunk = nn.Sequential(Calls(check), nn.Conv2d(3, 4, 1))
    return network


@pytest.mark.parametrize("works", [operator.eq, operator.le, operator.ge])
def test_squares_only_are_told(works: Callable[[int, int], bool]) -> None:
    said = refusal(only(works))
    assert said == (
        "the network takes 64×64 and larger squares, but no other shape: forward must not take one "
        "side for both, or the number of places for a square. It says: ValueError: such an image I "
        "will not take"
    )


@pytest.mark.parametrize(("largest", "size"), [(64, 128), (100, 128), (511, 512), (130, 512)])
def test_an_upper_bound_is_found_and_its_line_named(largest: int, size: int) -> None:
    said = refusal(only(lambda h, w: max(h, w) <= largest))
    assert said.startswith(f"the network takes 64×64 but not {size}×{size}. Layer trunk.0, Calls ")
    assert "(test_diagnosis.py, line " in said
    assert said.endswith(f" fails at {size}×{size}: ValueError: such an image I will not take")


def test_a_small_upper_bound_starts_from_a_smaller_square() -> None:
    said = refusal(only(lambda h, w: max(h, w) <= 63))
    assert said.startswith("the network takes 32×32 but not 64×64. ")


def test_a_bound_beyond_the_probes_is_told_with_the_size_that_failed() -> None:
    served = Served(only(lambda h, w: max(h, w) <= 600), COLOUR)
    limits = find_limits(served, 3)
    with pytest.raises(CaptureError, match=r"fails at 1×33×1031: ValueError: such an image I will"):
        references(served, 3, limits)


def test_a_network_that_fails_everywhere_says_what_torch_says() -> None:
    said = refusal(only(lambda h, w: False))
    assert said.startswith("the network fails at every size tried: (64, 128, 256, 512, 224, 32, ")
    assert said.endswith("). It says: ValueError: such an image I will not take")


def test_logits_that_are_no_numbers_at_large_sizes_are_told() -> None:
    said = refusal(Net(lambda x: x.mean((2, 3)) / (x.shape[2] <= 20)))
    assert said.endswith("but not 128×128. At 128×128 its logits are not finite")


# --- limits


FOUND = [*range(1, 11), 12, 13, 14, 15, 16, 20, 21, 24, 28, 30, 32, 36, 40, 42, 48, 56, 63, 64, 96]


@pytest.mark.parametrize("multiple", FOUND)
def test_a_multiple_is_found(multiple: int) -> None:
    found = probe_limits(lambda h, w: h % multiple == w % multiple == 0)
    assert (found.multiple, found.smallest()) == (multiple, (multiple, multiple))
    assert all(h % multiple == w % multiple == 0 for _, h, w in grid(found))


@pytest.mark.parametrize("multiple", [3, 7, 12, 14, 32])
def test_a_multiple_of_a_network_is_found_together_with_its_smallest_sides(multiple: int) -> None:
    network = only(lambda h, w: h % multiple == w % multiple == 0 and h >= 50 and w >= 20)
    found = find_limits(Served(network, COLOUR), 3)
    height, width = -(-50 // multiple) * multiple, -(-20 // multiple) * multiple
    assert found == SizeLimits(min_height=height, min_width=width, multiple=multiple)


@pytest.mark.parametrize("side", [224, 227, 299, 331, 384, 448])
def test_a_usual_size_that_is_the_only_one_is_found(side: int) -> None:
    with pytest.raises(CaptureError, match=rf"takes {side}×{side} but not "):
        probe_limits(lambda h, w: h == w == side)


def test_several_answers_for_one_image_are_no_answer() -> None:
    network: Any = Net(lambda x: x.flatten(2).transpose(1, 2), flatten=lambda x: x.flatten(0, 1))
    with pytest.raises(CaptureError, match=r"It says: \d+ answers for one image$"):
        find_limits(Served(network, COLOUR), 3)
