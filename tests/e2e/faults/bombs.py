"""Small files that unpack to more pixels than are allowed, one of each format."""

import struct
from collections.abc import Iterator
from typing import Any

from PIL import Image

from service.images import allowed_formats
from tests.fuzz.pictures import encoded, samples

_SIDE = 7_200  # 51.8 megapixels; 50 are allowed
_OPTIONS: dict[str, dict[str, Any]] = {
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "WEBP": {"quality": 1, "method": 0},
    "AVIF": {"quality": 1, "speed": 10},
}


def bombs() -> Iterator[tuple[str, bytes]]:
    """Format and file. All but BMP and HEIF were really packed; that takes them a second each."""
    for format_ in allowed_formats():
        yield format_, _bomb(format_)


def _bomb(format_: str) -> bytes:
    if format_ == "BMP":  # by hand: run lengths that end at once
        head = struct.pack("<IiiHHIIiiII", 40, _SIDE, _SIDE, 1, 8, 1, 2, 0, 0, 256, 0)
        return struct.pack("<2sIII", b"BM", 1080, 0, 1078) + head + bytes(1024) + b"\0\1"
    if format_ == "HEIF":  # half a minute to pack: a small one that lies
        file = bytearray(samples()["HEIF"])
        struct.pack_into(">II", file, file.index(b"ispe") + 8, _SIDE, _SIDE)
        return bytes(file)
    mode = "RGB" if format_ in ("WEBP", "AVIF") else "L"
    return encoded(Image.new(mode, (_SIDE, _SIDE)), format_, **_OPTIONS.get(format_, {}))
