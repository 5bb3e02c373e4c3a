"""Requests that are broken, or made to harm: the good ones between them are answered right."""

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.faults.bombs import bombs
from tests.e2e.faults.load import AT_MOST_S, Load, photos
from tests.e2e.faults.malformed import malformed
from tests.e2e.faults.table import Fault, record, told
from tests.e2e.server import Server
from tests.e2e.test_statuses import check_alive
from tests.load.overload import resident_mb

pytestmark = pytest.mark.slow
_MANY, _CLIENTS = 10_000, 3


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[Server]:
    with Server(store) as running:
        yield running


@pytest.fixture
def load(server: Server) -> Iterator[Load]:
    with Load(server.url, photos(server.url)) as running:
        yield running


def test_ten_thousand_malformed_requests_between_good_ones(server: Server, load: Load) -> None:
    workers, requests, lock = server.workers(), malformed(), threading.Lock()
    where, seen = urlsplit(server.url), Counter[str]()

    def send() -> None:
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=AT_MOST_S)
        while True:
            with lock:
                if seen.total() - seen["200"] >= _MANY:
                    break
                request = next(requests)
            connection.request("POST", request.path, request.body, request.headers)
            answer = connection.getresponse()
            what = str(answer.status)
            if b'"error"' in answer.read() and answer.status == 200:
                what = "200 with an error"
            with lock:
                seen[what] += 1
        connection.close()

    load.strike()
    with ThreadPoolExecutor(_CLIENTS) as clients:
        for done in [clients.submit(send) for _ in range(_CLIENTS)]:
            done.result()
    load.wait_for_right()
    record(Fault.MALFORMED, load, told(seen))

    assert set(seen) <= {"200", "200 with an error", "400", "413", "415", "422"}
    assert set(load.seen) == {"right"}
    assert server.workers() == workers
    assert "Traceback" not in server.log


def test_a_decoder_bomb_of_each_format(server: Server, load: Load) -> None:
    files = dict(bombs())
    (worker,) = server.workers()
    _, before = resident_mb(worker)
    load.strike()
    seen: Counter[str] = Counter()
    for _ in range(5):
        for format_, file in files.items():
            answer = httpx.post(f"{server.url}/v1/classify", content=file, timeout=AT_MOST_S)
            kind = "undecodable-image" if format_ == "HEIF" else "too-many-pixels"
            assert answer.json()["type"].endswith(f"/{kind}"), f"{format_}: {answer.text}"
            seen[str(answer.status_code)] += 1
    load.wait_for_right()
    _, after = resident_mb(worker)
    record(Fault.BOMBS, load, told(seen))

    assert max(map(len, files.values())) < 1_000_000
    assert after - before < 100  # MB; unpacked each would take 50 to 200
    assert set(load.seen) == {"right"}
    check_alive(server.url)
