"""Why a graph cannot run on images of different sizes."""

import onnx_ir as ir

from export.errors import ExportError


class Unsupported(ExportError):
    """Names the node and the reason; the artifact is then written without ragged.onnx."""

    def __init__(self, node: ir.Node | None, reason: str) -> None:
        where = "" if node is None else f"{node.op_type} ({node.name or node.outputs[0].name}): "
        super().__init__(where + reason)
