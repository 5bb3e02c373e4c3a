"""Clients that dawdle, fall silent or go away: the others do not notice."""

import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.faults.load import AT_MOST_S, Load, photos
from tests.e2e.faults.table import Fault, record, told
from tests.e2e.server import Server
from tests.e2e.test_slow_clients import HEADER, connect, everything, many, metric
from tests.e2e.test_swap import wait

pytestmark = pytest.mark.slow
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, and tell the other side so
_LENGTH = b"Content-Length: 1000000\r\n\r\n"


@pytest.fixture(scope="module")
def impatient(store: Path) -> Iterator[Server]:
    """A server that waits two seconds for a header and for a body."""
    with Server(store, "--header-timeout-s", "2", "--body-timeout-s", "2") as running:
        yield running


@pytest.fixture
def load(impatient: Server) -> Iterator[Load]:
    with Load(impatient.url, photos(impatient.url)) as running:
        yield running


def test_clients_that_send_byte_by_byte(impatient: Server, load: Load) -> None:
    load.strike()
    slow = {connect(impatient): HEADER + b"X: y" for _ in range(100)}
    for _ in range(100):
        slow[posting := connect(impatient)] = b"abc"
        posting.sendall(HEADER + _LENGTH)
    endings = dribble(slow)
    load.wait_for_right()
    record(Fault.SLOW_LORIS, load, told(endings))

    assert endings == {"closed": 100, "408": 100}
    assert set(load.seen) == {"right"}


def dribble(left: dict[socket.socket, bytes]) -> Counter[str]:
    """Send a byte on each connection five times a second, over and over, to the end of all."""
    endings: Counter[str] = Counter()
    begun, at = time.monotonic(), 0
    while left:
        assert time.monotonic() < begun + AT_MOST_S, f"{len(left)} hold on; {endings}"
        for connected, text in list(left.items()):
            connected.setblocking(False)
            if ending := _ending(connected):
                endings[ending] += 1
                del left[connected]
                connected.close()
            else:
                connected.send(text[at % len(text) :][:1])
        at += 1
        time.sleep(0.2)  # that is what they do
    return endings


def _ending(connected: socket.socket) -> str:
    try:
        return first_word(connected.recv(65_536))
    except BlockingIOError:
        return ""
    except ConnectionError:
        return "closed"


def first_word(answer: bytes) -> str:
    """The status of an answer; `closed` without one."""
    return answer[9:12].decode() if answer else "closed"


def test_clients_that_fall_silent_or_close_their_half(impatient: Server, load: Load) -> None:
    load.strike()
    silent = [connect(impatient) for _ in range(200)]
    for index, connected in enumerate(silent):
        connected.sendall((b"", HEADER, HEADER + _LENGTH + b"abc", HEADER + _LENGTH)[index % 4])
        if index % 8 >= 4:
            connected.shutdown(socket.SHUT_WR)
    endings = Counter(first_word(everything(connected)) for connected in silent)
    for connected in silent:
        connected.close()
    load.wait_for_right()
    record(Fault.HALF_OPEN, load, told(endings))

    assert set(endings) <= {"closed", "400", "408"}
    assert endings["408"] >= 50  # those that wait for their answer
    assert set(load.seen) == {"right"}


def test_clients_that_vanish_in_the_middle_of_an_upload(impatient: Server, load: Load) -> None:
    load.strike()
    sending = [connect(impatient) for _ in range(100)]
    for connected in sending:
        connected.sendall(HEADER + _LENGTH + bytes(500_000))
    most = metric(impatient, "anypool_body_bytes")
    for index, connected in enumerate(sending):
        if index % 2:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connected.close()
    wait(lambda: metric(impatient, "anypool_body_bytes") < 1_000_000, "dropped")
    load.wait_for_right()
    record(Fault.GONE_UPLOADING, load)

    assert most > 20_000_000
    assert set(load.seen) == {"right"}


def test_the_work_of_clients_that_went_away_is_dropped(impatient: Server, load: Load) -> None:
    request, before = many("panda", 8), metric(impatient, "anypool_cancelled_images_total")
    load.strike()
    waiting = [connect(impatient) for _ in range(10)]
    for connected in waiting:
        connected.sendall(request)
    wait(lambda: metric(impatient, "anypool_body_bytes") > 9.99 * len(request), "accepted")
    for connected in waiting:
        connected.close()
    wait(lambda: metric(impatient, "anypool_admitted_pixels") < 1_000_000, "dropped")
    load.wait_for_right()
    record(Fault.GONE_WAITING, load)

    dropped = metric(impatient, "anypool_cancelled_images_total") - before
    assert dropped >= 60  # the others had run, or ran just then
    assert set(load.seen) == {"right"}
    assert impatient.log.count(" 499 ") >= 10
