"""The measuring code of the tests on a GPU, on a CPU: it runs, and could tell a difference."""

import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from service import cuda
from service.engine import Engine
from service.trials import table
from tests.gpu.measuring import (
    alternating,
    company,
    first_request,
    kept_mb,
    memory_mb,
    memory_over_shapes,
    parity,
    throughput,
)
from tests.gpu.report import Report

ROOT = Path(__file__).parents[2]
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


def kept_in_this_process(folder: Path) -> tuple[float, float]:
    engine = Engine(folder, "cpu", batching="mixed")
    return kept_mb(engine, usual=1000, large=1400)  # 1.0 and 2.0 of 1.1 megapixels


def test_memory_that_is_kept_and_given_back(store: Path) -> None:
    """In a process of its own: what other tests gave back would be counted here."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        usual, oversize = fresh.submit(kept_in_this_process, store / "seed_cnn" / "1").result()
    assert usual > 20
    assert oversize < usual / 2


def test_throughput(store: Path) -> None:
    tables = [(), table(SIZES, 2, 4096)]
    found = throughput(store / "seed_cnn" / "1", "cpu", SIZES, tables, seconds=0.05, rounds=1)
    assert list(found) == tables
    assert min(found.values()) > 0


@pytest.mark.skipif(cuda.problem() is None, reason="there is a GPU")
def test_without_a_gpu_all_is_skipped_and_where_one_was_asked_for_that_is_an_error() -> None:
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "tests/gpu/test_gpu.py"]
    without = {name: value for name, value in os.environ.items() if name != "NEEDS_GPU"}
    for environment, code in ((without, 0), (without | {"NEEDS_GPU": "1"}, 1)):
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout
        assert " skipped" in done.stdout.splitlines()[-1]
        assert "SKIPPED" in done.stdout
        assert f"no GPU: {cuda.problem()}" in done.stdout
        assert ("no test has passed on a GPU: " in done.stdout) == bool(code)


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
