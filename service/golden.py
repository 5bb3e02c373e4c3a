"""Check an artifact against the answers that torch gave when it was exported."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine import Engine, EngineError

_COMPARED = ("logits", "probabilities", "embedding")


class GoldenError(Exception):
    """The golden outputs of an artifact are missing or unreadable."""


@dataclass(frozen=True, slots=True)
class Case:
    """One size: error is the largest |difference| / max|reference|, to be at most tolerance."""

    size: str
    error: float
    tolerance: float
    provider: str
    problem: str | None


def check(engine: Engine, folder: Path) -> Iterator[Case]:
    """Run every case of golden.npz and compare; lazily, one Case a step. Raises GoldenError.

    logits and embedding are compared relative to the largest reference of the case; probabilities
    relative to the largest logit, since exp turns absolute errors of logits into relative ones.
    """
    tolerance = engine.card.tolerances.get(engine.provider)
    if tolerance is None:
        raise GoldenError(f"the card has no tolerance for {engine.provider}")
    try:
        arrays = dict(np.load(folder / "golden.npz", allow_pickle=False))
    except (OSError, ValueError) as exc:
        raise GoldenError(f"{folder / 'golden.npz'} cannot be read: {exc}") from exc
    for name in sorted(key for key in arrays if key.startswith("pixels_")):
        yield _compare(engine, arrays, name.removeprefix("pixels_"), tolerance)


def _compare(engine: Engine, arrays: dict[str, NDArray[Any]], case: str, tolerance: float) -> Case:
    pixels = arrays[f"pixels_{case}"]
    size = "×".join(str(side) for side in pixels.shape[:3])
    try:
        scores = engine.run(pixels)
    except EngineError as exc:
        return Case(size, float("inf"), tolerance, engine.provider, str(exc))
    error, problem = 0.0, None
    for name in _COMPARED:
        got, want = getattr(scores, name), arrays.get(f"{name}_{case}")
        if got is None or want is None:
            continue
        if got.shape != want.shape:
            return Case(size, float("inf"), tolerance, engine.provider,
                        f"{name} has shape {got.shape}, not {want.shape}")  # fmt: skip
        scale = np.abs(arrays[f"logits_{case}"] if name == "probabilities" else want).max()
        difference = float(np.abs(got - want).max())
        relative = difference / float(scale) if scale else difference
        if not np.isfinite(relative):
            relative = float("inf")
        if relative > tolerance:
            problem = f"{name} differs by {relative:.2e}"
        error = max(error, relative)
    return Case(size, error, tolerance, engine.provider, problem)
