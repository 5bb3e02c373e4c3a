"""What the tests on a GPU measure; it runs on a CPU too, so that it is known to run."""

import gc
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from service.costs import Canvas
from service.engine import Engine
from service.images import Pixels
from service.scores import Scores
from service.sessions import CPU, Gpu, Provider
from service.speed import Speed
from service.trials import Size, Table, Way

MEGA = 1e6


def noise(engine: Engine, height: int, width: int, seed: int = 0) -> Pixels:
    """An image (height, width, c) of random pixels, as the network takes it."""
    shape = (height, width, engine.card.preprocessing.channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def apart(got: Scores, want: Scores) -> float:
    """The largest difference of logits, of the largest logit."""
    return float(np.abs(got.logits - want.logits).max() / np.abs(want.logits).max())


def parity(engine: Engine, reference: Engine, sizes: Sequence[Size]) -> float:
    """The farthest that one engine is from another, image by image."""
    pictures = [noise(engine, *size, seed) for seed, size in enumerate(sizes)]
    return max(apart(engine.run([p]), reference.run([p])) for p in pictures)


def company(engine: Engine, sizes: Sequence[Size], canvas: Canvas | None = None) -> float:
    """The farthest that an image in a batch of all these sizes is from itself alone."""
    pictures = [noise(engine, *size, seed) for seed, size in enumerate(sizes)]
    together = engine.run(pictures, canvas=canvas)
    return max(apart(together.row(i), engine.run([p])) for i, p in enumerate(pictures))


def milliseconds(run: Callable[[], object]) -> float:
    """How long a run takes."""
    begun = time.perf_counter()
    run()
    return (time.perf_counter() - begun) * 1000


def alternating(engine: Engine, one: Size, other: Size, runs: int) -> tuple[float, float]:
    """Milliseconds of a run, the median: two shapes in turn, and the same two each repeated."""
    first, second = ([noise(engine, *size)] for size in (one, other))
    for picture in (first, second):  # not for the first time
        engine.run(picture)
    in_turn = [milliseconds(partial(engine.run, p)) for _ in range(runs) for p in (first, second)]
    repeated = [milliseconds(partial(engine.run, p)) for p in (first, second) for _ in range(runs)]
    return median(in_turn), median(repeated)


def memory_mb(device: str) -> float:
    """What is used of a GPU's memory, or what this process holds of the host's, 10^6 bytes."""
    if device == CPU:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / MEGA
    return int(_asked("memory.used", device.partition(":")[2])) * 2**20 / MEGA


def kept_mb(engine: Engine, usual: int, large: int) -> tuple[float, float]:
    """What stays taken of the first device after a run of a square image of that side, and what is
    left of it after a larger one. A large one before both loads what CUDA never lets go of."""
    some, more = ([noise(engine, side, side)] for side in (usual, large))
    used = []
    for pictures in (more, some, more):
        engine.run(pictures)
        gc.collect()
        used.append(memory_mb(engine.devices[0]))
    least, after_some, after_more = used
    return after_some - least, after_more - least


def computes_tf32(number: int) -> bool:
    """Whether that GPU has TF32 (compute capability 8 and on)."""
    return float(_asked("compute_cap", str(number))) >= 8


def _asked(what: str, gpu: str) -> str:
    query = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    done = subprocess.run([*query, "-i", gpu], capture_output=True, text=True, check=True)
    return done.stdout


def memory_over_shapes(engine: Engine, shapes: int, largest: int) -> tuple[float, float]:
    """What is used after a tenth of as many different shapes, among them the largest; after all."""
    smallest, step = engine.card.limits.smallest(), engine.card.limits.multiple
    rng = np.random.default_rng(0)
    sides = rng.integers(max(smallest) // step, largest // step + 1, (shapes, 2)) * step
    sides[0] = largest // step * step
    early = 0.0
    for number, (height, width) in enumerate(sides):
        engine.run([noise(engine, int(height), int(width))])
        if number == shapes // 10:
            early = memory_mb(engine.devices[0])
    gc.collect()
    return early, memory_mb(engine.devices[0])


def first_request(folder: Path, provider: Provider, size: Size) -> tuple[float, float, float]:
    """Milliseconds to load, of the first run, and of one after that."""
    begun = time.perf_counter()
    engine = Engine(folder, provider)
    loading = (time.perf_counter() - begun) * 1000
    picture = [noise(engine, *size)]
    first, again = (milliseconds(partial(engine.run, picture)) for _ in range(2))
    return loading, first, again


def throughput(
    folder: Path,
    provider: Provider,
    sizes: Sequence[Size],
    tables: Sequence[Table],
    seconds: float,
    rounds: int,
) -> dict[Table, float]:
    """Images a second by canvas table, the median; rounds take turns."""
    measure = Speed(folder, provider, Gpu(devices=(0,)), sizes, seconds)
    ways = {table: Way(cores=1, canvases=table, batching="auto") for table in tables}
    found = [{table: measure(way) for table, way in ways.items()} for _ in range(rounds)]
    return {table: median(one[table] for one in found) for table in tables}
