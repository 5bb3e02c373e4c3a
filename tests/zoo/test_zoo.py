"""The harness itself, without torchvision and timm: results, table, and networks made ready."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.zoo import networks, results
from tests.zoo.__main__ import reason, run_all
from tests.zoo.results import Result
from tests.zoo.trained import ZooError, look_trained, spread

EXPORTED = Result(
    "tv_a", 12.3, None, (32, 48), 2, error=3e-6, worst="1×32×48", mixed_error=2e-7
)  # fmt: skip
PLAIN = Result("timm_b", 5, None, (1, 1), 1, error=1e-6, worst="1×1×1", mixed_reason="Pad | bad")
FAILED = Result("timm_c", 7, reason="capture ended\nFile\nFile\nValueError: odd")


class Residual(nn.Module):
    """A network in which much hides while it is fresh: a branch times 10⁻⁶, an idle norm."""

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.branch = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), norm(8), nn.ReLU())
        self.gamma = nn.Parameter(torch.full((8, 1, 1), 1e-6))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # (n, 8, h', w')
        x = x + self.gamma * self.branch(x)
        logits: Tensor = self.head(x.mean((2, 3)))  # (n, 5)
        return logits


def fresh(norm: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return Residual(norm)


def test_the_table_says_what_became_of_each() -> None:
    assert results.markdown([EXPORTED, PLAIN, FAILED]) == (
        "| network | min side, multiple | error vs torch | in mixed batches | seconds |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| `tv_a` | 32×48, 2 | 3e-06 | 2e-07 | 12 |\n"
        "| `timm_b` | 1 | 1e-06 | Pad / bad | 5 |\n"
        "| `timm_c` |  | capture ended … ValueError: odd |  | 7 |\n"
        "\n"
        "torchvision: 1 of 1 exported, 1 of 1 in mixed batches\n"
        "timm: 1 of 2 exported, 0 of 2 in mixed batches\n"
    )


def test_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    made = {result.network: result for result in (EXPORTED, PLAIN, FAILED)}
    ran: list[str] = []

    def run_one(name: str) -> Result:
        ran.append(name)
        return made[name]

    run_all(["tv_a", "timm_b"], tmp_path, run_one)
    run_all(["tv_a", "timm_b", "timm_c"], tmp_path, run_one)
    assert ran == ["tv_a", "timm_b", "timm_c"]
    run_all(["timm_b"], tmp_path, run_one, again=True)
    assert ran[3:] == ["timm_b"]
    assert results.load(tmp_path, ["tv_a", "tv_other", "timm_b", "timm_c"]) == [*made.values()]


def test_the_reason_is_what_the_command_said_last() -> None:
    assert reason("x  step\n\nnot written: no size works\nGive it another\n") == (
        "no size works\nGive it another"
    )
    assert reason("Traceback\nValueError: odd\n") == "ValueError: odd"
    assert reason("") == ""


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.Identity])
def test_nothing_hides_in_a_network_made_ready(norm: type[nn.Module]) -> None:
    network = fresh(norm)
    look_trained(network, 1)
    assert not any(module.training for module in network.modules())
    assert all(bool((p != p.flatten()[0]).any()) for p in network.parameters())
    differ, largest = spread(network)
    assert differ > 0.05
    assert 0.01 < largest < 100
    with torch.no_grad():
        whole = network(torch.ones(1, 3, 9, 9))
        network.get_parameter("gamma").zero_()
        without = network(torch.ones(1, 3, 9, 9))
    assert (whole - without).abs().max() > 0.01 * whole.abs().max()


def test_batch_normalisation_is_near_its_input_but_not_at_it() -> None:
    network = look_trained(fresh(nn.BatchNorm2d), 1)
    norm = network.get_submodule("branch.1")
    seen: list[Tensor] = []
    norm.register_forward_hook(lambda _, x, __: seen.append(x[0]))
    spread(network)
    true, kept = seen[0].var((0, 2, 3)), norm.get_buffer("running_var")
    assert ((kept / true > 0.3) & (kept / true < 3)).all()
    assert ((kept / true - 1).abs() > 0.01).any()


def test_the_same_seed_makes_the_same_network() -> None:
    states = [look_trained(fresh(nn.BatchNorm2d), seed).state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["gamma"], states[2]["gamma"])


def test_a_network_that_takes_no_size_says_so() -> None:
    class Picky(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError(f"not {tuple(x.shape)}")

    with pytest.raises(ZooError, match=r"runs at none of .*not \(4, 3, 512, 512\)"):
        look_trained(Picky(), 0)


def test_networks_are_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {"resnet": fresh(nn.BatchNorm2d)}
    monkeypatch.setattr(networks, "_from_torchvision", made.pop)
    network = networks.tv_resnet()
    assert isinstance(network, Residual)
    assert not made
    assert not hasattr(networks, "resnet")
    assert networks.identifier("resnetv2_50x1.goog_in21k-ft") == "resnetv2_50x1_goog_in21k_ft"
