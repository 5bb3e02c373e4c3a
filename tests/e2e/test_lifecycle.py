"""Starting, draining, dying and coming back, with real processes and signals."""

import os
import shutil
import signal
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.conftest import anypool, photo
from tests.e2e.server import Server


def test_a_request_on_its_way_when_the_server_stops_is_answered(store: Path) -> None:
    with Server(store) as server:
        where = urlsplit(server.url)
        assert where.hostname is not None
        with socket.create_connection((where.hostname, where.port or 80), timeout=20) as late:
            server.terminate()
            server.wait_for_log("Shutting down")
            late.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            answer = b"".join(iter(lambda: late.recv(65_536), b""))
        assert server.process.wait(40) == 0
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"/draining" in answer


def test_new_requests_are_refused_while_draining(store: Path) -> None:
    files = [("files", (f"{i}.jpg", photo("bee").data)) for i in range(10)]
    accepted: list[httpx.Response] = []
    with Server(store) as server, httpx.Client(base_url=server.url) as kept:
        url = f"{server.url}/v1/classify?resize=native"
        long = threading.Thread(
            target=lambda: accepted.append(httpx.post(url, files=files, timeout=60))
        )
        long.start()
        while "anypool_admitted_pixels 0.0" in kept.get("/metrics").text:
            time.sleep(0.02)
        server.terminate()
        while (answer := kept.get("/readyz")).status_code == 200:
            time.sleep(0.02)
        refused = httpx.post(f"{server.url}/v1/classify", content=photo("cup").data)
        long.join(60)
        assert server.process.wait(40) == 0

    assert answer.json()["status"] == "draining"
    assert refused.status_code == 503
    assert refused.json()["type"].endswith("/draining")
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["connection"] == "close"
    results = accepted[0].json()["results"]
    assert len(results) == 10
    assert all(result["predictions"] == results[0]["predictions"] for result in results)


def test_a_worker_that_dies_before_it_answers_its_supervisor_is_replaced_too(store: Path) -> None:
    with Server(store, "--model", "seed_cnn") as server:
        (before,) = server.workers()
        os.kill(before, signal.SIGSTOP)
        time.sleep(1.5)  # by now it has been asked: twice a second
        os.kill(before, signal.SIGKILL)
        give_up = time.monotonic() + 15  # a worker that lives and hangs has 30 seconds
        while server.workers() in ([], [before]):
            assert time.monotonic() < give_up
            time.sleep(0.05)
        server.wait_until_ready()


def test_a_worker_does_not_outlive_its_supervisor(store: Path) -> None:
    with Server(store) as server:
        (worker,) = server.workers()
        server.process.kill()
        server.process.wait(10)
        give_up = time.monotonic() + 20
        while Path(f"/proc/{worker}").exists() and time.monotonic() < give_up:
            time.sleep(0.1)
        assert not Path(f"/proc/{worker}").exists()


def test_a_replacement_that_cannot_load_its_model_says_so(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store / "seed_cnn", tmp_path / "seed_cnn")
    with Server(tmp_path) as server:
        (worker,) = server.workers()
        (tmp_path / "seed_cnn" / "1" / "model.onnx").write_bytes(b"")
        os.kill(worker, signal.SIGKILL)
        server.wait_for_log(f"worker {worker} died")
        answer = httpx.get(f"{server.url}/readyz", timeout=30)
    assert answer.status_code == 503
    assert answer.json()["status"] == "not-ready"
    assert "no model could be loaded" in answer.json()["detail"]


def test_serving_an_empty_store_says_how_to_fill_it(tmp_path: Path) -> None:
    done = anypool("serve", "--artifacts", tmp_path)
    assert done.returncode == 1
    assert "anypool export efficientnet_lite0" in done.stderr


def test_a_taken_port_is_named(store: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = anypool("serve", "--artifacts", store, "--port", str(port))
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "--port" in done.stderr


def test_wrong_settings_are_named_and_end_with_2(store: Path) -> None:
    done = anypool("serve", "--artifacts", store, "--max-images", "0")
    assert done.returncode == 2
    assert "--max-images" in done.stderr


def test_health_asks_a_running_service(store: Path) -> None:
    with Server(store) as server:
        port = server.url.rsplit(":", 1)[1]
        assert anypool("health", "--port", port).returncode == 0
    assert anypool("health", "--port", port).returncode == 1
