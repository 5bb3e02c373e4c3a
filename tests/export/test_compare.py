"""`anypool compare` as people use it."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import anypool, photo

pytestmark = pytest.mark.slow


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Three photos; seed_cnn has ten classes: any is right for two of them, none for the third."""
    rows = []
    for name, right in (("panda", range(10)), ("bee", range(10)), ("cup", ())):
        file = shutil.copy(photo(name).path, tmp_path)
        rows.append({"file": Path(file).name, "truth": list(right), "author": "somebody"})
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(rows))
    return manifest


def test_a_table_and_a_plot_of_poolings_and_sizes(truth: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("compare", "seed_cnn", "--truth", truth, "--out", out)
    done = anypool(*arguments, "--pools=max,gem", "--sizes=32,64,2500")
    assert done.returncode == 0, done.stderr
    *table, plot = done.stdout.splitlines()
    assert [row.split() for row in table] == [
        ["of", "3", "32", "64", "2500"],
        ["max", "0.667", "0.667", "0.667"],
        ["gem", "0.667", "0.667", "0.667"],
    ]
    assert plot == str(out / "seed_cnn.png")
    assert Image.open(plot).size == (900, 600)
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == [
        "seed_cnn-gem",
        "seed_cnn-max",
    ]

    again = anypool(*arguments, "--pools=gem", "--sizes=48", "--no-plot")
    assert again.stdout.splitlines()[1:] == ["gem  0.667"]
    assert [path.name for path in (out / "seed_cnn-gem").iterdir()] == ["1"]  # used again


def test_a_photo_that_cannot_be_classified_is_named(truth: Path, tmp_path: Path) -> None:
    (tmp_path / "bee.jpg").write_bytes(b"no photo")
    arguments = ("--truth", truth, "--out", tmp_path / "out", "--no-plot")
    done = anypool("compare", "seed_cnn", *arguments, "--pools=avg", "--sizes=32")
    assert done.returncode == 1
    assert "bee.jpg" in done.stderr
    assert "unsupported-format" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--pools=avg,gme"], "no pooling is named 'gme'"),
        (["--pools=adaptive_avg"], "needs an argument: output_size"),
        (["--sizes=0"], "sizes are pixels"),
        (["--sizes=large"], "large"),
        (["nope"], "no network is named 'nope'"),
        (["--truth=nothing.json"], "nothing.json cannot be used"),
    ],
)
def test_what_is_used_wrongly_is_told_in_a_line(
    truth: Path, arguments: list[str], said: str
) -> None:
    done = anypool("compare", "--truth", truth, *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("anypool compare: ")
    assert said in line


def test_a_manifest_that_is_none_is_told(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    for text, said in (("[]", "lists no photos"), ("{}", "cannot be used"), ("x", "cannot be")):
        file.write_text(text)
        done = anypool("compare", "--truth", file)
        assert done.returncode == 2
        assert said in done.stderr
