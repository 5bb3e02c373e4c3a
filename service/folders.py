"""The artifacts on disk, before anything is loaded: <store>/<name>/<version>/.

Apart from store.py, since the supervisor looks here and must not import ONNX Runtime.
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

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


Side = Annotated[int, Field(ge=1)]
_CANVASES = TypeAdapter(dict[str, list[tuple[Side, Side, Side]]])


def read_canvases(path: Path, models: Collection[str]) -> dict[str, list[tuple[int, int, int]]]:
    """Shapes to pin, (rows, height, width) by model, from a JSON file; raises StoreError.

    The file looks like {"efficientnet_lite0": [[16, 96, 96], [8, 224, 224]]}.
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
    if unknown := sorted(found.keys() - set(models)):
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
