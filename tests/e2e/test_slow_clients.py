"""Clients that dawdle or will not listen hold nobody up."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest import photo
from tests.e2e.server import Server
from tests.e2e.test_statuses import check_alive


@pytest.fixture(scope="module")
def impatient(store: Path) -> Iterator[Server]:
    """A server that waits one second for a header and two for a body."""
    options = ["--header-timeout-s", "1", "--body-timeout-s", "2", "--max-body-mb", "1"]
    with Server(store, *options) as running:
        yield running


def connect(server: Server) -> socket.socket:
    where = urlsplit(server.url)
    assert where.hostname is not None
    return socket.create_connection((where.hostname, where.port or 80), timeout=20)


def everything(connected: socket.socket) -> bytes:
    """What the server sends until it closes."""
    received = b""
    try:
        while chunk := connected.recv(65_536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def ask_health(connected: socket.socket) -> None:
    connected.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    while not answer.endswith(b"}"):
        chunk = connected.recv(65_536)
        assert chunk, "the server has closed the connection"
        answer += chunk
    assert b"200 OK" in answer


def one_answer(connected: socket.socket) -> bytes:
    """An answer with results, to its end."""
    answer = b""
    while not answer.endswith(b"]}]}") and (chunk := connected.recv(65_536)):
        answer += chunk
    return answer


def test_a_header_that_is_too_long_is_refused(impatient: Server) -> None:
    with connect(impatient) as wordy:
        wordy.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000)
        assert everything(wordy).startswith(b"HTTP/1.1 400 ")


HEADER = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize("sent", [b"", b"POST /v1/cl", HEADER])
def test_a_header_that_does_not_arrive_closes_the_connection(
    impatient: Server, sent: bytes
) -> None:
    with connect(impatient) as slow:
        slow.sendall(sent)
        begun = time.monotonic()
        assert everything(slow) == b""
        assert time.monotonic() - begun < 10
    check_alive(impatient.url)


def test_a_header_may_not_dawdle_on_a_kept_connection_either(impatient: Server) -> None:
    with connect(impatient) as slow:
        ask_health(slow)
        slow.sendall(b"GET /hea")
        assert everything(slow) == b""


def test_a_kept_connection_may_idle_longer_than_a_header(impatient: Server) -> None:
    with connect(impatient) as patient:
        for _ in range(2):
            ask_health(patient)
            time.sleep(1.5)  # longer than the header timeout: that is the point


def test_a_body_that_does_not_arrive_is_answered_408(impatient: Server) -> None:
    with connect(impatient) as slow:
        slow.sendall(HEADER + b"Content-Length: 1000\r\n\r\nabc")
        answer = everything(slow)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"/problems/request-timeout" in answer
    check_alive(impatient.url)


def test_after_an_early_answer_the_rest_of_the_body_is_not_swallowed(impatient: Server) -> None:
    with connect(impatient) as stubborn:
        stubborn.sendall(HEADER + b"Content-Length: 200000000\r\n\r\n")
        sent = 0
        try:
            while sent < 100_000_000:
                sent += stubborn.send(b"x" * 65_536)
        except OSError:
            pass
        answer = everything(stubborn)
    assert sent < 20_000_000  # what fits the buffers of two sockets, and no more
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413 ")
    check_alive(impatient.url)


def test_an_early_answer_reaches_a_client_that_is_still_sending(impatient: Server) -> None:
    with connect(impatient) as busy:
        busy.sendall(HEADER + b"Content-Length: 2000000\r\n\r\n" + b"x" * 500_000)
        answer = everything(busy)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"/problems/body-too-large" in answer


def many(name: str, count: int) -> bytes:
    """A request with a photo so many times; panda takes a fifth of a second each time."""
    part = b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\n%s\r\n'
    body = part % photo(name).data * count + b"--x--\r\n"
    return (
        b"POST /v1/classify?resize=native HTTP/1.1\r\nHost: x\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )


IMAGE = photo("hammer").data
POST = HEADER + b"Content-Length: %d\r\n\r\n%s" % (len(IMAGE), IMAGE)


@pytest.mark.parametrize("gap", [0.0, 0.3])
def test_an_offer_to_upgrade_to_http_2_does_not_lose_the_body(
    impatient: Server, gap: float
) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    with connect(impatient) as client:
        client.sendall(HEADER + offer + b"Content-Length: %d\r\n\r\n" % len(IMAGE))
        time.sleep(gap)  # header and body in one packet, and in two
        client.sendall(IMAGE)
        assert b'"hammer"' in one_answer(client)


@pytest.mark.parametrize("extra", [b"\r\n", b"GET /heal", b"POST /v1/classify HTTP/1.1\r\nHos"])
def test_what_follows_a_request_does_not_end_its_answer(impatient: Server, extra: bytes) -> None:
    with connect(impatient) as client:
        client.sendall(many("panda", 20) + extra)
        answer = one_answer(client)  # longer in coming than a header may take
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_pipelined_request_that_arrives_in_pieces_is_answered(impatient: Server) -> None:
    with connect(impatient) as client:
        client.sendall(POST + POST[:-100])
        first = one_answer(client)
        time.sleep(0.2)
        client.sendall(POST[-100:])
        second = one_answer(client)
    assert b'"hammer"' in first
    assert b'"hammer"' in second


# Clients that hold more than their part


@pytest.fixture(scope="module")
def tight(store: Path) -> Iterator[Server]:
    """A server with room for two bodies and five connections, and a second for an answer."""
    bodies = ["--max-body-mb", "1", "--bodies-mb", "2", "--max-connections", "5"]
    with Server(store, *bodies, "--answer-timeout-s", "1") as running:
        yield running


def held(server: Server) -> set[int]:
    """The clients' ports of all connections that the server holds."""
    port, ports = urlsplit(server.url).port, set()
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, here, there, state = row.split()[:4]
        if int(here.split(":")[1], 16) == port and state in ("01", "08"):  # open, half closed
            ports.add(int(there.split(":")[1], 16))
    return ports


def test_bodies_are_refused_before_they_are_read_when_others_fill_the_room(tight: Server) -> None:
    nearly = HEADER + b"Content-Length: 1000000\r\n\r\n" + b"x" * 990_000
    with connect(tight) as one, connect(tight) as two, connect(tight) as third:
        for holding in (one, two):
            holding.sendall(nearly)
        while metric(tight, "anypool_body_bytes") < 1_980_000:
            time.sleep(0.01)
        third.sendall(HEADER + b"Content-Length: 500000\r\n\r\n")
        answer = everything(third)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: " in answer.lower()
        assert b"/problems/overloaded" in answer
        chunks = httpx.post(f"{tight.url}/v1/classify", content=iter([b"x" * 100_000] * 5))
        assert chunks.status_code == 503
        one.sendall(b"x" * 10_000)
        assert one.recv(12) == b"HTTP/1.1 415"
    while metric(tight, "anypool_body_bytes"):
        time.sleep(0.01)
    check_alive(tight.url)


def test_a_body_that_was_only_announced_holds_no_room(tight: Server) -> None:
    with connect(tight) as one, connect(tight) as two, connect(tight) as three:
        for talking in (one, two, three):
            talking.sendall(HEADER + b"Content-Length: 1000000\r\n\r\n")
        check_alive(tight.url)


def test_the_longest_idle_connection_gives_way_to_a_new_one(tight: Server) -> None:
    for _ in range(20):  # answers can follow each other within a millisecond: a tick of uvloop
        while held(tight):  # what other tests, or the round before, have closed
            time.sleep(0.01)
        idle = [connect(tight) for _ in range(5)]
        for connected in idle:
            ask_health(connected)
        check_alive(tight.url)
        assert everything(idle[0]) == b""
        ask_health(idle[-1])
        for connected in idle:
            connected.close()


def test_a_connection_that_is_being_answered_gives_way_to_none(tight: Server) -> None:
    while held(tight):  # what other tests have closed
        time.sleep(0.01)
    busy = [connect(tight) for _ in range(5)]
    for connected in busy:
        length = b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(IMAGE)
        connected.sendall(HEADER + length)
        assert connected.recv(100).startswith(b"HTTP/1.1 100 ")
    with connect(tight) as sixth:
        assert everything(sixth) == b""
    for connected in busy:
        connected.sendall(IMAGE)
        assert b'"hammer"' in one_answer(connected)
        connected.close()


def test_a_client_that_does_not_take_its_answers_is_cut_off(tight: Server) -> None:
    while held(tight):
        time.sleep(0.01)
    with connect(tight) as deaf:
        deaf.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 2_000)  # 40 MB
        (port,) = held(tight)
        while port in held(tight):
            time.sleep(0.02)
    check_alive(tight.url)


def metric(server: Server, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))
