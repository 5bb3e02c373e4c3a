"""Photos of tests/photos at any size, the same on every run."""

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PHOTOS = Path(__file__).parent.parent / "photos"
# How each is written: what clients send, and quick to make.
SAVED: dict[str, dict[str, Any]] = {
    "jpeg": {"format": "JPEG", "quality": 85},
    "webp": {"format": "WEBP", "quality": 80, "method": 0},
    "png": {"format": "PNG", "compress_level": 1},
}


@cache
def _photos() -> list[Image.Image]:
    rows = json.loads((PHOTOS / "manifest.json").read_text(encoding="utf-8"))
    return [Image.open(PHOTOS / row["file"]).convert("RGB") for row in rows]


def encoded(number: int, width: int, height: int, form: str) -> bytes:
    """A photo resized to exactly that; `form` is one of SAVED."""
    photo = _photos()[number % len(_photos())]
    out = io.BytesIO()
    photo.resize((width, height), Image.Resampling.BICUBIC).save(out, **SAVED[form])
    return out.getvalue()


def jpeg(number: int, width: int, height: int) -> bytes:
    """The same as baseline JPEG, quality 85."""
    return encoded(number, width, height, "jpeg")


def boxes(count: int, shortest: int, longest: int) -> list[bytes]:
    """Sides uniform between the two, each for itself."""
    rng = np.random.default_rng(0)
    return [
        jpeg(i, *map(int, rng.integers(shortest, longest + 1, 2)))  # (width, height)
        for i in range(count)
    ]


def web(count: int) -> list[bytes]:
    """Photos as the web has them: longest side 158 to 1024, short ones more often; 4:3, 3:2, 1:1
    and upright."""
    rng = np.random.default_rng(0)
    files = []
    for i in range(count):
        side = round(158 * (1024 / 158) ** rng.random())
        other = round(side / rng.choice([1, 4 / 3, 3 / 2]))
        files.append(jpeg(i, *((side, other) if rng.random() < 0.7 else (other, side))))
    return files


def phones(count: int) -> list[bytes]:
    """4000×3000."""
    return [jpeg(i, 4000, 3000) for i in range(count)]
