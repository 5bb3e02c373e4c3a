"""Why the exporter of torch alone will not do, and what cannot be lowered."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from export.capture import export_program
from export.errors import ExportError
from export.lower import to_onnx
from export.sizes import EXAMPLE, content
from models import registry
from tests.export.lowering import Function, Pixels, lower, relative_error, run, session

SIZES = ((28, 28), (9, 9), (37, 53), (64, 20), (97, 131), (640, 101))


def outcome(runner: Any, network: nn.Module, h: int, w: int) -> str:
    """What a graph says of a grey image: "right", "wrong" or "fails"."""
    x = content(0, 2, h, w, 1).astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1
    want = network(torch.from_numpy(x)).numpy()
    try:
        (got,) = runner.run(None, {"x": x})
    except Exception:
        return "fails"
    return "right" if relative_error(got, want) <= 2e-5 else "wrong"


@pytest.mark.parametrize(
    ("example", "elsewhere"), [((2, 15, 18), {"wrong", "fails"}), ((2, 224, 224), {"wrong"})]
)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch deprecates its own parts
@torch.no_grad()
def test_the_stock_exporter_is_never_right_at_other_sizes(
    example: tuple[int, int, int], elsewhere: set[str], tmp_path: Path
) -> None:
    # Once this fails, torch has repaired pytorch #74034, and export/rewrite may go.
    network, (n, h, w) = registry.build("seed_cnn"), example
    program = torch.onnx.export(
        network,
        (torch.zeros(n, 1, h, w),),
        dynamo=True,
        input_names=["x"],
        dynamic_shapes=(dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),),
        verbose=False,
    )
    assert program is not None
    program.save(tmp_path / "stock.onnx")
    runner = ort.InferenceSession(tmp_path / "stock.onnx", providers=["CPUExecutionProvider"])
    assert outcome(runner, network, h, w) == "right"
    assert {outcome(runner, network, *size) for size in SIZES} == elsewhere


@torch.no_grad()
def test_our_lowering_is_right_where_the_stock_exporter_is_wrong() -> None:
    network = registry.build("seed_cnn")
    module = Pixels([lambda x: network(x / 127.5 - 1)])
    runner = session(lower(module, 1, torch.uint8, 1))
    for h, w in (*SIZES, EXAMPLE[1:], (224, 224)):
        pixels = content(0, 2, h, w, 1)
        (want,) = module(torch.from_numpy(pixels))
        (got,) = run(runner, pixels)
        assert relative_error(got, want.numpy()) <= 2e-5, (h, w)


def test_an_area_resize_by_a_factor_is_refused() -> None:
    module = Pixels([lambda x: F.interpolate(x, scale_factor=0.5, mode="area")])
    program, _ = export_program(module, torch.zeros(*EXAMPLE, 1))
    with pytest.raises(ExportError, match=r"^an adaptive pooling \(F.interpolate .* a fixed size$"):
        to_onnx(program, ["y"])


def test_an_operator_without_onnx_counterpart_is_named() -> None:
    module = Pixels([nn.FractionalMaxPool2d(2, output_size=5)])
    program, _ = export_program(module, torch.zeros(*EXAMPLE, 1))
    with pytest.raises(ExportError, match=r"cannot translate the network: .*fractional_max_pool2d"):
        to_onnx(program, ["y"])


def test_lowering_writes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program, _ = export_program(Pixels([nn.AdaptiveAvgPool2d(3)]), torch.zeros(*EXAMPLE, 1))
    to_onnx(program, ["y"])
    assert list(tmp_path.iterdir()) == []


NEARLY: list[Function] = [
    lambda x: (x * 0 + 1e-9).rsqrt(),
    lambda x: (1e-9 + x * 0).log(),
    lambda x: 1 / (x * 0 - 1e-9),
    lambda x: (x * 1.000004 - x) * 1e5,
    lambda x: (x / 1.000004 - x) * 1e5,
]


@pytest.mark.parametrize("function", NEARLY)
def test_numbers_near_0_and_1_are_not_taken_for_them(function: Function) -> None:
    network = Pixels([function])
    pixels = np.random.default_rng(0).random((2, 9, 11, 2), np.float32) + 1
    want = network(torch.from_numpy(pixels))[0].numpy()
    assert relative_error(run(session(lower(network, 1)), pixels)[0], want) < 0.1
