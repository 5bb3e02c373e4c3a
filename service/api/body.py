"""Request bodies: read under a limit and a time, then taken apart in memory.

Starlette's own form parser writes parts over 1 MB to disk; a server on a read-only file system,
or one that never wants to see a client's photos on disk, cannot have that.
"""

import asyncio
import base64
import binascii
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

from fastapi import Request
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.api.findings import told
from service.classify import Picture
from service.errors import BadRequest, BodyTooLarge, RequestTimeout, TooManyImages
from service.settings import MEGA
from service.threads import parsed

PART = "files"
_ENCODINGS = {"identity": None, "gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's wbits
_PIECE, _MOST_MEMBERS = 4 * MEGA, 100  # bytes of an inflated body at a time; members of a gzip file


class EncodedImage(BaseModel):
    """One image of a JSON request."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = None
    data: str = Field(description="base64", json_schema_extra={"format": "byte"})


class ImagesRequest(BaseModel):
    """A JSON request."""

    model_config = ConfigDict(extra="forbid")

    images: Annotated[list[EncodedImage], FailFast()] = Field(json_schema_extra={"minItems": 1})


@dataclass(frozen=True, slots=True)
class Body:
    """The pictures of a request; `single` if the body itself was the image."""

    pictures: Sequence[Picture]
    single: bool


async def read(request: Request, max_bytes: int, timeout_s: float, max_images: int) -> Body:
    """Read and parse a request's body, by its content type.

    Raises BodyTooLarge (at once if Content-Length says so), RequestTimeout, BadRequest,
    TooManyImages; starlette's ClientDisconnect when the client goes away.
    """
    data = await read_bytes(request, max_bytes, timeout_s)
    content_type, options = parse_options_header(request.headers.get("content-type"))
    if content_type == b"multipart/form-data":
        boundary = options.get(b"boundary")
        if not boundary:
            raise BadRequest("multipart/form-data without a boundary")
        pictures = await parsed(partial(_multipart, data, boundary, max_images), len(data))
    elif content_type == b"application/json":
        pictures = await parsed(partial(_json, data, max_images), len(data))
    else:
        if not data:
            raise BadRequest("the body is empty: send an image, multipart/form-data or JSON")
        return Body([Picture(None, data)], single=True)
    if not pictures:
        raise BadRequest("the request has no image")
    return Body(pictures, single=False)


async def read_bytes(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """A request's body as it was before any Content-Encoding (gzip, deflate).

    Raises BodyTooLarge, also when only the inflated body is; RequestTimeout; BadRequest; Overloaded
    when others' bodies leave no room for the inflated one.
    """
    encoding = ",".join(request.headers.getlist("content-encoding")).strip().lower() or "identity"
    if encoding not in _ENCODINGS:
        raise BadRequest(f"Content-Encoding: {encoding} is not supported; gzip and deflate are")
    try:
        async with asyncio.timeout(timeout_s):
            data = await _read(request, max_bytes)
    except TimeoutError as exc:
        raise RequestTimeout(f"the body did not arrive within {timeout_s:g} s") from exc
    wbits = _ENCODINGS[encoding]
    if wbits is None:
        return data
    pieces, size = _inflated(data, wbits), 0
    inflated = []
    try:
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            size += len(piece)
            if size > max_bytes:
                raise _too_large(max_bytes)
            request.state.hold(len(piece))
            inflated.append(piece)
    except zlib.error as exc:
        raise BadRequest(f"the body is not {encoding}, or not whole: {exc}") from exc
    return b"".join(inflated)


def _inflated(data: bytes, wbits: int) -> Iterator[bytes]:
    """In pieces, so that each can be refused; raises zlib.error. Gzip may have several members."""
    for _ in range(_MOST_MEMBERS):
        inflater = zlib.decompressobj(wbits)
        while not inflater.eof:
            piece = inflater.decompress(data, _PIECE)
            data = inflater.unconsumed_tail
            if not piece and not data and not inflater.eof:
                raise zlib.error("it ends too early")
            yield piece
        data = inflater.unused_data
        if not data:
            return
    raise zlib.error("it has too many members")


async def _read(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body may have {max_bytes / MEGA:g} MB. Send fewer or smaller images at once"
    )


def _json(data: bytes, max_images: int) -> list[Picture]:
    most = 1000 + 10 * max_images  # each takes two, and commas in its name
    check_values(data, most, most)
    try:
        request = ImagesRequest.model_validate_json(data)
    except ValidationError as exc:
        first = told(exc.errors(include_url=False, include_input=False)[:1])
        raise BadRequest(
            f'JSON should be {{"images": [{{"name": "a.jpg", "data": "<base64>"}}]}}; {first}'
        ) from exc
    check_count(len(request.images), max_images)
    return [
        Picture(image.name, from_base64(image.data, f"images.{index}.data"))
        for index, image in enumerate(request.images)
    ]


def check_values(data: bytes, values: int, lists: int) -> None:
    """Raise BodyTooLarge when JSON has more than so many values, or lists and objects.

    While it is parsed, a number of two bytes takes 24 and an empty list 100, and each value that is
    wrong a kilobyte.
    """
    if data.count(b",") > values or data.count(b"[") + data.count(b"{") > lists:
        raise BodyTooLarge(
            f"JSON may have {values} values here, in {lists} lists and objects. Send less at once, "
            "or as multipart or binary data"
        )


def from_base64(data: str, where: str) -> bytes:
    """The bytes that `data` stands for; raises BadRequest, which names `where` it stood."""
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise BadRequest(f"{where} is not base64: {exc}") from exc


def check_count(count: int, max_images: int) -> None:
    """Raise TooManyImages when a request has more than it may."""
    if count > max_images:
        raise TooManyImages(f"a request may have {max_images} images. Send several requests")


@dataclass(slots=True)
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    header: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    start: int = 0
    data: bytearray = field(default_factory=bytearray)


def _multipart(data: bytes, boundary: bytes, max_images: int) -> list[Picture]:
    parts: list[_Part] = []
    ended = False

    def begin() -> None:
        check_count(len(parts) + 1, max_images)
        parts.append(_Part())

    def header_field(chunk: bytes, start: int, end: int) -> None:
        parts[-1].header += chunk[start:end]

    def header_value(chunk: bytes, start: int, end: int) -> None:
        parts[-1].value += chunk[start:end]

    def header_end() -> None:
        part = parts[-1]
        part.headers[bytes(part.header).lower()] = bytes(part.value)
        part.header, part.value = bytearray(), bytearray()

    def part_data(chunk: bytes, start: int, end: int) -> None:
        parts[-1].data += memoryview(chunk)[start:end]

    def end() -> None:
        nonlocal ended
        ended = True

    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_header_field": header_field,
                "on_header_value": header_value,
                "on_header_end": header_end,
                "on_part_data": part_data,
                "on_end": end,
            },
        )
        parser.write(data)
        parser.finalize()
    except FormParserError as exc:
        raise BadRequest(f"malformed multipart body: {exc}") from exc
    if not ended:
        raise BadRequest("malformed multipart body: it ends before its last boundary")
    return [_picture(part) for part in parts]


def _picture(part: _Part) -> Picture:
    _, options = parse_options_header(part.headers.get(b"content-disposition", b""))
    name = options.get(b"name", b"").decode("utf-8", "replace")
    if name != PART:
        raise BadRequest(f"a part is named {name!r}; every part must be named {PART!r}")
    filename = options.get(b"filename")
    return Picture(
        None if filename is None else filename.decode("utf-8", "replace"), bytes(part.data)
    )
