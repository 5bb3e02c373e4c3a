"""One process, `--workers 2` and Ray, side by side: `python -m tests.load.ways`.

For work that is mostly HTTP, mostly decoding, and mostly inference. All three have the same two
cores, which the client uses as well. Rounds are interleaved; medians of images a second, and of the
processor time that a request takes of everything but the client.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.e2e.server import Server
from tests.load import images
from tests.load.client import request
from tests.load.compare import Way, over_http, rates, show

CORES, CLIENTS = 2, 8
_TICKS = os.sysconf("SC_CLK_TCK")

# Name, images, model, query.
Work = tuple[str, Sequence[bytes], str, str]


@dataclass(slots=True)
class Spent:
    """Milliseconds of processor a request, round by round; the first one warms up."""

    rounds: list[float] = field(default_factory=list)

    def of(self, way: Way) -> Way:
        """The same, and what it costs."""

        def watched(seconds: float) -> list[tuple[float, int]]:
            before = _busy_s() - time.process_time()
            done = way(seconds)
            self.rounds.append(1e3 * (_busy_s() - time.process_time() - before) / len(done))
            return done

        return watched

    @property
    def median(self) -> float:
        return statistics.median(self.rounds[1:])


def _busy_s() -> float:
    """What all processors have worked since the machine was started."""
    first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    user, nice, system, _idle, _waiting, irq, softirq = map(int, first.split()[1:8])
    return (user + nice + system + irq + softirq) / _TICKS


def works() -> list[Work]:
    """What is sent."""
    return [
        ("HTTP: a network of two layers, 32×32", [images.jpeg(0, 32, 32)], "seed_cnn", "native"),
        ("small JPEGs, 32-160 px", images.boxes(640, 32, 160), "efficientnet_lite0", "native"),
        ("12-megapixel JPEGs, fit 320", images.phones(6), "efficientnet_lite0", "fit"),
        ("web sizes, 158-1024 px", images.web(120), "efficientnet_lite0", "native"),
    ]


def measure(services: Mapping[str, str], work: Work) -> None:
    """Print a table for one kind of work; services: addresses by name."""
    name, files, model, resize = work
    spent, ways = {service: Spent() for service in services}, {}
    for service, url in services.items():
        path = f"{urlsplit(url).path}/v1/models/{model}/classify?top_k=1&resize={resize}"
        posts = [request([data], path) for data in files]
        ways[service] = spent[service].of(over_http(url, posts, 1, CLIENTS))
    show(name, rates(ways), {})
    told = (f"{service} {each.median:.1f}" for service, each in spent.items())
    print(f"ms of processor a request: {', '.join(told)}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--no-ray", action="store_true", help="only what needs no extra")
    options = parser.parse_args()
    given = ("--cores", str(CORES), "--model", "efficientnet_lite0")
    with ExitStack() as stack:
        one = stack.enter_context(Server(options.artifacts, *given))
        two = stack.enter_context(Server(options.artifacts, *given, "--workers", "2"))
        services = {"one process": one.url, "two workers": two.url}
        if not options.no_ray:
            from tests.e2e.nodes import Nodes

            nodes = stack.enter_context(Nodes())
            services["Ray"] = stack.enter_context(nodes.serve(options.artifacts, *given)).url
        for work in works():
            measure(services, work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
