"""Networks in fp16 whose numbers between layers 16 bits cannot hold, or not well enough."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.activations import distance, largest, measure
from export.errors import ExportError
from export.precision import accept
from export.rewrite.halves import halved, make_half
from models.card import Card, Drift
from tests.conftest import PHOTOS, anypool
from tests.export.test_halves import run

WHITE = np.full((1, 2, 2, 1), 255, np.uint8)


def network(up: float, down: float, *between: onnx.NodeProto) -> onnx.ModelProto:
    """pixels uint8 (n, h, w, 1), convolved with `up`, rectified, convolved with `down`, to y."""
    weights = [
        numpy_helper.from_array(np.full((1, 1, 1, 1), value, np.float32), name)
        for name, value in (("up", up), ("down", down))
    ]
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "up"], ["high"]),
        *(between or [helper.make_node("Relu", ["high"], ["positive"])]),
        helper.make_node("Conv", ["positive", "down"], ["y"]),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", "h", "w", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, "h", "w"])
    graph = helper.make_graph(nodes, "g", [pixels], [y], weights)
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


def test_numbers_that_16_bits_cannot_hold_are_refused_though_a_cpu_does_not_mind() -> None:
    model = network(300, 1 / 256)
    half = make_half(model)
    assert np.abs(run(half, WHITE) - run(model, WHITE)).max() < 1  # 298.8: the CPU holds 76500
    with pytest.raises(ExportError, match=r"Conv high gives numbers up to 7.65e\+04.*keep fp32"):
        largest(model, half, [np.zeros_like(WHITE), WHITE, np.zeros_like(WHITE)])
    assert distance(model, half, [WHITE]) == (np.inf, None)


def test_a_quarter_of_the_limit_is_allowed_and_no_more() -> None:
    enough, too_much = network(64, 1 / 64), network(64.5, 1 / 64)  # 255 × 64 = 16320 of 16376
    assert largest(enough, make_half(enough), [WHITE]) == 16320
    with pytest.raises(ExportError, match="a 4th of that is allowed"):
        largest(too_much, make_half(too_much), [WHITE])


def test_numbers_that_are_none_are_refused() -> None:
    model = network(-1, 1, helper.make_node("Sqrt", ["high"], ["positive"]))  # of -255
    assert "positive" in halved(model, make_half(model))
    with pytest.raises(ExportError, match="Sqrt positive gives numbers up to nan"):
        largest(model, make_half(model), [WHITE])


def test_what_rounding_between_layers_changes_is_measured() -> None:
    """255 × 3.125 is 796.875; from 2048 on 16 bits have even numbers only, so that 796 is left."""
    offset = numpy_helper.from_array(np.full((1, 1, 1, 1), 2048, np.float32), "offset")
    less = numpy_helper.from_array(np.full((1, 1, 1, 1), -2048, np.float32), "less")
    model = network(
        3.125,
        1,
        helper.make_node("Add", ["high", "offset"], ["far"]),
        helper.make_node("Add", ["far", "less"], ["positive"]),
    )
    model.graph.initializer.extend([offset, less])
    half = make_half(model)
    rounded, unmeasured = distance(model, half, [WHITE])
    assert rounded == pytest.approx(0.875 / 796.875)
    assert unmeasured is None


def test_an_operator_that_the_reference_lacks_is_told() -> None:
    model = network(2, 1, helper.make_node("Relu", ["high"], ["positive"], domain="of.ours"))
    model.opset_import.append(helper.make_opsetid("of.ours", 1))
    plain = network(2, 1)
    rounded, why = distance(plain, model, [WHITE])
    assert rounded is None
    assert "of.ours" in str(why)


def test_answers_too_far_off_with_all_rounded_are_refused(store: Path) -> None:
    card = Card.load(store / "seed_cnn" / "1" / "card.json")
    drift = Drift(photos=50, agreement=1, worst=0, worst_photo="a.jpg", peak=1, rounded=0.04)
    with pytest.raises(ExportError, match=r"differ by 0\.04 of the largest logit .*keep fp32"):
        accept(drift, card)
    unknown = drift.model_copy(update={"rounded": None, "unmeasured": "no such operator"})
    assert accept(unknown, card).drift == unknown


def test_an_artifact_is_measured_on_its_golden_images_and_on_photos(
    store: Path, tmp_path: Path
) -> None:
    whole, half, seen = (tmp_path / name for name in ("whole", "half", "seen"))
    for folder in (whole, half, seen):
        folder.mkdir()
    model = onnx.load(store / "seed_cnn" / "1" / "model.onnx")
    onnx.save(model, whole / "model.onnx")
    onnx.save(make_half(model), half / "model.onnx")
    Card.load(store / "seed_cnn" / "1" / "card.json").save(half / "card.json")
    drift = Drift(photos=20, agreement=1, worst=0, worst_photo="a.jpg")
    dark = np.zeros((70, 200, 1), np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, dark.shape, dtype=np.uint8)
    peaks = []
    for golden, photo in ((dark, dark), (noise, dark), (dark, noise)):
        np.savez(whole / "golden.npz", allow_pickle=False, pixels_000=golden[None])
        for number in range(20):
            np.save(seen / f"{number:05d}.npy", dark if number < 19 else photo)
        found = measure(whole, half, seen, drift)
        assert 0 < float(found.rounded or 0) < 1e-3
        assert found.unmeasured is None
        peaks.append(float(found.peak or 0))
    assert peaks[0] < peaks[1] == peaks[2]


@pytest.mark.parametrize("name", ["overflows", pytest.param("stays_small", marks=pytest.mark.slow)])
def test_only_a_network_that_16_bits_hold_is_published(name: str, tmp_path: Path) -> None:
    done = anypool(
        *("export", name, "--import", "tests.export.own_networks", "--out", tmp_path),
        *("--precision", "fp16", "--photos", PHOTOS),
    )
    written = tmp_path / f"{name}-fp16" / "1" / "card.json"
    if name == "stays_small":
        assert done.returncode == 0, done.stderr
        drift = Card.load(written).drift
        assert drift is not None
        assert 1_000 < float(drift.peak or 0) < 16_376
        assert 0 < float(drift.rounded or 0) < 3e-2
    else:
        assert (done.returncode, written.exists()) == (1, False)
        assert "not written: Conv " in done.stderr
        assert "keep fp32" in done.stderr
