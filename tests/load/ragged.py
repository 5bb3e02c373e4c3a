"""What exact company costs: errors, masks and time of the ragged graph, by network and pooling.

One thread; plain and ragged runs of equal-size batches are interleaved, medians compared.
"""

import statistics
import time
from typing import Any

import numpy as np
import torch
from torch import nn

from models import registry
from models.pool import POOLS
from models.swap import Swap
from tests.export.lowering import session
from tests.export.rewrite.ragged.proof import Pair, pair, prove

SMALLEST = {"efficientnet_lite0": (32, 32), "resnet18": (1, 1), "seed_cnn": (1, 1)}
BATCHES = ((8, 64), (4, 128), (2, 224), (2, 384))  # images, side
ROUNDS = 11
CELLS = "output_size=(2, 3)"  # of the adaptive poolings


def swapped(name: str, pool: str) -> nn.Module:
    """A registered network with another pooling."""
    channels = registry.get(name).preprocessing.channels
    arguments = [CELLS] if pool.startswith("adaptive") else []
    return Swap.parse(pool, arguments).apply(
        registry.build(name), torch.zeros(1, channels, 320, 320)
    )


def cost(both: Pair, images: int, side: int, channels: int) -> float:
    """Time of the ragged graph over that of the plain one, for images of one size."""
    shape = (images, side, side, channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    sizes = np.full((images, 2), side, np.int64)
    runs: list[tuple[Any, dict[str, Any], list[float]]] = [
        (session(both.plain), {"pixels": pixels}, []),
        (session(both.ragged), {"pixels": pixels, "sizes": sizes}, []),
    ]
    for number in range(ROUNDS + 2):
        for runner, feed, seconds in runs:
            begun = time.thread_time()
            runner.run(["logits"], feed)
            if number > 1:  # the first rounds warm up
                seconds.append(time.thread_time() - begun)
    plain, ragged = (statistics.median(seconds) for _, _, seconds in runs)
    return ragged / plain


def main() -> None:
    header = f"{'network':20}{'pooling':14}{'error':>9}{'control':>9}{'masks':>6}{'nodes':>10}"
    print(header + "".join(f"{f'{n}×{side}²':>8}" for n, side in BATCHES))
    for name, smallest in SMALLEST.items():
        channels = registry.get(name).preprocessing.channels
        for pool in POOLS:
            both = pair(swapped(name, pool), channels=channels)
            errors = prove(both, smallest, rounds=6, channels=channels)
            nodes = f"{len(both.plain.graph.node)}/{len(both.ragged.graph.node)}"
            row = f"{name:20}{pool:14}{errors.ragged:9.1e}{errors.control:9.2f}"
            ratios = (cost(both, n, side, channels) for n, side in BATCHES)
            print(f"{row}{both.masks:6}{nodes:>10}" + "".join(f"{r:8.2f}" for r in ratios))


if __name__ == "__main__":
    main()
