"""The Open Inference Protocol's bodies: JSON, with the tensors in it or as raw bytes behind it.

https://github.com/kserve/open-inference-protocol and Triton's extensions binary_tensor_data and
classification. Nothing here knows of HTTP or of networks.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from service.api.body import check_count, check_values, from_base64
from service.api.findings import told
from service.api.schemas_v2 import InferRequest, InputTensor, Parameters, RequestedOutput
from service.classify import Picture, Raster
from service.errors import BadRequest

IMAGE, PIXELS = "image", "pixels"
_MOST_VALUES, _MOST_LISTS = 2_000_000, 1_000_000  # in JSON; more is sent as binary data
_LENGTH = 4  # bytes before each element of BYTES, little-endian


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that is asked for: as bytes or in JSON, and of how many classes, if not of all."""

    name: str
    binary: bool
    classes: int | None


@dataclass(frozen=True, slots=True)
class Inference:
    """A request, taken apart."""

    id: str
    pictures: Sequence[Picture | Raster]
    outputs: Sequence[Wanted]
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class Tensor:
    """An output (n, …): float32, or, as lists of "value:index:label", the best classes."""

    name: str
    values: NDArray[np.float32] | list[list[str]]
    binary: bool


def read(
    body: bytes, header_length: int | None, channels: int, outputs: Sequence[str], max_images: int
) -> Inference:
    """Take a request apart; what may be asked for is in `outputs`, the default first.

    header_length: how many bytes of the body are JSON; None for all, 0 for a body that is one image
    Raises BadRequest, BodyTooLarge, TooManyImages.
    """
    if header_length == 0:
        if not body:
            raise BadRequest("the body is empty: send an image")
        return Inference("", [Picture(None, body)], [Wanted(outputs[0], False, None)], {})
    if header_length is not None and header_length > len(body):
        raise BadRequest(
            f"Inference-Header-Content-Length is {header_length}; the body has {len(body)} bytes"
        )
    text = body[:header_length]
    check_values(text, _MOST_VALUES, _MOST_LISTS)
    try:
        request = InferRequest.model_validate_json(text)
    except ValidationError as exc:
        first = told(exc.errors(include_url=False, include_input=False)[:1])
        raise BadRequest(f"the request's JSON: {first}") from exc
    raw = b"" if header_length is None else memoryview(body)[header_length:]
    pictures = _pictures(_only(request.inputs), raw, channels, max_images)
    return Inference(request.id, pictures, _wanted(request, outputs), request.parameters)


def write(head: dict[str, Any], tensors: Sequence[Tensor]) -> tuple[bytes, int | None]:
    """The body of an answer, and how many bytes of it are JSON if others follow."""
    described, raw = [], []
    for tensor in tensors:
        told, data = _described(tensor)
        described.append(told)
        raw += data
    text = json.dumps({**head, "outputs": described}, separators=(",", ":")).encode()
    return (text, None) if not raw else (b"".join([text, *raw]), len(text))


def best(
    values: NDArray[np.float32], ranking: NDArray[np.int64], labels: Sequence[str], most: int
) -> list[list[str]]:
    """Of each image the best classes as "value:index:label", as Triton's clients read them.

    values (n, k), ranking (n, k) with the best class first
    """
    return [
        [f"{row[index]:.9g}:{index}:{labels[index]}" for index in order[:most].tolist()]
        for row, order in zip(values, ranking, strict=True)
    ]


def _only(inputs: Sequence[InputTensor]) -> InputTensor:
    if len(inputs) == 1 and inputs[0].name in (IMAGE, PIXELS):
        return inputs[0]
    names = ", ".join(repr(tensor.name) for tensor in inputs[:5]) or "none"
    raise BadRequest(
        f"send exactly one input, {IMAGE!r} (BYTES [n], image files) or {PIXELS!r} (UINT8 "
        f"[n, height, width, channels]); sent were: {names}"
    )


def _pictures(
    tensor: InputTensor, raw: bytes | memoryview, channels: int, max_images: int
) -> Sequence[Picture | Raster]:
    if any(name.startswith("shared_memory") for name in tensor.parameters):
        raise BadRequest(f"{tensor.name}: shared memory is not supported; send the data itself")
    size = tensor.parameters.get("binary_data_size")
    if size is not None and tensor.data is not None:
        raise BadRequest(f"{tensor.name} has data in JSON and binary_data_size: send one of them")
    if size is None and tensor.data is None:
        raise BadRequest(f"{tensor.name} has neither data nor parameters.binary_data_size")
    if len(raw) != (size or 0):
        raise BadRequest(
            f"{tensor.name}: binary_data_size is {size or 0}, and {len(raw)} bytes follow the JSON "
            "(header Inference-Header-Content-Length says where it ends)"
        )
    if tensor.name == IMAGE:
        n = _count(tensor, max_images)
        if tensor.data is not None:
            return _from_json(tensor.data, n)
        return [Picture(None, bytes(element)) for element in _elements(memoryview(raw), n)]
    return _rasters(tensor, raw, channels, max_images)


def _count(tensor: InputTensor, max_images: int) -> int:
    shape = tensor.shape
    if tensor.datatype != "BYTES" or len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise BadRequest(
            f"{IMAGE} is {tensor.datatype} {shape}; it should be BYTES [n] or [n, 1], an image "
            "file each"
        )
    return _images(shape[0], max_images)


def _images(n: int, max_images: int) -> int:
    if n < 1:
        raise BadRequest("the request has no image")
    check_count(n, max_images)
    return n


def _from_json(data: list[Any], n: int) -> Sequence[Picture]:
    """Base64, in lists of whatever depth, since JSON has no bytes."""
    texts = _flat(data)
    if len(texts) != n:
        raise BadRequest(f"{IMAGE} has {len(texts)} elements; its shape says {n}")
    texts = [text.get("b64") if isinstance(text, dict) else text for text in texts]
    if not all(isinstance(text, str) for text in texts):
        raise BadRequest(f"{IMAGE} in JSON is a list of texts, image files in base64")
    return [
        Picture(None, from_base64(text, f"{IMAGE}.data.{index}"))
        for index, text in enumerate(texts)
    ]


def _flat(data: list[Any]) -> list[Any]:
    while data and isinstance(data[0], list):
        if not all(isinstance(inner, list) for inner in data):
            raise BadRequest("data is neither flat nor nested evenly")
        data = [element for inner in data for element in inner]
    return data


def _elements(raw: memoryview, n: int) -> list[memoryview]:
    """The n elements of a BYTES tensor."""
    elements, at = [], 0
    for index in range(n):
        length = int.from_bytes(raw[at : at + _LENGTH], "little")
        begin, at = at + _LENGTH, at + _LENGTH + length
        if begin > len(raw) or at > len(raw):
            raise BadRequest(f"{IMAGE}: the data ends within element {index} of {n}")
        elements.append(raw[begin:at])
    if at != len(raw):
        raise BadRequest(f"{IMAGE}: {len(raw) - at} bytes are left after the last of {n} elements")
    return elements


def _rasters(
    tensor: InputTensor, raw: bytes | memoryview, channels: int, max_images: int
) -> Sequence[Raster]:
    shape = tensor.shape
    if tensor.datatype != "UINT8" or len(shape) != 4 or shape[3] != channels or 0 in shape[1:]:
        raise BadRequest(
            f"{PIXELS} is {tensor.datatype} {shape}; it should be UINT8 [n, height, width, "
            f"{channels}]"
        )
    n = _images(shape[0], max_images)
    pixels = np.frombuffer(raw, np.uint8) if tensor.data is None else _bytes(tensor.data)
    if len(pixels) != prod(shape):
        raise BadRequest(f"{PIXELS} has {len(pixels)} values; its shape says {prod(shape)}")
    whole = pixels.reshape(shape)  # (n, h, w, c)
    return [Raster(whole[index]) for index in range(n)]


def _bytes(data: list[Any]) -> NDArray[np.uint8]:
    values = _flat(data)
    if not all(type(value) is int and 0 <= value <= 255 for value in values):
        raise BadRequest(f"{PIXELS} in JSON are whole numbers from 0 to 255")
    return np.array(values, np.uint8)


def _wanted(request: InferRequest, known: Sequence[str]) -> list[Wanted]:
    binary = request.parameters.get("binary_data_output") is True
    names = [output.name for output in request.outputs]
    if unknown := sorted(set(names) - set(known)):
        raise BadRequest(f"no output is named {unknown[0]!r}; there are: {', '.join(known)}")
    if len(set(names)) < len(names):
        raise BadRequest("an output is asked for twice")
    outputs = request.outputs or [RequestedOutput(name=known[0])]
    return [_one_wanted(output, binary) for output in outputs]


def _one_wanted(output: RequestedOutput, binary: bool) -> Wanted:
    classes = output.parameters.get("classification")
    if any(name.startswith("shared_memory") for name in output.parameters):
        raise BadRequest(f"{output.name}: shared memory is not supported")
    if classes is not None and (type(classes) is not int or classes < 1):
        raise BadRequest(f"{output.name}: classification is a number of classes, at least 1")
    return Wanted(output.name, output.parameters.get("binary_data", binary) is True, classes)


def _described(tensor: Tensor) -> tuple[dict[str, Any], list[bytes]]:
    """The JSON of an output, and its bytes if they are to follow."""
    if isinstance(tensor.values, list):
        texts = [text for row in tensor.values for text in row]
        shape = [len(tensor.values), len(tensor.values[0])]
        told: dict[str, Any] = {"name": tensor.name, "datatype": "BYTES", "shape": shape}
        data: Any = texts
        raw = b"".join(_prefixed(text.encode()) for text in texts) if tensor.binary else b""
    else:
        told = {"name": tensor.name, "datatype": "FP32", "shape": list(tensor.values.shape)}
        data = tensor.values
        raw = tensor.values.astype("<f4").tobytes() if tensor.binary else b""
    if tensor.binary:
        return {**told, "parameters": {"binary_data_size": len(raw)}}, [raw]
    return {**told, "data": data if isinstance(data, list) else data.ravel().tolist()}, []


def _prefixed(element: bytes) -> bytes:
    return len(element).to_bytes(_LENGTH, "little") + element
