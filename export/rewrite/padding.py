"""Keep ONNX Runtime from melting padding into the pooling behind it.

ONNX Runtime 1.31 joins Pad and MaxPool into one node, which pads with the lowest number instead of
the 0 that was asked for. It leaves a Pad alone that names its axes.
"""

import onnx_ir as ir

from export.rewrite.builder import Builder

_POOLS = ("MaxPool", "AveragePool")
_AXES = 3  # the input of Pad that names them


def keep_padding(model: ir.Model) -> None:
    """Let every Pad in front of a pooling name all its axes, which changes nothing else."""
    for node in tuple(model.graph):
        y = node.outputs[0]
        pooled = any(user.op_type in _POOLS for user, _ in y.uses())
        if node.op_type != "Pad" or not pooled or y.shape is None or len(node.inputs) > _AXES:
            continue
        build = Builder(before=node)
        fill = node.inputs[2] if len(node.inputs) > 2 else None
        node.resize_inputs(_AXES + 1)
        node.replace_input_with(2, build.float(0.0) if fill is None else fill)
        node.replace_input_with(_AXES, build.ints(range(len(y.shape))))
