"""From a registered name to an artifact that was verified, or to nothing at all."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from export.description import Changes
from export.errors import ExportError, VersionExistsError
from export.pipeline import IN_COMPANY, TOLERANCES, Progress, allowed, export, only_in_mixed_batches
from export.sizes import grid
from export.verify import Case, verify
from models import registry
from models.card import Card
from models.registry import UnknownNetworkError
from service.engine import Engine
from tests.conftest import anypool
from tests.export.conftest import Exported

QUIET = Progress(lambda step: None, lambda case: None)


@pytest.fixture
def broken(exported: Exported, tmp_path: Path) -> Path:
    """A copy of the artifact, to be broken."""
    return Path(shutil.copytree(exported.folder, tmp_path / "artifact"))


def test_an_artifact_is_a_graph_a_card_and_the_golden_answers(exported: Exported) -> None:
    assert exported.folder == exported.root / "seed_cnn" / "1"
    files = {file.name for file in exported.folder.iterdir()}
    assert files == {"model.onnx", "ragged.onnx", "card.json", "golden.npz"}


def test_an_export_leaves_nothing_else_behind(exported: Exported) -> None:
    assert [path.name for path in exported.root.iterdir()] == ["seed_cnn"]
    assert [path.name for path in (exported.root / "seed_cnn").iterdir()] == ["1"]


def test_the_card_tells_what_was_verified(exported: Exported) -> None:
    card = Card.load(exported.folder / "card.json")
    assert (card.name, card.version, card.embedding_size) == ("seed_cnn", 1, 64)
    assert card.preprocessing == registry.get("seed_cnn").preprocessing
    assert card.licence == registry.get("seed_cnn").licence
    assert (card.limits.min_height, card.limits.min_width, card.limits.multiple) == (1, 1, 1)
    assert {"anypool", "torch", "onnx", "onnxruntime", "python"} <= set(card.exporter)
    assert card.parity is not None
    sizes = [case for case in exported.cases if case.kind == "size"]
    assert card.parity.cases == len(sizes) == len(grid(card.limits))
    assert card.parity.worst == max(case.error for case in sizes)
    assert card.parity.worst <= TOLERANCES[card.parity.provider]
    assert card.parity.worst_case in {case.size for case in sizes}
    assert (card.mixed.supported, card.mixed.reason) == (True, None)
    assert card.mixed.parity is not None
    assert card.mixed.parity.cases == len(exported.cases) - len(sizes)
    assert card.mixed.parity.worst <= IN_COMPANY[card.mixed.parity.provider]


def test_a_network_is_held_to_its_own_rounding(exported: Exported) -> None:
    card = Card.load(exported.folder / "card.json")
    assert card.rounding is not None
    assert 1e-9 < card.rounding < 1e-6
    assert (card.tolerances, card.mixed.tolerances) == (TOLERANCES, IN_COMPANY)


@pytest.mark.parametrize(
    ("rounding", "tolerance"), [(0, 2e-5), (5e-6, 2e-5), (8e-6, 3.2e-5), (1e-3, 6e-5)]
)
def test_one_that_enlarges_rounding_may_differ_by_a_little_more(
    rounding: float, tolerance: float
) -> None:
    assert allowed({"CPU": 2e-5}, rounding) == {"CPU": pytest.approx(tolerance)}


def case(kind: str, problem: str | None) -> Case:
    return Case(kind, f"{kind} of 61×83", 3e-4 if problem else 0.0, 1e-5, "CPU", problem)


def test_a_graph_that_fails_in_mixed_batches_only_is_left_out_with_the_reason() -> None:
    cases = [case("size", None), case("company", None), case("mixed", "differs by 3e-4")]
    reason = "mixed of 61×83: differs by 3e-4; 1 of 3 comparisons failed"
    assert only_in_mixed_batches(cases) == reason


@pytest.mark.parametrize("kind", ["size", "company"])
def test_whatever_else_fails_is_no_matter_of_mixed_batches(kind: str) -> None:
    assert only_in_mixed_batches([case("mixed", "differs"), case(kind, "differs")]) is None
    assert only_in_mixed_batches([case("mixed", None), case(kind, None)]) is None


def test_progress_is_told_each_step_and_each_size(exported: Exported) -> None:
    words = [step.partition(":")[0] for step in exported.steps]
    assert words == ["capture", "lower", "rewrite", "check", "verify"]
    limits = Card.load(exported.folder / "card.json").limits
    sizes = [case.size for case in exported.cases if case.kind == "size"]
    assert sizes == [f"{n}×{h}×{w}" for n, h, w in grid(limits)]
    mixed = [case.size for case in exported.cases if case.kind == "mixed"]
    assert any(len(set(size.split(" on ")[0].split(", "))) > 2 for size in mixed)


def test_the_graph_is_plain_onnx_with_free_batch_height_and_width(exported: Exported) -> None:
    model = onnx.load(exported.folder / "model.onnx")
    inputs = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
    assert inputs == {"pixels": ["batch", "height", "width", 1], "classes": ["batch", "maps"]}
    outputs = {value.name: len(value.type.tensor_type.shape.dim) for value in model.graph.output}
    assert outputs == {"logits": 2, "probabilities": 2, "embedding": 2, "cam": 4, "cam_classes": 2}
    assert {node.domain for node in model.graph.node} == {""}
    assert [opset.domain for opset in model.opset_import] == [""]


def test_the_command_verify_accepts_the_artifact(exported: Exported) -> None:
    done = anypool("verify", exported.folder)
    assert done.returncode == 0, done.stderr
    assert f"{len(exported.cases)} of {len(exported.cases)} comparisons agree" in done.stdout


def weights(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    floats = (t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    yield from (t for t in floats if len(t.dims) >= 2)


def test_a_weight_changed_by_a_thousandth_is_noticed(broken: Path) -> None:
    model = onnx.load(broken / "model.onnx")
    kernel = max(weights(model), key=lambda tensor: int(np.prod(tensor.dims)))
    values = numpy_helper.to_array(kernel).copy()
    values *= 1.001
    kernel.CopyFrom(numpy_helper.from_array(values, kernel.name))
    onnx.save(model, broken / "model.onnx")
    done = anypool("verify", broken)
    assert done.returncode == 1
    assert "differs by" in done.stdout


def test_a_changed_golden_answer_is_noticed_at_its_size(broken: Path) -> None:
    arrays = dict(np.load(broken / "golden.npz"))
    arrays["logits_005"] += 1e-3
    np.savez(broken / "golden.npz", allow_pickle=False, **arrays)
    done = anypool("verify", broken)
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if "differs by" in line]
    assert "×".join(str(n) for n in arrays["pixels_005"].shape[:3]) in line
    (case,) = [case for case in verify(broken, lambda _: None) if not case.ok]
    assert case.error > case.tolerance


def test_a_ragged_graph_without_its_masks_is_noticed(broken: Path) -> None:
    model = onnx.load(broken / "model.onnx")
    sizes = onnx.helper.make_tensor_value_info("sizes", onnx.TensorProto.INT64, ["batch", 2])
    model.graph.input.append(sizes)
    onnx.save(model, broken / "ragged.onnx")
    done = anypool("verify", broken)
    assert done.returncode == 1
    assert "in company differs by" in done.stdout


def test_a_network_that_cannot_mix_sizes_is_written_without_the_ragged_graph(
    tmp_path: Path,
) -> None:
    done = anypool(
        "export", "resized", "--import", "tests.export.own_networks", "--out", tmp_path / "store"
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "store" / "resized" / "1"
    assert not (folder / "ragged.onnx").exists()
    card = Card.load(folder / "card.json")
    assert card.mixed.supported is False
    assert card.mixed.reason is not None
    assert card.mixed.reason.startswith("Resize (")
    assert "run apart: Resize (" in anypool("verify", folder).stdout
    assert Engine(folder, "cpu", batching="mixed").mixes is False


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "missing"])
def test_a_damaged_golden_file_is_noticed(damage: str, broken: Path) -> None:
    file = broken / "golden.npz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged = {"truncated": bytes(content[:5000]), "flipped": bytes(content), "empty": b""}
    file.unlink() if damage == "missing" else file.write_bytes(damaged[damage])
    assert anypool("verify", broken).returncode == 1


def test_a_version_that_exists_is_refused_before_any_work(exported: Exported) -> None:
    steps: list[str] = []
    with pytest.raises(VersionExistsError, match=r"seed_cnn/1 exists already"):
        export("seed_cnn", exported.root, Progress(steps.append, lambda case: None), version=1)
    assert steps == []


def test_an_unknown_name_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UnknownNetworkError, match="seed_cnn"):
        export("sead_cnn", tmp_path / "store", QUIET)
    assert not (tmp_path / "store").exists()


def test_weights_that_do_not_fit_end_as_one_message(tmp_path: Path) -> None:
    state = registry.build("seed_cnn").state_dict()
    state["head.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(ExportError, match=r"other\.pt does not fit seed_cnn") as refused:
        export(
            "seed_cnn", tmp_path / "store", QUIET, changes=Changes(weights=tmp_path / "other.pt")
        )
    assert "Traceback" not in str(refused.value)
    assert list((tmp_path / "store").iterdir()) == []
