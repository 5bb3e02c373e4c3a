"""Photos of tests/photos at any size, as JPEG, the same on every run."""

import io
from functools import cache

import numpy as np
from PIL import Image

from tests.conftest import all_photos


@cache
def _photos() -> list[Image.Image]:
    return [Image.open(photo.path).convert("RGB") for photo in all_photos()]


def jpeg(number: int, width: int, height: int) -> bytes:
    """A photo resized to exactly that, baseline, quality 85."""
    photo = _photos()[number % len(_photos())]
    out = io.BytesIO()
    photo.resize((width, height), Image.Resampling.BICUBIC).save(out, "JPEG", quality=85)
    return out.getvalue()


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
