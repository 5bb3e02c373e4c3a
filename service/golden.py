"""Check an artifact: against what torch answered at export, and each image against itself alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from service.engine import Engine, lay, on_canvas
from service.failures import EngineError
from service.images import Pixels
from service.scores import Maps, Scores

_COMPARED = ("logits", "probabilities", "embedding")
# Maps are for eyes; and those of a maximum move, from one place to another that comes within 1 %
# of it, by a hundred times what the values move.
_MAP_TOLERANCE = 5
_MIXED_ROUNDS, _TOGETHER = 2, 4
_LARGEST_CANVAS = 400_000  # pixels of one image: keeps the check of mixed batches short


class GoldenError(Exception):
    """The golden outputs of an artifact are missing or unreadable."""


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison: error is the largest |difference| / max|reference|, at most tolerance.

    kind: "size" for a size against torch; for images of a batch against alone "company" where they
    are of one size, "mixed" where not
    size: where there are several devices, also on which
    """

    kind: str
    size: str
    error: float
    tolerance: float
    provider: str
    problem: str | None


def check(engine: Engine, folder: Path) -> Iterator[Case]:
    """Run everything that golden.npz allows, on every device; lazily, one Case a step.

    Raises GoldenError.
    """
    tolerance = engine.card.tolerances.get(engine.provider)
    in_company = engine.card.mixed.tolerances.get(engine.provider)
    if tolerance is None or in_company is None:
        raise GoldenError(f"the card has no tolerance for {engine.provider}")
    try:
        arrays = dict(np.load(folder / "golden.npz", allow_pickle=False))
    except (OSError, ValueError, EOFError, BadZipFile) as exc:
        raise GoldenError(f"{folder / 'golden.npz'} cannot be read: {exc}") from exc
    numbers = sorted(key.removeprefix("pixels_") for key in arrays if key.startswith("pixels_"))
    if not numbers or any(f"logits_{number}" not in arrays for number in numbers):
        raise GoldenError(f"{folder / 'golden.npz'} lacks images, or the logits of some")
    batches = [arrays[f"pixels_{number}"] for number in numbers]
    for device in engine.devices:
        for number in numbers:
            yield _against_torch(engine, device, arrays, number, tolerance)
        for batch in batches:
            if len(batch) > 1:
                yield _against_alone(engine, device, list(batch), batch, None, in_company)
        if engine.mixes:
            pictures = [picture for batch in batches for picture in batch]
            yield from _mixed(engine, device, pictures, in_company)


def _against_torch(
    engine: Engine, device: str, arrays: dict[str, NDArray[Any]], number: str, tolerance: float
) -> Case:
    """logits and embedding relative to the largest reference; probabilities, since exp turns
    absolute errors of logits into relative ones, relative to the largest logit."""
    pixels = arrays[f"pixels_{number}"]
    size = _where(engine, device, "×".join(str(side) for side in pixels.shape[:3]))
    wanted = arrays.get(f"cam_classes_{number}", np.empty((len(pixels), 0), np.int64))
    try:
        scores = engine.run(list(pixels), classes=wanted.tolist(), device=device)
    except EngineError as exc:
        return Case("size", size, float("inf"), tolerance, engine.provider, str(exc))
    error, problem = 0.0, None
    if scores.maps is not None:
        for maps, named, want in zip(scores.maps, wanted, arrays[f"cam_{number}"], strict=True):
            same = maps.classes.tolist() == named.tolist()
            off = _relative(maps.values, want, want) if same else float("inf")
            if off > _MAP_TOLERANCE * tolerance:
                problem = f"class activation maps differ by {off:.2e}"
                error = max(error, off)
    for name in _COMPARED:
        got, want = getattr(scores, name), arrays.get(f"{name}_{number}")
        if got is None or want is None:
            continue
        scale = arrays[f"logits_{number}"] if name == "probabilities" else want
        relative = _relative(got, want, scale)
        if relative > tolerance:
            problem = f"{name} differs by {relative:.2e}"
        error = max(error, relative)
    return Case("size", size, error, tolerance, engine.provider, problem)


def _mixed(engine: Engine, device: str, pictures: list[Pixels], tolerance: float) -> Iterator[Case]:
    """Mixed batches in several shuffles, on canvases larger than needed and full of rubbish."""
    rng = np.random.default_rng(0)
    small = [p for p in pictures if p.shape[0] * p.shape[1] <= _LARGEST_CANVAS]
    for round_ in range(_MIXED_ROUNDS):
        order = [small[index] for index in rng.permutation(len(small))]
        for first in range(0, len(order), _TOGETHER):
            some = order[first : first + _TOGETHER]
            feed = on_canvas(some)
            n, height, width, channels = feed["pixels"].shape
            step = engine.card.limits.multiple * round_
            shape = (n, height + 5 * step, width + 11 * step, channels)
            if shape[1] * shape[2] > _LARGEST_CANVAS:
                continue
            canvas = np.full(shape, 255, np.uint8)
            if round_ % 2 == 0:
                canvas = rng.integers(0, 256, shape, dtype=np.uint8)
            lay(some, canvas)
            yield _against_alone(engine, device, some, canvas, feed["sizes"], tolerance)


def _where(engine: Engine, device: str, size: str) -> str:
    return size if len(engine.devices) == 1 else f"{size}, {device}"


def _against_alone(
    engine: Engine,
    device: str,
    pictures: list[Pixels],
    canvas: NDArray[np.uint8],
    sizes: NDArray[np.int64] | None,
    tolerance: float,
) -> Case:
    """Each image of a batch against the same image alone on the plain graph."""
    kind = "company" if sizes is None else "mixed"
    what = ", ".join(f"{p.shape[0]}×{p.shape[1]}" for p in pictures)
    size = _where(engine, device, f"{what} on {canvas.shape[1]}×{canvas.shape[2]}")
    classes = [-1, -min(2, len(engine.card.labels)), len(engine.card.labels) - 1]
    wanted = [classes] * len(pictures) if "cam" in engine.card.outputs else []
    try:
        if sizes is None:
            together = engine.run(pictures, classes=wanted, device=device)
        else:
            together = engine.run_canvas(canvas, sizes, wanted, device)
        alone = [engine.run([one], classes=wanted[:1], device=device) for one in pictures]
        worst = max(_distance(together.row(index), one) for index, one in enumerate(alone))
    except EngineError as exc:
        return Case(kind, size, float("inf"), tolerance, engine.provider, str(exc))
    problem = f"in company differs by {worst:.2e} from alone" if worst > tolerance else None
    return Case(kind, size, worst, tolerance, engine.provider, problem)


def _distance(got: Scores, want: Scores) -> float:
    distances = [_relative(got.logits, want.logits, want.logits)]
    if got.embedding is not None and want.embedding is not None:
        distances.append(_relative(got.embedding, want.embedding, want.embedding))
    for mine, other in zip(got.maps or (), want.maps or (), strict=True):
        if not (_ranked(got, mine) and _ranked(want, other)):
            return float("inf")
        same = mine.classes == other.classes  # two classes may be as probable, within 1e-5
        one, two = mine.values[same], other.values[same]
        distances.append(_relative(one, two, other.values) / _MAP_TOLERANCE)
    return max(distances)


def _ranked(scores: Scores, maps: Maps) -> bool:
    """Whether the maps of one image are those of its most probable class, its second, the last."""
    best = scores.ranking[0]
    second = best[min(1, len(best) - 1)]
    expected: list[int] = [best[0], second, len(best) - 1]
    return bool(maps.classes.tolist() == expected)


def _relative(got: NDArray[Any], want: NDArray[Any], scale: NDArray[Any]) -> float:
    if got.shape != want.shape:
        return float("inf")
    largest, difference = float(np.abs(scale).max()), float(np.abs(got - want).max())
    relative = difference / largest if largest else difference
    return relative if np.isfinite(relative) else float("inf")
