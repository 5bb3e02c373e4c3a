"""Resident memory over 2,000 distinct shapes, the largest among the first 200."""

import argparse
import os
from pathlib import Path

import numpy as np

from service.engine import Engine
from tests.load.overload import resident_mb

SHAPES, EARLY = 2_000, 200
LARGEST = 640


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    options = parser.parse_args()
    engine = Engine(options.artifacts / "efficientnet_lite0" / "1", "cpu", batching="auto")
    engine.warm_up()
    rng = np.random.default_rng(0)
    shapes = {(LARGEST, LARGEST): None}
    while len(shapes) < SHAPES:
        height, width = (round(32 * (LARGEST / 32) ** share) for share in rng.random(2))
        shapes[height, width] = None
    seen = []
    for number, (height, width) in enumerate(shapes, 1):
        engine.run([np.zeros((height, width, 3), np.uint8)])
        if number in (EARLY, SHAPES):
            seen.append(resident_mb(os.getpid())[0])
    early, late = seen
    print(f"\nresident after {EARLY} shapes {early:.0f} MB, after {SHAPES} {late:.0f} MB: "
          f"{late / early - 1:+.1%} (target within 5 %)")  # fmt: skip


if __name__ == "__main__":
    main()
