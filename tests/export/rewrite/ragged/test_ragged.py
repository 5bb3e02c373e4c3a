"""Each image of a mixed batch equals the same image alone; without the masks it does not."""

import numpy as np
import pytest
import torch
from torch import nn

from export.rewrite.ragged import Unsupported
from export.sizes import content
from models import registry
from models.pool import POOLS
from models.weights import seeded
from tests.export.lowering import Calls, relative_error, session
from tests.export.rewrite.ragged import shapes
from tests.export.rewrite.ragged.proof import CONTROL, TOLERANCE, Net, Pair, pair, prove
from tests.export.rewrite.ragged.zoo import BODIES, REFUSED, body

POISONS = (float("nan"), 1e30, float("-inf"), "random")


@pytest.mark.parametrize("name", BODIES)
def test_company_changes_nothing_and_masks_are_why(name: str) -> None:
    errors = prove(pair(body(name)))
    assert errors.ragged <= TOLERANCE
    assert errors.control > CONTROL


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["residual", "inception", "squeeze and excitation", "avg pool ceil", "max pool ceil padded",
     "log and division", "head spp", "head attention", "head adaptive average 3×3"],
)  # fmt: skip
def test_floats_that_are_not_numbers_stay_outside(name: str) -> None:
    both = pair(body(name), torch.float32)
    errors = prove(both, poisons=POISONS, dtype=np.float32)
    assert errors.ragged <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", shapes.BODIES)
def test_company_changes_nothing_where_axes_change(name: str) -> None:
    errors = prove(pair(shapes.body(name)))
    assert errors.ragged <= TOLERANCE
    assert errors.control > CONTROL


@pytest.mark.slow
@pytest.mark.parametrize("name", shapes.MULTIPLES)
def test_company_changes_nothing_where_sides_are_multiples(name: str) -> None:
    multiple, _ = shapes.MULTIPLES[name]
    errors = prove(pair(shapes.body(name), multiple=multiple), multiple=multiple)
    assert errors.ragged <= TOLERANCE
    assert errors.control > CONTROL


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["non-local", "group norm", "instance norm", "reflected", "replicated", "shift", "upsampled",
     "padded with nothing lower", "padded up to a multiple", "reflected after division"],
)  # fmt: skip
def test_floats_that_are_not_numbers_stay_outside_where_axes_change(name: str) -> None:
    both = pair(shapes.body(name), torch.float32)
    errors = prove(both, poisons=POISONS, dtype=np.float32)
    assert errors.ragged <= TOLERANCE


@pytest.mark.parametrize("name", shapes.REFUSED)
def test_axes_that_cannot_be_followed_are_refused(name: str) -> None:
    multiple, build, said = shapes.REFUSED[name]
    with seeded(1), pytest.raises(Unsupported, match=said):
        pair(build(), multiple=multiple, promised=1)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_refused(name: str) -> None:
    build, said = REFUSED[name]
    with seeded(1), pytest.raises(Unsupported, match=said):
        pair(build())


def registered(name: str) -> Pair:
    network = registry.get(name)
    return pair(registry.build(name), channels=network.preprocessing.channels)


@pytest.mark.slow
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


def test_zeros_in_front_of_a_max_pool_stay_zeros() -> None:
    network = nn.Sequential(
        Calls(lambda x: -1.0 - x.abs()), nn.ZeroPad2d(1), nn.MaxPool2d(3, 2), nn.Flatten(2),
        Calls(lambda x: x.mean(2)),
    )  # fmt: skip
    both, pixels = pair(network), content(0, 1, 21, 30, 3)
    canvas = np.full((1, 40, 41, 3), 255, np.uint8)
    canvas[:, :21, :30] = pixels
    got = session(both.ragged).run(
        ["logits"], {"pixels": canvas, "sizes": np.array([[21, 30]], np.int64)}
    )
    with torch.no_grad():
        want = Net(network)(torch.from_numpy(pixels))
    assert relative_error(got[0], want.numpy()) <= TOLERANCE
