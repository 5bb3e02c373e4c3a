"""What is sent: pictures of a mix of sizes and formats, or of a folder. The same seed, the same
pictures."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from tests.load import images

Sides = tuple[int, int]  # width, height
_LONGEST = 1_400  # so that 1:1 stays within the 2.1 megapixels that `native` takes


@dataclass(frozen=True, slots=True)
class Picture:
    """A file to send."""

    number: int
    data: bytes
    kind: str  # its content type
    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


def web(rng: random.Random) -> Sides:
    """Longest side log-normal: half of them below 480, one in twenty above 1,280."""
    side = min(max(round(480 * rng.lognormvariate(0, 0.6)), 64), _LONGEST)
    other = round(side / rng.choice([1, 4 / 3, 3 / 2, 16 / 9]))
    return (side, other) if rng.random() < 0.7 else (other, side)


def thumbnail(rng: random.Random) -> Sides:
    """Each side 32 to 160."""
    return rng.randint(32, 160), rng.randint(32, 160)


def phone(rng: random.Random) -> Sides:
    """12 megapixels."""
    return rng.choice([(4000, 3000), (3000, 4000)])


Sort = Callable[[random.Random], Sides]
# Of how many in a hundred each mix is made.
MIXES: dict[str, dict[Sort, int]] = {
    "web": {web: 100},
    "thumbs": {thumbnail: 100},
    "phone": {phone: 100},
    "mixed": {thumbnail: 35, web: 60, phone: 5},
}
_PHONES = 12  # different ones
# Formats in a hundred; phones send JPEG.
FORMATS = {"jpeg": 70, "webp": 20, "png": 10}


def mix(name: str, count: int, seed: int, formats: Sequence[str] = ()) -> Iterator[Picture]:
    """So many pictures, made one by one; `formats` evenly, or else as the web has them."""
    rng = random.Random(seed)
    sorts = MIXES[name]
    for number in range(count):
        (sort,) = rng.choices(list(sorts), list(sorts.values()))
        width, height = sort(rng)
        (form,) = rng.choices(list(FORMATS), list(FORMATS.values()))
        if formats:
            form = formats[number % len(formats)]
        elif sort is phone:
            form = "jpeg"
        if sort is phone:  # few: they are of one size anyway
            data = _large(number % _PHONES, width, height, form)
        else:
            data = images.encoded(number, width, height, form)
        yield Picture(number, data, f"image/{form}", width, height)


@lru_cache(2 * _PHONES)
def _large(number: int, width: int, height: int, form: str) -> bytes:
    return images.encoded(number, width, height, form)


def folder(path: Path, count: int) -> Iterator[Picture]:
    """The first so many image files below it; files that Pillow does not know are left out."""
    number = 0
    for file in sorted(each for each in path.rglob("*") if each.is_file()):
        if number == count:
            return
        try:
            with Image.open(file) as image:
                width, height = image.size
                kind = image.get_format_mimetype() or "application/octet-stream"
        except (UnidentifiedImageError, OSError):
            continue
        yield Picture(number, file.read_bytes(), kind, width, height)
        number += 1
