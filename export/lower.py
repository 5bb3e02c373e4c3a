"""Step 2: from the captured program to an ONNX graph.

Poolings over cells stay whole here, as marker nodes `anypool::CellPool`, and so does the question
which places lie in which cell, `anypool::Cells`; a rewrite turns them into stock operators later.
torch's own exporter would unroll them with the example's sizes and write a graph that calls itself
dynamic and is wrong at every other size.
"""

import logging
import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnx import defs
from onnxscript import opset20, rewriter, values

from export import pools, served, shapes  # noqa: F401  # register torch.ops.anypool
from export.errors import ExportError
from export.rewrite.padding import keep_padding
from models.pool import regions  # registers the other operators of torch.ops.anypool

OPSET = 20
MARKERS = "anypool"

_FLOATS = ["tensor(float16)", "tensor(float)", "tensor(double)"]


def _define(name: str, doc: str, *attributes: tuple[str, defs.OpSchema.AttrType]) -> None:
    defs.register_schema(
        defs.OpSchema(
            name,
            MARKERS,
            1,
            doc=doc,
            inputs=[defs.OpSchema.FormalParameter("x", "T")],
            outputs=[defs.OpSchema.FormalParameter("y", "T")],
            type_constraints=[("T", _FLOATS, "")],
            attributes=[defs.OpSchema.Attribute(*attribute) for attribute in attributes],
        )
    )


# kernel: how wide a cell is, or 0 where it is adaptive, for each side; see models/pool/regions.py.
_SIZES = ("output_size", defs.OpSchema.AttrType.INTS), ("kernel", defs.OpSchema.AttrType.INTS)
_define(
    "CellPool",
    "Pool a grid of cells over the last two axes; an output size of 0 keeps that side.",
    *_SIZES,
    ("kind", defs.OpSchema.AttrType.STRING),
)
_define(
    "Cells", "1 for places inside a cell, 0 outside: (n, c, h, w) to (n, cells, h, w).", *_SIZES
)
_markers = values.Opset(MARKERS, 1)
_onnx: Any = opset20  # its types are those of values, not of nodes
_ADAPTIVE = list(regions.ADAPTIVE)


def _fixed(output_size: Sequence[Any]) -> list[int]:
    if not all(isinstance(out, int) for out in output_size):
        raise ExportError(
            'an adaptive pooling (F.interpolate with mode="area" is one) takes its output size '
            "from the input's size; give it a fixed size"
        )
    return list(output_size)


def _adaptive_pool(x: Any, output_size: Sequence[Any], kind: str) -> Any:
    return _markers.CellPool(x, output_size=list(output_size), kernel=_ADAPTIVE, kind=kind)


def _adaptive_avg(x: Any, output_size: Sequence[Any]) -> Any:
    return _adaptive_pool(x, _fixed(output_size), "average")


def _adaptive_max(x: Any, output_size: Sequence[Any]) -> Any:
    """Values and indices; nobody takes the latter, see _check_indices."""
    return _adaptive_pool(x, _fixed(output_size), "max"), _onnx.Constant(value_int=0)


def _fractional_max(x: Any, output_size: Sequence[int], kernel: Sequence[int]) -> Any:
    return _markers.CellPool(x, output_size=list(output_size), kernel=list(kernel), kind="max")


def _chosen_classes(probabilities: Any, classes: Any) -> Any:
    rank = _onnx.Sub(
        _onnx.Constant(value_int=-1), classes
    )  # (n, m), below 0 where a class is named
    rank = _onnx.Max(rank, _onnx.Constant(value_int=0))
    deepest = _onnx.ReduceMax(rank, keepdims=0)  # of what is asked for: no more is sorted
    axis = _onnx.Constant(value_ints=[0])
    most = _onnx.Unsqueeze(_onnx.Add(deepest, _onnx.Constant(value_int=1)), axis)
    _, ranking = _onnx.TopK(probabilities, most, axis=1)  # ties by index
    ranked = _onnx.GatherElements(ranking, rank, axis=1)  # (n, m)
    return _onnx.Where(_onnx.Less(classes, _onnx.Constant(value_int=0)), ranked, classes)


def _cells(x: Any, output_size: Sequence[int], kernel: Sequence[int]) -> Any:
    return _markers.Cells(x, output_size=list(output_size), kernel=list(kernel))


def _sized(x: Any, height: Any, width: Any) -> Any:
    return _onnx.Identity(x)


def _floor_divide(dividend: Any, divisor: Any) -> Any:
    """Python's //, which rounds down; ONNX's Div cuts off, so that -(-n // 2) came out wrong."""
    rest = _onnx.Mod(dividend, divisor)  # with the divisor's sign, as in Python
    return _onnx.Div(_onnx.Sub(dividend, rest), divisor)


def _exact_rules() -> None:
    """Let the optimizer of torch.onnx take for 0 and 1 only what is 0 and 1.

    It drops x + 1e-8 as well, so that rsqrt(variance + 1e-8) is infinite on an even image.
    """
    rules: Any = rewriter._DEFAULT_REWRITE_RULES
    for rule in rules:
        for node in rule._target_pattern:
            for value in node.inputs:
                if hasattr(value, "_abs_tol"):
                    value._abs_tol = value._rel_tol = 0.0


_exact_rules()

# The aten entries catch what calls torch's kernels from inside, such as F.interpolate(mode="area").
_TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    operator.floordiv: _floor_divide,
    torch.ops.anypool.adaptive_pool2d.default: _adaptive_pool,
    torch.ops.anypool.fractional_max_pool2d.default: _fractional_max,
    torch.ops.anypool.cells.default: _cells,
    torch.ops.anypool.sized.default: _sized,
    torch.ops.anypool.chosen_classes.default: _chosen_classes,
    torch.ops.aten.adaptive_avg_pool2d.default: _adaptive_avg,
    torch.ops.aten._adaptive_avg_pool2d.default: _adaptive_avg,
    torch.ops.aten.adaptive_max_pool2d.default: _adaptive_max,
}
_WITH_INDICES = (
    torch.ops.aten.adaptive_max_pool1d.default,
    torch.ops.aten.adaptive_max_pool2d.default,
)


def to_onnx(
    program: torch.export.ExportedProgram,
    outputs: Sequence[str],
    inputs: Sequence[str] = ("pixels",),
) -> ir.Model:
    """Translate a captured program, naming its inputs and outputs. Raises ExportError."""
    model = translate(program, outputs, inputs).model
    keep_padding(model)
    return model


def translate(
    program: torch.export.ExportedProgram,
    outputs: Sequence[str],
    inputs: Sequence[str] = ("pixels",),
) -> torch.onnx.ONNXProgram:
    """The same, with the program whose nodes those of the graph are named after."""
    _check_indices(program)
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):  # they narrate; we report
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch deprecates its own parts
            translated = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
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
    return translated


def _check_indices(program: torch.export.ExportedProgram) -> None:
    """Raise ExportError where the second output of torch's adaptive max kernel is used."""
    for node in program.graph.nodes:
        if node.target not in _WITH_INDICES:
            continue
        if any(output.args[1] == 1 and output.users for output in node.users):
            raise ExportError(
                "torch's adaptive max kernel also gives indices, which cannot be exported; "
                "take the values alone, F.adaptive_max_pool2d(x, output_size)"
            )


def _root(exc: BaseException) -> BaseException:
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return exc
