"""What a real server writes for a request: whole, in both formats, and nothing of the client's."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest import photo
from tests.e2e.server import Server


@pytest.fixture(scope="module")
def talking(store: Path) -> Iterator[Server]:
    """A server that logs JSON."""
    with Server(store, "--log-format", "json") as running:
        yield running


def line_of(server: Server, request_id: str) -> dict[str, Any]:
    """The one line of that request."""
    server.wait_for_log(request_id)
    (line,) = [line for line in server.lines if request_id in line]
    found: dict[str, Any] = json.loads(line)
    return found


def test_the_line_of_a_request_tells_all_but_what_is_the_clients(talking: Server) -> None:
    files = [("files", (f"secret-{name}.webp", photo(name).data)) for name in ("panda", "cup")]
    answer = httpx.post(
        f"{talking.url}/v1/classify?size=64", files=files, headers={"X-Request-Id": "two-images"}
    )
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"] == "two-images"
    line = line_of(talking, "two-images")
    used = [result["used"] for result in answer.json()["results"]]
    expected = {
        "level": "info",
        "logger": "service.api.envelope",
        "message": "POST /v1/classify 200",
        "method": "POST",
        "route": "/v1/classify",
        "path": "/v1/classify",
        "status": 200,
        "model": "efficientnet_lite0",
        "version": "1",
        "images": 2,
        "pixels": sum(size["width"] * size["height"] for size in used),
        "bytes": int(answer.request.headers["content-length"]),
        "client": "127.0.0.1",
    }
    assert {name: line[name] for name in expected} == expected
    assert line["pid"] in talking.workers()
    assert 0 < line["infer_ms"] < line["total_ms"]
    assert 0 < line["decode_ms"] < line["total_ms"]
    assert 0 <= line["queue_ms"] < line["total_ms"]
    assert "secret" not in talking.log


def test_a_refused_request_has_a_line_too(talking: Server) -> None:
    httpx.post(
        f"{talking.url}/v1/models/nobody/classify", headers={"X-Request-Id": "no-such-model"}
    )
    line = line_of(talking, "no-such-model")
    assert (line["status"], line["route"]) == (404, "/v1/models/{name}/classify")
    assert "model" not in line
    assert "infer_ms" not in line


def test_every_line_is_json_and_none_is_forged(talking: Server) -> None:
    httpx.get(f"{talking.url}/%0A%7B%22level%22:%22forged%22%7D%0D%1B[2J")
    with socket.create_connection(
        (urlsplit(talking.url).hostname, urlsplit(talking.url).port or 80)
    ) as raw:
        raw.sendall(b"rubbish\r\n\r\n")  # of which uvicorn warns
        raw.recv(1000)
    talking.wait_for_log("Invalid HTTP request")
    talking.wait_for_log("forged")
    lines = [json.loads(line) for line in talking.lines]
    assert "uvicorn.error" in {line["logger"] for line in lines}
    assert "forged" not in {line["level"] for line in lines}


def test_a_line_of_the_console_format_reads_well(server: Server) -> None:
    httpx.post(
        f"{server.url}/v1/classify",
        content=photo("panda").data,
        headers={"X-Request-Id": "for-people"},
    )
    server.wait_for_log("for-people")
    (line,) = [line for line in server.lines if "for-people" in line]
    assert "POST /v1/classify 200 request_id=for-people" in line
    assert "model=efficientnet_lite0" in line
    assert "infer_ms=" in line
