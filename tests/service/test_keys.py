"""The keys file: what is taken, what is refused and how, and that no key is ever shown."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from service.keys import Keys, KeysError, load_keys, read_keys

SECRET = "correct-horse-battery"
OTHER = "another-key-of-a-shop"


def written(tmp_path: Path, *entries: dict[str, Any], mode: int = 0o600) -> Path:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": entries}))
    path.chmod(mode)
    return path


def loaded(tmp_path: Path, *entries: dict[str, Any]) -> Keys:
    return load_keys(written(tmp_path, *entries))


def test_a_key_finds_its_holder_and_nothing_else_does(tmp_path: Path) -> None:
    keys = loaded(tmp_path, {"name": "shop", "key": SECRET}, {"name": "ops", "key": OTHER})
    found = [keys.find(sent) for sent in (SECRET, OTHER)]
    assert [client and client.name for client in found] == ["shop", "ops"]
    for wrong in ("", SECRET[:-1], SECRET + " ", SECRET.upper(), "shop", "\xff\udc80"):
        assert keys.find(wrong) is None


def test_a_key_may_be_given_as_its_sha256(tmp_path: Path) -> None:
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    keys = loaded(tmp_path, {"name": "shop", "sha256": digest, "admin": True})
    found = keys.find(SECRET)
    assert found is not None
    assert found.admin
    assert found.budget is None
    assert keys.find(digest) is None


def test_a_key_has_a_budget_of_ten_seconds_at_once_unless_it_says_how_much(tmp_path: Path) -> None:
    keys = loaded(
        tmp_path,
        {"name": "a", "key": SECRET, "megapixels_per_s": 2},
        {"name": "b", "key": OTHER, "megapixels_per_s": 2, "burst_megapixels": 7},
    )
    for sent, most in ((SECRET, 20_000_000), (OTHER, 7_000_000)):
        found = keys.find(sent)
        assert found is not None
        assert found.budget is not None
        found.budget.spend(most)
        with pytest.raises(Exception, match="your key may spend 2 megapixels a second"):
            found.budget.spend(1_000_000)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([], "keys: List should have at least 1 item"),
        ([{"name": "a", "key": "fifteen-letters"}], "keys.0: .* at least 16 ASCII characters"),
        ([{"name": "a", "key": "with a space in it"}], "at least 16 ASCII characters"),
        ([{"name": "a", "key": "with an ümlaut-in-it"}], "at least 16 ASCII characters"),
        ([{"name": "a"}], "keys.0: .*either key or sha256"),
        ([{"name": "a", "key": SECRET, "sha256": "0" * 64}], "either key or sha256"),
        ([{"name": "a", "sha256": "abc"}], r"keys\.0\.sha256"),
        ([{"name": "", "key": SECRET}], r"keys\.0\.name"),
        ([{"key": SECRET}], r"keys\.0\.name: Field required"),
        ([{"name": "a", "key": SECRET}, {"name": "a", "key": OTHER}], "the same name"),
        ([{"name": "a", "key": SECRET}, {"name": "b", "key": SECRET}], "the same key"),
        ([{"name": "a", "key": SECRET, "megapixels_per_s": 0}], "megapixels_per_s"),
        ([{"name": "a", "key": SECRET, "burst_megapixels": 1}], "needs megapixels_per_s"),
        ([{"name": "a", SECRET: "shop"}], r"keys\.0: unknown field; there are name, key"),
        ([{"name": "a", "key": [SECRET]}], r"keys\.0\.key"),
        ([SECRET], r"keys\.0: Input should be"),
    ],
)
def test_a_wrong_file_is_refused_by_name_without_showing_a_key(
    tmp_path: Path, entries: list[Any], said: str
) -> None:
    path = written(tmp_path, *entries)
    with pytest.raises(KeysError, match=said) as refused:
        read_keys(path)
    assert str(path) in str(refused.value)
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_key_twice_is_found_out_even_when_one_is_given_as_its_digest(tmp_path: Path) -> None:
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    path = written(tmp_path, {"name": "a", "key": SECRET}, {"name": "b", "sha256": digest})
    with pytest.raises(KeysError, match="the same key"):
        read_keys(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'["' + SECRET.encode() + b'"]'])
def test_what_is_no_keys_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    with pytest.raises(KeysError, match=r"keys\.json") as refused:
        read_keys(path)
    assert SECRET not in str(refused.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="No such file"):
        read_keys(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("entry", "mode", "warned"),
    [
        ({"key": SECRET}, 0o644, True),
        ({"key": SECRET}, 0o640, False),
        ({"sha256": "0" * 64}, 0o644, False),
    ],
)
def test_keys_that_everybody_may_read_are_warned_of(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    entry: dict[str, str],
    mode: int,
    warned: bool,
) -> None:
    with caplog.at_level(logging.DEBUG):
        keys = load_keys(written(tmp_path, {"name": "a", **entry}, mode=mode))
    assert ("chmod" in caplog.text) is warned
    assert SECRET not in caplog.text + repr(keys) + repr(list(keys))
