"""The engine on real artifacts: what it refuses, what it measures, what it answers on canvases."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from models.card import CardError
from service.costs import FREE, Canvas
from service.engine import Batching, Engine
from service.failures import EngineError
from service.images import Pixels
from service.scores import Scores
from service.sessions import Stop

NETWORKS = ("efficientnet_lite0", "seed_cnn")
CANVASES = (Canvas(1, 128, 128), Canvas(4, 64, 96), Canvas(8, 40, 40))


def noise(engine: Engine, height: int, width: int, seed: int = 0) -> Pixels:
    """An image (height, width, c) of random pixels, as the network takes it."""
    shape = (height, width, engine.card.preprocessing.channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def check_as_alone(engine: Engine, pictures: Sequence[Pixels], together: Scores) -> None:
    """Each image has the scores that it gets alone, to 1e-5 of its largest logit."""
    assert len(together.logits) == len(together.probabilities) == len(pictures)
    assert together.embedding is not None
    assert together.maps is None  # nobody asked
    for index, picture in enumerate(pictures):
        alone, found = engine.run([picture]), together.row(index)
        assert alone.embedding is not None
        assert found.embedding is not None
        most = float(np.abs(alone.logits).max())
        np.testing.assert_allclose(found.logits, alone.logits, rtol=0, atol=1e-5 * most)
        np.testing.assert_allclose(found.probabilities, alone.probabilities, rtol=0, atol=1e-5)
        most = float(np.abs(alone.embedding).max())
        np.testing.assert_allclose(found.embedding, alone.embedding, rtol=0, atol=1e-5 * most)


def subprocess_prints(script: str, folder: Path) -> list[float]:
    """The numbers that a script prints in a process of its own; argv[1] is the artifact."""
    command = [sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return [float(number) for number in done.stdout.split()]


# --- what is refused


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


def test_a_network_on_the_cpu_shares_the_cores_with_decoding(store: Path) -> None:
    assert Engine(store / "seed_cnn" / "1", "cpu").devices == ("cpu",)


# --- images of different sizes


def test_images_of_different_sizes_need_the_ragged_graph(store: Path) -> None:
    folder = store / "seed_cnn" / "1"
    plain, mixing = Engine(folder, "cpu"), Engine(folder, "cpu", batching="mixed")
    pictures = [noise(plain, 5, 9), noise(plain, 30, 4)]
    assert (plain.mixes, mixing.mixes) == (False, True)
    with pytest.raises(EngineError, match="different sizes"):
        plain.run(pictures)
    check_as_alone(mixing, pictures, mixing.run(pictures))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batching", ["equal", "auto", "mixed"])
def test_warming_up_measures_what_runs_cost(store: Path, name: str, batching: Batching) -> None:
    engine = Engine(store / name / "1", "cpu", batching=batching)
    engine.warm_up()
    plain, ragged = engine.costs.plain, engine.costs.ragged
    assert 0 < plain.seconds(32**2) < plain.seconds(320**2)
    assert plain.base >= 0
    assert engine.mixes == (ragged is not None)
    if batching == "equal":
        assert ragged is None
    elif batching == "mixed":
        assert ragged == FREE  # company is always welcome
    elif ragged is not None:
        assert 0 < ragged.seconds(32**2) < ragged.seconds(320**2)


def save_trivial(path: Path, *, ragged: bool) -> None:
    """A network that is ready in microseconds: it answers with the means of the channels.

    It has no maps, but takes `classes`, since the card beside it has them; its embedding is the
    means and how many classes were named.
    """
    images: list[str | int | None] = ["batch", "height", "width", 3]
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.UINT8, images)]
    inputs.append(helper.make_tensor_value_info("classes", TensorProto.INT64, ["batch", "maps"]))
    if ragged:
        inputs.append(helper.make_tensor_value_info("sizes", TensorProto.INT64, ["batch", 2]))
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    nodes = [
        helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["logits"], keepdims=0),
        helper.make_node("Identity", ["logits"], ["probabilities"]),
        helper.make_node("Size", ["classes"], ["named"]),
        helper.make_node("Cast", ["named"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["logits", "count"], ["embedding"]),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3])
        for name in ("logits", "probabilities", "embedding")
    ]
    graph = helper.make_graph(nodes, "trivial", inputs, outputs, [axes])
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


@pytest.mark.parametrize(
    ("cheap", "pays"),
    [("ragged.onnx", True), ("model.onnx", False)],
    ids=["company is cheap", "company is dear"],
)
def test_batching_auto_keeps_the_ragged_graph_only_where_it_pays(
    store: Path, tmp_path: Path, cheap: str, pays: bool
) -> None:
    folder = tmp_path / "1"
    shutil.copytree(store / "efficientnet_lite0" / "1", folder)
    save_trivial(folder / cheap, ragged=cheap == "ragged.onnx")
    auto = Engine(folder, "cpu", batching="auto")
    auto.warm_up()
    assert auto.mixes == pays
    assert (auto.costs.ragged is not None) == pays
    mixed = Engine(folder, "cpu", batching="mixed")  # an operator who insists
    mixed.warm_up()
    assert mixed.mixes
    assert mixed.costs.ragged == FREE


def test_an_artifact_that_takes_no_company_has_neither_mixes_nor_canvases(
    store: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "1"
    shutil.copytree(store / "seed_cnn" / "1", folder)
    card = json.loads((folder / "card.json").read_text())
    card["mixed"] = {"supported": False, "reason": "Sort is not known", "tolerances": {}}
    (folder / "card.json").write_text(json.dumps(card))
    (folder / "ragged.onnx").unlink()
    engine = Engine(folder, "cpu", batching="mixed")
    engine.warm_up()
    assert not engine.mixes
    assert engine.costs.ragged is None
    with pytest.raises(EngineError, match="no canvases: Sort is not known"):
        Engine(folder, "cpu", canvases=[Canvas(2, 8, 8)])


def test_classes_are_ranked_the_most_probable_first_and_ties_by_index(
    store: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "1"
    shutil.copytree(store / "efficientnet_lite0" / "1", folder)
    save_trivial(folder / "model.onnx", ragged=False)
    engine = Engine(folder, "cpu")
    colours = [(10, 20, 30), (30, 10, 20), (7, 7, 7), (7, 9, 7)]
    pictures = [np.full((32, 32, 3), colour, np.uint8) for colour in colours]
    scores = engine.run(pictures)
    assert scores.ranking.tolist() == [[2, 1, 0], [0, 2, 1], [0, 1, 2], [1, 0, 2]]
    assert scores.row(3).ranking.tolist() == [[1, 0, 2]]


# --- class activation maps


def test_the_network_is_told_that_nobody_asks_for_maps(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "1"
    shutil.copytree(store / "efficientnet_lite0" / "1", folder)
    save_trivial(folder / "model.onnx", ragged=False)
    engine = Engine(folder, "cpu")
    pictures = [noise(engine, 32, 32, seed) for seed in range(2)]
    nobody: list[list[list[int]]] = [[], [[], []]]
    for classes in nobody:
        scores = engine.run(pictures, classes=classes)
        np.testing.assert_array_equal(scores.embedding, scores.logits)


WANTED = [[-1], [], [3, -2, 5, -10], [9, -1]]


def check_maps(
    engine: Engine, wanted: Sequence[Sequence[int]], pictures: Sequence[Pixels], together: Scores
) -> None:
    """Each image has the maps it asked for, as it gets them alone, to 1e-4 of the largest value."""
    for index, (classes, picture) in enumerate(zip(wanted, pictures, strict=True)):
        found, alone = together.row(index).maps, engine.run([picture], classes=[classes]).maps
        assert found is not None
        ranked = together.ranking[index]
        assert found[0].classes.tolist() == [ranked[-1 - c] if c < 0 else c for c in classes]
        if not classes:
            assert alone is None
            continue
        assert alone is not None
        assert found[0].classes.tolist() == alone[0].classes.tolist()
        assert found[0].values.shape == alone[0].values.shape
        most = float(np.abs(alone[0].values).max())
        np.testing.assert_allclose(found[0].values, alone[0].values, rtol=0, atol=1e-4 * most)


@pytest.mark.parametrize("name", NETWORKS)
def test_images_of_one_size_get_the_maps_each_asked_for(store: Path, name: str) -> None:
    engine = Engine(store / name / "1", "cpu")
    pictures = [noise(engine, 70, 90, seed) for seed in range(4)]
    check_maps(engine, WANTED, pictures, engine.run(pictures, classes=WANTED))


@pytest.mark.parametrize("name", NETWORKS)
def test_images_of_different_sizes_get_maps_of_their_own_size(store: Path, name: str) -> None:
    engine = Engine(store / name / "1", "cpu", batching="mixed")
    sizes = [(40, 130), (97, 33), (64, 64), (128, 50)]
    pictures = [noise(engine, *size, seed) for seed, size in enumerate(sizes)]
    check_maps(engine, WANTED, pictures, engine.run(pictures, classes=WANTED))


def test_images_on_a_canvas_get_maps_of_their_own_size(pinned: Engine) -> None:
    pictures = [noise(pinned, h, w) for h, w in ((40, 96), (64, 33))]
    together = pinned.run(pictures, canvas=Canvas(4, 64, 96), classes=WANTED[2:])
    check_maps(pinned, WANTED[2:], pictures, together)


# --- pinned canvases


@pytest.fixture(scope="module", params=NETWORKS)
def pinned(request: pytest.FixtureRequest, store: Path) -> Engine:
    """An engine with a session for each of CANVASES."""
    return Engine(store / request.param / "1", "cpu", canvases=CANVASES)


@pytest.mark.parametrize("canvas", CANVASES, ids=str)
def test_a_canvas_that_is_filled_to_the_last_pixel_answers_as_alone(
    pinned: Engine, canvas: Canvas
) -> None:
    full = [noise(pinned, canvas.height, canvas.width, seed) for seed in range(canvas.rows)]
    check_as_alone(pinned, full, pinned.run(full, canvas=canvas))


@pytest.mark.parametrize("canvas", CANVASES, ids=str)
def test_one_image_on_a_canvas_of_many_rows_answers_as_alone(
    pinned: Engine, canvas: Canvas
) -> None:
    smallest = noise(pinned, *pinned.card.limits.smallest())
    largest = noise(pinned, canvas.height, canvas.width)
    long = noise(pinned, smallest.shape[0], canvas.width)
    for picture in (smallest, largest, long):
        check_as_alone(pinned, [picture], pinned.run([picture], canvas=canvas))


@given(st.data())
@settings(max_examples=40)
def test_any_images_on_any_canvas_answer_as_alone(pinned: Engine, data: st.DataObject) -> None:
    canvas = data.draw(st.sampled_from(CANVASES))
    height, width = pinned.card.limits.smallest()
    size = st.tuples(st.integers(height, canvas.height), st.integers(width, canvas.width))
    sizes = data.draw(st.lists(size, min_size=1, max_size=canvas.rows))
    seed = data.draw(st.integers(0, 1000))
    pictures = [noise(pinned, *size, seed + index) for index, size in enumerate(sizes)]
    check_as_alone(pinned, pictures, pinned.run(pictures, canvas=canvas))


def test_what_ran_on_a_canvas_before_leaves_no_trace(pinned: Engine) -> None:
    canvas = Canvas(4, 64, 96)
    small = noise(pinned, 33, 40)
    before = pinned.run([small], canvas=canvas)
    pinned.run([np.full_like(noise(pinned, 64, 96), 255)] * 4, canvas=canvas)
    after = pinned.run([small], canvas=canvas)
    np.testing.assert_array_equal(after.logits, before.logits)


@pytest.mark.parametrize(
    "sizes",
    [[(65, 40)], [(40, 97)], [(40, 40), (65, 97)], [(40, 40)] * 5],
    ids=["too high", "too wide", "one of two", "too many"],
)
def test_images_that_do_not_fit_a_canvas_are_refused(
    pinned: Engine, sizes: list[tuple[int, int]]
) -> None:
    pictures = [noise(pinned, *size) for size in sizes]
    with pytest.raises(EngineError, match=r"do not fit Canvas\(rows=4, height=64, width=96"):
        pinned.run(pictures, canvas=Canvas(4, 64, 96))


def test_a_canvas_that_was_not_loaded_is_refused(pinned: Engine) -> None:
    with pytest.raises(EngineError, match="no session was made for Canvas"):
        pinned.run([noise(pinned, 40, 40)], canvas=Canvas(2, 50, 50))


def test_a_canvas_below_the_smallest_side_is_refused_when_loading(store: Path) -> None:
    for canvas in (Canvas(4, 31, 64), Canvas(4, 64, 31)):
        with pytest.raises(EngineError, match="at least 32×32"):
            Engine(store / "efficientnet_lite0" / "1", "cpu", canvases=[canvas])


def test_an_image_below_the_smallest_side_is_refused_on_a_canvas_too(store: Path) -> None:
    canvas = Canvas(1, 64, 64)
    engine = Engine(store / "efficientnet_lite0" / "1", "cpu", canvases=[canvas])
    with pytest.raises(EngineError, match="at least 32×32"):
        engine.run([noise(engine, 31, 64)], canvas=canvas)


def test_warming_up_times_the_canvases_the_cheapest_first(store: Path) -> None:
    engine = Engine(store / "seed_cnn" / "1", "cpu", canvases=[Canvas(8, 128, 128), *CANVASES])
    engine.warm_up()
    seconds = [canvas.seconds for canvas in engine.costs.canvases]
    assert min(seconds) > 0
    assert seconds == sorted(seconds)
    untimed = {replace(canvas, seconds=0.0) for canvas in engine.costs.canvases}
    assert untimed == {Canvas(8, 128, 128), *CANVASES}
    assert seconds[-1] == next(c.seconds for c in engine.costs.canvases if c.pixels == 8 * 128**2)
    for canvas in engine.costs.canvases:  # those that the queue will ask for
        picture = noise(engine, 30, 40)
        check_as_alone(engine, [picture], engine.run([picture], canvas=canvas))
    assert not engine.mixes  # canvases need no batching of mixed sizes


# --- stopping


@pytest.mark.parametrize("canvas", [None, Canvas(4, 64, 96)], ids=["plain", "pinned"])
def test_a_run_that_was_told_to_stop_fails_and_harms_no_other(
    pinned: Engine, canvas: Canvas | None
) -> None:
    stop, picture = Stop(), noise(pinned, 64, 96)
    assert not stop.is_set
    stop.set()
    assert stop.is_set
    with pytest.raises(EngineError, match="terminate"):
        pinned.run([picture], stop, canvas)
    check_as_alone(pinned, [picture], pinned.run([picture], Stop(), canvas))


def test_a_run_is_stopped_from_another_thread(store: Path) -> None:
    engine = Engine(store / "efficientnet_lite0" / "1", "cpu")
    stop, large = Stop(), [noise(engine, 1400, 1400)]  # half a second and more
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(engine.run, large, stop)
        stop.set()
        with pytest.raises(EngineError, match="terminate"):
            running.result(60)


# --- memory

LARGE_RUNS = """
import sys
from pathlib import Path
import numpy as np
from service.engine import Engine

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

engine = Engine(Path(sys.argv[1]), "cpu", batching="mixed")
small = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
large = np.zeros((1000, 1000, 3), np.uint8)
runs = {
    "plain": [large],
    "ragged": [large[:500, :900], large[:600, :800]],
    "oversize": [np.zeros((1500, 1500, 3), np.uint8)],
}
alone = engine.run([small])
before = resident()
engine.run(runs[KIND])
print(resident() - before)
engine.give_back_memory()
print(resident() - before)
again = engine.run([small])
print(np.abs(again.logits - alone.logits).max())
"""


@pytest.mark.parametrize("kind", ["plain", "ragged"])
def test_memory_that_a_large_run_took_is_kept_for_the_next_and_given_back_on_demand(
    store: Path, kind: str
) -> None:
    script = f"KIND = {kind!r}\n{LARGE_RUNS}"
    kept, left, error = subprocess_prints(script, store / "efficientnet_lite0" / "1")
    assert kept > 80  # 10^6 bytes; 120 to 190 for each of a million pixels
    assert left < kept / 2
    assert error == 0


def test_memory_that_an_oversize_run_took_is_given_back_at_once(store: Path) -> None:
    script = f"KIND = 'oversize'\n{LARGE_RUNS}"
    kept, _, error = subprocess_prints(script, store / "efficientnet_lite0" / "1")
    assert kept < 80  # of 400
    assert error == 0


LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from service.engine import Engine
from service.failures import OutOfMemory

engine = Engine(Path(sys.argv[1]), "cpu")
small = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
large = np.zeros((2000, 2000, 3), np.uint8)
alone = engine.run([small])
used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + LEFT, resource.RLIM_INFINITY))
try:
    engine.run([large])
except OutOfMemory as exc:
    again = engine.run([small])
    print(np.abs(again.logits - alone.logits).max())
"""


def test_memory_that_runs_out_in_a_run_is_told_apart_and_harms_no_other(store: Path) -> None:
    script = f"LEFT = 100_000_000\n{LITTLE_MEMORY}"
    assert subprocess_prints(script, store / "efficientnet_lite0" / "1") == [0]


def test_memory_that_runs_out_before_a_run_is_told_apart_too(store: Path) -> None:
    script = f"LEFT = 6_000_000\n{LITTLE_MEMORY}"
    assert subprocess_prints(script, store / "efficientnet_lite0" / "1") == [0]
