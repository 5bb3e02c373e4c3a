"""From a folder of the store to an engine that can be trusted, or the reason why not."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from models.card import CardError
from service.costs import Canvas
from service.engine import Batching, Engine, EngineError, Provider
from service.folders import Stamp, StoreError, check_inside, stamp
from service.golden import GoldenError, check
from service.trial import Note, survive

logger = logging.getLogger(__name__)

_FORESEEN = (StoreError, CardError, EngineError, GoldenError, OSError)


class Loader:
    """Loads, warms up and checks what lies in a store."""

    def __init__(
        self,
        root: Path,
        provider: Provider,
        *,
        batching: Batching,
        canvases: Mapping[str, Sequence[tuple[int, int, int]]],
        verify: bool,
        note: Note,
    ) -> None:
        """See Store."""
        self._root = root
        self._provider = provider
        self._batching = batching
        self._canvases = canvases
        self._verify = verify
        self._note = note

    def load(self, name: str, version: int, seen: Stamp, *, trial: bool) -> Engine:
        """The engine of a version, ready to run; raises StoreError whatever is wrong with it.

        seen: what its files looked like when it was decided to load it
        trial: load it in a process of its own first
        """
        folder = self._root / name / str(version)
        try:
            check_inside(self._root, folder)
            if trial or self._note.suspect == str(folder):
                survive(folder, self._provider, self._batching)
            with self._note.about(str(folder)):
                engine = self._engine(name, version, folder)
            if stamp(folder) != seen:
                raise StoreError("its files changed while they were read")
        except _FORESEEN as exc:
            raise StoreError(" ".join(str(exc).split())) from exc
        except Exception as exc:
            logger.exception("%s cannot be loaded", folder)
            raise StoreError("an error that nobody foresaw; the service's log has it") from exc
        return engine

    def _engine(self, name: str, version: int, folder: Path) -> Engine:
        canvases = [Canvas(*shape) for shape in self._canvases.get(name, ())]
        engine = Engine(folder, self._provider, batching=self._batching, canvases=canvases)
        if (engine.card.name, engine.card.version) != (name, version):
            raise StoreError(
                f"the card in {folder} says {engine.card.name} version {engine.card.version}: "
                "name the folders as the card does"
            )
        engine.warm_up()
        if self._verify:
            wrong = next((case for case in check(engine, folder) if case.problem is not None), None)
            if wrong is not None:
                raise StoreError(
                    f"it fails verification, {wrong.kind} {wrong.size}: {wrong.problem}"
                )
            engine.give_back_memory()
        return engine
