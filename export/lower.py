"""Step 2: from the captured program to an ONNX graph.

Adaptive poolings stay whole here, as marker nodes `anypool::AdaptivePool`; a rewrite turns them
into stock operators later. torch's own exporter would unroll them with the example's sizes and
write a graph that calls itself dynamic and is wrong at every other size.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnx import defs
from onnxscript import values

from export import capture  # noqa: F401  # registers torch.ops.anypool.adaptive_pool2d
from export.errors import ExportError

OPSET = 20
MARKERS = "anypool"

_FLOATS = ["tensor(float16)", "tensor(float)", "tensor(double)"]
_attribute = defs.OpSchema.Attribute
defs.register_schema(
    defs.OpSchema(
        "AdaptivePool",
        MARKERS,
        1,
        doc="Adaptive pooling over the last two axes; an output size of 0 keeps that side.",
        inputs=[defs.OpSchema.FormalParameter("x", "T")],
        outputs=[defs.OpSchema.FormalParameter("y", "T")],
        type_constraints=[("T", _FLOATS, "")],
        attributes=[
            _attribute("output_size", defs.OpSchema.AttrType.INTS),
            _attribute("kind", defs.OpSchema.AttrType.STRING),
        ],
    )
)
_markers = values.Opset(MARKERS, 1)


def _fixed(output_size: Sequence[Any]) -> list[int]:
    if not all(isinstance(out, int) for out in output_size):
        raise ExportError(
            'an adaptive pooling (F.interpolate with mode="area" is one) takes its output size '
            "from the input's size; give it a fixed size"
        )
    return list(output_size)


def _adaptive_pool(x: Any, output_size: Sequence[Any], kind: str) -> Any:
    return _markers.AdaptivePool(x, output_size=list(output_size), kind=kind)


def _adaptive_avg(x: Any, output_size: Sequence[Any]) -> Any:
    return _markers.AdaptivePool(x, output_size=_fixed(output_size), kind="average")


def _adaptive_max(x: Any, output_size: Sequence[Any]) -> Any:
    raise ExportError(
        "torch's adaptive max kernel also gives indices, which cannot be exported; "
        "take the values alone, F.adaptive_max_pool2d(x, output_size)"
    )


# The aten entries catch what calls torch's kernels from inside, such as F.interpolate(mode="area").
_TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.anypool.adaptive_pool2d.default: _adaptive_pool,
    torch.ops.aten.adaptive_avg_pool2d.default: _adaptive_avg,
    torch.ops.aten._adaptive_avg_pool2d.default: _adaptive_avg,
    torch.ops.aten.adaptive_max_pool2d.default: _adaptive_max,
}


def to_onnx(program: torch.export.ExportedProgram, outputs: Sequence[str]) -> ir.Model:
    """Translate a captured program; its one input becomes `pixels`. Raises ExportError."""
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):  # they narrate; we report
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch deprecates its own parts
            translated = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=["pixels"],
                output_names=list(outputs),
                custom_translation_table=_TRANSLATIONS,
                optimize=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as exc:
        root = _root(exc)
        if isinstance(root, ExportError):
            raise root from exc
        what = f"{type(root).__name__}: {root}"
        raise ExportError(f"torch.onnx cannot translate the network: {what}") from exc
    assert translated is not None  # with dynamo=True it always is a program
    return translated.model


def _root(exc: BaseException) -> BaseException:
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return exc
