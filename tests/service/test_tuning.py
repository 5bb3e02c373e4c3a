"""tuning.json: when it counts, when not, and what an operator's own choice does."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.sessions import Gpu
from service.settings import Settings, granted_cores
from service.store import Store
from service.tuning import FILE, Tuning, host, read, tuned
from tests.conftest import anypool
from tests.e2e.server import Server

_OF_HOST = ("provider", "device", "onnxruntime", "artifact")


@pytest.fixture
def root(store: Path, tmp_path: Path) -> Path:
    """A store with seed_cnn alone."""
    shutil.copytree(store / "seed_cnn", tmp_path / "seed_cnn")
    return tmp_path


def write(root: Path, **changes: Any) -> Tuning:
    """A tuning of seed_cnn for this host, with changes to it or to the host."""
    folder = root / "seed_cnn" / "1"
    here = host(folder, "cpu", Gpu())
    of_host = {name: value for name, value in changes.items() if name in _OF_HOST}
    others = {name: value for name, value in changes.items() if name not in of_host}
    made = Tuning(host=here.model_copy(update=of_host), images_per_s=9.0, sizes=((8, 8),), **others)
    (folder / FILE).write_text(made.model_dump_json())
    return made


def test_without_a_file_there_is_none(root: Path) -> None:
    assert read(root / "seed_cnn" / "1", "cpu", Gpu()) == (None, None)


def test_a_tuning_of_this_host_and_artifact_counts(root: Path) -> None:
    made = write(root, cores=granted_cores(), batching="mixed", batch_megapixels=0.7)
    assert read(root / "seed_cnn" / "1", "cpu", Gpu()) == (made, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("provider", "cuda"),
        ("device", "another CPU"),
        ("onnxruntime", "1.0"),
        ("artifact", "0"),
    ],
)
def test_a_tuning_of_another_host_or_artifact_is_ignored_and_it_is_said(
    root: Path, name: str, value: str
) -> None:
    write(root, batching="mixed", **{name: value})
    found, why = read(root / "seed_cnn" / "1", "cpu", Gpu())
    assert found is None
    assert f"measured with {name} {value}, and here it is" in str(why)


def test_a_file_that_is_no_tuning_is_ignored_too(root: Path) -> None:
    (root / "seed_cnn" / "1" / FILE).write_text('{"format": 2}')
    assert "is ignored" in str(read(root / "seed_cnn" / "1", "cpu", Gpu())[1])


def test_an_engine_is_made_as_its_tuning_says_unless_an_operator_says_otherwise(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(root, batching="mixed", canvases=((2, 16, 16),))
    open_ = Store(root, "cpu", None, batching="equal")
    open_.load()
    engine = open_.get()
    assert engine.mixes
    assert [(c.rows, c.height, c.width) for c in engine.costs.canvases] == [(2, 16, 16)]
    assert engine.tuning is not None
    assert engine.tuning.batching == "mixed"

    chosen = Store(root, "cpu", None, batching="equal", explicit=frozenset({"batching"}))
    chosen.load()
    engine = chosen.get()
    assert not engine.mixes
    assert engine.costs.canvases
    assert engine.tuning is not None
    assert engine.tuning.batching is None

    write(root, batching="mixed", device="another CPU")
    with caplog.at_level(logging.WARNING):
        foreign = Store(root, "cpu", None, batching="equal")
        foreign.load()
    assert foreign.get().tuning is None
    assert not foreign.get().mixes
    assert caplog.text.count("another CPU") == 1


def test_the_process_is_set_up_as_the_default_model_s_tuning_says(root: Path) -> None:
    write(root, cores=7, batch_megapixels=0.7)
    found = tuned(Settings(artifacts=root, provider="cpu"))
    assert (found.cores, found.batch_megapixels) == (7, 0.7)
    own = tuned(Settings(artifacts=root, provider="cpu", cores=1, batch_megapixels=3.0))
    assert (own.cores, own.batch_megapixels) == (1, 3.0)
    assert tuned(Settings(artifacts=root / "nothing")) == Settings(artifacts=root / "nothing")


def test_settings_that_nobody_chose_are_not_chosen_for_a_worker_process() -> None:
    assert Settings(model="a").environment() == {"ANYPOOL_MODEL": "a"}


def test_tune_writes_what_serve_takes_up_and_shows(root: Path) -> None:
    folder = root / "seed_cnn" / "1"
    done = anypool(
        "tune", folder, "--seconds", "0.05", "--rounds", "1", "--sizes", "16x16,20x24",
        "--provider", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("*") == 3  # one for each knob
    written = json.loads((folder / FILE).read_text())
    assert written["sizes"] == [[16, 16], [20, 24]]
    assert written["images_per_s"] > 0
    with Server(root, "--provider", "cpu", "--batching", "equal") as server:
        shown = httpx.get(f"{server.url}/v1/models/seed_cnn").json()["tuning"]
    assert shown["host"] == written["host"]
    assert shown["cores"] == written["cores"]
    assert shown["batching"] is None  # the operator's choice is in force


def test_tune_says_what_is_wrong(store: Path, tmp_path: Path) -> None:
    assert "is this an artifact folder" in anypool("tune", tmp_path).stderr
    folder = store / "efficientnet_lite0" / "1"
    done = anypool("tune", folder, "--sizes", "8x8", "--output", tmp_path / "t")
    assert (done.returncode, list(tmp_path.iterdir())) == (1, [])
    assert "the network does not take 8×8" in done.stderr
    assert anypool("tune", folder, "--sizes", "8").returncode == 2
