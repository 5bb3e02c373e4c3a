"""The engines by name and version, found under one folder: <store>/<name>/<version>/."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from service.engine import Engine, Provider
from service.errors import NotFound

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "efficientnet_lite0"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_VERSION = re.compile(r"[1-9]\d{0,8}")


class StoreError(Exception):
    """The store has nothing to serve; the message says where it looked and what to do."""


def find(root: Path) -> dict[str, dict[int, Path]]:
    """The artifact folders under `root`, by name and version; nothing is opened."""
    found: dict[str, dict[int, Path]] = {}
    for card in sorted(root.glob("*/*/card.json")):
        folder = card.parent
        if _NAME.fullmatch(folder.parent.name) and _VERSION.fullmatch(folder.name):
            found.setdefault(folder.parent.name, {})[int(folder.name)] = folder
    return found


def default_model(names: list[str], wanted: str | None, root: Path) -> str:
    """Which model answers when none is named; raises StoreError."""
    if not names:
        raise StoreError(
            f"no model in {root.resolve()}. Export one first: anypool export {DEFAULT_MODEL} "
            f"--out {root}"
        )
    if wanted is None:
        wanted = names[0] if len(names) == 1 else DEFAULT_MODEL
    if wanted not in names:
        raise StoreError(
            f"the default model {wanted!r} is not in {root.resolve()}, which has: "
            f"{', '.join(names)}. Choose one with --model"
        )
    return wanted


class Store:
    """Loaded engines. Nothing is loaded before `load`."""

    def __init__(self, root: Path, provider: Provider, default: str | None) -> None:
        self._root = root
        self._provider = provider
        self._wanted = default
        self._default: str | None = None
        self._engines: dict[str, dict[int, Engine]] = {}

    def load(self) -> None:
        """Load and warm up every artifact; raises StoreError, CardError, EngineError."""
        found = find(self._root)
        default = default_model(sorted(found), self._wanted, self._root)
        for name, versions in found.items():
            for version, folder in versions.items():
                engine = Engine(folder, self._provider)
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

    def get(self, name: str | None = None, version: int | None = None) -> Engine:
        """An engine; no name means the default model, no version the newest. Raises NotFound."""
        name = name or self._default
        versions = self._engines.get(name or "")
        if not versions:
            raise NotFound(f"no model is named {name!r}; there are: {', '.join(self._engines)}")
        chosen = version if version is not None else max(versions)
        if chosen not in versions:
            have = ", ".join(str(v) for v in sorted(versions))
            raise NotFound(f"{name} has no version {chosen}; it has: {have}")
        return versions[chosen]
