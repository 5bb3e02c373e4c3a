"""Structured bodies: forms, JSON, tensors. Valid, but for a place or two that are drawn first."""

import base64
import gzip
import json
import struct
import zlib
from collections.abc import Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

from tests.fuzz.pictures import pictures, small

T = TypeVar("T")
Headers = list[tuple[bytes, bytes]]

_BYTES, _NAMES = st.binary(max_size=40), st.text(max_size=12)
HOW_MANY = st.sampled_from([1, 2, 65, 1000, 30_000, 200_000])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _NAMES | st.just("\ud800")
    | st.sampled_from([10**400, 2**63, -1, 1e308, "b64", "A" * 9, "AAAA", 0, 1, 2**31]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


class Breaker:
    """Decides once, for a whole body, where it is broken: nowhere, in one place or in two."""

    def __init__(self, draw: st.DrawFn, *places: str) -> None:
        self._draw = draw
        self._broken = draw(st.sets(st.sampled_from(places), max_size=2))

    def at(self, place: str) -> bool:
        """Whether it is broken there."""
        return place in self._broken

    def choose(self, place: str, good: T, odd: st.SearchStrategy[T] | Sequence[T]) -> T:
        """What stands in that place: the good thing or something odd."""
        if place not in self._broken:
            return good
        return self._draw(odd if isinstance(odd, st.SearchStrategy) else st.sampled_from(odd))


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> bytes:
    """Some of it taken out, something put there."""
    at, to = draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))
    return data[:at] + draw(_BYTES) + data[to:]


@st.composite
def packed(draw: st.DrawFn, body: bytes) -> tuple[Headers, bytes]:
    """Under a Content-Encoding, if any: right, cut, of other data, or much more than it looks."""
    code = draw(st.sampled_from([b""] * 5 + [b"gzip", b"deflate", b"x-gzip", b"br", b"gzip, gzip"]))
    if not code:
        return [], body
    body *= draw(st.sampled_from([1, 1, 1, max(1, 5_000_000 // (len(body) or 1))]))
    shut = zlib.compress(body) if code == b"deflate" else gzip.compress(body)
    length = draw(st.sampled_from([len(shut)] * 4 + [len(shut) // 2, 0]))
    return [(b"Content-Encoding", code)], shut[:length] + draw(st.sampled_from([b"", b"", b"x"]))


_FILENAMES = [
    b"", b'"a.jpg"', b'"C:\\x\\y.png"', b'"\xff\xfe"', b'"%s"' % (b"x" * 9000), b'"\r\n"',
    b"\xe2\x82\xac; x", b'"a"; filename*=utf-8\'\'%ff%00', b'"a"; name="other"',
    b"x; filename*%s*=y" % (b"9" * 5000), b'"a',
]  # fmt: skip
_MORE_HEADERS = [
    b"Content-Type: multipart/mixed; boundary=y", b"X: " + b"a" * 20_000, b"X\0Y: 1", b": 1",
    b"no colon", b"Content-Disposition: form-data; name=x", b" folded", b"X-\xff: \xff", b"",
    b"Content-Transfer-Encoding: base64", b"\r\nX: 1", b"X: 1\r\n" * 50,
]  # fmt: skip


@st.composite
def form(draw: st.DrawFn) -> tuple[Headers, bytes]:
    """multipart/form-data."""
    places = [
        "name",
        "file",
        "headers",
        "newline",
        "body",
        "boundary",
        "between",
        "end",
        "whole",
        "quoted",
        "count",
    ]
    breaker = Breaker(draw, *places)
    boundary = breaker.choose("boundary", b"x", [b"x" * 69, b"x" * 300, b"\xff", b"-", b"a b", b""])
    newline = breaker.choose("newline", b"\r\n", [b"\n", b"\r", b"\r\n\r\n"])
    parts = []
    for _ in range(draw(st.integers(0, 3))):
        name = breaker.choose("name", b'"files"', [b"files", b'"file"', b'"fil\\"es"', b"", b'"'])
        file = breaker.choose("file", b'"a.jpg"', _FILENAMES)
        lines = [b"Content-Disposition: form-data; name=%s; filename=%s" % (name, file)]
        lines.append(breaker.choose("headers", b"Content-Type: image/png", _MORE_HEADERS))
        body = breaker.choose("body", small(), pictures | _BYTES | st.just(b"\r\n--x\r\n"))
        parts.append(newline.join([*lines, b"", body]))
    parts *= breaker.choose("count", 1, [21, 64, 65])
    between = breaker.choose("between", b"\r\n", [b"\n", b" \r\n", b"--\r\n", b"y\r\n"])
    text = b"".join(b"\r\n--" + boundary + between + part for part in parts)
    end = breaker.choose("end", b"--\r\n", [b"--", b"", b"--epilogue", b"--\r\n--x\r\n\r\n", b"-"])
    text = text[2:4_000_000] + b"\r\n--" + boundary + end
    text = breaker.choose("whole", text, cut(text))
    odd = [b'boundary="%s"', b"boundary=%s; boundary=y", b"boundary=", b'boundary="', b"x=%s"]
    told = breaker.choose("quoted", b"boundary=%s", odd)
    told = told % boundary if b"%s" in told else told
    headers, text = draw(packed(text))
    return [*headers, (b"Content-Type", b"multipart/form-data; " + told)], text


@st.composite
def _text(draw: st.DrawFn, value: Any, *lists: bytes) -> bytes:
    """JSON broken as text: cut, deep, in another encoding, a list or object in it very long.

    lists: what stands before a list in it
    """
    text, many = dumped(value), draw(HOW_MANY)
    items = [b"1,", b"[],", b"{},", b'"",', b"[[[]]],", b'{"data":""},', b"null,", b'{"name":1},']
    long = draw(st.sampled_from(items)) * many
    before = draw(st.sampled_from(lists))
    fields = b"".join(b'"%d":[],' % number for number in range(many))
    if draw(st.integers(0, 9)) == 0:
        return draw(cut(text))
    return draw(st.sampled_from([
        text.replace(before + b"[", before + b"[" + long), b"[" * many, b'{"a":' * many,
        text.replace(before + b"[", before + b"[" * many), b"9" * 5000, text + text,
        text.replace(b"{", b'{"x": [' + long + b"0],", 1), text.replace(b"{", b"{" + fields, 1),
        text.replace(b'"parameters": {', b'"parameters": {' + fields), b"\xef\xbb\xbf" + text,
        text.decode().encode("utf-16"), text.replace(b'": ', b'": \xff', 1), b"",
    ]))  # fmt: skip


def dumped(value: Any) -> bytes:
    """JSON, with NaN and lone surrogates where they are drawn."""
    return json.dumps(value).encode()


_NO_BASE64 = ["", "=", "A", "A===", "é", "AAAA\n", "_-_-", "\0"]


@st.composite
def v1_json(draw: st.DrawFn) -> tuple[Headers, bytes]:
    """Images in JSON."""
    breaker = Breaker(draw, "data", "name", "fields", "images", "text", "count")
    good, images = base64.b64encode(small()).decode(), []
    for _ in range(draw(st.integers(0, 3))):
        image: dict[str, Any] = {
            "data": breaker.choose("data", good, VALUES | st.sampled_from(_NO_BASE64))
        }
        image["name"] = breaker.choose("name", "a.png", VALUES)
        images.append(image | breaker.choose("fields", {}, st.dictionaries(_NAMES, VALUES)))
    images *= breaker.choose("count", 1, [21, 65, 500])
    value = {"images": breaker.choose("images", images, VALUES)}
    text = breaker.choose("text", dumped(value), _text(value, b'"images": '))
    headers, text = draw(packed(text))
    return [*headers, (b"Content-Type", b"application/json")], text


_SIDES = st.sampled_from([0, 1, 2, 3, 8, 31, 1000, 2**31, 2**31 - 1, -1, 1.5, "1", None])
_PARAMETERS = st.dictionaries(
    st.sampled_from(["classification", "binary_data", "timeout", "binary_data_output",
                     "shared_memory_region", "binary_data_size"]),
    st.integers(0, 2000) | VALUES, max_size=3,
)  # fmt: skip


@st.composite
def _tensor(draw: st.DrawFn, breaker: Breaker, channels: int) -> tuple[dict[str, Any], bytes]:
    """An input, and the bytes that follow the JSON for it."""
    h, w = draw(st.sampled_from([(8, 9), (33, 32), (1, 1), (40, 3)]))
    files = [breaker.choose("file", small(), pictures | _BYTES)] * draw(st.integers(1, 3))
    told: dict[str, Any]
    if draw(st.booleans()):
        lengths = [breaker.choose("length", len(f), [0, 1, 2**31, 2**32 - 1]) for f in files]
        raw = b"".join(struct.pack("<I", n) + f for n, f in zip(lengths, files, strict=True))
        data: list[Any] = [base64.b64encode(file).decode() for file in files]
        told = {"name": "image", "datatype": "BYTES", "shape": [len(files)]}
    else:
        raw, data = bytes(h * w * channels), [0] * h * w * channels
        told = {"name": "pixels", "datatype": "UINT8", "shape": [1, h, w, channels]}
    raw = breaker.choose("raw", raw, cut(raw))
    told["name"] = breaker.choose("input", told["name"], ["image", "pixels", "x", ""])
    told["datatype"] = breaker.choose("datatype", told["datatype"], ["BYTES", "UINT8", "FP32", ""])
    told["shape"] = breaker.choose("shape", told["shape"], st.lists(_SIDES, max_size=6) | VALUES)
    both = breaker.at("both")
    if draw(st.booleans()):
        told["data"] = breaker.choose("data", data, st.lists(VALUES, max_size=3) | VALUES)
        raw = raw if both else b""
    if "data" not in told or both:
        told["parameters"] = {"binary_data_size": breaker.choose("size", len(raw), VALUES)}
        told["parameters"] |= breaker.choose("parameters", {}, _PARAMETERS)
    return told, raw


@st.composite
def tensors(draw: st.DrawFn, channels: int) -> tuple[Headers, bytes]:
    """Open Inference Protocol: JSON, bytes behind it, and the header that says where they part."""
    breaker = Breaker(
        draw, "file", "length", "raw", "input", "datatype", "shape", "both", "data", "size",
        "parameters",        "inputs", "asked", "output", "id", "text", "header", "told",
    )  # fmt: skip
    tensor = _tensor(breaker, channels)
    inputs = [draw(tensor) for _ in range(breaker.choose("inputs", 1, [0, 2, 3]))]
    names = draw(st.sets(st.sampled_from(["probabilities", "logits", "embedding"])))
    outputs: Any = [
        {"name": breaker.choose("output", name, _NAMES), "parameters": draw(
            st.sampled_from([{}, {"binary_data": True}, {"binary_data": False}]))}
        | breaker.choose("told", {}, st.dictionaries(_NAMES, VALUES | _PARAMETERS))
        for name in names
    ]  # fmt: skip
    if "embedding" not in names and outputs and draw(st.booleans()):
        outputs[0]["parameters"] = {"classification": 3}
    asked = {
        "id": breaker.choose("id", "mine", VALUES), "inputs": [told for told, _ in inputs],
        "parameters": breaker.choose("asked", {}, _PARAMETERS), "outputs": outputs,
    }  # fmt: skip
    json_ = breaker.choose(
        "text",
        dumped(asked),
        _text(asked, b'"inputs": ', b'"outputs": ', b'"shape": ', b'"data": '),
    )
    length = breaker.choose(
        "header", b"%d" % len(json_), [b"0", b"-1", b"x", b"1", b"9" * 30, b"\xb2", b""]
    )
    headers, body = draw(packed(json_ + b"".join(raw for _, raw in inputs)))
    return [*headers, (b"Inference-Header-Content-Length", length)], body
