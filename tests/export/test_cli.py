"""`anypool export` as people use it."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models import registry
from models.card import Card
from tests.conftest import anypool
from tests.export.conftest import Exported


@pytest.fixture
def own_networks(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that registers networks; `anypool` will find it."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return "tests.export.own_networks"


def test_help_names_networks_and_options() -> None:
    done = anypool("export", "--help")
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    assert "usage: anypool export" in text
    assert "one of: efficientnet_lite0, " in text
    for option in (
        "resnet18",
        "seed_cnn",
        "--out DIR",
        "--version N",
        "--weights FILE",
        "--import MODULE",
        "--pool POOL",
        "--pool-arg ARG=VALUE",
        "--name NAME",
    ):
        assert option in text


def test_an_unknown_network_is_misuse_and_lists_the_known_ones(tmp_path: Path) -> None:
    done = anypool("export", "nope", "--out", tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("anypool export: no network is named 'nope'; there are: ")
    assert {"efficientnet_lite0", "resnet18", "seed_cnn"} <= set(line.split(": ")[2].split(", "))


@pytest.mark.parametrize("version", ["0", "one"])
def test_a_version_that_is_no_positive_integer_is_misuse(version: str, tmp_path: Path) -> None:
    done = anypool("export", "seed_cnn", "--out", tmp_path, f"--version={version}")
    assert done.returncode == 2
    assert "--version" in done.stderr


def test_a_version_that_exists_is_misuse(exported: Exported) -> None:
    done = anypool("export", "seed_cnn", "--out", exported.root, "--version", "1")
    assert done.returncode == 2
    assert "seed_cnn/1 exists already; choose another --version" in done.stderr


def test_a_module_that_is_not_there_is_misuse(tmp_path: Path) -> None:
    done = anypool("export", "seed_cnn", "--import", "no_such_module", "--out", tmp_path)
    assert done.returncode == 2
    assert "cannot import no_such_module" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--pool=gme"], "no pooling is named 'gme'; there are: adaptive_avg, "),
        (["--pool=gem", "--pool-arg=q=1"], "'q=1': gem takes p, eps; write NAME=VALUE"),
        (["--pool=gem", "--pool-arg=3"], "'3': gem takes p, eps; write NAME=VALUE"),
        (["--pool=adaptive_max"], "needs an argument: output_size=VALUE"),
        (["--pool-arg=p=3"], "--pool-arg needs --pool"),
        (["--name=My Net"], "'My Net' cannot name a network"),
    ],
)
def test_a_pooling_or_name_that_cannot_be_is_misuse(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    done = anypool("export", "seed_cnn", "--out", tmp_path, *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line


def test_a_pooling_that_does_not_fit_the_network_is_told_why(tmp_path: Path) -> None:
    pool = ("--pool=attention", "--pool-arg=heads=7")
    done = anypool("export", "seed_cnn", "--out", tmp_path, *pool)
    assert done.returncode == 1
    said = "not written: attention(heads=7) cannot be used here: heads=7: must divide the 64"
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_pooling_is_swapped_in_without_training_and_the_card_says_so(tmp_path: Path) -> None:
    pool = ("--pool=spp", "--pool-arg=levels=(1, 2)", "--pool-arg=kind=avg")
    done = anypool("export", "seed_cnn", "--out", tmp_path, *pool)
    assert done.returncode == 0, done.stderr
    card = Card.load(tmp_path / "seed_cnn-spp" / "1" / "card.json")
    assert card.name == "seed_cnn-spp"
    assert card.pooling.startswith("spp(levels=(1, 2), kind=avg), put in without training, for: ")
    assert "Changed by anypool: pooling is now spp(" in card.licence.notice
    assert card.embedding_size == 64 * 5
    assert "cam" in card.outputs
    named = anypool("export", "seed_cnn", "--out", tmp_path, "--pool=max", "--name=mine")
    assert named.stdout.strip() == str(tmp_path / "mine" / "1")


def test_weights_of_ones_own_become_the_next_version(exported: Exported, tmp_path: Path) -> None:
    root, file = shutil.copytree(exported.root, tmp_path / "store"), tmp_path / "mine.safetensors"
    state = registry.build("seed_cnn").state_dict()
    state["head.bias"] = torch.arange(10.0)
    save_file(state, file)
    done = anypool("export", "seed_cnn", "--out", root, "--weights", file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(root / "seed_cnn" / "2")
    assert {path.name for path in (root / "seed_cnn").iterdir()} == {"1", "2"}
    assert [path.name for path in root.iterdir()] == ["seed_cnn"]
    for step in ("capture", "lower", "check", "verify"):
        assert f"seed_cnn  {step}: " in done.stderr
    assert "Warning" not in done.stderr
    card = Card.load(root / "seed_cnn" / "2" / "card.json")
    assert card.version == 2
    assert card.licence.name == "unknown"  # not the licence of the weights that we ship
    assert "mine.safetensors" in card.licence.notice
    assert hashlib.sha256(file.read_bytes()).hexdigest() in card.licence.notice


def test_a_graph_that_is_wrong_at_some_sizes_is_not_written_and_they_are_named(
    own_networks: str, tmp_path: Path
) -> None:
    done = anypool("export", "decides", "--import", own_networks, "--out", tmp_path / "store")
    assert done.returncode == 1
    assert done.stdout == ""
    head, *table, drift, last = done.stderr.split("not written: ")[1].strip().splitlines()
    assert head.endswith("comparisons failed")
    named = {line.split()[0] for line in table[1:]}
    assert {"1×64×64", "2×128×128", "1×224×224"} <= named
    assert not {"2×37×53", "3×61×61", "1×131×97"} & named  # heights as odd as the example's
    assert all("differs by" in line for line in table[1:])
    assert drift.startswith("layer by layer: on ")
    assert "the program that torch.export made is not the network any more" in drift
    assert last.startswith("forward decides by the size, and the graph keeps one answer: own_netw")
    assert "line 39: Ne(Mod(height, 2), 0). Reckon with the size" in last
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("indices", "return_indices=True cannot be exported: take the values alone"),
        ("sized_by_input", "takes its output size from the input's size; give it a fixed size"),
        ("one_size_only", "the network takes 64×64 but not 128×128. "),
        ("wrong_labels", "2 logits but 3 labels"),
        ("crash", "capturing crash ended with exit code 7"),
    ],
)
def test_a_network_that_cannot_be_exported_ends_as_one_message(
    name: str, message: str, own_networks: str, tmp_path: Path
) -> None:
    done = anypool("export", name, "--import", own_networks, "--out", tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    *steps, said = done.stderr.strip().split("\n\n")  # what was done, a gap, what went wrong
    assert all(line.startswith(name) for step in steps for line in step.splitlines())
    assert said.startswith("not written: ")
    assert message in said
    assert len(said) < 600
    assert list(tmp_path.iterdir()) == []
