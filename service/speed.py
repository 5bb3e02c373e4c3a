"""How many images a second an engine classifies behind the real scheduler, without HTTP."""

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from service.costs import Canvas
from service.engine import Engine
from service.images import Pixels
from service.scheduler import Limits, Scheduler
from service.sessions import Gpu, Provider
from service.trials import Size, Way

_WAITING = 32  # images at any time, for each device


class Speed:
    """Measures ways to serve an artifact; engines are kept, since loading one takes seconds."""

    def __init__(
        self, folder: Path, provider: Provider, gpu: Gpu, sizes: Sequence[Size], seconds: float
    ) -> None:
        """sizes: (height, width) of the images, in turn; seconds: of one measurement."""
        self._folder = folder
        self._provider: Provider = provider
        self._gpu = gpu
        self._sizes = sizes
        self._seconds = seconds
        self._engines: dict[object, Engine] = {}

    def __call__(self, way: Way) -> float:
        """Images a second."""
        return asyncio.run(images_per_s(self.engine(way), way, self._sizes, self._seconds))

    def engine(self, way: Way) -> Engine:
        """That of a way, warm; raises CardError, EngineError."""
        key = way.batching, way.search, way.canvases
        if key not in self._engines:
            gpu = Gpu(self._gpu.devices, self._gpu.tf32, way.search)
            canvases = [Canvas(*shape) for shape in way.canvases]
            engine = Engine(
                self._folder, self._provider, batching=way.batching, canvases=canvases, gpu=gpu
            )
            engine.warm_up()
            self._engines[key] = engine
        return self._engines[key]


async def images_per_s(engine: Engine, way: Way, sizes: Sequence[Size], seconds: float) -> float:
    """Of images of those sizes in turn, many waiting at any time."""
    channels = engine.card.preprocessing.channels
    pictures: list[Pixels] = [np.full((h, w, channels), 99, np.uint8) for h, w in sizes]
    limits = Limits(queue_pixels=2**62, batch_pixels=int(way.batch_megapixels * 1e6))
    done = 0

    async def client(first: int) -> None:
        nonlocal done
        turn = first
        while time.monotonic() < end:
            picture = pictures[turn % len(pictures)]
            await scheduler.infer(engine, picture, time.monotonic(), math.inf)
            turn, done = turn + 1, done + 1

    with closing(Scheduler(way.cores, limits)) as scheduler:
        begun = time.monotonic()
        end = begun + seconds
        await asyncio.gather(*(client(first) for first in range(_WAITING * len(engine.devices))))
        return done / (time.monotonic() - begun)
