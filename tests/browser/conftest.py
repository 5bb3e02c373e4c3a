"""A real Chromium and a real server: the playground as a visitor meets it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.visit import Visit
from tests.conftest import anypool
from tests.e2e.server import Server


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's own Chromium, without a window.

    For this package alone: Playwright keeps an event loop running, and other tests have their own.
    """
    program = shutil.which("chromium")
    if program is None:
        missing = "no chromium: apt-get install chromium"
        if "CI" in os.environ:
            pytest.fail(missing)
        pytest.skip(missing)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=sandbox)
        yield started
        started.close()


@pytest.fixture(scope="package")
def poolings(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one trunk and two poolings, and a model of other classes."""
    root = tmp_path_factory.mktemp("poolings")
    for name in ("efficientnet_lite0", "seed_cnn"):
        shutil.copytree(store / name, root / name)
    done = anypool("export", "efficientnet_lite0", "--pool", "gem", "--out", root)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="package")
def playground(poolings: Path) -> Iterator[Server]:
    """A server with those models."""
    with Server(poolings) as running:
        yield running


@pytest.fixture
def visit(browser: Browser, playground: Server) -> Iterator[Visit]:
    """A visitor on the page; at the end nothing has gone wrong unseen."""
    with Visit(browser, playground.url) as begun:
        yield begun
