"""One server for all tests that do not harm it, and the same service on Ray."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.e2e.server import Serve, Served, Server

if TYPE_CHECKING:
    from tests.e2e.nodes import Nodes


@pytest.fixture(scope="session")
def server(store: Path) -> Iterator[Server]:
    """A server with default settings."""
    with Server(store) as running:
        yield running


@pytest.fixture(scope="package")
def nodes() -> "Iterator[Nodes]":
    """A Ray of two nodes."""
    from tests.e2e.nodes import Nodes

    with Nodes() as running:
        yield running


@pytest.fixture(scope="package", params=["process", pytest.param("ray", marks=pytest.mark.slow)])
def serve(request: pytest.FixtureRequest) -> Serve:
    """Ways to serve: for what a client is to find the same with each."""
    if request.param == "process":
        return Server
    on_ray: Nodes = request.getfixturevalue("nodes")
    return on_ray.serve


@pytest.fixture(scope="package")
def served(serve: Serve, store: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    """A service with default settings."""
    if serve is Server:
        yield request.getfixturevalue("server")
        return
    with serve(store) as running:
        yield running


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    """An HTTP client of that service."""
    with httpx.Client(base_url=served.url, timeout=60) as connected:
        yield connected
