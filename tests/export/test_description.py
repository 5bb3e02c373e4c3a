"""What a card will say of a file's network, and what cannot be asked for."""

from pathlib import Path
from typing import Any

import pytest

from export.description import Changes, DescriptionError, describe, parse_numbers, parse_resize
from models import registry
from models.card import Label
from models.swap import Swap


@pytest.fixture
def origin(tmp_path: Path) -> str:
    (tmp_path / "Net.py").write_text("raise RuntimeError('describing a file does not run it')\n")
    return f"{tmp_path / 'Net.py'}:build"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0.5", (0.5,)),
        ("0.485,0.456,0.406", (0.485, 0.456, 0.406)),
        ("127.5/255", (0.5,)),
        (" 1/2, 1/4 ,0", (0.5, 0.25, 0.0)),
        ("-1", (-1.0,)),
        ("1/255,1/255,1/255", (1 / 255,) * 3),
    ],
)
def test_numbers_are_read_with_commas_and_fractions(text: str, numbers: tuple[float, ...]) -> None:
    assert parse_numbers(text) == pytest.approx(numbers)


@pytest.mark.parametrize("text", ["", "a", "0.5,", "0.5;0.5", "1/0", "1/2/3", "0.5 0.5"])
def test_what_are_no_numbers_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(DescriptionError, match=r"write a number a channel, such as 0\.485,0\.456,"):
        parse_numbers(text)


def test_numbers_that_count_to_255_are_refused_with_what_to_write() -> None:
    with pytest.raises(DescriptionError, match=r"write 123\.7/255,116\.3/255,103\.5/255 if"):
        parse_numbers("123.7,116.3,103.5")


@pytest.mark.parametrize("text", ["nan", "inf", "0.5,nan"])
def test_what_is_no_finite_number_never_reaches_a_card(text: str, origin: str) -> None:
    with pytest.raises(DescriptionError):
        describe(origin, Changes(std=parse_numbers(text), channels=1))


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("fit:320", {"policy": "fit", "size": 320, "crop": None}),
        ("limit:640", {"policy": "limit", "size": 640, "crop": None}),
        ("short:256", {"policy": "short", "size": 256, "crop": None}),
        ("crop:256:224", {"policy": "crop", "size": 256, "crop": 224}),
        ("native", {"policy": "native", "size": None, "crop": None}),
    ],
)
def test_a_policy_is_read(text: str, fields: dict[str, Any], origin: str) -> None:
    assert parse_resize(text) == fields
    assert (
        describe(origin, Changes(resize=text)).preprocessing.model_dump().items() >= fields.items()
    )


@pytest.mark.parametrize(
    "text",
    ["", "fit", "fit:", "fit:-1", "fit:3.5", "native:320", "crop:256", "crop:256:", "short:256:224",
     "stretch:224", " fit:320", "320"],
)  # fmt: skip
def test_what_is_no_policy_is_refused_with_all_that_are(text: str) -> None:
    with pytest.raises(
        DescriptionError, match=r"write fit:320 .*limit:640 .*short:256 .*crop:256:"
    ):
        parse_resize(text)


def test_a_file_is_described_without_running_it(origin: str) -> None:
    described = describe(origin, Changes())
    assert described.name == "net"
    assert described.labels is None
    assert described.pooling is None
    assert described.activation == "softmax"
    assert described.licence.name == "unknown"
    assert "Net.py" in described.licence.notice
    wanted = described.preprocessing
    assert (wanted.channels, wanted.policy, wanted.size, wanted.filter) == (
        3,
        "fit",
        320,
        "bicubic",
    )
    assert wanted.mean == pytest.approx((123.675, 116.28, 103.53))
    assert wanted.std == pytest.approx((58.395, 57.12, 57.375))


def test_all_can_be_changed(origin: str, tmp_path: Path) -> None:
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"weights")
    labels = (Label(id="a", name="an a"), Label(id="b", name="a b"))
    changes = Changes(
        name="mine", weights=weights, labels=labels, channels=1, mean=(0.5,), std=(0.25,),
        resize="short:64", filter="bilinear", activation="sigmoid",
    )  # fmt: skip
    described = describe(origin, changes)
    assert (described.name, described.labels, described.activation) == ("mine", labels, "sigmoid")
    wanted = described.preprocessing
    assert (wanted.channels, wanted.mean, wanted.std) == (1, (127.5,), (63.75,))
    assert (wanted.policy, wanted.size, wanted.filter) == ("short", 64, "bilinear")
    assert described.licence.notice.startswith("Weights read from w.pt, SHA-256 ")


@pytest.mark.parametrize(("channels", "mean", "std"), [(1, (0.0,), (255.0,)), (3, None, None)])
def test_other_channels_bring_their_own_mean_and_deviation(
    channels: int, mean: tuple[float, ...] | None, std: tuple[float, ...] | None, origin: str
) -> None:
    usual = describe(origin, Changes()).preprocessing
    wanted = describe(origin, Changes(channels=channels)).preprocessing
    assert wanted.mean == (mean or usual.mean)
    assert wanted.std == (std or usual.std)
    assert (wanted.policy, wanted.size) == ("fit", 320)


def test_one_number_is_that_of_all_channels(origin: str) -> None:
    wanted = describe(origin, Changes(mean=(0.5,), std=(1.0,))).preprocessing
    assert (wanted.mean, wanted.std) == ((127.5,) * 3, (255.0,) * 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (Changes(channels=4), r"^--channels 4: images have 1 \(grey\) or 3 \(RGB\)$"),
        (Changes(channels=0), "--channels 0"),
        (Changes(mean=(0.1, 0.2)), "mean and std need one number for each of 3 channels"),
        (Changes(channels=1, std=(0.1, 0.2, 0.3)), "one number for each of 1 channels"),
        (Changes(std=(0.5, 0, 0.5)), "std must not be 0"),
        (Changes(resize="crop:224:256"), "a square of 256 cannot be cut from a side of 224"),
        (Changes(resize="fit:0"), "greater than or equal to 1"),
        (Changes(resize="crop:256:0"), "greater than or equal to 1"),
        (Changes(filter="nearest"), "'bicubic' or 'bilinear'"),
        (Changes(name="My Net"), r"'My Net' cannot name a network: .*; choose one with --name$"),
        (Changes(weights=Path("/nowhere/w.pt")), r"cannot read weights /nowhere/w\.pt: "),
    ],
)
def test_what_does_not_go_together_is_refused(changes: Changes, said: str, origin: str) -> None:
    with pytest.raises(DescriptionError, match=said):
        describe(origin, changes)


@pytest.mark.parametrize(
    ("file", "origin", "said"),
    [
        ("net.py", "absent.py:build", r"absent\.py does not exist$"),
        ("net.py", "absent.pt2", r"absent\.pt2 does not exist$"),
        ("net.py", "net.py", r"net\.py: say what builds the network, as in .*net\.py:build$"),
        (
            "my net.py",
            "my net.py:build",
            "'my net' cannot name a network: .*choose one with --name",
        ),
    ],
)
def test_an_origin_that_cannot_be_is_refused(
    file: str, origin: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_text("")
    with pytest.raises(DescriptionError, match=said):
        describe(str(tmp_path / origin), Changes())


def test_a_file_of_any_name_can_be_called_otherwise(tmp_path: Path) -> None:
    (tmp_path / "my net.py").write_text("")
    assert describe(f"{tmp_path}/my net.py:build", Changes(name="mine")).name == "mine"


def test_a_registered_network_keeps_what_is_not_changed() -> None:
    own = registry.get("seed_cnn")
    described = describe("seed_cnn", Changes(resize="limit:64", swap=Swap.parse("gem", ["p=2"])))
    assert described.name == "seed_cnn-gem"
    assert described.labels == own.labels()
    assert described.preprocessing.mean == own.preprocessing.mean
    assert (described.preprocessing.policy, described.preprocessing.size) == ("limit", 64)
    assert described.licence.notice.startswith(own.licence.notice)
