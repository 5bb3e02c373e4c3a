"""Rates of several ways to do the same work, side by side: interleaved rounds, medians, ratios."""

import statistics
import time
from collections.abc import Callable, Mapping

ROUNDS = 5


def rates(ways: Mapping[str, Callable[[], int]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Images a second of each way, round by round; a way does its work and returns how many images.

    A first round warms up and does not count. Every other round goes the other way around.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        order = list(ways) if number % 2 else list(ways)[::-1]
        for name in order:
            begun = time.perf_counter()
            images = ways[name]()
            if number:
                found[name].append(images / (time.perf_counter() - begun))
    return found


def show(title: str, found: dict[str, list[float]], targets: Mapping[str, float]) -> None:
    """Print medians, their spread, and the ratio to the first way beside its target."""
    print(f"\n{title}\n{'':34}{'images/s':>9}{'(min-max)':>18}{'ratio':>7}{'target':>8}")
    base, *_ = found.values()
    for name, series in found.items():
        each = [mine / other for mine, other in zip(series, base, strict=True)]
        spread = f"({min(series):.1f}-{max(series):.1f})"
        line = f"{name:34}{statistics.median(series):9.1f}{spread:>18}"
        if series is not base:
            line += f"{statistics.median(each):7.2f}"
        if name in targets:
            line += f"{targets[name]:8.2f}"
        print(line, flush=True)
