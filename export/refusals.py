"""What a captured program must not do, told with the layer and what to put there.

Imports torch only.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from export.diagnosis import theirs
from export.errors import CaptureError
from models.card import Activation

_ADVICE = {
    "dropout": "drop out in training only: nn.Dropout does, F.dropout needs training=self.training",
    "fractional_max_pool2d": "its regions are drawn anew for every image, in evaluation too: take "
    "models.pool.POOLS['fractional_max'], whose regions are fixed",
    "rrelu": "draw slopes in training only: nn.RReLU does, F.rrelu needs training=self.training",
}
_DRAWN = "draw in training only (if self.training: …), and take the expected value otherwise"
_SAME = ("view", "reshape", "flatten", "squeeze", "clone", "contiguous", "alias", "to")
_SHARE = 1e-4  # how far from 1 a sum of probabilities may be


def check_program(program: torch.export.ExportedProgram, activation: Activation) -> None:
    """Raise CaptureError for layers that sample, for statistics of the batch, for two activations.

    Two calls with one image would give two answers; an image's answer would depend on those that
    share its batch; and sigmoid(sigmoid(x)) is no probability.
    """
    for node, operator in _operators(program):
        arguments = _arguments(node, operator)
        training = arguments.get("train", arguments.get("training"))
        name = operator._schema.name.removeprefix("aten::")
        if "batch_norm" in name and training and _of_images(node):
            raise CaptureError(
                f"{_where(node)} normalises with the mean and variance of the batch, so that an "
                "image's answer would depend on its company: let it keep running statistics "
                "(track_running_stats=True) and use them in evaluation mode"
            )
        if torch.Tag.nondeterministic_seeded not in operator.tags or training is False:
            continue
        if "dropout_p" in arguments and not arguments["dropout_p"]:
            continue
        text = f"{name} {node.meta.get('stack_trace', '')}"
        advice = next((said for key, said in _ADVICE.items() if key in text), _DRAWN)
        raise CaptureError(f"{_where(node)} draws at random in evaluation mode ({name}): {advice}")
    if activation != "none" and _last(program) in ("sigmoid", "hardsigmoid"):
        raise CaptureError("the network ends in a sigmoid already: say --activation none")


def check_logits(logits: Sequence[Tensor], activation: Activation) -> None:
    """Raise CaptureError where the activation cannot be the one that belongs to such logits."""
    rows = torch.cat(list(logits))  # (n, k)
    low, high = float(rows.min()), float(rows.max())
    shares = low >= 0 and bool(((rows.sum(1) - 1).abs() < _SHARE).all())
    if activation == "none" and (low < -_SHARE or high > 1 + _SHARE):
        raise CaptureError(
            f"with --activation none the network's own outputs are the probabilities, but they run "
            f"from {low:.3g} to {high:.3g}: say --activation softmax, or sigmoid if classes do not "
            "exclude each other"
        )
    if activation == "softmax" and rows.shape[1] == 1:
        raise CaptureError(
            "the network has one output, of which softmax is always 1: say --activation sigmoid"
        )
    if activation != "none" and shares:
        raise CaptureError("the network ends in a softmax already: say --activation none")


def last_pooling(program: torch.export.ExportedProgram) -> str | None:
    """The pooling that ends the network's maps, in words; None if it is of no known kind."""
    words = None
    for node, operator in _operators(program):
        name = operator._schema.name.split("::")[1]
        arguments = _arguments(node, operator)
        value = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        shape = () if value is None else getattr(value.meta.get("val"), "shape", ())
        if not any(isinstance(side, torch.SymInt) for side in shape[1:]):
            continue  # no map
        if name in ("adaptive_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"):
            kind = "maximum" if arguments.get("kind") == "max" or "max" in name else "average"
            size = "×".join(str(side or "all") for side in arguments["output_size"])
            words = f"adaptive {kind} to {size}"
        elif name in ("mean", "amax", "sum", "logsumexp", "max"):
            words = f"{name} over height and width" if name != "mean" else "global average"
        elif name in ("avg_pool2d", "max_pool2d"):
            words = f"{name[:3]} pooling of {arguments['kernel_size']}, and what follows"
    return words


def _operators(
    program: torch.export.ExportedProgram,
) -> Iterator[tuple[fx.Node, torch._ops.OpOverload]]:
    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            yield node, node.target


def _arguments(node: fx.Node, operator: torch._ops.OpOverload) -> dict[str, Any]:
    """The arguments by name, defaults included."""
    known = operator._schema.arguments
    given = {known[index].name: value for index, value in enumerate(node.args)}
    defaults = {argument.name: argument.default_value for argument in known}
    return {**defaults, **given, **node.kwargs}


def _of_images(node: fx.Node) -> bool:
    """Whether a node looks at images; some networks normalise their weights as a batch is."""
    value = node.args[0]
    shape = value.meta["val"].shape if isinstance(value, fx.Node) and "val" in value.meta else ()
    return any(isinstance(side, torch.SymInt) for side in shape)


def _where(node: fx.Node) -> str:
    """The layer that a node belongs to, and the line of its author's code."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [(path, str(kind).rpartition(".")[2]) for path, kind in stack.values()]
    path, kind = paths[-1] if paths else ("", "")
    path = re.sub(r"^(L\['self'\]\.?)?(network\.?)?", "", path)
    lines = re.findall(r'File "(.+)", line (\d+)', node.meta.get("stack_trace") or "")
    own = [(file, line) for file, line in lines if theirs(file)]
    place = f" ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else ""
    return f"layer {path}, {kind}{place}," if path else f"forward of {kind or 'the network'}{place}"


def _last(program: torch.export.ExportedProgram) -> str:
    """The name of the operator that gives the logits, whatever only reshapes them left out."""
    outputs: Any = program.graph.output_node().args[0]
    node = outputs[0]
    while isinstance(node, fx.Node) and isinstance(node.target, torch._ops.OpOverload):
        name = node.target._schema.name.removeprefix("aten::")
        if name not in _SAME:
            return name
        node = node.args[0]
    return ""
