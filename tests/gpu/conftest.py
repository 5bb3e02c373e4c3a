"""A GPU, or a reason why not; and what is written when all is done.

`make test-gpu` sets NEEDS_GPU: then it is an error if no test has passed, all being skipped.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import cuda
from service.engine import Engine
from service.sessions import Gpu
from tests.gpu.report import Report

FIRST = Gpu(devices=(0,))


@pytest.fixture(scope="session")
def report() -> Iterator[Report]:
    """Figures for build/gpu-report.md; written also when tests fail."""
    kept = Report()
    yield kept
    kept.write()


def _nothing_ran(config: pytest.Config) -> bool:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return "NEEDS_GPU" in os.environ and not (reporter and reporter.stats.get("passed"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Skipped is not passed, where a GPU was asked for."""
    if _nothing_ran(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say so in one line."""
    if _nothing_ran(config):
        terminalreporter.write_line(f"no test has passed on a GPU: {cuda.problem() or 'see above'}")


@pytest.fixture(scope="session")
def usable() -> None:
    """Skips where no GPU can be used, before anything is exported for it."""
    if (problem := cuda.problem()) is not None:
        pytest.skip(f"no GPU: {problem}")


@pytest.fixture(scope="session")
def folder(usable: None, store: Path) -> Path:
    """efficientnet_lite0, where there is a GPU; `usable` comes first, since it skips."""
    return store / "efficientnet_lite0" / "1"


@pytest.fixture(scope="session")
def gpu(folder: Path) -> Engine:
    """On the first GPU, warm."""
    engine = Engine(folder, "cuda", batching="mixed", gpu=FIRST)
    engine.warm_up()
    return engine


@pytest.fixture(scope="session")
def cpu(folder: Path) -> Engine:
    return Engine(folder, "cpu")
