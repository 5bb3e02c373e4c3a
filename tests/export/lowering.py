"""Take a small module through the steps of the pipeline and run it on ONNX Runtime."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.capture import export_program
from export.lower import to_onnx
from export.rewrite.cells import expand_cells
from export.rewrite.dimensions import name_dimensions
from export.sizes import EXAMPLE

Function = Callable[[Tensor], Tensor]


class Calls(nn.Module):
    """A function as a module."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Pixels(nn.Module):
    """Pixels (n, h, w, c), float or uint8, through functions of (n, c, h, w): an output each."""

    def __init__(self, functions: Sequence[Function]) -> None:
        super().__init__()
        self.functions = functions
        self.kept = nn.ModuleList(f for f in functions if isinstance(f, nn.Module))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        x = pixels.permute(0, 3, 1, 2).to(torch.float32)  # (n, c, h, w)
        return tuple(function(x) for function in self.functions)


def lower(
    module: nn.Module, outputs: int, dtype: torch.dtype = torch.float32, channels: int = 2
) -> onnx.ModelProto:
    """The ONNX graph of `module` with outputs y0, y1, …, adaptive poolings expanded."""
    n, h, w = EXAMPLE
    program, _ = export_program(module, torch.zeros((n, h, w, channels), dtype=dtype))
    return to_graph(program, [f"y{i}" for i in range(outputs)])


def to_graph(program: torch.export.ExportedProgram, outputs: Sequence[str]) -> onnx.ModelProto:
    """The ONNX graph of a captured program, saved and loaded again, adaptive poolings expanded."""
    saved = io.BytesIO()
    torch.export.save(program, saved)
    saved.seek(0)
    model = to_onnx(torch.export.load(saved), outputs)
    name_dimensions(model)
    expand_cells(model)
    return ir.to_proto(model)


def session(model: onnx.ModelProto) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(runner: Any, pixels: NDArray[Any]) -> list[NDArray[np.float32]]:
    arrays: list[NDArray[np.float32]] = runner.run(None, {"pixels": pixels})
    return arrays


def relative_error(got: NDArray[Any], want: NDArray[Any]) -> float:
    """|difference| / max|want|, infinite where the shapes differ."""
    if got.shape != want.shape:
        return float("inf")
    return float(np.abs(got - want).max() / max(float(np.abs(want).max()), 1e-30))
