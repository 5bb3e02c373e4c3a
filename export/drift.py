"""Where ONNX Runtime and torch part, layer by layer, when verification found that they do.

`python -m export.drift program.pt2 model.onnx golden.npz 007` prints it. Every layer that both have
by name is compared on one image: ONNX Runtime against torch, and torch against itself in float64,
which tells how far rounding alone goes. The layer at which they part is then run by itself, on
torch's own inputs, by ONNX Runtime and by the reference implementation of ONNX: so one can tell
whether the layer only enlarges what came before, whether the graph says another thing than torch,
or whether ONNX Runtime does another thing than the graph.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from torch import fx

from export.lower import translate
from export.served import OUTPUTS

Array = NDArray[Any]
Values = dict[str, Array]
_PARTED = 1e-5  # of a layer's largest value: more than rounding in one layer
_FAITHFUL = 10  # times torch's own distance from float64, or less: rounding explains it


@dataclass(frozen=True, slots=True)
class Step:
    """One layer: how far ONNX Runtime is from torch, and torch from itself in float64."""

    name: str
    layer: str
    error: float
    rounding: float


class _Recorder(fx.Interpreter):
    """Runs a program and keeps what every node gives; with `wide` in float64 throughout."""

    def __init__(self, module: fx.GraphModule, *, wide: bool) -> None:
        super().__init__(module)
        self.values: Values = {}
        self.wide = wide

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            value = value.double() if self.wide else value
            self.values[n.name] = value.detach().numpy()
        return value

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if self.wide:
            args = fx.node.map_aggregate(args, _widened)
            kwargs = fx.node.map_aggregate(kwargs, _widened)
        return super().call_function(target, args, kwargs)


def _widened(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


def explain(
    program: torch.export.ExportedProgram, model: onnx.ModelProto, pixels: Array, logits: Array
) -> str:
    """Sentences on where and why they part on `pixels` (n, h, w, c).

    logits: what the network itself gives for them, (n, k)
    """
    count = len(program.graph_signature.user_outputs), len(program.graph_signature.user_inputs)
    translated = translate(program, OUTPUTS[: count[0]], ("pixels", "classes")[: count[1]])
    assert translated.exported_program is not None
    program = translated.exported_program  # its nodes are called as those of the graph
    names = [node.name for node in program.graph.nodes]
    narrow, wide = (_torch(program, pixels, wide=wide) for wide in (False, True))
    size = "×".join(map(str, pixels.shape[:3]))
    if _apart(narrow[program.graph_signature.user_outputs[0]], logits) > _PARTED:
        return (
            f"on {size} the program that torch.export made is not the network any more: forward "
            "does something else at this size than at the example's"
        )
    ends = program.graph_signature.user_outputs
    for end, output in zip(ends, OUTPUTS, strict=False):  # in the graph they have other names
        narrow[output], wide[output] = narrow[end], wide[end]
    names = [name for name in names if name not in ends] + list(OUTPUTS[: len(ends)])
    reached = _onnx(model, [name for name in names if name in narrow], {"pixels": pixels})
    steps = [
        Step(
            name,
            _layer(program, name),
            _apart(reached[name], narrow[name]),
            _apart(narrow[name], wide[name]),
        )
        for name in names
        if name in reached and reached[name].shape == narrow[name].shape
    ]
    beyond = (step for step in steps if step.error > max(_PARTED, _FAITHFUL * step.rounding))
    parted = next(beyond, None) or next((step for step in steps if step.error > _PARTED), None)
    if parted is None:
        return "layer by layer they agree: what ONNX Runtime melts together makes the difference"
    last = next(step for step in steps if step.name == OUTPUTS[0])
    told = (
        f"on {size} they part at {parted.layer}: {parted.error:.0e} of its largest value "
        f"({last.error:.0e} at the end; torch itself is {last.rounding:.0e} away from float64). "
    )
    return told + _blame(model, parted, narrow, reached, pixels, last)


def _blame(
    model: onnx.ModelProto, parted: Step, narrow: Values, reached: Values, pixels: Array, last: Step
) -> str:
    piece, inputs = _piece(model, parted.name, set(reached) - {parted.name})
    feed = {name: pixels if name == "pixels" else narrow[name] for name in inputs}
    want = narrow[parted.name]
    alone = _apart(_session(piece).run(None, feed)[0], want)
    if alone <= max(_PARTED, _FAITHFUL * parted.rounding):
        if last.error <= _FAITHFUL * max(last.rounding, parted.rounding):
            return (
                "The network enlarges rounding there, and torch's own answer is no better: neither "
                "ours nor ONNX Runtime's fault. Trained weights rarely do that"
            )
        return "By itself that layer is right: ONNX Runtime rounds otherwise in those before it"
    reference: Any = ReferenceEvaluator(piece).run(None, feed)
    if _apart(reference[0], want) <= _PARTED:
        return "The graph is right, ONNX Runtime's kernels for that layer are not: not our fault"
    return "The graph does another thing than torch there: our fault, or that of torch.onnx"


def _torch(program: torch.export.ExportedProgram, pixels: Array, *, wide: bool) -> Values:
    module: Any = program.module(check_guards=False)
    if wide:
        module = module.double()
    recorder = _Recorder(module, wide=wide)
    with torch.no_grad():
        classes = (torch.zeros((len(pixels), 1), dtype=torch.int64),)
        inputs = program.graph_signature.user_inputs
        recorder.run(torch.from_numpy(pixels), *classes[: len(inputs) - 1])
    return recorder.values


def _onnx(model: onnx.ModelProto, wanted: Iterable[str], feed: Values) -> Values:
    """What ONNX Runtime gives for those of the wanted values that the graph has."""
    made = {name for node in model.graph.node for name in node.output}
    names = [name for name in wanted if name in made]
    widened = onnx.ModelProto()
    widened.CopyFrom(model)
    known = {output.name for output in widened.graph.output}
    widened.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    if any(value.name == "classes" for value in model.graph.input):
        feed = feed | {"classes": np.zeros((len(feed["pixels"]), 1), np.int64)}
    return dict(zip(names, _session(widened).run(names, feed), strict=True))


def _piece(model: onnx.ModelProto, name: str, known: set[str]) -> tuple[onnx.ModelProto, list[str]]:
    """The part of the graph that makes `name` of values already known, and their names."""
    makers = {output: node for node in model.graph.node for output in node.output}
    given = {tensor.name for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    inputs: list[str] = []
    open_ = [name]
    while open_:
        maker = makers[open_.pop()]
        if maker in nodes:
            continue
        nodes.append(maker)
        for value in maker.input:
            if value in known or value not in makers:
                inputs += [value] if value and value not in given else []
            else:
                open_.append(value)
    ordered = [node for node in model.graph.node if node in nodes]
    used = {value for node in nodes for value in node.input}
    inputs = list(dict.fromkeys(inputs))
    graph = onnx.helper.make_graph(
        ordered,
        "piece",
        [_value(value, value == "pixels") for value in inputs],
        [onnx.ValueInfoProto(name=name)],
        [tensor for tensor in model.graph.initializer if tensor.name in used],
    )
    return onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    ), inputs


def _value(name: str, is_pixels: bool) -> onnx.ValueInfoProto:
    kind = onnx.TensorProto.UINT8 if is_pixels else onnx.TensorProto.FLOAT
    return onnx.helper.make_tensor_value_info(name, kind, None)


def _session(model: onnx.ModelProto) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _layer(program: torch.export.ExportedProgram, name: str) -> str:
    node = next((node for node in program.graph.nodes if node.name == name), None)
    if node is None:
        return f"the {name}"
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    path = str(path).removeprefix("network.").removeprefix("network")
    kind = str(kind).rpartition(".")[2]
    return f"layer {path}, {kind} ({name})" if path else name


def _apart(got: Array, want: Array) -> float:
    if got.shape != want.shape:
        return float("inf")
    largest = float(np.abs(want).max()) if want.size else 0.0
    difference = float(np.abs(got.astype(np.float64) - want).max()) if want.size else 0.0
    return difference / largest if largest else difference


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("program", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("golden", type=Path, help="npz file of the network's own answers")
    parser.add_argument("number", help="which of them, such as 007")
    options = parser.parse_args(arguments)
    program, model = torch.export.load(options.program), onnx.load(options.model)
    with np.load(options.golden, allow_pickle=False) as arrays:
        case = [arrays[f"{name}_{options.number}"] for name in ("pixels", "logits")]
    sys.stdout.write(explain(program, model, *case) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
