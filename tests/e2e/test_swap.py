"""Versions come and go under a running load, and no request fails."""

import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import anypool
from tests.e2e.server import Server
from tests.e2e.test_statuses import png
from tests.versions import make_killer, make_version, publish

_CLIENTS = 4
_AT_MOST_S = 60


class Load:
    """Clients with kept connections that ask for the newest version, and for one by number."""

    def __init__(self, url: str) -> None:
        self.sent = 0
        self.failed: list[str] = []
        self.answered: Counter[int] = Counter()  # by version
        self.stop = threading.Event()
        self._url = url
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ask until the end of the block."""
        clients = [threading.Thread(target=self._ask, args=(i,)) for i in range(_CLIENTS)]
        for client in clients:
            client.start()
        try:
            yield
        finally:
            self.stop.set()
            for client in clients:
                client.join(60)

    def wait_for(self, version: int, more: int = 20) -> None:
        """Return when that version has answered so many more requests."""
        goal = self.answered[version] + more
        wait(lambda: self.failed or self.answered[version] >= goal, f"version {version} answered")

    def _ask(self, index: int) -> None:
        size = 16 + 8 * index
        body = png(size, size)
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self.stop.is_set():
                try:
                    answer = client.post("/v1/classify?top_k=1", content=body)
                    problem, version = self._judge(answer)
                except httpx.HTTPError as exc:
                    problem, version = repr(exc), 0
                with self._lock:
                    self.sent += 1
                    self.answered[version] += 1
                    self.failed += [problem] if problem else []

    @staticmethod
    def _judge(answer: httpx.Response) -> tuple[str, int]:
        """What is wrong, if anything, and the version: which its class must be as well."""
        if answer.status_code != 200:
            return answer.text, 0
        body = answer.json()
        version = int(body["version"])
        result = body["results"][0]
        if [p["index"] for p in result.get("predictions", [])] != [version]:
            return f"version {version} answered {result}", 0
        return "", version


def wait(reached: Callable[[], object], what: str) -> None:
    give_up = time.monotonic() + _AT_MOST_S
    while not reached():
        assert time.monotonic() < give_up, f"not {what}"
        time.sleep(0.02)


def by_number(url: str, version: int) -> httpx.Response:
    """The answer of one version."""
    path = f"/v1/models/seed_cnn/versions/{version}/classify"
    return httpx.post(f"{url}{path}?top_k=1", content=png(20, 20), timeout=60)


def versions(url: str) -> list[int]:
    """Those that /readyz names, newest first; it must always be ready."""
    answer = httpx.get(f"{url}/readyz")
    assert answer.status_code == 200
    return [int(model["version"]) for model in answer.json()["models"]]


def wait_for_versions(url: str, expected: list[int]) -> None:
    wait(lambda: versions(url) == expected, f"{expected} alone")


def in_metrics(url: str) -> set[int]:
    found = re.findall(r'anypool_model_info{[^}]*version="(\d+)"', httpx.get(f"{url}/metrics").text)
    return {int(version) for version in found}


@pytest.mark.slow
@pytest.mark.parametrize("batching", ["auto", "mixed"])
def test_no_request_fails_while_versions_come_and_go(
    store: Path, tmp_path: Path, batching: str
) -> None:
    make_version(store, tmp_path, 1)
    options = ("--watch-s", "0.2", "--batching", batching)
    with Server(tmp_path, *options) as server:
        load, url = Load(server.url), server.url
        with load.running():
            load.wait_for(1)
            for old in (1, 3, 5):
                new, broken = old + 1, old + 2
                make_version(store, tmp_path, new)
                load.wait_for(new)
                assert versions(url) == [new, old]
                assert by_number(url, old).json()["results"][0]["predictions"][0]["index"] == old

                shutil.rmtree(tmp_path / "seed_cnn" / str(old))
                wait_for_versions(url, [new])
                assert by_number(url, old).status_code == 404
                assert in_metrics(url) == {new}

                draft = make_version(store, tmp_path, broken).rename(tmp_path / ".draft")
                (draft / "model.onnx").write_bytes((draft / "model.onnx").read_bytes()[:5000])
                publish(draft, tmp_path / "seed_cnn" / str(broken))
                server.wait_for_log(f"seed_cnn version {broken} cannot be used")
                load.wait_for(new)
                assert versions(url) == [new]

                make_version(store, tmp_path, broken)  # mended, and at once without the other
                shutil.rmtree(tmp_path / "seed_cnn" / str(new))
                load.wait_for(broken)
                wait_for_versions(url, [broken])
        print(f"sent {load.sent}, failed {len(load.failed)}, by version {dict(load.answered)}")
        assert load.failed == []
        assert set(load.answered) == {1, 2, 3, 4, 5, 6, 7}
        assert "nobody foresaw" not in server.log


def test_a_version_that_kills_onnx_runtime_harms_nobody_as_long_as_it_comes_later(
    store: Path, tmp_path: Path
) -> None:
    make_version(store, tmp_path, 1)
    with Server(tmp_path, "--watch-s", "0.2") as server:
        workers, load = server.workers(), Load(server.url)
        with load.running():
            load.wait_for(1)
            make_killer(store, tmp_path, 2)
            server.wait_for_log("seed_cnn version 2 cannot be used: loading it kills the process")
            load.wait_for(1)
        assert load.failed == []
        assert server.workers() == workers


def test_of_one_that_is_there_at_the_start_only_the_first_worker_dies(
    store: Path, tmp_path: Path
) -> None:
    make_version(store, tmp_path, 1)
    make_killer(store, tmp_path, 2)
    with Server(tmp_path, wait=False) as server:
        server.wait_for_log("died")
        server.wait_until_ready()
        assert versions(server.url) == [1]
        assert "seed_cnn version 2 cannot be used: loading it kills the process" in server.log
        assert server.log.count("died") == 1


def test_a_broken_version_at_start_is_logged_and_the_others_are_served(
    store: Path, tmp_path: Path
) -> None:
    make_version(store, tmp_path, 1)
    (make_version(store, tmp_path, 2) / "card.json").write_text("{")
    with Server(tmp_path, "--verify", "false") as server:
        assert versions(server.url) == [1]
        assert "seed_cnn version 2 cannot be used" in server.log
        assert httpx.get(f"{server.url}/v1/models/seed_cnn").json()["versions"] == ["1"]


def test_with_verify_only_what_torch_would_answer_is_served(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store / "seed_cnn", tmp_path / "seed_cnn")
    make_version(store, tmp_path, 2)
    with Server(tmp_path, "--verify", "--watch") as server:
        assert versions(server.url) == [1]
        assert "seed_cnn version 2 cannot be used: it fails verification" in server.log
        make_version(store, tmp_path, 3)
        server.wait_for_log("seed_cnn version 3 cannot be used: it fails verification")
        assert versions(server.url) == [1]


def test_a_store_without_one_good_version_is_told_before_anything_starts(
    store: Path, tmp_path: Path
) -> None:
    (make_version(store, tmp_path, 1) / "card.json").write_text("{")
    done = anypool("serve", "--artifacts", tmp_path)
    assert done.returncode == 1
    assert "card.json" in done.stderr
