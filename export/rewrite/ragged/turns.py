"""Transpositions that the exporter makes one after the other, as one."""

import onnx_ir as ir

from export.rewrite.builder import Builder


def join_transposes(graph: ir.Graph) -> None:
    """Let none follow another: what writes into a slice turns each axis to the front and back."""
    for node in tuple(graph):
        if node.op_type != "Transpose" or node.inputs[0] is None:
            continue
        before = _producer(node.inputs[0])
        if before is None or before.op_type != "Transpose" or before.inputs[0] is None:
            continue
        x, first = before.inputs[0], list(before.attributes["perm"].as_ints())
        order = [first[axis] for axis in node.attributes["perm"].as_ints()]
        build = Builder(before=node)
        still = order == sorted(order)
        y = build("Identity", x) if still else build("Transpose", x, perm=order)
        last = node.inputs[0]
        build.replace(node, y)
        _drop(graph, last)


def _producer(x: ir.Value) -> ir.Node | None:
    """The node that computes a value, not counting copies."""
    node = x.producer()
    while node is not None and node.op_type == "Identity" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node


def _drop(graph: ir.Graph, x: ir.Value) -> None:
    """Remove what nobody uses any more, from `x` up to the first transposition."""
    node = x.producer()
    while node is not None and not x.uses() and x not in graph.outputs:
        above = node.inputs[0]
        graph.remove(node, safe=True)
        if node.op_type != "Identity" or above is None:
            break
        x, node = above, above.producer()
