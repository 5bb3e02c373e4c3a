"""When requests arrive that nobody coordinates."""

import random
from collections.abc import Iterator


def poisson(rng: random.Random, rate: float, begin: float) -> Iterator[float]:
    """Moments after `begin`, so many a second on average, without end.

    Several of these together are one of their rates' sum: so users, workers and machines may each
    have their own.
    """
    at = begin
    while True:
        at += rng.expovariate(rate)
        yield at
