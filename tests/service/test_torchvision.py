"""short and crop are torchvision's Resize, and Resize and CenterCrop, to the pixel.

torchvision_preset.json holds what torchvision 0.29.1 on Pillow 13.0.0 made; its `made_by` is the
program that wrote it.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from models.card import Preprocessing, SizeLimits
from service.images import (
    FORMATS,
    Header,
    Pixels,
    SourceLimits,
    decode,
    decode_seconds,
    read_header,
)
from service.resize import InferenceLimits, Resize, Size, whole_size
from tests.conftest import photo

REFERENCE: dict[str, Any] = json.loads(
    Path(__file__).with_name("torchvision_preset.json").read_text(encoding="utf-8")
)
ANY = SizeLimits(min_height=1, min_width=1)
SOURCE, INFERENCE = SourceLimits(50_000_000, 16_384, 100), InferenceLimits(2_048, 2_100_000)
# How the upright picture lies in a file of that orientation.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def preset(name: str) -> Preprocessing:
    """The preprocessing that `policy:size[:crop]:filter` names."""
    policy, size, *crop, filter_ = name.split(":")
    zeros, ones = (0.0,) * 3, (1.0,) * 3
    said = {"policy": policy, "size": size, "crop": crop[0] if crop else None, "filter": filter_}
    return Preprocessing.model_validate({"channels": 3, "mean": zeros, "std": ones} | said)


def pixels(data: bytes, preprocessing: Preprocessing) -> Pixels:
    """What the service decodes of a file."""
    resize = Resize(preprocessing.policy, preprocessing.size, preprocessing.crop)
    header = read_header(data, SOURCE, FORMATS)
    whole = whole_size(header.size, resize, ANY, INFERENCE)
    return decode(data, header, resize.seen(whole), preprocessing, whole)


def file(name: str) -> bytes:
    """A photo, or the picture that the reference calls made."""
    return png(made()) if name == "made" else photo(name).data


def made() -> Image.Image:
    y, x = np.mgrid[0:333, 0:501]
    planes = (x * 3 + y, x * y // 7, x * x // 50 + y * 5)
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


def png(image: Image.Image, orientation: int = 1) -> bytes:
    out, exif = io.BytesIO(), Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image.save(out, "PNG", exif=exif, compress_level=1)
    return out.getvalue()


def sha(array: Pixels) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "image"), [(n, i) for n, images in REFERENCE["pixels"].items() for i in images]
)
def test_the_pixels_are_those_of_torchvision(name: str, image: str) -> None:
    assert sha(pixels(file(image), preset(name))) == REFERENCE["pixels"][name][image]


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("name", REFERENCE["pixels"])
@pytest.mark.parametrize("image", ["koala.webp", "made"])
def test_a_turned_picture_gives_the_pixels_of_the_upright_one(
    image: str, name: str, orientation: int
) -> None:
    upright = Image.open(io.BytesIO(file(image))).convert("RGB")
    turned = png(upright.transpose(STORED[orientation]), orientation)
    assert sha(pixels(turned, preset(name))) == REFERENCE["pixels"][name][image]


@pytest.mark.parametrize("pair", range(len(REFERENCE["pairs"])))
def test_sides_are_cut_and_not_rounded_as_torchvision_does(pair: int) -> None:
    size, crop = REFERENCE["pairs"][pair]
    for width, height, *facts in REFERENCE["sizes"]:
        expected = Size(*facts[pair][:2])
        for resize in (Resize("short", size), Resize("crop", size, crop)):
            assert whole_size(Size(width, height), resize, ANY, INFERENCE) == expected


def test_the_square_is_where_torchvision_cuts_it() -> None:
    facts = {
        (*row[2 + pair], crop)
        for row in REFERENCE["sizes"]
        for pair, (_, crop) in enumerate(REFERENCE["pairs"])
    }
    preprocessing = preset("short:1:bilinear")
    for width, height, left, top, crop in facts:
        y, x = np.mgrid[0:height, 0:width]
        places = np.stack([x % 256, y % 256, x // 256 + y // 256 * 16], -1).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(places).save(out, "BMP")
        whole = Size(width, height)
        header = Header("BMP", whole, 1)
        cut = decode(out.getvalue(), header, Size(crop, crop), preprocessing, whole)
        assert np.array_equal(cut, places[top : top + crop, left : left + crop])


def test_no_draft_is_predicted_where_none_is_made() -> None:
    photo_ = Header("JPEG", Size(4000, 3000), 1)
    drafted, exact = Size(224, 168), Size(341, 256)
    assert decode_seconds(photo_, Size(224, 224), exact) > 2.5 * decode_seconds(photo_, drafted)
