"""Requests a second over HTTP, beside the same work done bare: `make bench`.

Bare is two threads that share one ONNX Runtime session in one process, decode and run over the same
files, no HTTP. Rounds of both are interleaved; medians are printed.
"""

import argparse
import http.client
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from urllib.parse import urlsplit

from models.card import Preprocessing
from service.engine import Engine
from service.images import SourceLimits, allowed_formats, decode, read_header
from service.resize import InferenceLimits, Resize, used_size
from tests.conftest import PHOTOS
from tests.e2e.server import Server

SOURCE = SourceLimits(50_000_000, 16_384, 100)
Connect = Callable[[], Callable[[bytes], None]]

INFERENCE = InferenceLimits(2_048, 2_100_000)


def bare(engine: Engine, data: bytes) -> None:
    """One image as the service does it, without the service."""
    preprocessing: Preprocessing = engine.card.preprocessing
    header = read_header(data, SOURCE, allowed_formats())
    resize = Resize(preprocessing.policy, preprocessing.size)
    used = used_size(header.size, resize, engine.card.limits, INFERENCE)
    engine.run([decode(data, header, used, preprocessing)])


def over_http(url: str) -> Connect:
    """Makes clients with a kept connection each."""

    def connect() -> Callable[[bytes], None]:
        where = urlsplit(url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)

        def post(data: bytes) -> None:
            connection.request("POST", "/v1/classify", data)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, body

        return post

    return connect


def measure(
    connect: Connect, clients: int, files: list[bytes], count: int
) -> tuple[float, list[float]]:
    """Images a second and the latencies in seconds, `count` images shared by `clients` threads."""
    latencies: list[float] = []

    def client(mine: list[bytes]) -> None:
        call = connect()
        for data in mine:
            begun = time.perf_counter()
            call(data)
            latencies.append(time.perf_counter() - begun)

    work = list(islice(cycle(files), count))
    threads = [threading.Thread(target=client, args=(work[i::clients],)) for i in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count / (time.perf_counter() - begun), latencies


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=130, help="images in a round")
    options = parser.parse_args()
    paths = (p for p in sorted(options.photos.iterdir()) if p.suffix in (".jpg", ".webp"))
    files = [path.read_bytes() for path in paths]
    engine = Engine(options.artifacts / "efficientnet_lite0" / "1", "cpu")
    rates: dict[str, list[float]] = {}
    latencies: dict[str, list[float]] = {}
    with Server(options.artifacts, "--model", "efficientnet_lite0") as server:
        runs: dict[str, tuple[Connect, int]] = {
            "bare, 2 threads": (lambda: partial(bare, engine), 2),
            "HTTP, 1 client": (over_http(server.url), 1),
            "HTTP, 8 clients": (over_http(server.url), 8),
        }
        for number in range(options.rounds + 1):
            for name, (connect, clients) in runs.items():
                rate, seconds = measure(connect, clients, files, options.images)
                if number:  # the first round warms up
                    rates.setdefault(name, []).append(rate)
                    latencies.setdefault(name, []).extend(seconds)
    base = statistics.median(rates["bare, 2 threads"])
    print(f"{len(files)} photos, medians of {options.rounds} interleaved rounds")
    print(f"{'':18}{'images/s':>9} {'(min-max)':>14} {'of bare':>8} {'p50 ms':>8} {'p99 ms':>8}")
    for name, series in rates.items():
        cut = statistics.quantiles(latencies[name], n=100)
        spread = f"({min(series):.1f}-{max(series):.1f})"
        print(
            f"{name:18}{statistics.median(series):9.1f} {spread:>14} "
            f"{statistics.median(series) / base:8.2f} {cut[49] * 1000:8.1f} {cut[98] * 1000:8.1f}"
        )


if __name__ == "__main__":
    main()
