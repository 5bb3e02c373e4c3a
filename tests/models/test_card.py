"""The card: the contract between an artifact and its server."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from models import labels
from models.card import Card, CardError, Licence, Mixed, Parity, Preprocessing, SizeLimits

RGB: dict[str, Any] = {
    "channels": 3,
    "mean": (127.0, 127.0, 127.0),
    "std": (128.0, 128.0, 128.0),
    "policy": "fit",
    "size": 320,
}


def make_card() -> Card:
    return Card(
        name="seed_cnn",
        version=3,
        labels=labels.numbered(10),
        preprocessing=Preprocessing(**RGB),
        activation="softmax",
        limits=SizeLimits(min_height=7, min_width=9),
        pooling="adaptive average 4×4",
        outputs=("logits", "probabilities", "embedding"),
        embedding_size=64,
        tolerances={"CPUExecutionProvider": 2e-5},
        parity=Parity(reference="torch", provider="CPU", cases=1, worst=1e-7, worst_case="1×7×9"),
        mixed=Mixed(supported=False, reason="Resize", tolerances={"CPUExecutionProvider": 1e-5}),
        exporter={"torch": "2.13"},
        licence=Licence(name="none", notice="made up"),
    )


def test_a_card_survives_saving_and_loading(tmp_path: Path) -> None:
    make_card().save(tmp_path / "card.json")
    assert Card.load(tmp_path / "card.json") == make_card()


def test_a_saved_card_is_json_that_people_can_read(tmp_path: Path) -> None:
    make_card().save(tmp_path / "card.json")
    text = (tmp_path / "card.json").read_text(encoding="utf-8")
    assert json.loads(text)["format"] == 1
    assert "adaptive average 4×4" in text
    assert text.count("\n") > 20


@pytest.mark.parametrize("found", [2, 0, "1", None])
def test_another_format_is_refused_with_both_numbers_and_the_way_out(
    found: object, tmp_path: Path
) -> None:
    file = tmp_path / "card.json"
    file.write_text(json.dumps(make_card().model_dump(mode="json") | {"format": found}))
    with pytest.raises(CardError) as refused:
        Card.load(file)
    message = str(refused.value)
    assert str(file) in message
    assert f"has format {found!r}; this anypool reads format 1" in message
    assert "Export the model again" in message


def test_a_missing_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"card\.json does not exist: is this an artifact folder"):
        Card.load(tmp_path / "card.json")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[1]", b"null", b"3"])
def test_a_file_that_is_no_card_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_bytes(content)
    with pytest.raises(CardError, match=r"card\.json"):
        Card.load(tmp_path / "card.json")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"labels": []}, "labels"),
        ({"version": 0}, "version"),
        ({"name": "../up"}, "name"),
        ({"activation": "relu"}, "activation"),
        ({"limits": {"min_height": 0, "min_width": 1}}, r"limits\.min_height"),
        ({"outputs": ["cam3d"]}, r"outputs\.0"),
        ({"outputs": ["logits", "probabilities", "cam"]}, "map_stride belongs to the output cam"),
        ({"map_stride": 32}, "map_stride belongs to the output cam"),
        ({"licence": {"name": "x", "notice": "y", "url": "z"}}, r"licence\.url"),
    ],
)
def test_a_wrong_field_is_refused_by_name(
    change: dict[str, Any], field: str, tmp_path: Path
) -> None:
    file = tmp_path / "card.json"
    file.write_text(json.dumps(make_card().model_dump(mode="json") | change))
    with pytest.raises(CardError, match=rf"card\.json is not a valid card: (.|\n)*{field}"):
        Card.load(file)


OPTIONAL = {"embedding_size", "map_stride", "parity", "rounding", "precision", "drift"}


@pytest.mark.parametrize("field", sorted(Card.model_fields.keys() - OPTIONAL))
def test_a_missing_field_is_refused_by_name(field: str, tmp_path: Path) -> None:
    file = tmp_path / "card.json"
    fields = make_card().model_dump(mode="json")
    del fields[field]
    file.write_text(json.dumps(fields))
    with pytest.raises(CardError, match=field):
        Card.load(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": (127.0,)}, "one number for each of 3 channels"),
        ({"std": (1.0, 1.0, 1.0, 1.0)}, "one number for each of 3 channels"),
        ({"channels": 1}, "one number for each of 1 channels"),
        ({"std": (1.0, 0.0, 1.0)}, "std must not be 0"),
        ({"mean": (float("nan"), 0.0, 0.0)}, "finite"),
        ({"policy": "native"}, "size belongs to all policies but native"),
        ({"size": None}, "size belongs to all policies but native"),
        ({"policy": "short", "size": None}, "size belongs to all policies but native"),
        ({"policy": "crop"}, "crop belongs to the policy crop"),
        ({"crop": 224}, "crop belongs to the policy crop"),
        ({"policy": "short", "crop": 224}, "crop belongs to the policy crop"),
        ({"policy": "crop", "crop": 321}, "a square of 321 cannot be cut from a side of 320"),
        ({"policy": "crop", "crop": 0}, "greater than or equal to 1"),
        ({"size": 0}, "greater than or equal to 1"),
        ({"channels": 4}, "1 or 3"),
    ],
)
def test_preprocessing_must_be_consistent(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Preprocessing(**RGB | change)


@pytest.mark.parametrize(
    "said",
    [{"policy": "short"}, {"policy": "crop", "crop": 224}, {"policy": "crop", "crop": 320}],
)
def test_short_and_crop_are_policies_of_a_card(said: dict[str, Any]) -> None:
    assert Preprocessing(**RGB | said).policy == said["policy"]


@pytest.mark.parametrize(
    ("limits", "taken"),
    [
        ({"min_height": 224, "min_width": 224}, True),
        ({"min_height": 225, "min_width": 1}, False),
        ({"min_height": 1, "min_width": 225}, False),
        ({"min_height": 1, "min_width": 1, "multiple": 32}, True),
        ({"min_height": 1, "min_width": 1, "multiple": 64}, False),
    ],
)
def test_a_crop_is_one_the_network_takes(limits: dict[str, int], taken: bool) -> None:
    card = make_card().model_dump(mode="json") | {"limits": limits}
    card["preprocessing"] |= {"policy": "crop", "crop": 224}
    assert SizeLimits(**limits).allow(224, 224) == taken
    if taken:
        Card.model_validate(card)
    else:
        with pytest.raises(ValidationError, match="does not take a crop of 224×224"):
            Card.model_validate(card)


def test_the_smallest_size_is_a_multiple_of_what_the_network_needs() -> None:
    assert SizeLimits(min_height=7, min_width=9).smallest() == (7, 9)
    assert SizeLimits(min_height=33, min_width=32, multiple=32).smallest() == (64, 32)


def test_a_card_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make_card().version = 4  # type: ignore[misc]
