"""fp16: what is rounded, what is not, and what is refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError
from export.precision import accept, find_photos
from export.rewrite.halves import make_half
from models.card import Card, Drift
from service.engine import Engine
from service.images import Pixels
from tests.conftest import PHOTOS, anypool

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def types(model: onnx.ModelProto) -> dict[str, int]:
    found = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {
        value.name: value.type.tensor_type.elem_type
        for value in (*found.input, *found.value_info, *found.output)
    }


def all_ones(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == FLOAT and bool((numpy_helper.to_array(tensor) == 1).all())


@pytest.mark.parametrize("name", ["efficientnet_lite0", "seed_cnn"])
@pytest.mark.parametrize("graph", ["model.onnx", "ragged.onnx"])
def test_convolutions_are_in_16_bits_inputs_outputs_sizes_and_masks_are_not(
    store: Path, name: str, graph: str
) -> None:
    whole = onnx.load(store / name / "1" / graph)
    made = make_half(whole)
    onnx.checker.check_model(made, full_check=True)
    known = types(made)
    weights = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    masks = {tensor.name for tensor in made.graph.initializer if all_ones(tensor)}
    convolutions = [
        node for node in made.graph.node if node.op_type == "Conv" and node.input[1] not in masks
    ]
    assert convolutions
    for node in convolutions:
        assert known[node.input[0]] == known[node.output[0]] == HALF
        assert weights[node.input[1]] == HALF
    whole_again = [node for node in made.graph.node if node.name.endswith("_whole")]
    assert len(whole_again) <= 3  # not between two convolutions, also where there are masks
    for node in made.graph.node:
        if node.op_type in ("Sub", "Div", "Range", "ReduceMean", "ReduceSum", "Gemm", "Softmax"):
            assert HALF not in {known.get(value) for value in (*node.input, *node.output)}, node
    before, after = ({v.name: v for v in m.graph.input} for m in (whole, made))
    assert before == after
    assert [v.name for v in whole.graph.output] == [v.name for v in made.graph.output]
    assert HALF not in {v.type.tensor_type.elem_type for v in made.graph.output}


def network(nodes: list[onnx.NodeProto], *weights: onnx.TensorProto) -> onnx.ModelProto:
    """pixels uint8 (n, c, h, w) to y float32 of any shape."""
    sizes: list[str | int | None] = ["n", 1, "h", "w"]
    graph = helper.make_graph(
        [helper.make_node("Cast", ["pixels"], ["x"], to=FLOAT), *nodes],
        "g",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, sizes)],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 1, None, None])],
        [*weights],
    )
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


def run(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(["y"], {"pixels": pixels})
    return np.asarray(found)


def kernel(value: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.full((1, 1, 1, 1), value, np.float32), "k")


def test_numbers_made_of_sizes_stay_in_32_bits() -> None:
    """An image has more pixels than 16 bits can count."""
    model = network(
        [
            helper.make_node("Conv", ["x", "k"], ["c"]),
            helper.make_node("Size", ["x"], ["count"]),
            helper.make_node("Cast", ["count"], ["pixel_count"], to=FLOAT),
            helper.make_node("Mul", ["c", "pixel_count"], ["y"]),
        ],
        kernel(0.5),
    )
    assert types(make_half(model))["c_half"] == HALF
    assert "pixel_count_half" not in types(make_half(model))
    pixels = np.ones((1, 1, 300, 300), np.uint8)
    np.testing.assert_array_equal(run(make_half(model), pixels), run(model, pixels))
    assert run(make_half(model), pixels).max() == 45_000


def test_what_is_used_inside_a_branch_is_whole_there() -> None:
    branch = helper.make_graph(
        [helper.make_node("Add", ["c", "c"], ["twice"])],
        "b",
        [],
        [helper.make_tensor_value_info("twice", FLOAT, None)],
    )
    model = network(
        [
            helper.make_node("Conv", ["x", "k"], ["c"]),
            helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
        ],
        kernel(0.5),
        numpy_helper.from_array(np.array(True), "yes"),
    )
    pixels = np.full((1, 1, 2, 2), 7, np.uint8)
    assert run(make_half(model), pixels).tolist() == [[[[7.0, 7.0], [7.0, 7.0]]]]


def test_weights_that_16_bits_cannot_hold_are_refused() -> None:
    model = network([helper.make_node("Conv", ["x", "k"], ["y"])], kernel(70_000))
    with pytest.raises(ExportError, match="k has numbers that 16 bits cannot hold"):
        make_half(model)


# --- drift


def found(agreement: float) -> Drift:
    return Drift(photos=50, agreement=agreement, worst=0.03, worst_photo="a.jpg")


def test_a_network_that_changes_its_mind_too_often_is_refused(store: Path) -> None:
    card = Card.load(store / "seed_cnn" / "1" / "card.json")
    assert accept(found(0.98), card).drift == found(0.98)
    with pytest.raises(ExportError, match=r"only 96.0% of 50 photos.*0\.03 \(a\.jpg\): keep fp32"):
        accept(found(0.96), card)


def test_a_few_photos_tell_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ExportError, match="has 1 photos: at least 20"):
        find_photos(tmp_path)
    assert len(find_photos(PHOTOS)) >= 20


def test_the_same_artifact_agrees_with_itself_and_another_one_does_not(
    store: Path, tmp_path: Path
) -> None:
    from service.agreement import agreement

    folder = store / "seed_cnn" / "1"
    photos = find_photos(PHOTOS)[:4]
    seen, again = tmp_path / "seen", tmp_path / "again"
    seen.mkdir()
    again.mkdir()
    same = agreement(folder, folder, photos, seen)
    assert (same.photos, same.agreement, same.worst) == (4, 1.0, 0.0)
    images = [np.load(file) for file in sorted(seen.iterdir())]
    assert [(image.ndim, image.shape[2], image.dtype) for image in images] == [(3, 1, np.uint8)] * 4
    model = onnx.load(folder / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.name.endswith("bias") and list(tensor.dims) == [10]:
            changed = numpy_helper.from_array(np.arange(10, dtype=np.float32), tensor.name)
            tensor.CopyFrom(changed)
    onnx.save(model, tmp_path / "model.onnx")
    (tmp_path / "card.json").write_bytes((folder / "card.json").read_bytes())
    other = agreement(folder, tmp_path, photos, again)
    assert other.agreement < 1
    assert other.worst > 0.1
    assert other.worst_photo in {photo.name for photo in photos}


def test_fp16_without_photos_is_used_wrongly(tmp_path: Path) -> None:
    done = anypool("export", "seed_cnn", "--precision", "fp16", "--out", tmp_path)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "--precision fp16 needs --photos DIR" in done.stderr


# --- the whole way


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with efficientnet_lite0-fp16."""
    root = tmp_path_factory.mktemp("fp16")
    done = anypool(
        "export", "efficientnet_lite0", "--precision", "fp16", "--photos", PHOTOS, "--out", root
    )
    assert done.returncode == 0, done.stderr
    return root / "efficientnet_lite0-fp16" / "1"


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


SIZES = [(32, 32), (33, 70), (64, 64), (97, 45), (160, 224)]


@pytest.mark.slow
def test_a_network_in_fp16_says_so_in_its_card_and_is_two_thirds_of_the_size(
    exported: Path, store: Path
) -> None:
    card = json.loads((exported / "card.json").read_text())
    assert card["precision"] == "fp16"
    assert card["drift"]["agreement"] >= 0.98
    assert 0 < card["drift"]["worst"] < 0.1
    assert 10 < card["drift"]["peak"] < 1000
    assert 1e-4 < card["drift"]["rounded"] <= 3e-2
    assert card["drift"]["unmeasured"] is None
    sizes = [(f / "model.onnx").stat().st_size for f in (exported, store / "efficientnet_lite0/1")]
    assert sizes[0] < 0.7 * sizes[1]
    shown = anypool("inspect", exported).stdout
    assert "fp16; of 24 photos 100.0% get the class of fp32" in shown
    assert anypool("verify", exported).returncode == 0


@pytest.mark.slow
def test_fp16_is_near_fp32_at_any_size_and_in_company_as_alone(exported: Path, store: Path) -> None:
    half = Engine(exported, "cpu", batching="mixed")
    whole = Engine(store / "efficientnet_lite0" / "1", "cpu")
    tolerance = half.card.mixed.tolerances[half.provider]
    pictures = [noise(*size) for size in SIZES]
    together = half.run(pictures)
    for index, picture in enumerate(pictures):
        alone, exact = half.run([picture]).logits, whole.run([picture]).logits
        most = np.abs(exact).max()
        assert np.abs(together.row(index).logits - alone).max() <= tolerance * most
        assert 0 < np.abs(alone - exact).max() <= half.card.tolerances[half.provider] * most
