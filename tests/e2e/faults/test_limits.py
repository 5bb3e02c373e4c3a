"""Memory, file descriptors and time are not what they should be."""

import os
import resource
import shutil
import struct
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.e2e.faults.load import Load, photos
from tests.e2e.faults.table import Fault, record, told
from tests.e2e.faults.test_clients import first_word
from tests.e2e.server import Server
from tests.e2e.test_slow_clients import (
    HEADER,
    connect,
    everything,
    many,
    metric,
    one_answer,
)
from tests.e2e.test_swap import wait
from tests.fuzz.pictures import encoded

pytestmark = pytest.mark.slow
_ROOM, _DAY = 150_000_000, 86_400


def test_memory_that_is_short(store: Path) -> None:
    source = encoded(Image.new("RGB", (8000, 6000)), "PNG")  # takes 190 MB decoded
    native = encoded(Image.new("RGB", (1400, 1400)), "PNG")  # takes 370 MB to run
    with Server(store) as server, Load(server.url, photos(server.url)) as load:
        (worker,) = server.workers()
        status = Path(f"/proc/{worker}/status").read_text(encoding="ascii")
        taken = int(status.partition("VmSize:")[2].split()[0]) * 1024
        load.strike()
        resource.prlimit(worker, resource.RLIMIT_AS, (taken + _ROOM, resource.RLIM_INFINITY))
        url = f"{server.url}/v1/classify"
        with ThreadPoolExecutor(4) as clients:
            sent = [clients.submit(_post, url, source) for _ in range(10)]
            sent += [clients.submit(_post, f"{url}?resize=native", native) for _ in range(10)]
            answers = [answer.result() for answer in sent]
        resource.prlimit(worker, resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        load.wait_for_right()
        same = server.workers() == [worker]
        record(Fault.MEMORY, load, told(Counter(answers)))

    assert set(answers) <= {"200", "500", "503", "reset"}
    assert set(load.seen) <= {"right", "500", "503", "reset"}
    assert load.seen["right"] > 0
    assert same


def _post(url: str, body: bytes) -> str:
    try:
        return str(httpx.post(url, content=body, timeout=60).status_code)
    except httpx.TransportError:
        return "reset"


def test_idle_clients_that_would_take_all_file_descriptors(store: Path) -> None:
    few = ("sh", "-c", 'ulimit -n 128 && exec "$0" "$@"')
    with Server(store, under=few) as server, Load(server.url, photos(server.url)) as load:
        load.strike()
        idle = []
        for _ in range(200):
            idle.append(connect(server))
            time.sleep(0.01)  # or those that are at work have idled longest
        load.wait_for_right()
        closed = sum(connected.recv(1) == b"" for connected in idle[:100])
        record(Fault.DESCRIPTORS, load, "those that have idled longest are closed")
        for connected in idle:
            connected.close()

    assert closed == 100
    assert set(load.seen) <= {"right", "reset"}
    assert load.seen["reset"] <= 3


def test_a_clock_that_jumps(store: Path, tmp_path: Path) -> None:
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler")
    library, shift = tmp_path / "clock.so", tmp_path / "shift"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    shift.write_bytes(bytes(8))
    under = ("env", f"LD_PRELOAD={library}", f"CLOCK_SHIFT={shift}")
    options = ("--header-timeout-s", "1", "--body-timeout-s", "1")
    with (
        shift.open("r+b") as mapped,
        Server(store, *options, under=under) as server,
        Load(server.url, photos(server.url)) as load,
    ):
        load.strike()
        for days in (1, -1):
            with connect(server) as silent, connect(server) as slow, connect(server) as long:
                slow.sendall(HEADER + b"Content-Length: 9\r\n\r\n")
                long.sendall(many("panda", 10))
                wait(lambda: metric(server, "anypool_admitted_pixels") > 4_000_000, "accepted")
                os.pwrite(mapped.fileno(), struct.pack("q", days * _DAY), 0)
                assert b'"error"' not in one_answer(long)
                assert everything(silent) == b""
                assert first_word(everything(slow)) == "408"
            load.wait_for_right()
            today = date.today() + timedelta(days=days)  # noqa: DTZ011
            server.wait_for_log(f"{today} ")  # else the clock has not jumped
        record(Fault.CLOCK, load)
    assert set(load.seen) == {"right"}
