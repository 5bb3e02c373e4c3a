"""A worker process whose engine hangs is replaced, and nobody waits for ever."""

import sys
import time
from pathlib import Path

import httpx
import pytest

from service.settings import PREFIX
from tests.conftest import photo
from tests.e2e.faulty import HANGS, LOSES
from tests.e2e.server import Server
from tests.e2e.test_statuses import check_alive, check_problem, png

ROOT = Path(__file__).parents[2]
POISON = png(HANGS, HANGS)


class FaultyServer(Server):
    """tests/e2e/faulty.py as a process; settings by name."""

    def __init__(self, store: Path, **settings: object) -> None:
        super().__init__(store)
        told = {"artifacts": store, "model": "efficientnet_lite0", **settings}
        variables = [f"{PREFIX}{name.upper()}={value}" for name, value in told.items()]
        python = [sys.executable, "-m", "tests.e2e.faulty"]
        self._command = ["env", f"--chdir={ROOT}", *variables, *python]


@pytest.mark.parametrize("cores", [1, 2])
def test_a_worker_that_hangs_is_replaced_and_the_next_answers(store: Path, cores: int) -> None:
    with FaultyServer(store, cores=cores, run_limit_s=1.5) as server:
        (first,) = server.workers()

        url = f"{server.url}/v1/classify?resize=native"
        late = httpx.post(url, content=POISON, timeout=60)
        check_problem(late, 504, "deadline-exceeded", "1.5 s")

        not_ready = httpx.get(f"{server.url}/readyz")
        assert not_ready.status_code == 503
        assert not_ready.json()["status"] == "not-ready"
        assert int(not_ready.headers["retry-after"]) >= 1
        refused = httpx.post(f"{server.url}/v1/classify", content=photo("cup").data)
        check_problem(refused, 503, "not-ready", "hangs")
        assert "anypool_workers_lost 1.0" in httpx.get(f"{server.url}/metrics").text

        server.wait_for_log("workers hang; replacing the process")
        server.wait_for_log(f"worker {first} died")
        server.wait_until_ready()
        (second,) = server.workers()
        assert second != first
        check_alive(server.url)
        assert "anypool_workers_lost 0.0" in httpx.get(f"{server.url}/metrics").text


def test_requests_that_wait_behind_a_hanging_run_are_all_answered(
    store: Path,
) -> None:
    with FaultyServer(store, cores=1, run_limit_s=1.5) as server:
        sizes = (HANGS, 128, 192, 256, 320, 384)  # no two share a run
        files = [("files", (f"{n}.png", png(n, n))) for n in sizes]
        begun = time.monotonic()
        answer = httpx.post(f"{server.url}/v1/classify?resize=native", files=files, timeout=60)
        assert time.monotonic() - begun < 20  # and not after the 30 seconds of their deadline
        assert answer.status_code == 200
        statuses = [result["error"]["status"] for result in answer.json()["results"]]
        assert sorted(statuses) == [503, 503, 503, 503, 503, 504]
        server.wait_for_log("workers hang; replacing the process")
        server.wait_for_log("died")
        server.wait_until_ready()
        check_alive(server.url)


def test_a_client_that_was_refused_early_can_go_on_with_its_connections(store: Path) -> None:
    with (
        Server(store, "--max-body-mb", "0.1") as server,
        httpx.Client(base_url=server.url, timeout=20) as client,
    ):
        refused = client.post("/v1/classify", content=photo("bee").data)
        check_problem(refused, 413, "body-too-large")
        assert client.get("/readyz").status_code == 200


def test_a_worker_whose_gpu_is_lost_is_replaced_and_the_next_answers(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPU", "1")
    with FaultyServer(store) as server:
        (first,) = server.workers()

        url = f"{server.url}/v1/classify?resize=native"
        failed = httpx.post(url, content=png(LOSES, LOSES), timeout=60)
        check_problem(failed, 503, "not-ready", "the GPU (cuda:0) is lost")
        assert int(failed.headers["retry-after"]) >= 1

        not_ready = httpx.get(f"{server.url}/readyz")
        assert not_ready.status_code == 503
        assert "the GPU (cuda:0) is lost" in not_ready.json()["detail"]
        assert "anypool_devices_lost 1.0" in httpx.get(f"{server.url}/metrics").text

        server.wait_for_log("cuda:0 is lost: CUDA failure 700: an illegal memory access")
        server.wait_for_log("cuda:0 lost; replacing the process")
        server.wait_for_log(f"worker {first} died")
        server.wait_until_ready()
        good = httpx.post(f"{server.url}/v1/classify", content=photo("cup").data, timeout=60)
        assert good.status_code == 200
