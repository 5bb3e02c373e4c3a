"""A model fails, or an engine does: others, and others of its own, are served."""

import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.faults.load import Load, photos
from tests.e2e.faults.table import Fault, record, told
from tests.e2e.faulty import HANGS, RAISES
from tests.e2e.server import Server
from tests.e2e.test_hanging import FaultyServer
from tests.e2e.test_statuses import check_problem, png
from tests.versions import make_fragile

pytestmark = pytest.mark.slow


def test_a_model_that_fails_while_another_serves(store: Path, tmp_path: Path) -> None:
    make_fragile(store, tmp_path)
    shutil.copytree(store / "efficientnet_lite0", tmp_path / "efficientnet_lite0")
    seen: Counter[str] = Counter()
    with (
        Server(tmp_path, "--batching", "mixed") as server,
        Load(server.url, photos(server.url)) as load,
        httpx.Client(timeout=60) as client,
    ):
        load.strike()
        url = f"{server.url}/v1/models/fragile/classify?resize=native"
        for _ in range(30):
            check_problem(client.post(url, content=png(500, 50)), 500, "inference-failed")
            seen["500"] += 1
            seen[str(client.post(url, content=png(50, 50)).status_code)] += 1
        load.wait_for_right()
        record(Fault.MODEL_FAILS, load, told(seen))
    assert seen == {"500": 30, "200": 30}
    assert set(load.seen) == {"right"}


def test_a_run_that_raises(store: Path) -> None:
    with (
        FaultyServer(store, cores=1, batching="mixed") as server,  # so that images share runs
        Load(server.url, photos(server.url)) as load,
        httpx.Client(base_url=server.url, timeout=60) as client,
        ThreadPoolExecutor(4) as clients,
    ):
        load.strike()
        poison = png(RAISES, RAISES)
        sent = [
            clients.submit(client.post, "/v1/classify?resize=native", content=poison)
            for _ in range(200)
        ]
        for answer in sent:
            check_problem(answer.result(), 500, "inference-failed")
        load.wait_for_right()
        record(Fault.RUN_RAISES, load, f"{len(sent)} × 500")
    assert set(load.seen) == {"right"}
    assert "failed, now in halves" in server.log


def test_a_run_that_hangs(store: Path) -> None:
    with (
        FaultyServer(store, cores=2, run_limit_s=1.5) as server,
        Load(server.url, photos(server.url)) as load,
    ):
        before = server.workers()
        load.strike()
        url = f"{server.url}/v1/classify?resize=native"
        late = httpx.post(url, content=png(HANGS, HANGS), timeout=60)
        server.wait_for_log("died")
        load.wait_for_right()
        assert server.workers() != before
        record(Fault.RUN_HANGS, load, f"1 × {late.status_code}")
    check_problem(late, 504, "deadline-exceeded")
    assert set(load.seen) <= {"right", "503", "reset"}
    assert load.seen["reset"] <= 3
