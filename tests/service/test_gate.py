"""Answers that no real request provokes, and paths as proxies send them."""

import asyncio
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.api.errors import draw
from service.app import create_app
from service.errors import AnypoolError, NotReady, Unauthorized
from service.settings import Settings


def get(app: FastAPI, path: str, root_path: str = "") -> httpx.Response:
    async def scenario() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get(path)

    return asyncio.run(scenario())


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    """An application that is not ready, as nothing has loaded it."""
    made = create_app(Settings(artifacts=tmp_path))

    @made.get("/boom")
    async def boom() -> None:
        raise ZeroDivisionError("secret")

    return made


@pytest.mark.parametrize(("path", "status"), [("/boom", 500), ("/v1/models", 503)])
def test_errors_of_our_own_protect_browsers_too(app: FastAPI, path: str, status: int) -> None:
    answer = get(app, path)
    assert answer.status_code == status
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("prefix", ["", "/behind/a/proxy"])
def test_closed_is_closed_under_a_prefix_too(tmp_path: Path, prefix: str) -> None:
    app = create_app(Settings(artifacts=tmp_path, metrics_access="closed"))
    assert get(app, f"{prefix}/metrics", prefix).status_code == 403
    assert get(app, f"{prefix}/v2/repository/models/m/load", prefix).status_code == 403
    assert get(app, f"{prefix}/healthz", prefix).status_code == 200


@pytest.mark.parametrize(
    ("error", "header"),
    [
        (NotReady("wait", 7), ("retry-after", "7")),
        (Unauthorized("who"), ("www-authenticate", "Bearer")),
    ],
)
def test_an_error_is_drawn_as_its_protocol_wants_it(
    error: AnypoolError, header: tuple[str, str]
) -> None:
    ours, triton = draw("/v1/models", error), draw("/v2/models", error)
    assert bytes(triton.body) == b'{"error":"%s"}' % error.detail.encode()
    assert b'"type":"/problems/' in bytes(ours.body)
    for answer in (ours, triton):
        assert answer.status_code == error.status
        assert answer.headers[header[0]] == header[1]
