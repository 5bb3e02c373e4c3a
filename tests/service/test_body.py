"""Bodies are taken apart in memory, under limits."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from starlette.requests import Request
from starlette.types import Message

from service.api.body import Body, ImagesRequest, read
from service.errors import AnypoolError, BadRequest, BodyTooLarge, RequestTimeout

BOUNDARY = b"xyz"


def parse(content_type: str | None, *chunks: bytes, stall: bool = False, limit: int = 1000) -> Body:
    headers = [] if content_type is None else [(b"content-type", content_type.encode())]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}

    async def messages() -> AsyncIterator[Message]:
        for chunk in chunks:
            yield {"type": "http.request", "body": chunk, "more_body": True}
        if stall:
            await asyncio.sleep(60)
        yield {"type": "http.request", "body": b"", "more_body": False}

    async def scenario() -> Body:
        source = messages()

        async def receive() -> Message:
            return await anext(source)

        return await read(Request(scope, receive), limit, 0.2, max_images=3)

    return asyncio.run(scenario())


def form(*parts: tuple[str, bytes]) -> bytes:
    lines = b"".join(
        b"--%s\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (BOUNDARY, how.encode(), data)
        for how, data in parts
    )
    return lines + b"--%s--\r\n" % BOUNDARY


MULTIPART = "multipart/form-data; boundary=xyz"


def test_parts_keep_their_order_names_and_bytes() -> None:
    data = form(
        ('name="files"; filename="a b.jpg"', b"\r\n--xy\x00\xff"),
        ('name="files"', b""),
        ('name=files; filename="ü.png"', b"z"),
    )
    body = parse(MULTIPART, data)
    assert [(p.name, p.data) for p in body.pictures] == [
        ("a b.jpg", b"\r\n--xy\x00\xff"),
        (None, b""),
        ("ü.png", b"z"),
    ]
    assert not body.single


def test_a_body_of_another_type_is_one_picture() -> None:
    body = parse("image/jpeg", b"ab", b"cd")
    assert body.single
    assert [(p.name, p.data) for p in body.pictures] == [(None, b"abcd")]


def test_a_body_that_grows_beyond_the_limit_is_refused() -> None:
    with pytest.raises(BodyTooLarge, match=r"0\.001 MB"):
        parse(None, b"x" * 600, b"x" * 600)


@pytest.mark.parametrize("item", [b"1", b"[]", b"{}", b'{"data":""}'])
def test_json_of_many_values_is_refused_before_it_is_parsed(item: bytes) -> None:
    text = b'{"images":[' + b",".join([item] * 10_000) + b"]}"
    with pytest.raises(BodyTooLarge, match="1030 values"):
        parse("application/json", text, limit=1_000_000)


def test_of_json_only_the_first_error_is_looked_for() -> None:
    with pytest.raises(ValidationError) as raised:
        ImagesRequest.model_validate_json(b'{"images":[' + b",".join([b"1"] * 1000) + b"]}")
    assert raised.value.error_count() == 1


def test_a_body_that_stalls_is_given_up() -> None:
    with pytest.raises(RequestTimeout, match=r"0\.2 s"):
        parse(None, b"x", stall=True)


@pytest.mark.parametrize(
    "header", [b"a: b\r\n" * 2_000, b"a: " + b"b" * 100_000 + b"\r\n"], ids=["many", "long"]
)
def test_headers_of_a_part_are_limited(header: bytes) -> None:
    part = b"--xyz\r\n" + header + b'Content-Disposition: form-data; name="files"\r\n\r\n'
    with pytest.raises(BadRequest, match="Maximum header"):
        parse(MULTIPART, part + b"x\r\n--xyz--\r\n", limit=1_000_000)


@given(st.binary(max_size=300))
def test_any_bytes_as_multipart_or_json_are_read_or_refused(data: bytes) -> None:
    for kind in (MULTIPART, "application/json"):
        try:
            body = parse(kind, data)
        except AnypoolError as exc:
            assert isinstance(exc, BadRequest)
        else:
            assert body.pictures


@given(st.integers(0, 120), st.binary(min_size=1, max_size=4))
def test_a_mutated_form_is_read_or_refused(position: int, junk: bytes) -> None:
    data = form(('name="files"; filename="a"', b"data"), ('name="files"', b"more"))
    mutated = data[:position] + junk + data[position + len(junk) :]
    try:
        body = parse(MULTIPART, mutated)
    except AnypoolError as exc:
        assert exc.status in (400, 413)
    else:
        assert body.pictures
