"""Compute class activation maps only when somebody asks for them.

ONNX Runtime computes every output, fetched or not. What only the maps need goes into the branch of
an `If`, which is taken when `classes` names any; the other branch gives the maps of no class.
"""

from collections.abc import Iterable

import onnx_ir as ir

from export.rewrite.builder import Builder

_ASKED, _MAPS = "classes", "cam"
_OPTIONAL = (_MAPS, "cam_classes")


def make_maps_optional(model: ir.Model) -> None:
    """Move what only the outputs `cam` and `cam_classes` need into a branch."""
    graph = model.graph
    outputs = [output for output in graph.outputs if output.name in _OPTIONAL]
    if not outputs:
        return
    always = _needed(output for output in graph.outputs if output not in outputs)
    only_maps = [node for node in graph if node not in always]
    classes = next(value for value in graph.inputs if value.name == _ASKED)
    build = Builder(before=only_maps[-1])
    asked = build("Greater", build("Size", classes), build.scalar(0))
    results = []
    for value in outputs:
        result = ir.val(value.name or "", type=value.type, shape=value.shape)
        graph.outputs[graph.outputs.index(value)] = result
        value.name = f"{value.name}/asked"
        results.append(result)
    branches = {"then_branch": _maps(graph, only_maps, outputs), "else_branch": _nothing(classes)}
    graph.append(ir.node("If", [asked], attributes=branches, outputs=results, name="maps"))


def _needed(values: Iterable[ir.Value]) -> set[ir.Node]:
    """All nodes that these values depend on."""
    needed: set[ir.Node] = set()
    open_ = list(values)
    while open_:
        node = open_.pop().producer()
        if node is not None and node not in needed:
            needed.add(node)
            open_ += [value for value in node.inputs if value is not None]
    return needed


def _maps(graph: ir.Graph, nodes: list[ir.Node], outputs: list[ir.Value]) -> ir.Graph:
    graph.remove(nodes)
    return ir.Graph([], outputs, nodes=nodes, name="maps asked for")


def _nothing(classes: ir.Value) -> ir.Graph:
    """Maps (n, 0, 1, 1) of classes (n, 0)."""
    sides = ir.node("Constant", [], attributes={"value_ints": [1, 1]})
    shape = ir.node("Shape", [classes])
    whole = ir.node("Concat", [shape.outputs[0], sides.outputs[0]], attributes={"axis": 0})
    maps = ir.node("ConstantOfShape", [whole.outputs[0]])
    none = ir.node("Identity", [classes])
    nodes = [sides, shape, whole, maps, none]
    for number, node in enumerate(nodes):
        node.outputs[0].name = f"nothing/{number}"
    return ir.Graph([], [maps.outputs[0], none.outputs[0]], nodes=nodes, name="maps of no class")
