"""Which replica gets a request: `python -m tests.service.routing` prints tables, in two minutes.

Many replicas, each with the real queue and a simulated device, behind proxies as Ray Serve has
them. A proxy chooses a replica when a request comes, and has not read its body. Time is simulated:
nothing here is measured, and the same arrivals always give the same numbers. What decoding, HTTP
and Ray itself cost is left out.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from tests.service.routers import Anywhere, BySize, Least, Router, View, by_requests, by_work
from tests.service.simulator import (
    CANVASES,
    CPU,
    FOREVER,
    GPU,
    LIMIT,
    Arrival,
    Device,
    Ours,
    Outcome,
    Plans,
    Replica,
    Run,
    Sizes,
    fifty_sizes,
    poisson,
    thumbnails_and_large,
)

LOAD = 0.8  # of what the replicas answer when each has CLIENTS
CLIENTS = 16
COMPANY = 16  # images that share a run on a GPU, as a proxy guesses
DOUBT = 0.66  # deviation of ln(bytes a pixel) over tests/photos


def route(
    arrivals: Sequence[Arrival],
    replicas: Sequence[Replica],
    routers: Sequence[Router],
    work: Sequence[float],
    clients: int | None = None,
) -> Outcome:
    """Send all arrivals through proxies, in turn, to replicas.

    routers: one for each proxy
    work: seconds of each, as the proxies predict
    clients: so many send one after the other, each when it has its answer: times do not count
    """
    views = [View([0] * len(replicas), [0.0] * len(replicas)) for _ in routers]
    in_flight = [0] * len(replicas)
    came = list(arrivals)
    answered = [FOREVER] * len(arrivals)
    running: list[tuple[float, int, Run, Plans, int]] = []
    runs: list[Run] = []
    now, upcoming, waiting = 0.0, 0, 0
    while upcoming < len(came) or running:
        coming = came[upcoming].at if upcoming < len(came) else FOREVER
        if clients is not None and coming < FOREVER:
            coming = now if waiting < clients else FOREVER
        if running and running[0][0] <= coming:
            now, _, done, plans, at = heapq.heappop(running)
            replicas[at].end(plans)
            in_flight[at] -= len(done.members)
            waiting -= len(done.members)
            for number in done.members:
                answered[number] = now
                view = views[number % len(views)]
                view.requests[at] -= 1
                view.work[at] -= work[number]
        else:
            now = coming
            turn = upcoming % len(views)
            view = views[turn]
            at = routers[turn](work[upcoming], view)
            in_flight[at] += 1
            waiting += 1
            view.requests[at] = in_flight[at]
            view.work[at] += work[upcoming]
            if clients is not None:
                came[upcoming] = replace(came[upcoming], at=now)
            replicas[at].add(upcoming, came[upcoming])
            upcoming += 1
        for seconds, run, plans in replicas[at].begin():
            heapq.heappush(running, (now + seconds, len(runs), run, plans, at))
            runs.append(run)
    return Outcome(came, answered, runs)


# What is compared


def photos_of_the_web(rng: np.random.Generator) -> tuple[int, int]:
    """Hardly two alike: the longer side log-normal around 400, the other half of it or more."""
    longer = float(np.clip(400 * np.exp(rng.normal(0, 0.5)), 64, 1448))
    sides = round(longer), round(longer * rng.uniform(0.5, 1))
    return sides if rng.random() < 0.3 else sides[::-1]


def fitted(rng: np.random.Generator) -> tuple[int, int]:
    """The same as the default model sees them: the longer side is 320."""
    height, width = photos_of_the_web(rng)
    scale = 320 / max(height, width)
    return round(height * scale), round(width * scale)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Images of certain sizes, for replicas of one kind."""

    title: str
    device: Device
    sizes: Sizes
    pinned: bool = False

    def replicas(self, count: int) -> list[Replica]:
        """So many devices with a queue each."""
        return [Replica(self.device, self._queue()) for _ in range(count)]

    def joint(self, count: int) -> list[Replica]:
        """So many devices behind one queue."""
        return [Replica(self.device, self._queue(), count)]

    def _queue(self) -> Ours:
        return Ours(self.device, mixed=True, pinned=self.pinned)

    def work(self, pixels: float) -> float:
        """Seconds of a device that an image takes: on a GPU, its part of a run."""
        line = self.device.line
        for rows, height, width in CANVASES if self.pinned else ():
            if pixels <= height * width:
                return line.seconds(rows * height * width) * self.device.masks / rows
        company = 1 if self.device is CPU else max(1, min(COMPANY, int(LIMIT / pixels)))
        return (line.base + self.device.replan) / company + line.pixel * pixels

    def arrivals(self, replicas: int, count: int) -> list[Arrival]:
        """At LOAD of what so many replicas can do."""
        drawn = poisson(1, count, 1.0, self.sizes)
        alone = routers(RANDOM, 1, 1)
        full = route(drawn, self.replicas(1), alone, [0.0] * count, CLIENTS)
        rate = LOAD * replicas * full.throughput
        return [replace(arrival, at=arrival.at / rate) for arrival in drawn]


SCENARIOS = [
    Scenario("CPU, thumbnails and 1024²", CPU, thumbnails_and_large),
    Scenario("CPU, fifty sizes", CPU, fifty_sizes),
    Scenario("CPU, photos of the web", CPU, photos_of_the_web),
    Scenario("CPU, photos of the web, fit 320", CPU, fitted),
    Scenario("GPU, thumbnails and 1024²", GPU, thumbnails_and_large),
    Scenario("GPU, fifty sizes", GPU, fifty_sizes),
    Scenario("GPU, photos of the web", GPU, photos_of_the_web),
    Scenario(
        "GPU that need not plan, photos of the web", replace(GPU, replan=0.0), photos_of_the_web
    ),
    Scenario("GPU, pinned, thumbnails and 1024²", GPU, thumbnails_and_large, pinned=True),
    Scenario("GPU, pinned, fifty sizes", GPU, fifty_sizes, pinned=True),
    Scenario("GPU, pinned, photos of the web", GPU, photos_of_the_web, pinned=True),
]
FLEETS = {2: 1, 8: 1, 64: 8}  # replicas, and machines with a proxy on each
RANDOM, RAY = "random", "fewer requests of two here (Ray)"
HERE, FEWEST = "fewest requests of all here", "fewest requests of all"
BY_SIZE, BY_BYTES, JOINT = "by size", "by size, from bytes", "one queue for all"
# Of the replicas on the proxy's machine, and every one.
ROUTERS: dict[str, Callable[[range, range, random.Random], Router]] = {
    RANDOM: lambda here, every, rng: Anywhere(every, rng),
    RAY: lambda here, every, rng: Least(here, rng, by_requests, 2),
    HERE: lambda here, every, rng: Least(here, rng, by_requests),
    FEWEST: lambda here, every, rng: Least(every, rng, by_requests),
    "less work of two here": lambda here, every, rng: Least(here, rng, by_work, 2),
    "least work of all here": lambda here, every, rng: Least(here, rng, by_work),
    BY_SIZE: lambda here, every, rng: BySize(len(every), rng, by_work),
    BY_BYTES: lambda here, every, rng: BySize(len(every), rng, by_requests),
    JOINT: lambda here, every, rng: Anywhere(every, rng),
}


def routers(name: str, replicas: int, machines: int) -> list[Router]:
    """One for the proxy of each machine."""
    each = replicas // machines
    return [
        ROUTERS[name](range(m * each, m * each + each), range(replicas), random.Random(m))
        for m in range(machines)
    ]


def settled(done: Outcome) -> Outcome:
    """Without the first fifth."""
    start = len(done.arrivals) // 5
    return Outcome(done.arrivals[start:], done.answered[start:], done.runs)


def run(
    scenario: Scenario,
    replicas: int,
    arrivals: Sequence[Arrival],
    name: str,
    clients: int | None = None,
) -> Outcome:
    """Send the arrivals to so many replicas, chosen in the way of that name."""
    pixels: list[float] = [arrival.height * arrival.width for arrival in arrivals]
    if name == BY_BYTES:
        rng = np.random.default_rng(2)
        pixels = [p * float(np.exp(rng.normal(0, DOUBT))) for p in pixels]
    if name == JOINT:
        behind, proxies = scenario.joint(replicas), routers(name, 1, 1)
    else:
        behind, proxies = scenario.replicas(replicas), routers(name, replicas, FLEETS[replicas])
    work = [scenario.work(p) for p in pixels]
    return route(arrivals, behind, proxies, work, clients)


class Result(NamedTuple):
    """Images a second with CLIENTS for each replica, and what comes of LOAD."""

    saturated: float
    steady: Outcome


Results = dict[str, Result]  # by the name of the way


def compare(scenario: Scenario, replicas: int, count: int) -> Results:
    """Every way to choose. One queue for all is no bound on GPUs: it looks 64 images ahead only."""
    arrivals = scenario.arrivals(replicas, count)
    results = {}
    for name in ROUTERS:
        full = run(scenario, replicas, arrivals, name, CLIENTS * replicas)
        steady = settled(run(scenario, replicas, arrivals, name))
        results[name] = Result(full.throughput, steady)
    return results


def classes(results: Results) -> list[str]:
    """small, medium, large: those that there are."""
    return sorted({a.size_class for a in results[RAY].steady.arrivals}, reverse=True)


def show(results: Results) -> None:
    """Print a row for each way."""
    heads = "".join(f"{c:>9} mean{'p99':>8}" for c in classes(results))
    print(f"{'':34}{'images/s':>9}{heads}")
    for name, (saturated, steady) in results.items():
        row = f"{name:34}{saturated:9.0f}"
        for c in classes(results):
            row += f"{steady.mean(c) * 1e3:14.1f}{steady.p99(c) * 1e3:8.1f}"
        print(row)


def gains(results: Results, name: str, over: str) -> tuple[str, str]:
    """How many times more images/s, and shorter p99: of the class that gains least, and most."""
    this, other = results[name], results[over]
    p99 = sorted(other.steady.p99(c) / this.steady.p99(c) for c in classes(results))
    least, most = (f"{gain:.{1 if gain < 9.95 else 0}f}" for gain in (p99[0], p99[-1]))
    waits = least if least == most else f"{least}-{most}"
    return f"{this.saturated / other.saturated:.2f}", waits


def main() -> None:
    found: dict[str, list[Results]] = {}
    for scenario, replicas in itertools.product(SCENARIOS, FLEETS):
        results = compare(scenario, replicas, 4000 + 160 * replicas)
        print(f"\n{scenario.title}; {replicas} replicas; latencies in ms at 80 % load")
        show(results)
        found.setdefault(scenario.title, []).append(results)
    compared = [(BY_SIZE, RANDOM), (BY_SIZE, RAY), (BY_BYTES, RAY), (HERE, RAY)]
    print("\nHow many times better with " + ", ".join(map(str, FLEETS)) + " replicas\n")
    print("| | " + " | ".join(f"{name}, over {over}" for name, over in compared) + " |")
    print("|---" * (1 + len(compared)) + "|")
    for title, fleets in found.items():
        for which, what in enumerate(("images/s", "p99")):
            cells = [" / ".join(gains(r, *pair)[which] for r in fleets) for pair in compared]
            print(f"| {title}: {what} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
