"""Thumbnails beside large images at 80 % of capacity: our order beside first come, first served.

90 % are 32 to 64 pixels a side, 10 % are 1024², as JPEG, arriving at random whether or not the
service keeps up. In this process, without HTTP: decode, scheduler, ONNX Runtime. Segments of both
orders are interleaved; each segment replays the same arrivals.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from service.app import create_classifier
from service.batching import PATIENCE
from service.classify import Options, Picture
from service.costs import Line
from service.engine import Engine
from service.scheduler import Limits, Scheduler
from service.settings import Settings
from tests.load import images
from tests.load.bench import bare
from tests.load.compare import rates
from tests.service.simulator import (
    Arrival,
    Device,
    Ours,
    poisson,
    replay,
    thumbnails_and_large,
)

WORKERS, LOAD = 2, 0.8
NATIVE = Options(top_k=1, policy="native", timeout_s=3600)


async def serve(
    engine: Engine, arrivals: Sequence[Arrival], files: Sequence[bytes], patience: float
) -> list[float]:
    """Latencies in seconds; an arrival counts from its time, even if the loop was late."""
    limits = Limits(queue_pixels=10**10, batch_pixels=2_100_000)
    scheduler = Scheduler(WORKERS, limits, patience=patience)
    classifier = create_classifier(Settings(), scheduler)
    latencies = [0.0] * len(arrivals)

    async def one(number: int, due: float) -> None:
        (outcome,) = await classifier.classify(engine, [Picture(None, files[number])], NATIVE)
        assert outcome.error is None, outcome.error
        latencies[number] = time.perf_counter() - due

    begun = time.perf_counter() + 0.1
    async with asyncio.TaskGroup() as group:
        for number, arrival in enumerate(arrivals):
            due = begun + arrival.at
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            group.create_task(one(number, due))
    scheduler.close()
    return latencies


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--arrivals", type=int, default=20_000)
    parser.add_argument("--segments", type=int, default=5)
    options = parser.parse_args()
    engine = Engine(options.artifacts / "efficientnet_lite0" / "1", "cpu", batching="auto")
    engine.warm_up()
    large, small = images.jpeg(0, 1024, 1024), images.boxes(200, 32, 64)
    sample = [large if i % 10 == 0 else small[i] for i in range(200)]
    capacity = statistics.median(rates({"bare": bare(engine, sample)}, 5)["bare"])
    rate = LOAD * capacity

    orders = {"first come": 0.0, "ours": PATIENCE}
    arrivals: list[Arrival] = []
    latencies: dict[str, list[float]] = {name: [] for name in orders}
    predicted: list[float] = []
    device = Device(WORKERS, _line(engine, capacity), masks=1.5)
    for segment in range(options.segments):
        some = poisson(segment, options.arrivals // options.segments, rate, thumbnails_and_large)
        files = [large if a.height == 1024 else small[i % 200] for i, a in enumerate(some)]
        for name in list(orders)[:: 1 if segment % 2 else -1]:
            latencies[name] += asyncio.run(serve(engine, some, files, orders[name]))
        predicted += replay(some, device, Ours(device, mixed=True, pinned=False)).latencies("small")
        arrivals += some

    print(
        f"\n90 % thumbnails, 10 % 1024², {len(arrivals)} arrivals at {rate:.0f} images/s, "
        f"{LOAD:.0%} of the capacity of {WORKERS} bare threads; latencies in ms"
    )
    print(f"{'':14}{'small mean':>12}{'p99':>9}{'large mean':>12}{'p99':>9}")
    rows: dict[str, list[float]] = {}
    for name, series in latencies.items():
        rows[name] = []
        for size_class in ("small", "large"):
            seconds = [
                s for s, a in zip(series, arrivals, strict=True) if a.size_class == size_class
            ]
            rows[name] += [statistics.fmean(seconds), float(np.percentile(seconds, 99))]
        print(
            f"{name:14}" + "{:12.1f}{:9.1f}{:12.1f}{:9.1f}".format(*(1e3 * s for s in rows[name]))
        )
    ours, fifo = rows["ours"], rows["first come"]
    simulated = statistics.fmean(predicted)
    print(f"thumbnails, mean: {ours[0] / fifo[0]:.2f} of first come (target .45)")
    print(f"thumbnails, mean: {ours[0] / simulated:.2f} of the simulator's (target 1.25)")
    print(f"large, p99: {ours[3] / fifo[3]:.2f} of first come (target 1.5)")


def _line(engine: Engine, capacity: float) -> Line:
    """What an image takes, decoding included: the engine's fixed cost, the rest by capacity."""
    base = engine.costs.plain.base
    pixels = 0.1 * 1024**2 + 0.9 * 48**2
    return Line(base, (WORKERS / capacity - base) / pixels)


if __name__ == "__main__":
    main()
