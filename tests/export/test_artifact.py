"""An artifact appears whole, under a version of its own."""

from pathlib import Path

import pytest

from export.artifact import free_version, next_version, publish
from export.errors import ExportError, VersionExistsError


def test_versions_count_up_from_the_newest(tmp_path: Path) -> None:
    assert next_version(tmp_path / "absent", "net") == 1
    assert next_version(tmp_path, "net") == 1
    for version in ("1", "2", "10"):
        (tmp_path / "net" / version).mkdir(parents=True)
    for stray in ("011", "0", "x", "12b", "-3"):
        (tmp_path / "net" / stray).mkdir()
    (tmp_path / "net" / "99").write_text("a file is no version")
    assert next_version(tmp_path, "net") == 11
    assert free_version(tmp_path, "net", None) == 11


def test_a_wanted_version_is_taken_only_when_it_is_free(tmp_path: Path) -> None:
    (tmp_path / "net" / "2").mkdir(parents=True)
    assert free_version(tmp_path, "net", 7) == 7
    with pytest.raises(VersionExistsError, match=r"net/2 exists already; choose another --version"):
        free_version(tmp_path, "net", 2)


def test_publishing_moves_the_folder(tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    draft.mkdir()
    (draft / "card.json").write_text("{}")
    target = publish(draft, tmp_path, "net", 3)
    assert target == tmp_path / "net" / "3"
    assert [file.name for file in target.iterdir()] == ["card.json"]
    assert not draft.exists()


def test_publishing_never_replaces_a_version(tmp_path: Path) -> None:
    draft, taken = tmp_path / "draft", tmp_path / "net" / "3"
    draft.mkdir()
    taken.mkdir(parents=True)  # it appeared while we exported; empty, so a rename would succeed
    with pytest.raises(ExportError, match="exists already"):
        publish(draft, tmp_path, "net", 3)
    assert draft.exists()
