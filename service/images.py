"""Image files in, pixels out: read the header first, decode only what was admitted.

Pillow does the work. Whatever it raises on a foreign file becomes one of our errors here.
"""

import io
import logging
import struct
import warnings
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from models.card import Preprocessing
from service.errors import (
    AnypoolError,
    BadAspect,
    Overloaded,
    TooManyPixels,
    UndecodableImage,
    UnsupportedFormat,
)
from service.resize import Size

Pixels = NDArray[np.uint8]  # (h, w, c)


# A client is told what is wrong with its file; it shall not fill our log, nor our memory with
# warnings already given. Pillow's error above 178 MP stays on; our own limits are tighter.
logging.getLogger("PIL").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module="PIL")

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
# A JPEG is decoded at 1/2, 1/4 or 1/8 as long as that leaves this many pixels a side for one of the
# result, so that the resize filter still has something to average. Over 24 photos of 12 megapixels
# 1.5 takes .17 of a full decode and resize (worst .24), 2.0 takes .23 (.31); top-1 stays in both.
_DRAFT_MARGIN = 1.5
# A scan of a progressive JPEG may be 20 bytes of the file and a visit to every block, a nanosecond
# a pixel. Files have ten; a film behind the picture has some by chance, one in 65,536 bytes.
_MOST_SCANS, _MOST_SCANNED, _SCAN = 1000, 5_000_000_000, b"\xff\xda"

_DECODED_BYTES = 8  # a pixel as it was, and converted
_NO_MEMORY = "memory ran out while the image was decoded; try again later"

# Predicted seconds of a decode, from timing the photos of tests/photos at 64 to 3000 pixels: a
# fixed part, so much for each pixel of the file, so much for each pixel of a resized result.
_DECODE_BASE_S, _RESIZE_S = 0.1e-3, 10e-9
_DECODE_S = {"JPEG": 6e-9, "PNG": 33e-9, "WEBP": 17e-9, "GIF": 17e-9, "BMP": 3e-9, "TIFF": 4e-9,
             "AVIF": 12e-9, "HEIF": 15e-9}  # fmt: skip
_DRAFT_S = 2e-9  # a JPEG that is decoded at reduced scale


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """What is accepted, judged by the header alone."""

    max_pixels: int
    max_side: int
    max_aspect: float


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself. `size` is upright: after EXIF orientation."""

    format: str
    size: Size
    orientation: int


def allowed_formats() -> tuple[str, ...]:
    """The formats accepted here; HEIF is among them when the extra `heif` is installed."""
    return (*FORMATS, "HEIF") if _register_heif() else FORMATS


@cache
def _register_heif() -> bool:
    if find_spec("pillow_heif") is None:
        return False
    from pillow_heif import register_heif_opener

    register_heif_opener()
    return True


def read_header(data: bytes, limits: SourceLimits, formats: tuple[str, ...]) -> Header:
    """Format, size and orientation of a file, without decoding it.

    Raises UnsupportedFormat, UndecodableImage, TooManyPixels, BadAspect.
    """
    try:
        with _open(data, formats) as image:
            width, height = image.size
            _check_source(Size(width, height), limits)
            _check_cost(image, data, limits)
            orientation = _orientation(image, data)
            # A phone's MPO is a JPEG with more pictures behind it, and opens under that name only.
            format_ = "JPEG" if image.format == "MPO" else str(image.format)
    except AnypoolError:
        raise
    except Exception as exc:  # Pillow raises almost anything on a foreign file
        raise _no_memory(limits.max_pixels) or _translated(exc) from exc
    size = Size(height, width) if orientation in _SIDEWAYS else Size(width, height)
    return Header(format_, size, orientation)


def decode_seconds(header: Header, used: Size, whole: Size | None = None) -> float:
    """Predicted seconds of `decode`."""
    pixel, result = _DECODE_S[header.format], whole or used
    drafts = header.format == "JPEG" and whole is None
    if drafts and header.size.longest >= 2 * _DRAFT_MARGIN * used.longest:
        pixel = _DRAFT_S
    resizing = 0.0 if header.size == result else _RESIZE_S * result.pixels
    return _DECODE_BASE_S + pixel * header.size.pixels + resizing


def decode(
    data: bytes,
    header: Header,
    used: Size,
    preprocessing: Preprocessing,
    whole: Size | None = None,
) -> Pixels:
    """Pixels of the size `used`, as the network wants them: uint8 (h, w, c), RGB or grey.

    Orientation applied, transparency laid on white, colours converted to sRGB, first frame only.
    whole: resize the image to this size and cut `used` from its centre, with no shortcut, so that
    the pixels are those of torchvision's Resize and CenterCrop
    Raises UndecodableImage, UnsupportedFormat.
    """
    try:
        with _open(data, (header.format,)) as image:
            return _decode(image, header, used, preprocessing, whole)
    except UnsupportedFormat:
        raise
    except Exception as exc:
        raise _no_memory(header.size.pixels) or _translated(exc) from exc


def _open(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError as exc:
        raise UnsupportedFormat(_unsupported(data, formats)) from exc


def _unsupported(data: bytes, formats: tuple[str, ...]) -> str:
    accepted = f"accepted are {', '.join(formats)}"
    if "HEIF" not in formats and data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return f"HEIC images need the extra heif (pip install 'anypool[heif]'); {accepted}"
    return f"the content is not a known image; {accepted}"


def _translated(exc: Exception) -> Exception:
    if isinstance(exc, Image.DecompressionBombError):
        return TooManyPixels(f"{exc}. Scale the image down before sending it")
    if isinstance(exc, MemoryError):
        return Overloaded(_NO_MEMORY)
    said = str(exc).strip() or type(exc).__name__
    return UndecodableImage(f"the image cannot be decoded ({said}); save it again and retry")


def _no_memory(pixels: int) -> Overloaded | None:
    """Why a file could not be read, if there is no memory for it: many decoders call it broken.

    Nothing is written to that memory, so that to ask for it costs nothing.
    """
    try:
        np.empty(_DECODED_BYTES * pixels, np.uint8)
    except MemoryError:
        return Overloaded(_NO_MEMORY)
    return None


def _check_source(size: Size, limits: SourceLimits) -> None:
    shortest = min(size.width, size.height)
    if shortest < 1:
        raise UndecodableImage("the image has no pixels")
    if size.longest > limits.max_side or size.pixels > limits.max_pixels:
        raise TooManyPixels(
            f"the image is {size}; the limits are {limits.max_side} a side and "
            f"{limits.max_pixels / 1e6:g} megapixels. Scale it down before sending it"
        )
    if size.longest > limits.max_aspect * shortest:
        raise BadAspect(
            f"the image is {size}; one side may be {limits.max_aspect:g} times the other. Crop it"
        )


def _check_cost(image: Image.Image, data: bytes, limits: SourceLimits) -> None:
    """Refuse small files whose decode takes much more than their size lets expect."""
    if image.format in ("JPEG", "MPO"):
        scans, pixels = data.count(_SCAN), image.width * image.height
        if scans > (most := min(_MOST_SCANS, _MOST_SCANNED // pixels)):
            raise UndecodableImage(f"the JPEG has {scans} scans, at most {most}; save it again")
    tags = getattr(image, "tag_v2", {})
    tile = [tags.get(tag, 0) for tag in (ExifTags.Base.TileWidth, ExifTags.Base.TileLength)]
    if tile[0] * tile[1] > limits.max_pixels:  # libtiff takes memory for a whole one
        raise TooManyPixels(
            f"a tile of the image is {tile[0]}×{tile[1]}; save it with smaller tiles"
        )


def _orientation(image: Image.Image, data: bytes) -> int:
    if image.format == "TIFF":
        return 1  # Pillow turns these by itself, and reports the size after turning
    if image.format == "PNG" and "exif" not in image.info and (exif := _png_exif(data)):
        image.info["exif"] = exif
    try:  # not image.getexif(): that of a PNG decodes the whole file to look for a late chunk
        tag = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken metadata is no reason to refuse a picture
        return 1
    return tag if tag in _TRANSPOSE else 1


def _png_exif(data: bytes) -> bytes:
    """The eXIf chunk of a PNG, wherever it stands; empty when there is none."""
    position = 8
    kind = b""
    while position + 8 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"eXIf":
            return data[position + 8 : position + 8 + length]
        position += 12 + length
    return b""


def _decode(
    image: Image.Image,
    header: Header,
    used: Size,
    preprocessing: Preprocessing,
    whole: Size | None,
) -> Pixels:
    filter_ = _FILTERS[preprocessing.filter]
    if header.format == "TIFF":
        image.info.pop("xmp", None)  # an orientation there turns the pixels, but not image.size
    profile = image.info.get("icc_profile")
    if whole is None:
        flat = _upright(_scaled(image, header, used, filter_), header)
    else:  # upright first: Pillow resizes rows, rounds, then resizes columns
        image.load()
        flat = _upright(_resizable(image), header)
        flat = _centre(flat.resize((whole.width, whole.height), filter_), used)
    flat = _to_srgb(_on_white(flat), profile)  # in this order: a grey profile takes no alpha
    array = np.asarray(flat.convert("RGB" if preprocessing.channels == 3 else "L"))
    return np.ascontiguousarray(array.reshape(used.height, used.width, preprocessing.channels))


def _scaled(
    image: Image.Image, header: Header, used: Size, filter_: Image.Resampling
) -> Image.Image:
    """The picture as it lies in the file, scaled; a JPEG is decoded at no more than it takes."""
    sideways = header.orientation in _SIDEWAYS
    target = (used.height, used.width) if sideways else (used.width, used.height)
    box = None
    if header.format == "JPEG":
        wanted = tuple(int(side * _DRAFT_MARGIN) for side in target)
        drafted = image.draft(image.mode, (wanted[0], wanted[1]))
        box = drafted[1] if drafted else None
    image.load()
    flat = _resizable(image)
    if flat.size != target or box not in (None, (0, 0, *target)):
        flat = flat.resize(target, filter_, box=box)
    return flat


def _upright(image: Image.Image, header: Header) -> Image.Image:
    turn = _TRANSPOSE.get(header.orientation)
    return image if turn is None else image.transpose(turn)


def _centre(image: Image.Image, size: Size) -> Image.Image:
    """The middle of the picture, halves rounded to the even pixel as torchvision does."""
    left = round((image.width - size.width) / 2)
    top = round((image.height - size.height) / 2)
    return image.crop((left, top, left + size.width, top + size.height))


def _resizable(image: Image.Image) -> Image.Image:
    """The same picture in a mode that resizes well: L, LA, RGB, RGBA or CMYK, 8 bits each."""
    mode = image.mode
    if mode in ("L", "RGB", "LA", "RGBA", "CMYK") and "transparency" not in image.info:
        return image
    if mode.startswith("I;16"):
        return _narrowed(image)
    if mode in ("F", "I"):
        raise UnsupportedFormat(
            f"pixels of 32 bits a channel (mode {mode}) do not say what white is; "
            "save the image with 8 or 16 bits a channel"
        )
    if mode in ("P", "PA", "La", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert("L" if mode == "1" else "RGB")


def _narrowed(image: Image.Image) -> Image.Image:
    """Grey of 16 bits (or 12, in a TIFF) scaled to 8; convert("L") would clip at 255 instead."""
    wide = np.array(image, dtype=np.uint32)
    bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, (16,))[0]
    white = 2**bits - 1
    if (clear := image.info.get("transparency")) is not None:  # a PNG may have one clear value
        wide[wide == clear] = white
    wide *= 255
    wide += white // 2
    wide //= white
    return Image.fromarray(wide.astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert from an embedded colour profile; one that is broken or sRGB changes nothing."""
    if not profile:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        converted: Any = ImageCms.profileToProfile(image, source, _srgb(), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return converted if isinstance(converted, Image.Image) else image


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode not in ("RGBA", "LA"):
        return image
    opaque = image.convert(image.mode.removesuffix("A"))
    white = Image.new(opaque.mode, image.size, "white")
    white.paste(opaque, mask=image.getchannel("A"))
    return white
