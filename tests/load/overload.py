"""Twice as many requests as can be served, for half a minute: what is answered, refused, used.

Web-size photos over HTTP, one a request, sent at fixed times whether or not answers come.
"""

import argparse
import queue
import statistics
import threading
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.e2e.server import Server
from tests.load import images
from tests.load.client import Answer, Connection, request
from tests.load.compare import over_http, rates

SECONDS, TIMES, CLIENTS = 30.0, 2.0, 700
DEADLINE_S = 30.0  # the service's default


def only(model: str, artifacts: Path, folder: Path) -> Path:
    """A store with that model alone, made in an empty folder."""
    (folder / model).symlink_to((artifacts / model).resolve())
    return folder


def resident_mb(pid: int) -> tuple[float, float]:
    """Resident memory now and at its peak, in 10^6 bytes."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    found = dict(line.split(":", 1) for line in lines)
    now, peak = (int(found[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    return now, peak


def cpu_seconds(pids: list[int]) -> float:
    """Processor time used so far by the processes."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / 100


def flood(url: str, requests: list[bytes], rate: float) -> list[Answer]:
    """Requests at `rate` a second for SECONDS; a connection each that is in progress."""
    due: queue.SimpleQueue[tuple[float, bytes] | None] = queue.SimpleQueue()
    answers: list[Answer] = []

    def client() -> None:
        connection = None
        while (order := due.get()) is not None:
            at, body = order
            connection = connection or Connection(url)
            answer = connection.send(body)
            answers.append(replace(answer, seconds=answer.at - at))

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    begun = time.perf_counter()
    for number in range(round(SECONDS * rate)):
        at = begun + number / rate
        time.sleep(max(0.0, at - time.perf_counter()))
        due.put((at, requests[number % len(requests)]))
    for _ in threads:
        due.put(None)
    for thread in threads:
        thread.join()
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    options = parser.parse_args()
    requests = [request([data]) for data in images.web(120)]
    with (
        TemporaryDirectory() as alone,
        Server(only("efficientnet_lite0", options.artifacts, Path(alone))) as server,
    ):
        closed = rates({"closed": over_http(server.url, requests, 1, 8)}, 3)
        capacity = statistics.median(closed["closed"])
        (worker,) = server.workers()
        begun = time.perf_counter()
        answers = flood(server.url, requests, TIMES * capacity)
        took = time.perf_counter() - begun
        _, peak = resident_mb(worker)
        time.sleep(15)
        settled, _ = resident_mb(worker)
        before = cpu_seconds([worker, server.process.pid])
        time.sleep(10)
        idle = (cpu_seconds([worker, server.process.pid]) - before) / 10

    good = [answer for answer in answers if answer.right]
    refused = [answer.seconds for answer in answers if answer.status == 503]
    cut = statistics.quantiles(refused, n=100)
    accepted = max(answer.seconds for answer in good)
    print(
        f"\n{len(answers)} web-size photos at {TIMES:g} × {capacity:.1f} a second for {SECONDS:g} s"
    )
    print(f"answered right {len(good)}, refused {len(refused)}, "
          f"anything else {len(answers) - len(good) - len(refused)}")  # fmt: skip
    print(f"goodput {len(good) / took / capacity:.2f} of capacity (target .90)")
    print(f"accepted: slowest after {accepted:.1f} s (deadline {DEADLINE_S:g} s)")
    print(f"refusals: p50 {cut[49] * 1e3:.1f} ms, p99 {cut[98] * 1e3:.1f} ms (target 50)")
    print(f"memory: peak {peak:.0f} MB (target 500), settled {settled:.0f} MB (target 300)")
    print(f"idle afterwards: {idle:.1%} of a core (target 1 %)")


if __name__ == "__main__":
    main()
