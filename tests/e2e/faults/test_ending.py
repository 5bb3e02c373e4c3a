"""The service is told to stop, or dies, while it answers."""

import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.faults.load import Load, photos
from tests.e2e.faults.table import Fault, record
from tests.e2e.server import Server
from tests.e2e.test_slow_clients import connect, many, metric, one_answer
from tests.e2e.test_swap import wait


def test_a_drain_answers_what_was_accepted_and_ends_with_0(store: Path) -> None:
    request = many("panda", 8)
    with Server(store) as server, ExitStack() as open_:
        with Load(server.url, photos(server.url)) as load:
            waiting = [open_.enter_context(connect(server)) for _ in range(4)]
            for connected in waiting:
                connected.sendall(request)
            wait(lambda: metric(server, "anypool_body_bytes") > 3.99 * len(request), "accepted")
            load.strike()
            server.terminate()
            answers = [one_answer(connected) for connected in waiting]
            assert server.process.wait(40) == 0
        record(Fault.SIGTERM, load, "32 images accepted, all answered", ended=True)

    found = [r for a in answers for r in json.loads(a.partition(b"\r\n\r\n")[2])["results"]]
    assert len(found) == 32
    assert all(result["predictions"] == found[0]["predictions"] for result in found)
    assert {o.what for o in load.since if o.sent < load.struck} == {"right"}
    assert set(load.seen) <= {"right", "503", "refused", "reset"}
    assert "were not answered" not in server.log


@pytest.mark.parametrize(
    "fault",
    [
        Fault.SIGKILL,
        pytest.param(Fault.SIGSEGV, marks=pytest.mark.slow),
        pytest.param(Fault.SIGFPE, marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_dies_comes_back_and_only_what_it_had_is_lost(
    store: Path, fault: Fault
) -> None:
    with Server(store) as server, Load(server.url, photos(server.url)) as load:
        (before,) = server.workers()
        load.strike()
        os.kill(before, signal.Signals[fault.name])
        load.wait_for_right()
        (after,) = server.workers()
        record(fault, load)

    assert after != before
    assert set(load.seen) <= {"right", "reset"}  # nobody is refused: who comes meanwhile waits
    assert load.seen["reset"] <= 3  # one a client: what was on its way, or a connection kept
