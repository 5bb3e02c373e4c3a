"""Which artifacts are found, and which one is the default."""

from pathlib import Path

import numpy as np
import pytest

from models.card import CardError
from service.engine import Engine, EngineError
from service.errors import NotFound
from service.folders import StoreError, default_model, find
from service.store import Store


def make(root: Path, *folders: str) -> None:
    for folder in folders:
        (root / folder).mkdir(parents=True)
        (root / folder / "card.json").write_text("{}")


def test_only_folders_named_as_models_and_versions_are_found(tmp_path: Path) -> None:
    make(tmp_path, "net/1", "net/12", "net/0", "net/latest", "Net/1", ".export-x/artifact", "b.2/3")
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


def test_an_engine_is_found_by_name_and_version(store: Path) -> None:
    loaded = Store(store, "cpu", "seed_cnn")
    assert not loaded.ready
    loaded.load()
    assert loaded.ready
    assert [e.card.name for e in loaded] == ["seed_cnn", "efficientnet_lite0"]
    assert loaded.get().card.name == "seed_cnn"
    assert loaded.get("efficientnet_lite0", "1").card.version == 1
    with pytest.raises(NotFound, match="efficientnet_lite0"):
        loaded.get("nobody")
    with pytest.raises(NotFound, match="it has: 1"):
        loaded.get("seed_cnn", "2")


def test_sides_below_the_card_never_reach_onnx_runtime(store: Path) -> None:
    engine = Engine(store / "efficientnet_lite0" / "1", "cpu")
    for shape in ((31, 64, 3), (64, 31, 3), (64, 64, 1)):
        with pytest.raises(EngineError, match="at least 32×32"):
            engine.run([np.zeros(shape, np.uint8)])
    with pytest.raises(EngineError, match="none"):
        engine.run([])


def test_asking_for_a_gpu_where_there_is_none_fails_clearly(store: Path) -> None:
    with pytest.raises(EngineError, match="CUDA"):
        Engine(store / "seed_cnn" / "1", "cuda")


def test_a_folder_that_is_no_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="artifact folder"):
        Engine(tmp_path)


def test_images_of_different_sizes_need_the_ragged_graph(store: Path) -> None:
    folder = store / "seed_cnn" / "1"
    pictures = [np.full((5, 9, 1), 200, np.uint8), np.full((30, 4, 1), 90, np.uint8)]
    plain, mixing = Engine(folder, "cpu"), Engine(folder, "cpu", mixed=True)
    assert (plain.mixes, mixing.mixes) == (False, True)
    with pytest.raises(EngineError, match="different sizes"):
        plain.run(pictures)
    together = mixing.run(pictures)
    for index, picture in enumerate(pictures):
        alone = mixing.run([picture])
        np.testing.assert_allclose(together.row(index).logits, alone.logits, rtol=1e-5, atol=1e-6)
