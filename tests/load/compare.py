"""Rates of several ways to do the same work, side by side: interleaved rounds, medians, ratios."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle

from tests.load.client import closed_loop

ROUNDS, SECONDS = 5, 4.0
_KEPT = 0.95
_RUN_IN = 0.2  # part of a round that does not count: until there is a steady state

# Works for so many seconds; when each piece of work was done, and how many images it was.
Way = Callable[[float], list[tuple[float, int]]]


def threads(one: Callable[[bytes], object], files: Sequence[bytes], count: int) -> Way:
    """So many threads in this process, each taking the next of the files, over and over."""

    def way(seconds: float) -> list[tuple[float, int]]:
        end, left = time.perf_counter() + seconds, cycle(files)  # taken under the GIL

        def work(number: int) -> list[tuple[float, int]]:
            done = []
            while time.perf_counter() < end:
                one(next(left))
                done.append((time.perf_counter(), 1))
            return done

        with ThreadPoolExecutor(count) as pool:
            return [each for done in pool.map(work, range(count)) for each in done]

    return way


def over_http(url: str, requests: Sequence[bytes], together: int, clients: int) -> Way:
    """So many clients, each sending the next of the requests of so many images each."""

    def way(seconds: float) -> list[tuple[float, int]]:
        answers = closed_loop(url, requests, clients, seconds)
        assert all(answer.right for answer in answers), answers
        return [(answer.at, together) for answer in answers]

    return way


def rates(ways: Mapping[str, Way], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Images a second of each way in its steady state, round by round.

    A first round warms up and does not count. Every other round goes the other way around.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        order = list(ways) if number % 2 else list(ways)[::-1]
        for name in order:
            begun = time.perf_counter()
            done = ways[name](SECONDS)
            first, last = begun + _RUN_IN * SECONDS, begun + SECONDS
            if number:
                images = sum(count for at, count in done if first < at <= last)
                found[name].append(images / (last - first))
    return found


@dataclass(frozen=True, slots=True)
class Aim:
    """A ratio: what it should be, and what was reached, which must not be lost."""

    target: float
    reached: float


def show(title: str, found: dict[str, list[float]], aims: Mapping[str, Aim]) -> bool:
    """Print medians, their spread, and the ratio to the first way beside its target.

    Returns whether no ratio has fallen 5 % below what was once reached.
    """
    print(f"\n{title}\n{'':34}{'images/s':>9}{'(min-max)':>18}{'ratio':>7}{'target':>8}")
    base, *_ = found.values()
    held = True
    for name, series in found.items():
        each = [mine / other for mine, other in zip(series, base, strict=True)]
        spread = f"({min(series):.1f}-{max(series):.1f})"
        line = f"{name:34}{statistics.median(series):9.1f}{spread:>18}"
        if series is not base:
            line += f"{statistics.median(each):7.2f}"
        if (aim := aims.get(name)) is not None:
            line += f"{aim.target:8.2f}"
            if statistics.median(each) < _KEPT * aim.reached:
                line += f"  FELL: {aim.reached:.2f} was reached"
                held = False
        print(line, flush=True)
    return held
