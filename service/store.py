"""The engines by name and version, found under one folder: <store>/<name>/<version>/."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from service.costs import Canvas
from service.engine import Batching, Engine, Provider
from service.errors import NotFound
from service.folders import default_model, find

logger = logging.getLogger(__name__)


class Store:
    """Loaded engines. Nothing is loaded before `load`."""

    def __init__(
        self,
        root: Path,
        provider: Provider,
        default: str | None,
        *,
        batching: Batching = "equal",
        canvases: Mapping[str, Sequence[tuple[int, int, int]]] | None = None,
    ) -> None:
        """batching, canvases by model name, as (rows, height, width): see Engine."""
        self._root = root
        self._provider = provider
        self._wanted = default
        self._batching = batching
        self._canvases = canvases or {}
        self._default: str | None = None
        self._engines: dict[str, dict[int, Engine]] = {}

    def load(self) -> None:
        """Load and warm up every artifact; raises StoreError, CardError, EngineError."""
        found = find(self._root)
        default = default_model(sorted(found), self._wanted, self._root)
        for name, versions in found.items():
            canvases = [Canvas(*shape) for shape in self._canvases.get(name, ())]
            for version, folder in versions.items():
                engine = Engine(folder, self._provider, batching=self._batching, canvases=canvases)
                engine.warm_up()
                self._engines.setdefault(name, {})[version] = engine
                logger.info("loaded %s version %d on %s", name, version, engine.provider)
        self._default = default

    @property
    def ready(self) -> bool:
        """True once everything is loaded and warm."""
        return self._default is not None

    def __iter__(self) -> Iterator[Engine]:
        """All engines, the default model's first, newest versions first."""
        for name in sorted(self._engines, key=lambda name: (name != self._default, name)):
            for version in sorted(self._engines[name], reverse=True):
                yield self._engines[name][version]

    def get(self, name: str | None = None, version: str | None = None) -> Engine:
        """An engine; no name means the default model, no version the newest. Raises NotFound."""
        name = name or self._default
        versions = self._engines.get(name or "")
        if not versions:
            raise NotFound(f"no model is named {name!r}; there are: {', '.join(self._engines)}")
        if version is None:
            return versions[max(versions)]
        found = next((versions[v] for v in versions if str(v) == version), None)
        if found is None:
            have = ", ".join(str(v) for v in sorted(versions))
            raise NotFound(f"{name} has no version {version}; it has: {have}")
        return found
