"""What the store's folder and the file of canvases say, before anything is loaded."""

from pathlib import Path

import pytest

from service.folders import StoreError, default_model, find, read_canvases


def make(root: Path, *folders: str) -> None:
    for folder in folders:
        (root / folder).mkdir(parents=True)
        (root / folder / "card.json").write_text("{}")


def test_only_folders_named_as_models_and_versions_are_found(tmp_path: Path) -> None:
    make(
        tmp_path,
        "net/1",
        "net/12",
        "net/0",
        "net/latest",
        "Net/1",
        ".export-x/artifact",
        "b.2/3",
        "net/1\u0662",
    )
    (tmp_path / "net" / "2").mkdir()  # no card: still being copied, or something else
    found = find(tmp_path)
    assert {name: sorted(versions) for name, versions in found.items()} == {
        "net": [1, 12],
        "b.2": [3],
    }


def test_the_default_model_is_the_only_one_or_the_one_we_ship_or_the_one_asked_for() -> None:
    here = Path("somewhere")
    assert default_model(["a"], None, here) == "a"
    assert default_model(["a", "efficientnet_lite0"], None, here) == "efficientnet_lite0"
    assert default_model(["a", "b"], "b", here) == "b"
    with pytest.raises(StoreError, match="--model"):
        default_model(["a", "b"], None, here)
    with pytest.raises(StoreError, match="anypool export"):
        default_model([], None, here)


def test_canvases_are_read_by_model_as_rows_height_width(tmp_path: Path) -> None:
    file = tmp_path / "canvases.json"
    file.write_text('{"net": [[16, 96, 64], [8, 224, 224]], "other": []}')
    assert read_canvases(file, ["net", "other", "third"]) == {
        "net": [(16, 96, 64), (8, 224, 224)],
        "other": [],
    }


def test_a_file_of_canvases_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="--canvases") as refused:
        read_canvases(tmp_path / "missing.json", ["net"])
    assert str(tmp_path / "missing.json") in str(refused.value)
    assert "No such file" in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[[16, 96, 96]]",
        '{"net": [16, 96, 96]}',
        '{"net": [[16, 96]]}',
        '{"net": [[16, 96, 96, 3]]}',
        '{"net": [[0, 96, 96]]}',
        '{"net": [[16, -96, 96]]}',
        '{"net": [[16, 96.5, 96]]}',
        '{"net": [[16, "wide", 96]]}',
        '{"net": null}',
    ],
)
def test_a_file_of_canvases_that_cannot_be_used_is_named_with_an_example(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "canvases.json"
    file.write_text(text)
    with pytest.raises(StoreError, match="--canvases") as refused:
        read_canvases(file, ["net"])
    assert str(file) in str(refused.value)
    assert '{"efficientnet_lite0": [[16, 96, 96], [8, 224, 224]]}' in str(refused.value)


def test_canvases_for_a_model_that_is_not_there_are_refused_with_those_that_are(
    tmp_path: Path,
) -> None:
    file = tmp_path / "canvases.json"
    file.write_text('{"net": [[1, 8, 8]], "ent": [[1, 8, 8]]}')
    with pytest.raises(StoreError, match="names 'ent'; there are: net, other") as refused:
        read_canvases(file, ["net", "other"])
    assert str(file) in str(refused.value)
