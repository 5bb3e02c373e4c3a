"""The measuring code of the tests on a GPU, on a CPU: it runs, and could tell a difference."""

import json
from pathlib import Path

import pytest

from service.engine import Engine
from service.trials import table
from tests.gpu.measuring import (
    alternating,
    company,
    first_request,
    memory_mb,
    memory_over_shapes,
    parity,
    throughput,
)
from tests.gpu.report import Report

SIZES = [(5, 9), (16, 16), (30, 12)]


@pytest.fixture(scope="module")
def engine(store: Path) -> Engine:
    return Engine(store / "seed_cnn" / "1", "cpu", batching="mixed")


def test_differences(engine: Engine) -> None:
    assert parity(engine, engine, SIZES) == 0
    assert company(engine, SIZES) <= 1e-5


def test_times(engine: Engine, store: Path) -> None:
    assert all(ms > 0 for ms in alternating(engine, (8, 8), (12, 9), runs=3))
    assert all(ms > 0 for ms in first_request(store / "seed_cnn" / "1", "cpu", (8, 8)))


def test_memory(engine: Engine) -> None:
    assert memory_mb("cpu") > 10
    early, late = memory_over_shapes(engine, shapes=30, largest=40)
    assert late >= early / 2 > 0


def test_throughput(store: Path) -> None:
    tables = [(), table(SIZES, 2, 4096)]
    found = throughput(store / "seed_cnn" / "1", "cpu", SIZES, tables, seconds=0.05, rounds=1)
    assert list(found) == tables
    assert min(found.values()) > 0


def test_the_report(tmp_path: Path) -> None:
    report = Report()
    report.write(tmp_path)
    assert not list(tmp_path.iterdir())  # nothing to tell
    report.note("ms of a run", 1.23456)
    report.write(tmp_path)
    assert "| ms of a run | 1.235 |" in (tmp_path / "gpu-report.md").read_text()
    assert json.loads((tmp_path / "gpu-report.json").read_text())["figures"] == {
        "ms of a run": 1.235
    }
