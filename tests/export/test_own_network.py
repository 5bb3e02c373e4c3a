"""`anypool export net.py:build`, from options to what the card says."""

import argparse
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from export.cli import add_arguments, run
from models.card import Card
from service.engine import Engine
from tests.conftest import anypool

TAGS = """
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Tags(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3 * 16, 4, 3, 1, 1)
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            x = self.conv(F.pixel_unshuffle(x, 4)).relu()
            return self.head(F.avg_pool2d(x, x.shape[2:]).flatten(1))
"""


@pytest.fixture
def net(tmp_path: Path) -> str:
    file = tmp_path / "tags.py"
    file.write_text(dedent(TAGS), encoding="utf-8")
    return f"{file}:Tags"


def export(*arguments: str | Path) -> int:
    """The command in this process: only for what ends before any work."""
    parser = argparse.ArgumentParser(prog="anypool export")
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--channels=2"], "--channels 2: images have 1 (grey) or 3 (RGB)"),
        (["--mean=0.1,0.2"], "mean and std need one number for each of 3 channels"),
        (["--mean=grey"], "'grey': write a number a channel, such as 0.485,0.456,0.406"),
        (["--std=127.5"], "write 127.5/255 if yours count to 255"),
        (["--std=0"], "std must not be 0"),
        (["--resize=256"], "'256': write fit:320 (longest side)"),
        (["--resize=crop:224:256"], "a square of 256 cannot be cut from a side of 224"),
        (["--labels=absent.txt"], "cannot read labels absent.txt: "),
        (["--weights=absent.pt"], "cannot read weights absent.pt: "),
        (["--name=Tags!"], "'Tags!' cannot name a network: "),
        (["--version=0"], "--version must be a positive integer"),
        (["--pool=gme"], "no pooling is named 'gme'"),
    ],
)
def test_what_cannot_be_asked_for_is_misuse_before_any_work(
    arguments: list[str], said: str, net: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(net, "--out", tmp_path / "store", *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("anypool export: ")
    assert said in line
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ("absent.py:build", "absent.py does not exist"),
        ("absent.pt2", "absent.pt2 does not exist"),
        ("net.py", "net.py: say what builds the network, as in net.py:build"),
        ("tags", "no network is named 'tags'; there are: "),
    ],
)
def test_an_origin_that_is_not_there_is_misuse(
    origin: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(origin, "--out", tmp_path / "store") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_a_saved_program_without_trust_is_misuse_and_is_not_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.pt2").write_bytes(b"never looked at")
    assert export(tmp_path / "net.pt2", "--out", tmp_path / "store") == 2
    assert "can run any code that its maker put in: say --trust if you" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("option", ["--activation=relu", "--filter=nearest", "--channels=many"])
def test_a_choice_that_does_not_exist_is_misuse(option: str, net: str) -> None:
    with pytest.raises(SystemExit) as ended:
        export(net, option)
    assert ended.value.code == 2


def test_help_tells_the_options_for_ones_own_network() -> None:
    parser = argparse.ArgumentParser(prog="anypool export")
    add_arguments(parser)
    text = " ".join(parser.format_help().split())
    for said in (
        "--labels FILE",
        "--channels N",
        "--mean N,…",
        "--std N,…",
        "--resize POLICY",
        "--filter {bicubic,bilinear}",
        "--activation {softmax,sigmoid,none}",
        "--trust",
        "anypool export net.py:build --weights net.safetensors --labels labels.txt",
        "the defaults are --channels 3 --resize fit:320 --filter bicubic --activation softmax",
    ):
        assert said in text


def test_the_card_has_all_that_was_asked_for_and_what_was_found(net: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    state = {
        "conv.weight": torch.randn(4, 48, 3, 3) / 20,
        "conv.bias": torch.zeros(4),
        "head.weight": torch.randn(3, 4),
        "head.bias": torch.tensor([9.0, -9.0, 0.0]),
    }
    save_file(state, tmp_path / "tags.safetensors")
    (tmp_path / "tags.txt").write_text("in\tindoors\nout\toutdoors\nfood\n", encoding="utf-8")
    done = anypool(
        "export", net, "--out", tmp_path / "store", "--weights", tmp_path / "tags.safetensors",
        "--labels", tmp_path / "tags.txt", "--activation=sigmoid", "--mean=0.5,0.25,0",
        "--std=0.5", "--resize=short:64", "--filter=bilinear", "--name=tagger",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "store" / "tagger" / "1"
    assert done.stdout.strip() == str(folder)
    assert "shortest side 64 (bilinear), 3 channels, mean 127.5, 63.75, 0, std 127.5" in done.stderr
    card = Card.load(folder / "card.json")
    assert [(label.id, label.name) for label in card.labels] == [
        ("in", "indoors"), ("out", "outdoors"), ("2", "food")
    ]  # fmt: skip
    assert (card.activation, card.embedding_size) == ("sigmoid", 4)
    assert card.outputs == ("logits", "probabilities", "embedding")
    wanted = card.preprocessing
    assert (wanted.mean, wanted.std) == ((127.5, 63.75, 0.0), (127.5,) * 3)
    assert (wanted.policy, wanted.size, wanted.filter) == ("short", 64, "bilinear")
    assert (card.limits.multiple, card.limits.smallest()) == (4, (4, 4))
    assert card.pooling == "adaptive average to 1×1"
    assert "tags.safetensors, SHA-256 " in card.licence.notice
    assert card.parity is not None
    assert card.parity.worst <= 2e-5
    pixels = np.random.default_rng(1).integers(0, 256, (1, 40, 64, 3), np.uint8)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2) - torch.tensor(wanted.mean)[:, None, None]
    x = nn.functional.pixel_unshuffle(x / 127.5, 4)
    x = nn.functional.conv2d(x, state["conv.weight"], padding=1).relu().mean((2, 3))
    logits = x @ state["head.weight"].T + state["head.bias"]
    got = Engine(folder, "cpu").run([pixels[0]])
    np.testing.assert_allclose(got.probabilities, logits.sigmoid(), rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_a_crop_that_the_network_does_not_take_is_told_with_those_that_it_does(
    net: str, tmp_path: Path
) -> None:
    done = anypool("export", net, "--out", tmp_path / "store", "--resize=crop:256:225")
    assert done.returncode == 1
    said = "does not take a crop of 225×225: it takes 4 and more, in multiples of 4. Crop to 224 or"
    assert said in done.stderr
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.slow
def test_a_saved_program_with_trust_becomes_an_artifact(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.AdaptiveMaxPool2d((2, 1)), nn.Flatten(),
                            nn.Linear(8, 2))  # fmt: skip
    axes = (dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),)
    example = (torch.zeros(2, 1, 61, 83),)
    program = torch.export.export(network.eval(), example, dynamic_shapes=axes)
    torch.export.save(program, tmp_path / "net.pt2")
    done = anypool(
        "export", tmp_path / "net.pt2", "--trust", "--channels=1", "--out", tmp_path / "store"
    )
    assert done.returncode == 0, done.stderr
    card = Card.load(tmp_path / "store" / "net" / "1" / "card.json")
    assert (card.preprocessing.channels, len(card.labels), card.limits.multiple) == (1, 2, 1)
    assert card.pooling == "adaptive maximum to 2×1"
    assert "Made from net.pt2" in card.licence.notice
