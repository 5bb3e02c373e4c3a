"""Behind a proxy that serves this under a path of its own and says who the client is."""

from pathlib import Path

import httpx
import pytest

from tests.conftest import anypool, photo
from tests.e2e.server import Server


def test_under_a_path_all_addresses_fit(store: Path) -> None:
    with Server(store, "--root-path", "/vision") as server:  # the proxy takes /vision away
        with httpx.Client(base_url=server.url, timeout=60) as client:
            assert "'/vision/openapi.json'" in client.get("/docs").text
            document = client.get("/openapi.json").json()
            assert document["servers"] == [{"url": "/vision"}]
            answer = client.post(
                "/v1/classify", content=photo("cup").data, headers={"X-Request-Id": "moved"}
            )
            assert answer.status_code == 200
            assert client.get("/v1/nothing").status_code == 404
        server.wait_for_log("moved")
        assert "POST /v1/classify 200 request_id=moved route=/v1/classify" in server.log
        assert "/readyz" not in server.log


@pytest.mark.parametrize(
    ("options", "client"),
    [
        ([], "127.0.0.1"),
        (["--forwarded-allow-ips", "10.0.0.1,10.1.0.0/16"], "127.0.0.1"),
        (["--forwarded-allow-ips", "10.0.0.1,127.0.0.0/8"], "203.0.113.9"),
        (["--forwarded-allow-ips", "*"], "203.0.113.9"),
    ],
)
def test_only_a_trusted_proxy_is_believed(store: Path, options: list[str], client: str) -> None:
    with Server(store, *options) as server:
        forged = {"X-Forwarded-For": "203.0.113.9", "X-Request-Id": "forwarded"}
        httpx.get(f"{server.url}/v1/models", headers=forged)
        server.wait_for_log("forwarded")
        (line,) = [line for line in server.lines if "forwarded" in line]
        assert f"client={client}" in line


@pytest.mark.parametrize("path", ["vision", "/vision/", "/a b", "http://x/vision"])
def test_a_path_that_is_none_is_refused(store: Path, path: str) -> None:
    done = anypool("serve", "--artifacts", store, "--root-path", path)
    assert done.returncode == 2
    assert "--root-path" in done.stderr
