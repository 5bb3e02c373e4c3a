"""Verification survives whatever ONNX Runtime does, and says what that was."""

import platform
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from export.verify import Case, verify
from models import labels
from models.card import Card, Licence, Mixed, Preprocessing, SizeLimits

# Of a map one pixel high, this pooling makes height 0: the blocked kernels of ONNX Runtime's CPU
# provider (x86-64, channels a multiple of 16) divide by it, and the whole process dies of SIGFPE.
DEADLY = """
    c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, ones)
    m = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (c)
"""


def network(body: str) -> onnx.ModelProto:
    """Grey pixels to one logit: the mean of the map `m` that `body` makes of `x`."""
    ones = ", ".join(["1"] * 16 * 9)
    return parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        "net (uint8[batch, height, width, 1] pixels) =>"
        " (float[batch, 1] logits, float[batch, 1] probabilities)\n"
        f"<float[16, 1, 3, 3] ones = {{{ones}}},"
        " int64[3] axes = {1, 2, 3}, int64[2] row = {1, 81}> {\n"
        "planes = Transpose <perm = [0, 3, 1, 2]> (pixels)\n"
        "x = Cast <to = 1> (planes)\n"
        f"{body}\n"
        "mean = ReduceMean (m, axes)\n"
        "logits = Flatten (mean)\n"
        "probabilities = Identity (logits)\n"
        "}"
    )


def artifact(
    folder: Path, model: onnx.ModelProto, limits: tuple[int, int], *cases: tuple[int, int, float]
) -> Path:
    """A hand-made artifact; each case is height, width, and the logit of an image full of ones."""
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    Card(
        name="hand_made",
        version=1,
        labels=labels.numbered(1),
        preprocessing=Preprocessing(channels=1, mean=(0.0,), std=(1.0,), policy="native"),
        activation="none",
        limits=SizeLimits(min_height=limits[0], min_width=limits[1]),
        pooling="global average",
        outputs=("logits", "probabilities"),
        tolerances={"CPUExecutionProvider": 2e-5, "CUDAExecutionProvider": 1e-4},
        mixed=Mixed(supported=False, tolerances={"CPUExecutionProvider": 1e-5}),
        exporter={},
        licence=Licence(name="none", notice=""),
    ).save(folder / "card.json")
    arrays: dict[str, np.ndarray] = {}
    for i, (h, w, logit) in enumerate(cases):
        arrays[f"pixels_{i:03d}"] = np.ones((1, h, w, 1), np.uint8)
        arrays[f"logits_{i:03d}"] = np.full((1, 1), logit, np.float32)
        arrays[f"probabilities_{i:03d}"] = np.full((1, 1), logit, np.float32)
    np.savez(folder / "golden.npz", allow_pickle=False, **arrays)
    return folder


def test_each_size_is_reported_as_it_is_done(tmp_path: Path) -> None:
    folder = artifact(tmp_path / "a", network("m = Identity (x)"), (1, 1), (9, 9, 1), (3, 70, 1))
    told: list[Case] = []
    cases = verify(folder, told.append)
    assert cases == told
    assert [(case.size, case.error, case.ok) for case in cases] == [
        ("1×9×9", 0, True),
        ("1×3×70", 0, True),
    ]
    assert {case.tolerance for case in cases} <= {2e-5, 1e-4}


def test_a_difference_above_the_tolerance_is_a_problem_of_that_size_alone(tmp_path: Path) -> None:
    folder = artifact(
        tmp_path / "a", network("m = Identity (x)"), (1, 1), (9, 9, 1), (5, 5, 1.001), (3, 7, 1)
    )
    cases = verify(folder, lambda _: None)
    assert [case.ok for case in cases] == [True, False, True]
    assert cases[1].error == pytest.approx(1e-3, rel=0.01)
    assert "differs by" in str(cases[1].problem)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs ONNX Runtime's blocked kernels")
@pytest.mark.parametrize("answer", [9, 8])  # right, and wrong: the death is told in either case
def test_a_process_killed_by_a_signal_is_a_case_that_names_it(answer: int, tmp_path: Path) -> None:
    sizes = (9, 9, answer), (1, 9, 9), (7, 7, 9)
    cases = verify(artifact(tmp_path / "a", network(DEADLY), (1, 1), *sizes), lambda _: None)
    assert [case.ok for case in cases] == [answer == 9, False]
    assert "killed by SIGFPE after 1 comparisons" in str(cases[1].problem)


def test_a_right_card_keeps_a_deadly_size_from_onnx_runtime(tmp_path: Path) -> None:
    folder = artifact(tmp_path / "a", network(DEADLY), (3, 3), (9, 9, 9), (1, 9, 9), (7, 7, 9))
    cases = verify(folder, lambda _: None)
    assert [case.ok for case in cases] == [True, False, True]
    assert "at least 3×3" in str(cases[1].problem)


@pytest.mark.timeout(60)
def test_a_flood_of_messages_does_not_stop_verification(tmp_path: Path) -> None:
    model = network(
        "c = Reshape (x, row)\nm = Unsqueeze (c, axes)"
    )  # 9×9 only; failures are logged
    model.graph.node[2].name = "very_long_" * 3000
    sizes = [(h, 5, 1.0) for h in range(1, 9)]  # together more than a pipe holds
    cases = verify(artifact(tmp_path / "a", model, (1, 1), *sizes), lambda _: None)
    assert len(cases) == len(sizes)
    assert not any(case.ok for case in cases)


def test_an_artifact_that_cannot_be_checked_is_a_problem(tmp_path: Path) -> None:
    folder = artifact(tmp_path / "a", network("m = Identity (x)"), (1, 1), (9, 9, 1))
    (folder / "model.onnx").write_bytes(b"no graph")
    (case,) = verify(folder, lambda _: None)
    assert "exit code 1 after 0 comparisons" in str(case.problem)
    assert "model.onnx" in str(case.problem)
