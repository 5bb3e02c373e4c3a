"""The engines by name and version, found under one folder: <store>/<name>/<version>/.

Versions come and go while others answer. All that is known stands in one mapping, which is never
changed but replaced: whoever reads it sees a model as it was before a change or as it is after it.
A request keeps the engine that it got; the last one to let go of it frees its memory.
"""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from service.engine import Batching, Engine
from service.errors import BadRequest, NotFound
from service.folders import Stamp, StoreError, default_model, find, find_versions, stamp
from service.loader import Loader
from service.sessions import Gpu, Provider
from service.trial import Note

logger = logging.getLogger(__name__)

State = Literal["READY", "LOADING", "UNAVAILABLE"]
_UNLOADED = "unloaded by hand; load it to have it back"
_GONE = "its folder is gone; it is kept, since the model has no other version that can be used"

Disk = Mapping[int, Stamp]  # versions of a model and what their files look like


@dataclass(frozen=True, slots=True)
class Entry:
    """A version of a model, served or not; reason: why not, or why not as it lies on disk."""

    name: str
    version: str
    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Version:
    """stamp: of the files that were loaded, or that could not be; None is no longer on disk."""

    stamp: Stamp | None
    engine: Engine | None = None
    state: State = "LOADING"
    reason: str = ""


class Store:
    """Engines that can be used now. Nothing is loaded before `load`; all methods are thread-safe.

    Only those that change something wait for each other.
    """

    def __init__(
        self,
        root: Path,
        provider: Provider,
        default: str | None,
        *,
        batching: Batching = "equal",
        canvases: Mapping[str, Sequence[tuple[int, int, int]]] | None = None,
        gpu: Gpu = Gpu(),  # noqa: B008  # frozen
        verify: bool = False,
        explicit: frozenset[str] = frozenset(),
        trial: bool = False,
        note: str | None = None,
    ) -> None:
        """batching, gpu, canvases by model name, as (rows, height, width): see Engine.

        explicit: settings that no tuning.json may change
        verify: take an artifact only if it answers what torch answered at export
        trial: while others are served, load an artifact in a process of its own first
        note: file that says what the process before this one was loading when it died, if anything
        """
        self._root = root
        self._wanted = default
        self._trial = trial
        self._note = Note(note)
        self._loader = Loader(root, provider, batching, canvases or {}, gpu, verify, explicit)
        self._default: str | None = None
        self._models: Mapping[str, Mapping[int, _Version]] = {}  # replaced, never changed
        self._changing = threading.Lock()
        self._stop = threading.Event()
        self._seen: dict[str, Disk] = {}  # at the last look
        self._unloaded: set[str] = set()

    def load(self, *, again: bool = False) -> None:
        """Load and warm up every artifact; one that is broken is logged, and stands in the index.

        again: try also what was broken and has not changed since

        Raises StoreError when the default model has no version that can be used.
        """
        with self._changing:
            self._seen = self._look()
            default_model(sorted(self._seen), self._wanted, self._root)
            waiting = {n: {v: _Version(s) for v, s in d.items()} for n, d in self._seen.items()}
            self._models = {**waiting, **self._models}
            for name, disk in self._seen.items():
                self._change(name, disk, again=again)
            self._settle()

    def load_model(self, name: str) -> None:
        """Load what is new or changed on disk of a model, and drop what is gone, in one switch.

        Raises NotFound when the store has no such folder; StoreError when a version cannot be
        used: then the others are served, and what was loaded before of that one.
        """
        with self._changing:
            disk = self._look(name).get(name)
            if disk is None:
                raise NotFound(f"no model is named {name!r} in the store")
            self._unloaded.discard(name)
            self._seen[name] = disk
            versions = self._change(name, disk, again=True)
            with suppress(StoreError):  # of another model
                self._settle()
        wrong = [
            f"{name} version {v}: {versions[v].reason}" for v in versions if versions[v].reason
        ]
        if wrong:
            raise StoreError("; ".join(wrong))

    def unload_model(self, name: str) -> None:
        """Take a model out of service until `load_model`; requests that are under way are answered.

        Raises NotFound; BadRequest for the default model, without which the service is not ready.
        """
        with self._changing:
            if name not in self._models:
                raise NotFound(f"no model is named {name!r}")
            if name == self._default:
                raise BadRequest(f"{name} is the default model, which cannot be unloaded")
            self._unloaded.add(name)
            self._put(name, _unloaded(self._seen.get(name, {})))
            logger.info("unloaded %s", name)

    def refresh(self) -> None:
        """Follow the disk: load what is new or changed, drop what is gone.

        Only what two looks in a row see alike counts, so that nothing is taken half copied, and
        nothing dropped between two renames. What was broken is tried again when its files change.
        """
        with self._changing:
            before, now = self._seen, self._look()
            self._seen = now
            if not now:
                if before:
                    logger.error("%s is empty, or away: nothing is dropped", self._root.resolve())
                return
            for name in sorted(now.keys() | before.keys() | self._models.keys()):
                known = {v: x.stamp for v, x in self._models.get(name, {}).items()}
                disk = _agreed(now.get(name, {}), before.get(name, {}), known)
                if name in self._unloaded:
                    self._put(name, _unloaded(disk))
                else:
                    self._change(name, disk)
            with suppress(StoreError):  # as before
                self._settle()

    def close(self) -> None:
        """Give up what is being loaded on trial; what is served stays."""
        self._stop.set()

    def index(self) -> list[Entry]:
        """All versions that are known, the default model's first, newest versions first."""
        models = self._models
        return [
            Entry(name, str(version), models[name][version].state, models[name][version].reason)
            for name in self._names(models)
            for version in sorted(models[name], reverse=True)
        ]

    @property
    def ready(self) -> bool:
        """True once everything is loaded and warm."""
        return self._default is not None

    def __iter__(self) -> Iterator[Engine]:
        """All engines, the default model's first, newest versions first."""
        models = self._models
        for name in self._names(models):
            for version in sorted(models[name], reverse=True):
                engine = models[name][version].engine
                if engine is not None:
                    yield engine

    def get(self, name: str | None = None, version: str | None = None) -> Engine:
        """An engine; no name means the default model, no version the newest. Raises NotFound."""
        models = self._models
        name = name or self._default
        versions = _engines(models.get(name or "", {}))
        if not versions:
            there = ", ".join(name for name in self._names(models) if _engines(models[name]))
            raise NotFound(f"no model is named {name!r}; there are: {there}")
        if version is None:
            return versions[max(versions)]
        found = next((versions[v] for v in versions if str(v) == version), None)
        if found is None:
            have = ", ".join(str(v) for v in sorted(versions))
            raise NotFound(f"{name} has no version {version}; it has: {have}")
        return found

    def _names(self, models: Mapping[str, object]) -> list[str]:
        return sorted(models, key=lambda name: (name != self._default, name))

    def _look(self, name: str | None = None) -> dict[str, Disk]:
        """What lies on disk, of all models or one."""
        found = find(self._root) if name is None else {name: find_versions(self._root, name)}
        looks: dict[str, Disk] = {}
        for model, folders in found.items():
            looked = {version: _stamp(folder) for version, folder in folders.items()}
            disk = {version: seen for version, seen in looked.items() if seen is not None}
            if disk:
                looks[model] = disk
        return looks

    def _settle(self) -> None:
        """Find the default model, and be ready; raises StoreError when it cannot be used."""
        if self._default is not None:
            return
        name = default_model(sorted(self._seen), self._wanted, self._root)
        versions = self._models.get(name, {})
        if not _engines(versions):
            why = "; ".join(f"version {v}: {versions[v].reason}" for v in sorted(versions))
            raise StoreError(f"the default model {name!r} cannot be used: {why}")
        self._default = name

    def _change(self, name: str, disk: Disk, *, again: bool = False) -> Mapping[int, _Version]:
        """Make a model what lies on disk, beside what it was, and switch.

        again: try also what was broken and has not changed since
        """
        old = self._models.get(name, {})
        same = {
            version: old[version]
            for version, seen in disk.items()
            if version in old
            and old[version].stamp == seen
            and old[version].state != "LOADING"
            and not (again and old[version].reason)
        }
        due = {version: seen for version, seen in disk.items() if version not in same}
        loading = {version: _Version(seen) for version, seen in due.items()}
        self._put(name, {**old, **loading, **{v: old[v] for v in _engines(old)}})
        new = same | {v: self._next(name, v, seen, old.get(v)) for v, seen in due.items()}
        broken = any(version.reason for version in new.values())
        if not _engines(new) and (name == self._default or broken):
            new |= {v: _gone(name, v, old[v]) for v in sorted(_engines(old))[-1:]}
        self._put(name, new)
        for version in old.keys() - new.keys():
            logger.info("dropped %s version %d: its folder is gone", name, version)
        return new

    def _put(self, name: str, versions: Mapping[int, _Version]) -> None:
        """The switch: one assignment, before which readers see the old, and after it the new."""
        others = {other: self._models[other] for other in self._models if other != name}
        self._models = {**others, name: versions} if versions else others

    def _next(self, name: str, version: int, seen: Stamp, old: _Version | None) -> _Version:
        """A version as it lies on disk; if that is broken, as it was before."""
        what = f"{name} version {version}"
        trial = (self._trial and self.ready) or self._note.suspect == what
        try:
            with self._note.about(what):
                engine = self._loader.load(name, version, seen, trial=trial, stop=self._stop)
        except StoreError as exc:
            if old is None or old.engine is None:
                logger.error("%s cannot be used: %s", what, exc)
                return _Version(seen, None, "UNAVAILABLE", str(exc))
            reason = f"what lies on disk now cannot be used, what was loaded before is: {exc}"
            logger.error("%s: %s", what, reason)
            return _Version(seen, old.engine, "READY", reason)
        logger.info("loaded %s on %s", what, ", ".join(engine.devices))
        return _Version(seen, engine, "READY")


def _agreed(now: Disk, before: Disk, known: Mapping[int, Stamp | None]) -> Disk:
    """What two looks agree on; where they do not, what is known."""
    agreed = {}
    for version in now.keys() | before.keys() | known.keys():
        same = now.get(version) == before.get(version)
        seen = now.get(version) if same else known.get(version)
        if seen is not None:
            agreed[version] = seen
    return agreed


def _stamp(folder: Path) -> Stamp | None:
    """None when the folder has just gone."""
    try:
        return stamp(folder)
    except PermissionError:
        return ()
    except OSError:
        return None


def _unloaded(disk: Disk) -> dict[int, _Version]:
    return {v: _Version(seen, None, "UNAVAILABLE", _UNLOADED) for v, seen in disk.items()}


def _gone(name: str, number: int, version: _Version) -> _Version:
    if version.stamp is not None:
        logger.error("%s version %d: %s", name, number, _GONE)
    return replace(version, stamp=None, reason=_GONE)


def _engines(versions: Mapping[int, _Version]) -> dict[int, Engine]:
    return {number: v.engine for number, v in versions.items() if v.engine is not None}
