"""Two worker processes behind one socket, seen from outside."""

import json
import os
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import httpx
import pytest

from service import workers
from tests.conftest import photo
from tests.e2e.faulty import HANGS
from tests.e2e.server import Server
from tests.e2e.test_hanging import FaultyServer
from tests.e2e.test_statuses import png

TWO = ["--cores", "2", "--workers", "2"]
BEE = photo("bee").data


@pytest.fixture(scope="module")
def pair(store: Path) -> Iterator[Server]:
    """A server of two workers, both ready."""
    with Server(store, *TWO) as running:
        wait_for_both(running)
        yield running


def wait_for_both(server: Server) -> None:
    """Return when both workers can classify."""
    give_up = time.monotonic() + 60
    while metric(server, "anypool_processes_ready") != 2:
        assert time.monotonic() < give_up, server.log
        time.sleep(0.05)


def metric(server: Server, name: str) -> float:
    """The sum of a metric over its labels."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if re.match(rf"{name}[ {{]", line))


class Clients:
    """Clients that classify a photo again and again, each time on a connection of its own."""

    def __init__(self, server: Server, n: int) -> None:
        self._url = f"{server.url}/v1/classify?top_k=1"
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._classify) for _ in range(n)]
        self.seen: Counter[str] = Counter()
        self.last: dict[str, float] = {}  # when each was seen last

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _classify(self) -> None:
        while not self._stop.is_set():
            try:
                answer = httpx.post(self._url, content=BEE, timeout=60)
            except httpx.TransportError:
                what = "reset"
            else:
                what = str(answer.status_code)
                if answer.status_code == 200:
                    first = answer.json()["results"][0]["predictions"][0]
                    what = f"{first['label']} {first['probability']:.6f}"
            self.seen[what] += 1
            self.last[what] = time.monotonic()


def test_both_workers_answer_and_answer_alike(pair: Server) -> None:
    with Clients(pair, 4) as clients:
        give_up = time.monotonic() + 60
        while len(answering(pair)) < 2 and time.monotonic() < give_up:
            time.sleep(0.05)
    assert answering(pair) == set(pair.workers())
    (only,) = clients.seen
    assert only.startswith("bee ")


def answering(server: Server) -> set[int]:
    """The process ids of those who have classified something, from the log."""
    found = re.findall(r"\[(\d+)\] .*POST /v1/classify", server.log)
    return {int(pid) for pid in found}


def test_the_metrics_are_those_of_both_whoever_is_asked(pair: Server) -> None:
    classified = metric(pair, "anypool_images_total")
    for _ in range(20):
        httpx.post(f"{pair.url}/v1/classify", content=BEE).raise_for_status()
    assert metric(pair, "anypool_images_total") == classified + 20
    with httpx.Client(base_url=pair.url) as one, httpx.Client(base_url=pair.url) as two:
        for _ in range(5):
            assert one.get("/metrics").text.count("anypool_model_info{") == 2
            assert two.get("/metrics").text.count("anypool_build_info{") == 1


def test_the_statistics_are_those_of_both(pair: Server) -> None:
    def answered() -> int:
        where = f"{pair.url}/v2/models/efficientnet_lite0/stats"
        (found,) = httpx.get(where).json()["model_stats"]
        return int(found["inference_stats"]["success"]["count"])

    images = metric(pair, "anypool_images_total")
    give_up = time.monotonic() + 20
    while answered() != images and time.monotonic() < give_up:
        time.sleep(0.1)
    assert answered() == images


def test_a_worker_that_dies_is_replaced_and_nobody_is_sent_to_one_that_is_not_ready(
    store: Path,
) -> None:
    with Server(store, *TWO) as server:
        wait_for_both(server)
        with Clients(server, 4) as clients:
            before = server.workers()
            while not clients.seen:
                time.sleep(0.01)
            counted = metric(server, "anypool_images_total")
            os.kill(before[0], signal.SIGKILL)
            died = time.monotonic()
            while set(server.workers()) <= set(before):
                time.sleep(0.05)
            wait_for_both(server)
        assert before[1] in server.workers()  # it never stopped
        resets = clients.seen.pop("reset", 0)
        assert resets <= 4  # what was in flight
        assert clients.last.get("reset", died) - died < 5
        (only,) = clients.seen  # and in particular no 503
        assert only.startswith("bee ")
        assert metric(server, "anypool_images_total") >= counted + sum(clients.seen.values()) - 8


def test_sighup_replaces_the_workers_one_by_one_and_loses_nothing(store: Path) -> None:
    with Server(store, *TWO) as server:
        wait_for_both(server)
        with Clients(server, 3) as clients:
            before = set(server.workers())
            server.process.send_signal(signal.SIGHUP)
            give_up = time.monotonic() + 90
            while before & set(server.workers()):
                assert time.monotonic() < give_up, server.log
                time.sleep(0.1)
            wait_for_both(server)
        (only,) = clients.seen
        assert only.startswith("bee ")


@pytest.mark.slow
def test_sighup_reads_the_keys_anew_with_one_worker_too(store: Path, tmp_path: Path) -> None:
    file, old, new = tmp_path / "keys.json", "o" * 20, "n" * 20

    def write(*keys: str) -> None:
        entries = [{"name": key[0], "key": key} for key in keys]
        file.write_text(json.dumps({"keys": entries}))
        file.chmod(0o600)

    def asked(key: str) -> int:
        return httpx.get(f"{server.url}/v1/models", headers={"X-API-Key": key}).status_code

    write(old)
    with Server(store, "--api-keys-file", str(file)) as server:
        assert (asked(old), asked(new)) == (200, 401)
        write(old, new)
        server.process.send_signal(signal.SIGHUP)
        give_up = time.monotonic() + 60
        while asked(new) != 200:  # and nobody is refused, or loses a connection, meanwhile
            assert asked(old) == 200
            assert time.monotonic() < give_up, server.log
        assert asked(old) == 200


@pytest.mark.slow
def test_a_drain_of_both_loses_nothing_and_leaves_nothing(store: Path) -> None:
    with Server(store, *TWO) as server:
        wait_for_both(server)
        (folder,) = folders(server.process.pid)
        with Clients(server, 4) as clients:
            while sum(clients.seen.values()) < 8:
                time.sleep(0.01)
            server.terminate()
            told = time.monotonic()
            assert server.process.wait(40) == 0
    assert clients.last.get("reset", told) >= told  # nobody listens any more
    assert {what.split()[0] for what in clients.seen} <= {"bee", "503", "reset"}
    assert not folder.exists()


@pytest.mark.slow
def test_nothing_is_left_when_the_supervisor_is_killed(store: Path) -> None:
    with Server(store, *TWO) as server:
        (folder,) = folders(server.process.pid)
        left = server.workers()
        server.process.kill()
        server.process.wait(10)
        give_up = time.monotonic() + 30
        while any(Path(f"/proc/{pid}").exists() for pid in left) and time.monotonic() < give_up:
            time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in left)
    assert not folder.exists()


def folders(supervisor: int) -> set[Path]:
    """Where the workers of a server meet."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    variables = [Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in children]
    name = f"{workers.FOLDER}=".encode()
    found = (v.removeprefix(name) for each in variables for v in each if v.startswith(name))
    return {Path(folder.decode()) for folder in found}


def test_a_key_may_spend_no_more_than_with_one_worker(store: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    entry = {"name": "poor", "key": "k" * 20, "megapixels_per_s": 1e-6, "burst_megapixels": 0.9}
    keys.write_text(json.dumps({"keys": [entry]}))
    keys.chmod(0o600)
    image, seen = png(300, 300), Counter[int]()
    with Server(store, *TWO, "--api-keys-file", str(keys)) as server:
        wait_for_both(server)
        url = f"{server.url}/v1/classify?resize=native"
        while len(answering(server)) < 2 or seen.total() < 20:
            assert seen.total() < 1_000
            answer = httpx.post(url, content=image, headers={"X-API-Key": "k" * 20})
            seen[answer.status_code] += 1
    assert seen[200] == 10
    assert set(seen) == {200, 429}


@pytest.fixture
def own(store: Path, tmp_path: Path) -> Path:
    """A store of a test's own, with the smallest network."""
    shutil.copytree(store / "seed_cnn", tmp_path / "seed_cnn")
    return tmp_path


def spoil(store: Path) -> None:
    (store / "seed_cnn" / "1" / "model.onnx").write_bytes(b"")


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], TWO], ids=["one", "two"])
def test_sighup_with_a_model_that_cannot_be_loaded_takes_nobody_down(
    own: Path, options: list[str]
) -> None:
    with Server(own, *options) as server:
        if options:
            wait_for_both(server)
        before = server.workers()
        spoil(own)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("not ready")
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        told = time.monotonic()
        server.terminate()  # and it is heard while the new worker is waited for
        assert server.process.wait(40) == 0
        assert time.monotonic() - told < 20
    assert before


@pytest.mark.slow
def test_when_all_have_died_and_none_can_load_somebody_says_so(own: Path) -> None:
    with Server(own, *TWO) as server:
        wait_for_both(server)
        spoil(own)
        for pid in server.workers():
            os.kill(pid, signal.SIGKILL)
        server.wait_for_log("replacing it")
        answer = httpx.get(f"{server.url}/readyz", timeout=40)
        assert answer.status_code == 503
        assert "no model could be loaded" in answer.json()["detail"]


@pytest.mark.slow
def test_workers_that_could_not_load_at_first_try_again(own: Path) -> None:
    good = (own / "seed_cnn" / "1" / "model.onnx").read_bytes()
    spoil(own)
    with Server(own, *TWO, wait=False) as server:
        server.wait_for_log("not ready")
        (own / "seed_cnn" / "1" / "model.onnx").write_bytes(good)
        server.wait_until_ready()
        wait_for_both(server)


@pytest.mark.slow
def test_sigterm_for_the_whole_group_is_a_drain_with_answers(store: Path) -> None:
    with Server(store) as server, Clients(server, 4) as clients:
        while sum(clients.seen.values()) < 8:
            time.sleep(0.01)
        for pid in [*server.workers(), server.process.pid]:
            os.kill(pid, signal.SIGTERM)
        assert server.process.wait(40) == 0
    assert clients.seen["503"] > 0


@pytest.mark.slow
def test_a_worker_that_hangs_leaves_to_the_others_at_once(store: Path) -> None:
    with FaultyServer(store, cores=2, workers=2, run_limit_s=1) as server:
        wait_for_both(server)
        before = set(server.workers())
        url = f"{server.url}/v1/classify?resize=native"
        assert httpx.post(url, content=png(HANGS, HANGS), timeout=60).status_code == 504
        server.wait_for_log("Shutting down")
        for _ in range(20):
            assert httpx.post(url, content=png(64, 64), timeout=60).status_code == 200
        give_up = time.monotonic() + 60
        while len(set(server.workers()) - before) < 1 and time.monotonic() < give_up:
            time.sleep(0.05)
        wait_for_both(server)
