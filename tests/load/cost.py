"""What the load generator itself costs, beside Debian's `wrk`: `python -m tests.load.cost`.

Both ask our service, eight connections at a time, for /healthz and about one small image, in
interleaved rounds. Medians of requests a second and of processor time of the client a request.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import gevent

from tests.e2e.server import Server
from tests.load.__main__ import locust, run
from tests.load.images import jpeg
from tests.load.traffic import Connections

ROUNDS, SECONDS, CLIENTS = 3, 4, 8
Cost = tuple[float, float]  # requests a second, milliseconds of the client's processor a request

_LUA = """
local file = io.open("{path}", "rb")
wrk.method, wrk.body = "POST", file:read("*all")
wrk.headers["Content-Type"] = "image/jpeg"
"""


def wrk(url: str, *options: str) -> Cost:
    """One thread of wrk."""
    before = os.times()
    command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{SECONDS}s", *options, url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    after = os.times()
    assert "Non-2xx" not in said, said
    found = re.search(r"(\d+) requests in ([\d.]+)s", said)
    assert found is not None, said
    count, seconds = int(found[1]), float(found[2])
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    return count / seconds, 1e3 * used / count


def ours_get(url: str) -> Cost:
    """Our connections, without Locust: it has no GET."""
    connections, count = Connections(url, {}, CLIENTS), 0
    begun, cpu = time.perf_counter(), time.process_time()

    def client() -> None:
        nonlocal count
        while time.perf_counter() - begun < SECONDS:
            assert connections.get("/healthz").status == 200
            count += 1

    gevent.joinall([gevent.spawn(client) for _ in range(CLIENTS)], raise_error=True)
    used = time.process_time() - cpu
    return count / (time.perf_counter() - begun), 1e3 * used / count


def ours_post(url: str, folder: Path) -> Cost:
    """The whole of it: Locust, the picture, the answer read and kept for the check."""
    out = folder / "out"
    more = ["--files", str(folder), "--resize", "native", "--objective-ms", "0"]
    more += ["--loop", "closed", "--users", str(CLIENTS), "--spawn-rate", str(CLIENTS)]
    more += ["--run-time", f"{SECONDS}s"]
    assert run(locust(url, str(out), *more)) == 0
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return report["requests"] / report["seconds"], report["cpu_ms"]


def main() -> None:
    """Print both and their ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    options = parser.parse_args()
    found: dict[str, list[tuple[Cost, Cost]]] = {"/healthz": [], "a JPEG of 64×64": []}
    with TemporaryDirectory() as made, Server(options.artifacts) as server:
        folder = Path(made)
        (folder / "small.jpg").write_bytes(jpeg(0, 64, 64))
        script = folder / "post.lua"
        script.write_text(_LUA.format(path=folder / "small.jpg"), encoding="utf-8")
        classify = f"{server.url}/v1/classify?top_k=1&resize=native"
        for _ in range(ROUNDS):
            found["/healthz"].append((wrk(f"{server.url}/healthz"), ours_get(server.url)))
            posted = wrk(classify, "-s", str(script)), ours_post(server.url, folder)
            found["a JPEG of 64×64"].append(posted)
    print(f"\n{'':18}{'wrk':>9}{'ours':>9}{'ratio':>7} requests/s{'wrk':>9}{'ours':>9} ms of "
          "processor a request")  # fmt: skip
    for name, rounds in found.items():
        theirs, mine = zip(*rounds, strict=True)
        (a, x), (b, y) = (
            map(statistics.median, zip(*each, strict=True)) for each in (theirs, mine)
        )
        print(f"{name:18}{a:9.0f}{b:9.0f}{b / a:7.2f}{'':11}{x:9.3f}{y:9.3f}")


if __name__ == "__main__":
    main()
