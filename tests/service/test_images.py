"""Files in, pixels out: every format and mode, turned upright, or one of our errors."""

import io
import resource
import struct
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from models.card import Filter, Preprocessing
from service.errors import (
    AnypoolError,
    BadAspect,
    Overloaded,
    TooManyPixels,
    UndecodableImage,
    UnsupportedFormat,
)
from service.images import FORMATS, Pixels, SourceLimits, allowed_formats, decode, read_header
from service.resize import Size
from tests.fuzz.pictures import jpeg_of_scans

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of broken files
LIMITS = SourceLimits(max_pixels=50_000_000, max_side=16_384, max_aspect=100)
WITH_HEIF = allowed_formats()
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
Colour = tuple[int, int, int]
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def network(channels: Literal[1, 3] = 3, filter_: Filter = "bicubic") -> Preprocessing:
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    return Preprocessing(channels=channels, mean=zeros, std=ones, policy="native", filter=filter_)


def pixels(data: bytes, used: Size | None = None, channels: Literal[1, 3] = 3) -> Pixels:
    header = read_header(data, LIMITS, WITH_HEIF)
    return decode(data, header, used or header.size, network(channels))


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size: tuple[int, int], kind: str, rows: bytes, *around: bytes) -> bytes:
    """A PNG by hand: `kind` is depth and colour type, `around` are chunks before and after IDAT."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, *map(int, kind.split("/")), 0, 0, 0))
    before, after = (*around, b"", b"")[:2]
    body = before + chunk(b"IDAT", zlib.compress(rows) if rows else b"") + after
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def line(width: int, kind: str, row: bytes, clear: bytes = b"", palette: bytes = b"") -> bytes:
    """A PNG one pixel high; `clear` says what is transparent (tRNS)."""
    chunks = ((b"PLTE", palette), (b"tRNS", clear))
    return png((width, 1), kind, b"\0" + row, b"".join(chunk(k, d) for k, d in chunks if d))


def tiff(size: tuple[int, int], bits: int, data: bytes, order: str = "<") -> bytes:
    """A grey, uncompressed TIFF by hand, one strip."""
    start = 8 + 2 + 9 * 12 + 4
    tags = {256: size[0], 257: size[1], 258: bits, 259: 1, 262: 1, 273: start, 277: 1}
    tags |= {278: size[1], 279: len(data)}
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    entries = (struct.pack(order + "HHIHxx", tag, 3, 1, value) for tag, value in tags.items())
    return head + b"".join(entries) + b"\0" * 4 + data


def flag(width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """Four quarters in four colours: no turn or flip leaves it as it was."""
    upright = np.empty((height, width, 3), np.uint8)
    upright[: height // 2, : width // 2], upright[: height // 2, width // 2 :] = RED, GREEN
    upright[height // 2 :, : width // 2], upright[height // 2 :, width // 2 :] = BLUE, WHITE
    return upright


def texture(width: int, height: int) -> Image.Image:
    """Something like a photo: colour noise at every scale."""
    rng, sum_ = np.random.default_rng(7), np.zeros((height, width, 3))
    for cells in (4, 16, 64, 200):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        sum_ += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)) / 4
    return Image.fromarray(sum_.astype(np.uint8))


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags.tobytes()


def distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


# What lies in a file whose orientation is 1 to 8, of an upright picture (EXIF 2.32, tag 274).
STORED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: lambda a: np.rot90(a, -1),
}
TURNED = ["JPEG", "MPO", "PNG", "PNG late", "PNG text", "WEBP", "AVIF", "HEIF", "TIFF", "TIFF lzw"]


def turned(kind: str, orientation: int, upright: NDArray[np.uint8]) -> bytes:
    """A file that shows `upright` once its orientation is applied."""
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    tags = exif(orientation)
    if kind in ("PNG late", "PNG text"):
        rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(image))
        hexed = b"\nexif\n%8d\n%s\n" % (len(tags), tags.hex().encode())
        before = chunk(b"tEXt", b"Raw profile type exif\0" + hexed) if kind == "PNG text" else b""
        end = chunk(b"eXIf", tags[6:]) if kind == "PNG late" else b""
        return png(image.size, "8/2", rows, before, end)
    if kind.startswith("TIFF"):
        packed = "tiff_lzw" if kind == "TIFF lzw" else None
        return encoded(image, "TIFF", tiffinfo={274: orientation}, compression=packed)
    more: dict[str, Any] = {"save_all": True, "append_images": [image]} if kind == "MPO" else {}
    return encoded(image, kind, exif=tags, **more)


@pytest.mark.parametrize("format_", [*FORMATS, "HEIF"])
def test_every_accepted_format_is_decoded(format_: str) -> None:
    data = encoded(Image.fromarray(flag()), format_)
    header = read_header(data, LIMITS, WITH_HEIF)
    assert (header.format, header.size) == (format_, Size(96, 64))
    assert distance(pixels(data), flag()) < 6


def test_heic_without_the_extra_says_what_to_install() -> None:
    with pytest.raises(UnsupportedFormat, match=r"anypool\[heif\].*JPEG, PNG, WEBP"):
        read_header(encoded(Image.fromarray(flag()), "HEIF"), LIMITS, FORMATS)


@pytest.mark.parametrize("format_", ["ICO", "PPM", "TGA", "PCX", "JPEG2000", "PDF"])
def test_other_formats_are_refused_with_those_accepted(format_: str) -> None:
    with pytest.raises(UnsupportedFormat, match="JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF"):
        read_header(encoded(Image.fromarray(flag()), format_), LIMITS, WITH_HEIF)


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 500, b"hello", b"<svg/>", b"\xff\xd8\xff", b"GIF89a"]
)
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises((UnsupportedFormat, UndecodableImage)):
        pixels(data)


@pytest.mark.parametrize("kind", TURNED)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_in_the_header_and_in_the_pixels(
    kind: str, orientation: int
) -> None:
    data = turned(kind, orientation, flag())
    assert read_header(data, LIMITS, WITH_HEIF).size == Size(96, 64)
    assert distance(pixels(data), flag()) < 6
    assert distance(pixels(data, Size(30, 50)), flag(30, 50)) < 6  # turned, then not squashed


@pytest.mark.parametrize("kind", ["PNG", "PNG late", "PNG text"])
def test_the_orientation_of_a_png_is_found_without_decoding(kind: str) -> None:
    data = turned(kind, 6, flag()).replace(b"IDAT\x78", b"IDAT\0")  # breaks the zlib header
    assert read_header(data, LIMITS, FORMATS).size == Size(96, 64)
    with pytest.raises(UndecodableImage):
        pixels(data)


def test_an_orientation_in_the_xmp_of_a_tiff_does_not_squash_it() -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(Image.fromarray(flag()), "TIFF", tiffinfo={700: xmp})
    assert np.array_equal(pixels(data), flag())


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "HEIF"])
@pytest.mark.parametrize("tags", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", exif(9)])
def test_broken_metadata_is_no_reason_to_refuse_a_picture(format_: str, tags: bytes) -> None:
    assert distance(pixels(encoded(Image.fromarray(flag()), format_, exif=tags)), flag()) < 6


def ycck() -> bytes:
    """A red JPEG in YCCK: Pillow writes any four planes as they are, inverted; the Adobe marker
    then says that the first three are YCbCr (of the inks' complement)."""
    cyan = Image.new("RGB", (16, 16), (0, 255, 255)).convert("YCbCr")
    planes = [plane.point(lambda v: 255 - v) for plane in cyan.split()]
    image = Image.merge("CMYK", [*planes, Image.new("L", (16, 16), 0)])
    data = encoded(image, "JPEG", quality=95)
    adobe = data.index(b"Adobe")
    return data[: adobe + 11] + b"\2" + data[adobe + 12 :]


def jpeg(mode: str, colour: Any, **options: Any) -> bytes:
    return encoded(Image.new(mode, (16, 16), colour), "JPEG", quality=95, **options)


def palette(*alpha: int) -> bytes:
    return line(3, "8/3", b"\0\1\2", bytes(alpha), bytes(RED + GREEN + BLUE))


def grey(*values: int) -> list[Colour]:
    return [(v, v, v) for v in values]


WIDE = (0, 1000, 32768, 65535)
LITTLE, BIG = struct.pack("<4H", *WIDE), struct.pack(">4H", *WIDE)
LAB = Image.frombytes("LAB", (3, 1), bytes([255, 0, 0, 0, 0, 0, 138, 81, 70]))
CMYK = Image.frombytes("CMYK", (2, 1), b"\0\xff\xff\0" + b"\0\0\0\xff")
PA = Image.frombytes("PA", (2, 1), bytes([0, 255, 1, 0]))
PA.putpalette(RED + GREEN)
RGBA = b"\xff\0\0\xff" + b"\0\0\0\0" + b"\xff\0\0\x80"
DEEP = struct.pack(">6H", 65535, 32768, 0, 0, 257, 65535)
MODES: dict[str, tuple[bytes, list[Colour]]] = {
    "1 bit": (line(4, "1/0", b"\x50"), grey(0, 255, 0, 255)),
    "2 bits": (line(4, "2/0", b"\x1b"), grey(0, 85, 170, 255)),
    "L": (line(2, "8/0", b"\x07\xc8"), grey(7, 200)),
    "L, 7 clear": (line(2, "8/0", b"\x07\xc8", b"\0\x07"), grey(255, 200)),
    "LA": (line(3, "8/4", b"\0\xff" + b"\0\0" + b"\0\x80"), grey(0, 255, 127)),
    "P": (palette(), [RED, GREEN, BLUE]),
    "P, green clear": (palette(255, 0), [RED, WHITE, BLUE]),
    "P, alpha for each": (palette(0, 128, 255), [WHITE, (127, 255, 127), BLUE]),
    "P, GIF": (encoded(Image.open(io.BytesIO(palette(255, 0))), "GIF"), [RED, WHITE, BLUE]),
    "PA": (encoded(PA, "TIFF"), [RED, WHITE]),
    "RGB": (line(2, "8/2", bytes((*RED, 1, 2, 3))), [RED, (1, 2, 3)]),
    "RGB, red clear": (line(2, "8/2", bytes(RED + GREEN), b"\0\xff\0\0\0\0"), [WHITE, GREEN]),
    "RGBA": (line(3, "8/6", RGBA), [RED, WHITE, (255, 127, 127)]),
    "CMYK TIFF": (encoded(CMYK, "TIFF"), [RED, BLACK]),
    "CMYK JPEG": (jpeg("CMYK", (0, 255, 255, 0)), [RED]),
    "YCCK JPEG": (ycck(), [RED]),
    "YCbCr JPEG": (jpeg("RGB", RED), [RED]),
    "RGB JPEG": (jpeg("RGB", RED, keep_rgb=True), [RED]),
    "L JPEG": (jpeg("L", 90), grey(90)),
    "YCbCr TIFF": (encoded(Image.new("RGB", (2, 2), RED).convert("YCbCr"), "TIFF"), [RED]),
    "LAB TIFF": (encoded(LAB, "TIFF"), [WHITE, BLACK, RED]),
    "16 bits": (line(4, "16/0", BIG), grey(0, 4, 128, 255)),
    "16 bits, 1000 clear": (line(4, "16/0", BIG, b"\x03\xe8"), grey(0, 255, 128, 255)),
    "16 bits, TIFF": (tiff((4, 1), 16, LITTLE), grey(0, 4, 128, 255)),
    "16 bits, TIFF, big-endian": (tiff((4, 1), 16, BIG, ">"), grey(0, 4, 128, 255)),
    "12 bits, TIFF": (tiff((2, 1), 12, b"\x80\x0f\xff"), grey(128, 255)),
    "16 bits, RGB": (line(2, "16/2", DEEP), [(255, 128, 0), (0, 1, 255)]),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_the_rgb_it_shows(mode: str) -> None:
    data, shown = MODES[mode]
    row = pixels(data)[0, : len(shown)]
    tolerance = 6 if "JPEG" in mode or "LAB" in mode else 0 if "bit" in mode else 1
    assert np.abs(row.astype(int) - np.array(shown)).max() <= tolerance, row


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_of_32_bits_are_refused_with_a_way_out(mode: str) -> None:
    with pytest.raises(UnsupportedFormat, match="save the image with 8 or 16 bits a channel"):
        pixels(encoded(Image.new(mode, (8, 8)), "TIFF"))


def test_colours_hidden_under_transparency_do_not_bleed_when_resized() -> None:
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[:, ::3] = 255
    assert pixels(encoded(Image.fromarray(rgba), "PNG"), Size(20, 20)).min() == 255


@pytest.mark.parametrize("mode", MODES)
def test_a_grey_network_gets_the_luma_of_any_mode(mode: str) -> None:
    data, _ = MODES[mode]
    rgb, luma = pixels(data), pixels(data, channels=1)
    assert luma.shape == (*rgb.shape[:2], 1)
    assert luma.dtype == np.uint8
    weighted = rgb @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    assert np.abs(luma[..., 0] - weighted).max() <= 1


def profile(space: bytes, **tags: bytes) -> bytes:
    """An ICC profile (version 2.4) by hand."""
    tags |= {"desc": b"desc\0\0\0\0\0\0\0\5mine\0" + b"\0" * 79, "wtpt": xyz(0.9642, 1, 0.8249)}
    start, body, table = 128 + 4 + 12 * len(tags), b"", struct.pack(">I", len(tags))
    for name, value in tags.items():
        table += struct.pack(">4sII", name.encode(), start + len(body), len(value))
        body += value
    words = (start + len(body), 0x02400000, b"mntr", space, b"XYZ ", b"acsp")
    head = struct.pack(">I4xI4s4s4s12x4s28x3i48x", *words, 0xF6D6, 0x10000, 0xD32D)
    return head + table + body


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def gamma(power: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(power * 256))


# sRGB's primaries, red and green exchanged; and a grey that is linear in light.
SWAPPED = profile(
    b"RGB ",
    rXYZ=xyz(0.3851, 0.7169, 0.0971),
    gXYZ=xyz(0.4360, 0.2225, 0.0139),
    bXYZ=xyz(0.1431, 0.0606, 0.7141),
    **dict.fromkeys(("rTRC", "gTRC", "bTRC"), gamma(2.2)),
)
LINEAR_GREY = profile(b"GRAY", kTRC=gamma(1))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_an_embedded_profile_is_converted_to_srgb(format_: str) -> None:
    image = Image.new("RGB", (16, 16), (200, 30, 60))
    shown = pixels(encoded(image, format_, icc_profile=SWAPPED))
    assert np.abs(shown.astype(int) - (30, 200, 60)).max() <= 12
    assert np.abs(pixels(encoded(image, format_)).astype(int) - (200, 30, 60)).max() <= 8


@pytest.mark.parametrize(
    ("image", "icc", "shown"),
    [
        (Image.new("RGBA", (4, 4), (200, 30, 60, 255)), SWAPPED, (24, 201, 57)),
        (Image.new("RGBA", (4, 4), (200, 30, 60, 0)), SWAPPED, WHITE),
        (Image.new("L", (4, 4), 128), LINEAR_GREY, (188, 188, 188)),
        (Image.new("LA", (4, 4), (128, 255)), LINEAR_GREY, (188, 188, 188)),
        (Image.new("LA", (4, 4), (128, 0)), LINEAR_GREY, WHITE),
        (Image.new("I;16", (4, 4), 32768), LINEAR_GREY, (188, 188, 188)),
    ],
)
def test_a_profile_goes_with_alpha_and_grey(image: Image.Image, icc: bytes, shown: Colour) -> None:
    row = pixels(encoded(image, "PNG", icc_profile=icc))[0, 0]
    assert np.abs(row.astype(int) - shown).max() <= 1, row


@pytest.mark.parametrize(
    ("mode", "icc"),
    [
        ("RGB", SRGB),
        ("RGB", SWAPPED.replace(b"mine", b"sRGB")),  # the name decides
        ("RGB", b"no profile"),
        ("RGB", SWAPPED[:200]),
        ("RGB", SWAPPED[:132] + b"\xff" * 60 + SWAPPED[192:]),
        ("RGB", LINEAR_GREY),
        ("L", SWAPPED),
        ("CMYK", SWAPPED),
    ],
)
def test_a_profile_that_is_srgb_broken_or_of_another_space_changes_nothing(
    mode: str, icc: bytes
) -> None:
    image = texture(96, 64).convert(mode)
    without = pixels(encoded(image, "TIFF"))
    assert np.array_equal(pixels(encoded(image, "TIFF", icc_profile=icc)), without)


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_of_an_animation_the_first_frame_is_used(format_: str) -> None:
    first, second = (Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE))
    data = encoded(first, format_, save_all=True, append_images=[second])
    assert np.abs(pixels(data).astype(int) - RED).max() <= 6


def header_only(format_: str, width: int, height: int) -> bytes:
    """A file that ends where its pixels would begin, and says that it is width×height."""
    if format_ == "PNG":
        return png((width, height), "8/2", b"")
    data = encoded(Image.new("RGB", (8, 8)), "JPEG")
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    sides = struct.pack(">HH", height, width)
    return data[: frame + 5] + sides + data[frame + 9 : scan + 14]


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
@pytest.mark.parametrize(
    ("width", "height", "error"),
    [
        (30_000, 30_000, TooManyPixels),  # beyond Pillow's own limit too
        (9_000, 9_000, TooManyPixels),
        (16_385, 1_000, TooManyPixels),
        (1_000, 16_385, TooManyPixels),
        (10_001, 100, BadAspect),
        (100, 10_001, BadAspect),
    ],
)
def test_the_header_alone_decides_what_is_too_large(
    format_: str, width: int, height: int, error: type[AnypoolError]
) -> None:
    with pytest.raises(error):  # there are no pixels, so decoding would raise UndecodableImage
        read_header(header_only(format_, width, height), LIMITS, FORMATS)


@pytest.mark.parametrize(("side", "most"), [(64, 1000), (3000, 555)])
def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded(side: int, most: int) -> None:
    with pytest.raises(UndecodableImage, match=f"{most + 1} scans, at most {most}"):
        read_header(jpeg_of_scans(side, most), LIMITS, FORMATS)  # and a first one
    assert read_header(jpeg_of_scans(side, most - 1), LIMITS, FORMATS).format == "JPEG"
    assert pixels(jpeg_of_scans(64, 999)).shape == (64, 64, 3)


@pytest.mark.parametrize("side", [512, 8000])
def test_the_tiles_of_a_tiff_may_be_larger_than_it_but_not_than_the_limit(side: int) -> None:
    packed = zlib.compress(bytes(side * side))
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side}
    tags |= {324: 8 + 2 + 10 * 12 + 4, 325: len(packed)}
    data = b"II*\0" + struct.pack("<IH", 8, len(tags))
    data += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data += b"\0" * 4 + packed
    if side == 8000:
        with pytest.raises(TooManyPixels, match="8000×8000"):
            read_header(data, LIMITS, FORMATS)
    else:
        assert pixels(data).shape == (64, 64, 3)


@pytest.mark.parametrize("size", [(10_000, 5_000), (16_384, 3_000), (10_000, 100)])
def test_the_source_limits_themselves_are_allowed(size: tuple[int, int]) -> None:
    data = header_only("PNG", *size)
    header = read_header(data, LIMITS, FORMATS)
    assert header.size == Size(*size)
    with pytest.raises(UndecodableImage):  # the control: this file really has no pixels
        decode(data, header, Size(10, 10), network())


@pytest.mark.parametrize("kind", ["baseline", "progressive", "grey", "CMYK"])
@pytest.mark.parametrize(
    ("orientation", "used"),
    [(1, Size(160, 120)), (3, Size(100, 75)), (5, Size(100, 75)), (6, Size(50, 38))],
)
def test_a_large_jpeg_is_decoded_at_a_reduced_scale_and_looks_the_same(
    kind: str, orientation: int, used: Size
) -> None:
    upright = texture(803, 601)  # sides that no reduced scale divides
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation](np.asarray(upright))))
    image = image.convert({"grey": "L", "CMYK": "CMYK"}.get(kind, "RGB"))
    progressive, tags = kind == "progressive", exif(orientation)
    data = encoded(image, "JPEG", quality=90, progressive=progressive, exif=tags)
    shown = pixels(data, used)
    # The same pixels in a PNG are decoded in full.
    stored = Image.open(io.BytesIO(data)).convert("RGB")
    full = pixels(encoded(stored, "PNG", exif=tags), used)
    near = distance(shown, full)
    assert 0 < near < 3  # a full decode would leave no difference in colour, and next to none
    for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
        assert near < distance(shown, np.roll(full, shift, axis)) / 3


@pytest.mark.parametrize("filter_", ["bicubic", "bilinear"])
def test_a_jpeg_is_not_reduced_below_two_pixels_a_side_for_each_of_the_result(
    filter_: Filter,
) -> None:
    data = encoded(texture(803, 601), "JPEG", quality=90)
    whole = Image.open(io.BytesIO(data)).resize((300, 225), Image.Resampling[filter_.upper()])
    header = read_header(data, LIMITS, FORMATS)
    shown = decode(data, header, Size(300, 225), network(filter_=filter_))
    assert np.array_equal(shown, np.asarray(whole))


def test_compressed_texts_of_a_png_are_not_unpacked_without_end() -> None:
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000)))
    with pytest.raises(UndecodableImage, match="Too much memory"):
        read_header(png((8, 8), "8/2", bytes(25 * 8), bomb * 100), LIMITS, FORMATS)


@cache
def samples() -> tuple[bytes, ...]:
    image = Image.fromarray(flag(24, 16))
    plain = [encoded(image, f) for f in (*FORMATS, "HEIF")]
    frames = [encoded(image, f, save_all=True, append_images=[image]) for f in ("GIF", "WEBP")]
    turns = [turned(kind, 6, flag(24, 16)) for kind in TURNED]
    packed = [encoded(image, "JPEG", progressive=True), encoded(image, "PNG", icc_profile=SWAPPED)]
    return *plain, *frames, *turns, *packed, MODES["P, green clear"][0], MODES["YCCK JPEG"][0]


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "BMP", "HEIF"])
@pytest.mark.parametrize("kept", [0.01, 0.1, 0.5, 0.9])
def test_a_file_cut_short_is_refused(format_: str, kept: float) -> None:
    data = encoded(texture(96, 64), format_)
    with pytest.raises((UndecodableImage, UnsupportedFormat)):
        pixels(data[: int(len(data) * kept)])


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_garbage_after_the_header_never_raises_anything_foreign(format_: str) -> None:
    data = encoded(texture(96, 64), format_)
    for start in range(8, 400, 7):
        with suppress(AnypoolError):
            shown = pixels(data[:start] + b"\xa5" * (len(data) - start), Size(9, 8))
            assert shown.shape == (8, 9, 3)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    which=st.integers(0, len(samples()) - 1),
    edits=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=5),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_a_damaged_file_gives_pixels_or_one_of_our_errors(
    which: int, edits: list[tuple[int, int]], kept: float
) -> None:
    data = bytearray(samples()[which])
    for position, value in edits:
        data[position % len(data)] = value
    damaged = bytes(data[: int(len(data) * kept)])
    tight = SourceLimits(max_pixels=1_000_000, max_side=4_000, max_aspect=100)
    try:
        header = read_header(damaged, tight, WITH_HEIF)
        shown = decode(damaged, header, Size(16, 12), network())
    except AnypoolError:
        return
    assert shown.shape == (12, 16, 3)
    assert shown.dtype == np.uint8


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_a_file_is_not_called_broken_when_memory_is_short(format_: str) -> None:
    file = encoded(Image.new("RGB", (6000, 4000)), format_)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    taken = int(status.partition("VmSize:")[2].split()[0]) * 1024
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + 1_000_000, hard))
    try:
        with pytest.raises(Overloaded, match="memory ran out"):
            pixels(file)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
