"""A GPU, or a reason why not; and what is written when all is done."""

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


@pytest.fixture(scope="session")
def folder(store: Path) -> Path:
    """efficientnet_lite0, where there is a GPU."""
    if (problem := cuda.problem()) is not None:
        pytest.skip(f"no GPU: {problem}")
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
