"""One server for all tests that do not harm it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.server import Server


@pytest.fixture(scope="session")
def server(store: Path) -> Iterator[Server]:
    """A server with default settings."""
    with Server(store) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """An HTTP client of that server."""
    with httpx.Client(base_url=server.url, timeout=60) as connected:
        yield connected
