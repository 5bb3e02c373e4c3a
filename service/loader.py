"""From a folder of the store to an engine that can be trusted, or the reason why not.

`python -m service.loader LOADER NAME VERSION` tries it and ends: see `survive`.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

import numpy as np
from pydantic import TypeAdapter

from models.card import CardError
from service.costs import Canvas
from service.engine import Batching, Engine
from service.failures import DeviceLost, EngineError
from service.folders import Stamp, StoreError, check_inside, stamp
from service.golden import GoldenError, check
from service.sessions import Gpu, Provider
from service.trial import die_with_parent, survive
from service.tuning import read

logger = logging.getLogger(__name__)

_FORESEEN = (StoreError, CardError, EngineError, GoldenError, OSError)


@dataclass(frozen=True, slots=True)
class Loader:
    """Loads, warms up and checks what lies under `root`; the rest is as in Store.

    explicit: settings that an operator has chosen, so that no tuning.json changes them
    """

    root: Path
    provider: Provider
    batching: Batching
    canvases: Mapping[str, Sequence[tuple[int, int, int]]]
    gpu: Gpu
    verify: bool
    explicit: frozenset[str] = frozenset()

    def load(self, name: str, version: int, seen: Stamp, *, trial: bool, stop: Event) -> Engine:
        """The engine of a version, ready to run; raises StoreError whatever is wrong with it.

        DeviceLost is raised as it is: nothing is wrong with the version.
        seen: what its files looked like when it was decided to load it
        trial: do all this in a process of its own first, which `stop` ends
        """
        folder = self.root / name / str(version)
        try:
            check_inside(self.root, folder)
            if trial:
                told = _LOADER.dump_json(self).decode()
                survive("service.loader", told, name, str(version), stop=stop)
            engine = self.engine(name, version)
            if stamp(folder) != seen:
                raise StoreError("its files changed while they were read")
        except DeviceLost:
            raise
        except _FORESEEN as exc:
            raise StoreError(" ".join(str(exc).split())) from exc
        except Exception as exc:
            logger.exception("%s cannot be loaded", folder)
            raise StoreError("an error that nobody foresaw; the service's log has it") from exc
        return engine

    def engine(self, name: str, version: int) -> Engine:
        """Without regard to where files lie and whether they change; raises whatever is wrong."""
        folder = self.root / name / str(version)
        engine = self._engine(folder, name)
        if (engine.card.name, engine.card.version) != (name, version):
            raise StoreError(
                f"the card in {folder} says {engine.card.name} version {engine.card.version}: "
                "name the folders as the card does"
            )
        engine.warm_up()
        _check_classes(engine)
        if self.verify:
            wrong = next((case for case in check(engine, folder) if case.problem is not None), None)
            if wrong is not None:
                raise StoreError(
                    f"it fails verification, {wrong.kind} {wrong.size}: {wrong.problem}"
                )
            engine.give_back_memory()
        return engine

    def _engine(self, folder: Path, name: str) -> Engine:
        """As the settings say, and what they leave open as tuning.json does, if it counts here."""
        tuning, ignored = read(folder, self.provider, self.gpu)
        if ignored is not None:
            logger.warning(ignored)
        batching, shapes, gpu = self.batching, self.canvases.get(name, ()), self.gpu
        if tuning is not None:
            tuning = tuning.without(self.explicit)
            batching, gpu = (
                tuning.batching or batching,
                replace(gpu, search=tuning.search or gpu.search),
            )
            shapes = shapes if tuning.canvases is None else tuning.canvases
        canvases = [Canvas(*shape) for shape in shapes]
        engine = Engine(folder, self.provider, batching=batching, canvases=canvases, gpu=gpu)
        engine.tuning = tuning
        return engine


def _check_classes(engine: Engine) -> None:
    """Raise StoreError unless every class has its label, in each graph that may run."""
    (height, width), step = engine.card.limits.smallest(), engine.card.limits.multiple
    channels, labels = engine.card.preprocessing.channels, len(engine.card.labels)
    small, wide = (np.zeros((height, w, channels), np.uint8) for w in (width, width + step))
    runs = [engine.run([small]), *(engine.run([small], canvas=c) for c in engine.costs.canvases)]
    if engine.mixes:
        runs.append(engine.run([small, wide]))
    for scores in runs:
        if scores.probabilities.shape[1] != labels:
            classes = scores.probabilities.shape[1]
            raise StoreError(f"the network has {classes} classes, its card {labels} labels")


_LOADER = TypeAdapter(Loader)

if __name__ == "__main__":
    die_with_parent()
    os.nice(10)  # others are being served
    _LOADER.validate_json(sys.argv[1]).engine(sys.argv[2], int(sys.argv[3]))
