"""Whether an ONNX file is whole, and wants no data from other files.

ONNX Runtime would read those: what they are called stands in the file, so a foreign artifact could
name any. The file is not parsed, only walked: from field to field down to its tensors, over their
values. Protobuf's fields are (number << 3 | wire type), then a varint, or a length and so many
bytes. Numbers: github.com/onnx/onnx, onnx.proto.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_TENSOR = "tensor"
# Which fields of a message hold messages that lead to tensors.
_BELOW: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
}


class Malformed(ValueError):
    """The file is not ONNX, or not whole."""


def has_external_data(path: Path) -> bool:
    """Whether a tensor's values lie in another file; raises Malformed, OSError."""
    with path.open("rb") as file:
        return any(_external(file, path.stat().st_size))


def _external(file: BinaryIO, size: int) -> Iterator[bool]:
    """For each field of each tensor, whether it points elsewhere."""
    waiting = [("model", 0, size)]
    while waiting:
        kind, at, end = waiting.pop()
        while at < end:
            file.seek(at)
            tag = _varint(file)
            number, wire = tag >> 3, tag & 7
            value = _varint(file) if wire in (_VARINT, _BYTES) else 0
            begin = file.tell()
            at = begin + {_VARINT: 0, _FIXED64: 8, _BYTES: value, _FIXED32: 4}.get(wire, size + 1)
            if at > end or number == 0 or tag >> 32:  # of longer tags readers drop the upper bits
                raise Malformed(f"it is cut off or no ONNX file: see byte {begin}")
            if wire == _BYTES and number in _BELOW[kind]:
                waiting.append((_BELOW[kind][number], begin, at))
            if kind == _TENSOR:
                yield number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)


def _varint(file: BinaryIO) -> int:
    """Seven bits a byte, the lowest first; the last byte has no eighth."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise Malformed("it is cut off")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise Malformed("it is no ONNX file")
