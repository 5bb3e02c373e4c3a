"""Each image of a mixed batch equals the same image alone; without the masks it does not."""

import numpy as np
import pytest
import torch
from torch import nn

from export.rewrite.ragged import Unsupported
from models import registry
from models.pool import POOLS
from models.weights import seeded
from tests.export.rewrite.ragged.proof import CONTROL, TOLERANCE, Pair, pair, prove
from tests.export.rewrite.ragged.zoo import BODIES, REFUSED, body

POISONS = (float("nan"), 1e30, float("-inf"), "random")


@pytest.mark.parametrize("name", BODIES)
def test_company_changes_nothing_and_masks_are_why(name: str) -> None:
    errors = prove(pair(body(name)))
    assert errors.ragged <= TOLERANCE
    assert errors.control > CONTROL


@pytest.mark.parametrize(
    "name",
    ["residual", "inception", "squeeze and excitation", "avg pool ceil", "max pool ceil padded",
     "log and division", "head spp", "head attention", "head adaptive average 3×3"],
)  # fmt: skip
def test_floats_that_are_not_numbers_stay_outside(name: str) -> None:
    both = pair(body(name), torch.float32)
    errors = prove(both, poisons=POISONS, dtype=np.float32)
    assert errors.ragged <= TOLERANCE


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_refused(name: str) -> None:
    build, said = REFUSED[name]
    with seeded(1), pytest.raises(Unsupported, match=said):
        pair(build())


def registered(name: str) -> Pair:
    network = registry.get(name)
    return pair(registry.build(name), channels=network.preprocessing.channels)


@pytest.mark.parametrize(
    ("name", "smallest", "rounds"),
    [("seed_cnn", (1, 1), 12), ("resnet18", (1, 1), 6), ("efficientnet_lite0", (32, 32), 6)],
)
def test_every_registered_network_keeps_the_promise(
    name: str, smallest: tuple[int, int], rounds: int
) -> None:
    channels = registry.get(name).preprocessing.channels
    errors = prove(registered(name), smallest, rounds=rounds, channels=channels)
    assert errors.ragged <= TOLERANCE
    assert errors.control > CONTROL


def test_the_canvas_is_cleared_right_after_normalisation() -> None:
    both = pair(nn.Sequential(nn.Conv2d(3, 4, 3), POOLS["max"](), nn.Flatten()))
    producers = {output: node for node in both.ragged.graph.node for output in node.output}
    convolution = next(node for node in both.ragged.graph.node if node.op_type == "Conv")
    assert producers[convolution.input[0]].op_type == "Where"  # though no padding could see it


def test_every_registered_network_is_in_the_proof() -> None:
    proven = {"seed_cnn", "resnet18", "efficientnet_lite0"}
    own = {name for name in registry.names() if not name.startswith("test_")}
    assert own <= proven
