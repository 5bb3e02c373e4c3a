"""Networks in 16 bits (fp16): how far they may be off, and how far they are on photos."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx

from export.check import check
from export.errors import ExportError
from export.rewrite.halves import make_half
from models.card import Card, Drift

# Allowed |difference| / max|logit|, against torch in 32 bits as in company. 11 bits are 5e-4 for
# each of some fifty convolutions; EfficientNet-Lite0 is 2e-2 off on noise, without masks 0.4.
TOLERANCES = {"CPUExecutionProvider": 3e-2, "CUDAExecutionProvider": 3e-2}
# One photo in fifty may change sides: between two classes that are as probable it is no error.
_AGREE, _FEWEST = 0.98, 20
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def find_photos(folder: Path) -> tuple[Path, ...]:
    """The photos in a folder; raises ExportError where they are too few to tell anything."""
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES)
    if len(found) < _FEWEST:
        raise ExportError(
            f"{folder} has {len(found)} photos: at least {_FEWEST}, such as the network will see, "
            "must show what fp16 changes"
        )
    return tuple(found)


def halve(folder: Path, whole: Path) -> Card:
    """Rewrite an artifact in 16 bits; what it was is kept in `whole`. Raises ExportError."""
    shutil.copytree(folder, whole)
    card = Card.load(folder / "card.json")
    channels, explains = card.preprocessing.channels, "cam" in card.outputs
    for name in ("model.onnx", "ragged.onnx"):
        if (path := folder / name).exists():
            made = make_half(onnx.load(path))
            check(made, channels, explains=explains, ragged=name == "ragged.onnx")
            onnx.save(made, path)
    mixed = card.mixed.model_copy(update={"tolerances": TOLERANCES})
    changed = {"precision": "fp16", "tolerances": TOLERANCES, "mixed": mixed}
    card = card.model_copy(update=changed)
    card.save(folder / "card.json")
    return card


def drift(whole: Path, half: Path, photos: Sequence[Path], seen: Path) -> Drift:
    """What 16 bits change on photos, both artifacts run by the service, in a process of its own.

    On a CPU, which rounds the weights alone: see export/activations.py. Raises ExportError.
    seen: a folder for the photos as the network gets them
    """
    command = [sys.executable, "-P", "-m", "service.agreement", *map(str, (whole, half, seen))]
    done = subprocess.run(
        [*command, *map(str, photos)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ExportError(f"the photos could not be compared\n{done.stderr.strip()[-2000:]}")
    return Drift.model_validate_json(done.stdout)


def accept(found: Drift, card: Card) -> Card:
    """The card with what was found; raises ExportError where the answers are not the same."""
    if found.agreement < _AGREE:
        raise ExportError(
            f"in fp16 only {found.agreement:.1%} of {found.photos} photos get the same class as in "
            f"fp32 (at least {_AGREE:.0%} must), and probabilities differ by up to "
            f"{found.worst:.2g} ({found.worst_photo}): keep fp32"
        )
    allowed = max(card.tolerances.values())
    if found.rounded is not None and found.rounded > allowed:
        raise ExportError(
            f"in fp16, with the numbers between layers rounded as well, answers differ by "
            f"{found.rounded:.2g} of the largest logit from fp32 (at most {allowed:g}): keep fp32"
        )
    return card.model_copy(update={"drift": found})
