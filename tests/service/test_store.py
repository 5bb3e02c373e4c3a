"""The engines of a store, and how they are made."""

from pathlib import Path

import pytest

from service.costs import FREE
from service.errors import NotFound
from service.folders import StoreError
from service.store import Store


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


def test_loaded_engines_are_warm_and_alone_unless_told_otherwise(store: Path) -> None:
    loaded = Store(store, "cpu", None)
    loaded.load()
    for engine in loaded:
        assert engine.costs.ragged is None
        assert list(engine.costs.canvases) == []
    lite, seed = loaded.get("efficientnet_lite0"), loaded.get("seed_cnn")
    assert lite.costs.plain != seed.costs.plain  # measured, each its own


def test_batching_is_for_all_models_and_canvases_for_those_they_name(store: Path) -> None:
    canvases = {"seed_cnn": [(4, 16, 16), (2, 32, 16)]}
    loaded = Store(store, "cpu", None, batching="mixed", canvases=canvases)
    loaded.load()
    assert [engine.mixes for engine in loaded] == [True, True]
    assert [engine.costs.ragged for engine in loaded] == [FREE, FREE]
    assert list(loaded.get("efficientnet_lite0").costs.canvases) == []
    pinned = loaded.get("seed_cnn").costs.canvases
    assert {(c.rows, c.height, c.width) for c in pinned} == {(4, 16, 16), (2, 32, 16)}
    assert all(canvas.seconds > 0 for canvas in pinned)


def test_a_store_without_models_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="anypool export"):
        Store(tmp_path, "cpu", None).load()
