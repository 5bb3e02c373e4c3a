"""Compare what the service decodes with what torchvision's presets make of the same photos.

`python -m tests.zoo.presets`, where torchvision is installed: every preset of every classifier that
`networks.py` lists, on every photo of tests/photos. Ends with 1 if any number differs by more than
rounding. Colour profiles are left out: torchvision ignores them, the service converts.
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from models.card import Preprocessing, SizeLimits
from service.images import FORMATS, SourceLimits, decode, read_header
from service.resize import InferenceLimits, Resize, whole_size
from tests.zoo.networks import names

PHOTOS = Path(__file__).parents[1] / "photos"
_ROUNDING = 1e-3  # of a step of an 8-bit pixel
_ANY = SizeLimits(min_height=1, min_width=1)
_SOURCE, _INFERENCE = SourceLimits(50_000_000, 16_384, 100), InferenceLimits(4_096, 16_000_000)

Preset = Callable[[Image.Image], Any]


def main() -> int:
    found = presets()
    photos = sorted(path for path in PHOTOS.iterdir() if path.suffix in (".jpg", ".webp"))
    wrong = 0
    for preprocessing, (preset, users) in found.items():
        worst = max(difference(path, preprocessing, preset) for path in photos)
        wrong += worst > _ROUNDING
        print(f"crop:{preprocessing.size}:{preprocessing.crop} {preprocessing.filter:<8} "
              f"{worst:.0e} steps on {len(photos)} photos; {len(users)} weights, as {users[0]}",
              flush=True)  # fmt: skip
    return 1 if wrong or not found else 0


def presets() -> dict[Preprocessing, tuple[Preset, list[str]]]:
    """Every different preset, what it is in our words, and the weights that use it."""
    from torchvision import models

    found: dict[Preprocessing, tuple[Preset, list[str]]] = {}
    ours = [name.removeprefix("tv_") for name in names() if name.startswith("tv_")]
    for weights in (entry for name in ours for entry in models.get_model_weights(name)):
        preset = weights.transforms()
        _, users = found.setdefault(_in_our_words(preset), (preset, []))
        users.append(str(weights))
    return found


def _in_our_words(preset: Any) -> Preprocessing:
    (size,), (crop,) = preset.resize_size, preset.crop_size
    return Preprocessing(
        channels=3,
        mean=tuple(255 * number for number in preset.mean),
        std=tuple(255 * number for number in preset.std),
        policy="crop",
        size=size,
        crop=crop,
        filter=preset.interpolation.value,
    )


def difference(path: Path, preprocessing: Preprocessing, preset: Preset) -> float:
    """How far the network's input is from that of torchvision, at most, in steps of a pixel."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
        data = path.read_bytes() if "icc_profile" not in image.info else _png(upright)
    theirs: NDArray[np.float32] = preset(upright).numpy().transpose(1, 2, 0)  # (h, w, c)
    ours = _decoded(data, preprocessing)  # (h, w, c)
    if ours.shape != theirs.shape:
        raise ValueError(f"{path.name}: {ours.shape}, torchvision makes {theirs.shape}")
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    return float(np.abs(ours - (theirs * std + mean)).max())


def _png(image: Image.Image) -> bytes:
    """The picture without what came with it."""
    out = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _decoded(data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    resize = Resize(preprocessing.policy, preprocessing.size, preprocessing.crop)
    header = read_header(data, _SOURCE, FORMATS)
    whole = whole_size(header.size, resize, _ANY, _INFERENCE)
    return decode(data, header, resize.seen(whole), preprocessing, whole)


if __name__ == "__main__":
    sys.exit(main())
