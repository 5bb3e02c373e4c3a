"""The engines of a store: how they are made, how they come and go, and what is refused."""

import asyncio
import gc
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.costs import FREE
from service.engine import Engine
from service.errors import BadRequest, NotFound
from service.failures import DeviceLost
from service.folders import StoreError
from service.scheduler import Limits, Scheduler
from service.store import Entry, Store
from tests.versions import change_card, make_killer, make_version, publish


def answer(engine: Engine) -> int:
    """The class of any image: the number of the version that make_version made."""
    return int(engine.run([np.zeros((8, 8, 1), np.uint8)]).ranking[0, 0])


def loaded(root: Path, default: str = "seed_cnn", *, verify: bool = False) -> Store:
    """A store that has loaded what is there."""
    made = Store(root, "cpu", default, verify=verify)
    made.load()
    return made


def states(store: Store) -> dict[tuple[str, str], str]:
    return {(entry.name, entry.version): entry.state for entry in store.index()}


def look_twice(store: Store) -> None:
    store.refresh()
    store.refresh()


def touch(file: Path) -> None:
    """Let a file look changed."""
    state = file.stat()
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))


# --- what is loaded


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


def test_the_index_has_the_default_model_and_the_newest_version_first(
    store: Path, tmp_path: Path
) -> None:
    for number in (2, 9):
        make_version(store, tmp_path, number)
    make_version(store, tmp_path, 3, name="another")
    assert loaded(tmp_path).index() == [
        Entry("seed_cnn", "9", "READY"),
        Entry("seed_cnn", "2", "READY"),
        Entry("another", "3", "READY"),
    ]


# --- what is broken


def cut(folder: Path) -> None:
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole[: len(whole) // 2])


def rubbish(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"")


def no_model(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def no_ragged(folder: Path) -> None:
    (folder / "ragged.onnx").unlink()


def other_ragged(folder: Path) -> None:
    shutil.copy(folder / "model.onnx", folder / "ragged.onnx")


def no_card(folder: Path) -> None:
    (folder / "card.json").write_text("{}")


def other_name(folder: Path) -> None:
    change_card(folder, name="somebody")


def other_version(folder: Path) -> None:
    change_card(folder, version=77)


def fewer_labels(folder: Path) -> None:
    change_card(folder, labels=[{"id": "0", "name": "zero"}])


def leads_out(folder: Path) -> None:
    elsewhere = folder.parents[1].with_name("elsewhere.onnx")
    (folder / "model.onnx").rename(elsewhere)
    (folder / "model.onnx").symlink_to(elsewhere)


def leads_nowhere(folder: Path) -> None:
    no_model(folder)
    (folder / "model.onnx").symlink_to("nowhere.onnx")


def pipe(folder: Path) -> None:
    no_model(folder)
    os.mkfifo(folder / "model.onnx")


BREAKS = (
    (cut, "cut off"),
    (rubbish, "cannot load"),
    (no_model, "No such file"),
    (no_ragged, "No such file"),
    (other_ragged, "ONNX Runtime failed"),
    (no_card, "format"),
    (other_name, "somebody version 3"),
    (other_version, "seed_cnn version 77"),
    (fewer_labels, "1 labels"),
    (leads_out, "leads out of the store"),
    (leads_nowhere, "neither a file nor a folder"),
    (pipe, "neither a file nor a folder"),
)


@pytest.mark.parametrize(("harm", "reason"), BREAKS)
def test_a_broken_artifact_is_reported_and_the_others_are_served(
    store: Path, tmp_path: Path, harm: Callable[[Path], None], reason: str
) -> None:
    root = tmp_path / "store"
    make_version(store, root, 2)
    harm(make_version(store, root, 3))
    found = Store(root, "cpu", None, batching="mixed")
    found.load()
    assert found.ready
    assert answer(found.get()) == 2
    broken, good = found.index()
    assert (broken.version, broken.state) == ("3", "UNAVAILABLE")
    assert reason in broken.reason
    assert good == Entry("seed_cnn", "2", "READY")
    with pytest.raises(NotFound, match="it has: 2"):
        found.get(None, "3")


def test_a_whole_folder_that_leads_out_of_the_store_is_refused(store: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    make_version(store, root, 2)
    make_version(store, tmp_path, 3)
    (root / "seed_cnn" / "3").symlink_to(tmp_path / "seed_cnn" / "3")
    found = loaded(root)
    assert states(found) == {("seed_cnn", "3"): "UNAVAILABLE", ("seed_cnn", "2"): "READY"}
    assert "leads out of the store" in found.index()[0].reason


def test_links_that_stay_in_the_store_are_followed_as_kubernetes_makes_them(
    store: Path, tmp_path: Path
) -> None:
    folder = make_version(store, tmp_path / "real", 2)
    data = folder / "..2026_01_01"
    data.mkdir()
    (folder / "..data").symlink_to(data.name)
    for file in [path for path in folder.iterdir() if path.is_file()]:
        file.rename(data / file.name)
        file.symlink_to(Path("..data") / file.name)
    (tmp_path / "linked").symlink_to("real")
    assert answer(loaded(tmp_path / "linked").get()) == 2


def test_without_a_good_version_of_the_default_model_nothing_is_ready_until_it_is_mended(
    store: Path, tmp_path: Path
) -> None:
    make_version(store, tmp_path, 1, name="another")
    folder = make_version(store, tmp_path, 2)
    cut(folder)
    found = Store(tmp_path, "cpu", "seed_cnn")
    with pytest.raises(StoreError, match=r"'seed_cnn' cannot be used: version 2: .*cut off"):
        found.load()
    assert not found.ready
    shutil.rmtree(folder)
    make_version(store, tmp_path, 2)
    look_twice(found)
    assert found.ready
    assert answer(found.get()) == 2


# --- load and unload


def test_a_new_version_is_loaded_beside_the_old_and_answers_from_then_on(
    store: Path, tmp_path: Path
) -> None:
    make_version(store, tmp_path, 2)
    found = loaded(tmp_path)
    first = found.get()
    make_version(store, tmp_path, 3)
    found.load_model("seed_cnn")
    assert answer(found.get()) == 3
    assert found.get(None, "2") is first  # not loaded again
    shutil.rmtree(tmp_path / "seed_cnn" / "2")
    found.load_model("seed_cnn")
    assert states(found) == {("seed_cnn", "3"): "READY"}


def test_a_version_replaced_on_disk_is_loaded_again_and_the_old_one_freed(
    store: Path, tmp_path: Path
) -> None:
    make_version(store, tmp_path, 2)
    found = loaded(tmp_path)
    old = weakref.ref(found.get())
    other = make_version(store, tmp_path, 4, name="other")
    change_card(other, name="seed_cnn", version=2)
    publish(other, tmp_path / "seed_cnn" / "2")
    found.load_model("seed_cnn")
    assert answer(found.get(None, "2")) == 4
    gc.collect()
    assert old() is None


def test_a_version_replaced_by_a_broken_one_stays_as_it_was(store: Path, tmp_path: Path) -> None:
    folder = make_version(store, tmp_path, 2)
    found = loaded(tmp_path)
    cut(folder)
    for _ in range(2):  # told again when asked again
        with pytest.raises(StoreError, match=r"seed_cnn version 2: .*cut off"):
            found.load_model("seed_cnn")
    assert answer(found.get()) == 2
    (entry,) = found.index()
    assert entry.state == "READY"
    assert "what was loaded before is" in entry.reason


def test_a_version_whose_files_change_while_they_are_read_is_not_taken_as_it_is(
    store: Path, tmp_path: Path
) -> None:
    make_version(store, tmp_path, 1)
    found = loaded(tmp_path)
    make_version(store, tmp_path, 2)
    folder = make_version(store, tmp_path, 3)

    class Meanwhile(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("loaded seed_cnn version 2"):
                touch(folder / "model.onnx")

    logging.getLogger("service.store").addHandler(handler := Meanwhile())
    logging.getLogger("service.store").setLevel(logging.INFO)
    try:
        with pytest.raises(StoreError, match="version 3: its files changed"):
            found.load_model("seed_cnn")
    finally:
        logging.getLogger("service.store").removeHandler(handler)
        logging.getLogger("service.store").setLevel(logging.NOTSET)
    assert answer(found.get()) == 2
    look_twice(found)
    assert answer(found.get()) == 3


def test_by_hand_a_broken_version_is_tried_again_though_it_looks_the_same(
    store: Path, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    make_version(store, root, 2)
    found = loaded(root)
    model = make_version(store, root, 3) / "model.onnx"
    model.rename(tmp_path / "elsewhere.onnx")
    model.symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(StoreError, match="leads out of the store"):
        found.load_model("seed_cnn")
    model.unlink()
    shutil.copy2(tmp_path / "elsewhere.onnx", model)
    look_twice(found)
    assert answer(found.get()) == 2
    found.load_model("seed_cnn")
    assert answer(found.get()) == 3


def test_of_several_new_versions_the_good_are_served_and_the_broken_told(
    store: Path, tmp_path: Path
) -> None:
    make_version(store, tmp_path, 2)
    found = loaded(tmp_path)
    make_version(store, tmp_path, 3)
    cut(make_version(store, tmp_path, 4))
    with pytest.raises(StoreError, match=r"seed_cnn version 4: .*cut off"):
        found.load_model("seed_cnn")
    assert answer(found.get()) == 3


def test_the_last_good_version_stays_when_all_on_disk_are_broken(
    store: Path, tmp_path: Path
) -> None:
    make_version(store, tmp_path, 2, name="net")
    make_version(store, tmp_path, 1)
    found = loaded(tmp_path)
    shutil.rmtree(tmp_path / "net" / "2")
    cut(make_version(store, tmp_path, 3, name="net"))
    with pytest.raises(StoreError, match="net version 3"):
        found.load_model("net")
    assert answer(found.get("net")) == 2
    shutil.rmtree(tmp_path / "net" / "3")
    make_version(store, tmp_path, 3, name="net")
    found.load_model("net")
    assert states(found) == {("seed_cnn", "1"): "READY", ("net", "3"): "READY"}


@pytest.mark.parametrize("name", ["nobody", "", "..", "../store", "seed_cnn/..", "*", "Seed_cnn"])
def test_only_models_of_the_store_are_loaded_and_unloaded(
    store: Path, tmp_path: Path, name: str
) -> None:
    make_version(store, tmp_path, 2)
    found = loaded(tmp_path)
    with pytest.raises(NotFound):
        found.load_model(name)
    with pytest.raises(NotFound):
        found.unload_model(name)


def test_an_unloaded_model_is_gone_until_it_is_loaded_by_hand(store: Path, tmp_path: Path) -> None:
    make_version(store, tmp_path, 1)
    make_version(store, tmp_path, 2, name="net")
    found = loaded(tmp_path)
    found.unload_model("net")
    found.unload_model("net")  # as often as one likes
    with pytest.raises(NotFound, match="there are: seed_cnn"):
        found.get("net")
    assert found.index()[1].state == "UNAVAILABLE"
    make_version(store, tmp_path, 3, name="net")
    look_twice(found)
    assert states(found) == {
        ("seed_cnn", "1"): "READY",
        ("net", "3"): "UNAVAILABLE",
        ("net", "2"): "UNAVAILABLE",
    }
    assert all("by hand" in entry.reason for entry in found.index()[1:])
    found.load_model("net")
    assert answer(found.get("net")) == 3
    assert [entry.reason for entry in found.index()] == ["", "", ""]


def test_the_default_model_cannot_be_unloaded(store: Path, tmp_path: Path) -> None:
    make_version(store, tmp_path, 1)
    found = loaded(tmp_path)
    with pytest.raises(BadRequest, match="default"):
        found.unload_model("seed_cnn")
    assert found.get() is found.get("seed_cnn")


def test_a_request_keeps_its_engine_and_the_last_one_frees_it(store: Path, tmp_path: Path) -> None:
    make_version(store, tmp_path, 1)
    make_version(store, tmp_path, 2, name="net")
    found = loaded(tmp_path)
    scheduler = Scheduler(1, Limits(queue_pixels=1000, batch_pixels=1000))

    async def classify(engine: Engine) -> int:
        picture = np.zeros((8, 8, 1), np.uint8)
        deadline = time.monotonic() + 60
        scored = await scheduler.infer(engine, picture, time.monotonic(), deadline)
        return int(scored.value.ranking[0, 0])

    async def during_an_unload() -> int:
        request = asyncio.create_task(classify(found.get("net")))
        await asyncio.to_thread(found.unload_model, "net")
        return await request

    freed = weakref.ref(found.get("net"))
    assert asyncio.run(during_an_unload()) == 2
    scheduler.close()
    give_up = time.monotonic() + 30
    while freed() is not None and time.monotonic() < give_up:  # a worker thread may hold it yet
        gc.collect()
        time.sleep(0.01)
    assert freed() is None


def test_readers_never_miss_a_model_while_versions_come_and_go(store: Path, tmp_path: Path) -> None:
    make_version(store, tmp_path, 1)
    found = loaded(tmp_path)
    stop, problems = threading.Event(), []

    def read() -> None:
        newest = 1
        while not stop.is_set():
            try:
                version = found.get().card.version
                assert version >= newest, f"{version} after {newest}"
                assert {e.card.name for e in found} == {"seed_cnn"}
                newest = version
            except Exception as exc:
                problems.append(exc)
                return

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(2, 7):  # the new one appears and the old one disappears at once
        make_version(store, tmp_path, number)
        shutil.rmtree(tmp_path / "seed_cnn" / str(number - 1))
        found.load_model("seed_cnn")
    stop.set()
    for reader in readers:
        reader.join(30)
    assert problems == []
    assert states(found) == {("seed_cnn", "6"): "READY"}


def test_several_may_load_and_unload_at_once(store: Path, tmp_path: Path) -> None:
    make_version(store, tmp_path, 1)
    make_version(store, tmp_path, 2, name="net")
    found = loaded(tmp_path)
    problems = []

    def change(act: Callable[[], None]) -> None:
        try:
            for _ in range(3):
                act()
        except Exception as exc:
            problems.append(exc)

    acts = (
        lambda: found.load_model("net"),
        lambda: found.unload_model("net"),
        found.refresh,
        lambda: found.load_model("seed_cnn"),
    )
    threads = [threading.Thread(target=change, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    found.load_model("net")
    assert answer(found.get("net")) == 2


# --- what is watched


def test_what_appears_and_disappears_is_followed_at_the_second_look(
    store: Path, tmp_path: Path
) -> None:
    make_version(store, tmp_path, 1)
    found = loaded(tmp_path)
    make_version(store, tmp_path, 2)
    make_version(store, tmp_path, 5, name="net")
    found.refresh()
    assert states(found) == {("seed_cnn", "1"): "READY"}
    found.refresh()
    assert states(found) == {
        ("seed_cnn", "2"): "READY",
        ("seed_cnn", "1"): "READY",
        ("net", "5"): "READY",
    }
    shutil.rmtree(tmp_path / "seed_cnn" / "1")
    shutil.rmtree(tmp_path / "net")
    found.refresh()
    assert len(states(found)) == 3  # it may be on its way to be replaced
    found.refresh()
    assert states(found) == {("seed_cnn", "2"): "READY"}


def test_a_folder_that_is_still_being_copied_is_left_alone(store: Path, tmp_path: Path) -> None:
    make_version(store, tmp_path, 1)
    whole = make_version(store, tmp_path, 2, name="net")
    found = loaded(tmp_path)
    target = tmp_path / "seed_cnn" / "2"
    change_card(whole, name="seed_cnn")
    target.mkdir()
    for name in ("card.json", "golden.npz", "model.onnx", "ragged.onnx"):
        data = (whole / name).read_bytes()
        for part in (data[: len(data) // 2], data):
            (target / name).write_bytes(part)
            found.refresh()
            assert ("seed_cnn", "2") not in states(found)
    found.refresh()
    assert answer(found.get()) == 2


def test_a_broken_version_is_tried_once_and_again_when_it_changes(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    make_version(store, tmp_path, 1)
    found = loaded(tmp_path)
    whole = make_version(store, tmp_path, 2, name="net")
    change_card(whole, name="seed_cnn")
    shutil.move(whole, tmp_path / "seed_cnn" / "2")
    whole.parent.rmdir()
    model = tmp_path / "seed_cnn" / "2" / "model.onnx"
    good = model.read_bytes()
    cut(model.parent)
    for _ in range(5):
        found.refresh()
    assert caplog.text.count("seed_cnn version 2 cannot be used") == 1
    assert answer(found.get()) == 1
    model.write_bytes(good)
    touch(model)
    look_twice(found)
    assert answer(found.get()) == 2


def test_a_version_that_changes_on_disk_is_loaded_again(store: Path, tmp_path: Path) -> None:
    folder = make_version(store, tmp_path, 2)
    found = loaded(tmp_path)
    before = found.get()
    look_twice(found)
    assert found.get() is before
    touch(folder / "model.onnx")
    look_twice(found)
    assert found.get() is not before
    assert answer(found.get()) == 2


def test_the_default_models_last_version_is_kept_when_its_folder_goes(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_version(store, tmp_path, 2)
    make_version(store, tmp_path, 3, name="net")
    found = loaded(tmp_path)
    shutil.rmtree(tmp_path / "seed_cnn")
    for _ in range(4):
        found.refresh()
    assert answer(found.get()) == 2
    assert "its folder is gone" in found.index()[0].reason
    assert caplog.text.count("its folder is gone") == 1
    make_version(store, tmp_path, 4)
    look_twice(found)
    assert states(found) == {("seed_cnn", "4"): "READY", ("net", "3"): "READY"}


def test_a_store_that_is_suddenly_empty_is_taken_for_a_disk_that_is_away(
    store: Path, tmp_path: Path
) -> None:
    root, away = tmp_path / "store", tmp_path / "away"
    make_version(store, root, 2)
    make_version(store, root, 3, name="net")
    found = loaded(root)
    engines = list(found)
    root.rename(away)
    for _ in range(3):
        found.refresh()
    assert list(found) == engines
    away.rename(root)
    for _ in range(3):
        found.refresh()
    assert list(found) == engines


# --- what is verified


def test_verified_artifacts_answer_what_torch_answered_and_others_are_refused(
    store: Path, tmp_path: Path
) -> None:
    shutil.copytree(store / "seed_cnn", tmp_path / "seed_cnn")
    make_version(store, tmp_path, 2)  # is not what its golden.npz says
    (make_version(store, tmp_path, 3) / "golden.npz").unlink()
    found = loaded(tmp_path, verify=True)
    assert states(found) == {
        ("seed_cnn", "3"): "UNAVAILABLE",
        ("seed_cnn", "2"): "UNAVAILABLE",
        ("seed_cnn", "1"): "READY",
    }
    third, second, _ = found.index()
    assert "fails verification" in second.reason
    assert "differs by" in second.reason
    assert "golden.npz" in third.reason
    assert len(list(loaded(tmp_path))) == 3  # and nobody notices without


def test_a_check_that_fails_in_a_way_nobody_foresaw_keeps_out_that_version_alone(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(store / "seed_cnn", tmp_path / "seed_cnn")
    folder = tmp_path / "seed_cnn" / "2"
    shutil.copytree(store / "seed_cnn" / "1", folder)
    change_card(folder, version=2)
    with np.load(folder / "golden.npz") as arrays:
        kept = {name: arrays[name] for name in arrays.files if name != "cam_000"}
    np.savez(folder / "golden.npz", allow_pickle=False, **kept)
    found = loaded(tmp_path, verify=True)
    assert states(found) == {("seed_cnn", "2"): "UNAVAILABLE", ("seed_cnn", "1"): "READY"}
    assert "nobody foresaw" in found.index()[0].reason
    assert "KeyError" in caplog.text


# --- what kills


def test_an_artifact_that_kills_onnx_runtime_kills_a_trial_alone(
    store: Path, tmp_path: Path
) -> None:
    make_version(store, tmp_path, 2)
    found = Store(tmp_path, "cpu", None, trial=True)
    found.load()
    make_version(store, tmp_path, 3)
    make_killer(store, tmp_path, 4)
    with pytest.raises(StoreError, match="version 4: loading it kills the process"):
        found.load_model("seed_cnn")
    assert answer(found.get()) == 3


def test_what_is_loaded_on_trial_is_given_up_when_the_service_ends(
    store: Path, tmp_path: Path
) -> None:
    make_version(store, tmp_path, 2)
    found = Store(tmp_path, "cpu", None, trial=True)
    found.load()
    make_version(store, tmp_path, 3)
    found.close()
    with pytest.raises(StoreError, match="version 3: the service is shutting down"):
        found.load_model("seed_cnn")
    assert answer(found.get()) == 2


def test_what_the_last_process_died_of_is_not_loaded_by_the_next(
    store: Path, tmp_path: Path
) -> None:
    root, note = tmp_path / "store", tmp_path / "note"
    make_version(store, root, 2)
    make_killer(store, root, 4)
    load = "import sys; from pathlib import Path; from service.store import Store; "
    load += "Store(Path(sys.argv[1]), 'cpu', None, note=sys.argv[2]).load()"
    command = [sys.executable, "-c", load, str(root), str(note)]
    assert subprocess.run(command, check=False).returncode < 0
    assert note.read_text() == "seed_cnn version 4"
    found = Store(root, "cpu", None, note=str(note))
    found.load()
    assert answer(found.get()) == 2
    assert "kills the process" in found.index()[0].reason
    assert note.read_text() == ""


def test_a_gpu_that_is_lost_while_loading_is_not_the_fault_of_the_artifact(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(engine: Engine) -> None:
        raise DeviceLost("CUDA failure 700: an illegal memory access was encountered")

    monkeypatch.setattr(Engine, "warm_up", lost)
    with pytest.raises(DeviceLost):
        Store(store, "cpu", None).load()
