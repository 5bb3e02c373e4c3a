"""The artifacts on disk, before anything is loaded: <store>/<name>/<version>/.

Apart from store.py, since the supervisor looks here and must not import ONNX Runtime.
"""

import os
import re
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

DEFAULT_MODEL = "efficientnet_lite0"
_NAME = re.compile(r"(?!stats$)[a-z0-9][a-z0-9_.-]{0,63}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")

# What the files of an artifact look like from outside: (name, bytes, time of the last change).
Stamp = tuple[tuple[str, int, int], ...]


class StoreError(Exception):
    """An artifact, or the whole store, cannot be served; the message says why and what to do."""


def find(root: Path) -> dict[str, dict[int, Path]]:
    """The artifact folders under `root`, by name and version; nothing is opened."""
    return _find(root, "*")


def find_versions(root: Path, name: str) -> dict[int, Path]:
    """Those of one model; none where the name is not one that a model may have."""
    return _find(root, name).get(name, {}) if _NAME.fullmatch(name) else {}


def _find(root: Path, name: str) -> dict[str, dict[int, Path]]:
    found: dict[str, dict[int, Path]] = {}
    for card in sorted(root.glob(f"{name}/*/card.json")):
        folder = card.parent
        if _NAME.fullmatch(folder.parent.name) and _VERSION.fullmatch(folder.name):
            found.setdefault(folder.parent.name, {})[int(folder.name)] = folder
    return found


def stamp(folder: Path) -> Stamp:
    """The same as long as no file in `folder` is added, changed or removed; raises OSError."""
    states = [(path.name, _state(path)) for path in sorted(folder.iterdir())]
    return tuple(
        (name, state.st_size, state.st_mtime_ns)
        for name, state in states
        if not stat.S_ISDIR(state.st_mode)
    )


def _state(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError:
        return path.lstat()  # a link that leads nowhere


def check_inside(root: Path, folder: Path) -> None:
    """Raise StoreError unless all in `folder` are files that really lie under `root`.

    Links that stay inside are fine: Kubernetes mounts volumes with them.
    """
    inside = root.resolve()
    for path in (folder, *sorted(folder.iterdir())):
        real = path.resolve()
        if not real.is_relative_to(inside):
            inner = path.relative_to(root)
            raise StoreError(f"{inner} leads out of the store: copy in what it links to instead")
        if not (real.is_file() or real.is_dir()):
            raise StoreError(f"{path} is neither a file nor a folder")


Side = Annotated[int, Field(ge=1)]
_CANVASES = TypeAdapter(dict[str, list[tuple[Side, Side, Side]]])


def read_canvases(
    path: Path, models: Collection[str] | None = None
) -> dict[str, list[tuple[int, int, int]]]:
    """Shapes to pin, (rows, height, width) by model, from a JSON file; raises StoreError.

    The file looks like {"efficientnet_lite0": [[16, 96, 96], [8, 224, 224]]}.

    models: refuse names that are not among these
    """
    try:
        found = _CANVASES.validate_json(path.read_bytes())
    except OSError as exc:
        raise StoreError(f"--canvases: {path} cannot be read: {exc.strerror}") from exc
    except ValidationError as exc:
        raise StoreError(
            f"--canvases: {path} is not what it should be: a JSON object such as "
            '{"efficientnet_lite0": [[16, 96, 96], [8, 224, 224]]}, with (rows, height, width) '
            f"of each canvas: {exc.errors()[0]['msg']}"
        ) from exc
    if models is not None and (unknown := sorted(found.keys() - set(models))):
        raise StoreError(f"--canvases: {path} names {unknown[0]!r}; there are: {', '.join(models)}")
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
