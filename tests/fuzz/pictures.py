"""Image files of every accepted kind, and how to break them so that a decoder gets to see it."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms

from service.images import allowed_formats

Bytes = st.SearchStrategy[bytes]
_EXTREME = (
    0,
    1,
    2,
    7,
    8,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFF,
    4000,
    5000,
    40_000,
    100_000,
    2**31 - 1,
    2**32 - 1,
)
_SIDES = (0, 1, 2, 3, 31, 64, 1999, 16_384, 16_385, 65_535, 2**20, 2**31 - 1, 2**31, 2**32 - 1)
_BOXES = b"ispe irot imir iloc ipco ipma pixi colr av1C hvcC mdat meta iinf pitm grid auxC".split()


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    """A file."""
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


@cache
def samples() -> dict[str, bytes]:
    """Small files of every format, in modes and with extras that take other ways through it."""
    allowed_formats()  # registers HEIF
    rng = np.random.default_rng(5)
    rgb = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)).resize((40, 33))
    alpha, grey, deep = rgb.convert("RGBA"), rgb.convert("L"), Image.new("I;16", (9, 7), 999)
    alpha.putalpha(grey)
    frames: dict[str, Any] = {"save_all": True, "append_images": [rgb.rotate(90)], "duration": 9}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    made = {format_: encoded(rgb, format_) for format_ in allowed_formats()}
    made |= {f"{f} frames": encoded(rgb, f, **frames) for f in ("PNG", "GIF", "WEBP", "AVIF")}
    made |= {f"{f} alpha": encoded(alpha, f) for f in ("PNG", "WEBP", "AVIF", "TIFF", "HEIF")}
    made |= {
        f"{f} profile": encoded(rgb, f, icc_profile=profile)
        for f in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
    }
    for mode in ("1", "L", "LA", "P", "I;16"):
        made[f"PNG {mode}"] = encoded(deep if mode == "I;16" else rgb.convert(mode), "PNG")
    for mode in ("1", "L", "P", "CMYK", "YCbCr", "LAB", "F", "I", "I;16"):
        image = deep if mode == "I;16" else rgb if mode == "LAB" else rgb.convert(mode)
        made[f"TIFF {mode}"] = encoded(image, "TIFF")
    for packed in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        made[f"TIFF {packed}"] = encoded(rgb, "TIFF", compression=packed)
    made["TIFF group4"] = encoded(rgb.convert("1"), "TIFF", compression="group4")
    made["TIFF frames"] = encoded(rgb, "TIFF", **frames)
    made["JPEG progressive"] = encoded(rgb, "JPEG", progressive=True)
    made["JPEG restarts"] = encoded(rgb, "JPEG", restart_marker_blocks=2, subsampling=2)
    made["JPEG grey"] = encoded(grey, "JPEG")
    made["JPEG CMYK"] = encoded(rgb.convert("CMYK"), "JPEG")
    made["JPEG MPO"] = encoded(rgb, "MPO", save_all=True, append_images=[rgb])
    made["WEBP lossless"] = encoded(alpha, "WEBP", lossless=True)
    made["BMP palette"] = encoded(rgb.convert("P"), "BMP")
    made["GIF palette"] = encoded(rgb.convert("P"), "GIF", transparency=3)
    return made


def small() -> bytes:
    """A good file, a PNG."""
    return samples()["PNG"]


def _edits(data: bytes) -> st.SearchStrategy[Callable[[bytearray], None]]:
    """One way to break bytes; half of the places are in the header."""
    size = len(data)
    place = st.one_of(st.integers(0, min(size, 120)), st.integers(0, size))

    def put(at: int, new: bytes) -> Callable[[bytearray], None]:
        def edit(file: bytearray) -> None:
            file[at : at + len(new)] = new

        return edit

    def move(at: int, to: int, length: int, keep: bool) -> Callable[[bytearray], None]:
        def edit(file: bytearray) -> None:
            piece = file[at : at + length]
            if not keep:
                del file[at : at + length]
            file[to:to] = piece if keep else b""

        return edit

    number = st.builds(
        struct.pack, st.sampled_from([">I", "<I"]), st.sampled_from(_EXTREME)
    ) | st.builds(struct.pack, st.sampled_from([">H", "<H"]), st.integers(0, 65_535))
    return (
        st.builds(put, place, st.binary(min_size=1, max_size=4))
        | st.builds(put, place, number)
        | st.builds(move, place, place, st.integers(1, 64), st.booleans())
    )


def _edited(data: bytes, edits: list[Callable[[bytearray], None]], kept: float) -> bytes:
    file = bytearray(data)
    for edit in edits:
        edit(file)
    return bytes(file[: int(len(file) * kept)])


@st.composite
def damaged(draw: st.DrawFn, prefix: str = "") -> bytes:
    """A file with some bytes changed, moved or cut off; checksums of a PNG made right again."""
    name = draw(st.sampled_from([name for name in samples() if name.startswith(prefix)]))
    data = samples()[name]
    edits = draw(st.lists(_edits(data), max_size=4))
    kept = draw(st.just(1.0) | st.just(1.0) | st.floats(0, 1))
    file = _edited(data, edits, kept)
    return _with_checksums(file) if name.startswith("PNG") and draw(st.booleans()) else file


def _with_checksums(data: bytes) -> bytes:
    file, at = bytearray(data), 8
    while at + 12 <= len(file):
        (length,) = struct.unpack_from(">I", file, at)
        end = at + 8 + length
        if end + 4 > len(file):
            break
        struct.pack_into(">I", file, end, zlib.crc32(file[at + 4 : end]))
        at = end + 4
    return bytes(file)


@st.composite
def spliced(draw: st.DrawFn) -> bytes:
    """The head of one file and the tail of another."""
    names = st.sampled_from(list(samples()))
    first, second = samples()[draw(names)], samples()[draw(names)]
    return first[: draw(st.integers(0, len(first)))] + second[draw(st.integers(0, len(second))) :]


@st.composite
def claims(draw: st.DrawFn) -> bytes:
    """A file that says it has another size."""
    name = draw(st.sampled_from(list(samples())))
    file, sides = bytearray(samples()[name]), st.sampled_from(_SIDES)
    width, height = draw(sides), draw(sides)
    if name.startswith("PNG"):
        struct.pack_into(">II", file, 16, width, height)
        return _with_checksums(bytes(file))
    if name.startswith("JPEG"):
        frame = max(file.find(b"\xff\xc0"), file.find(b"\xff\xc2"))
        struct.pack_into(">HH", file, frame + 5, height & 0xFFFF, width & 0xFFFF)
    elif name.startswith("GIF"):
        struct.pack_into("<HH", file, 6, width & 0xFFFF, height & 0xFFFF)
        if draw(st.booleans()) and (frame := file.find(b"\x2c")) > 0:
            struct.pack_into("<HH", file, frame + 5, width & 0xFFFF, height & 0xFFFF)
    elif name.startswith("BMP"):
        struct.pack_into("<II", file, 18, width, height)
    elif name.startswith("WEBP") and (canvas := file.find(b"VP8X")) > 0:
        file[canvas + 12 : canvas + 18] = (
            struct.pack("<I", width)[:3] + struct.pack("<I", height)[:3]
        )
    elif (box := file.find(b"ispe")) > 0:
        struct.pack_into(">II", file, box + 8, width, height)
    return bytes(file)


@st.composite
def boxes(draw: st.DrawFn) -> bytes:
    """An AVIF or HEIF file with a box that says something else."""
    name = draw(st.sampled_from([n for n in samples() if n.startswith(("AVIF", "HEIF"))]))
    file = bytearray(samples()[name])
    at = file.find(draw(st.sampled_from([box for box in _BOXES if box in file])))
    at += draw(st.integers(-4, 24))
    new = draw(st.sampled_from(_EXTREME)) & 0xFFFFFFFF
    file[at : at + 4] = struct.pack(">I", new)
    return bytes(file)


@st.composite
def tiffs(draw: st.DrawFn) -> bytes:
    """A TIFF by hand: any tags, any types, strips or tiles, big claims for little data."""
    order = draw(st.sampled_from("<>"))
    numbers = st.sampled_from(_EXTREME) | st.integers(0, 70_000)
    side = st.sampled_from([1, 16, 17, 64, 300, 1999, 20_000])
    codes = [1, 2, 3, 4, 5, 6, 7, 8, 32773, 34712, 34925, 50000, 50001]
    tags: dict[int, int] = {
        256: draw(side),
        257: draw(side),
        258: draw(st.sampled_from([8, 1, 12, 16, 32])),
    }
    tags[259] = draw(st.sampled_from(codes))
    tags[262] = draw(st.integers(0, 9))
    tags[277] = draw(st.integers(0, 5))
    data = draw(st.binary(max_size=200)) or zlib.compress(bytes(5000))
    if draw(st.booleans()):
        tags |= {322: draw(side | numbers), 323: draw(side | numbers), 324: 0, 325: len(data)}
    else:
        tags |= {273: 0, 278: draw(side | numbers), 279: len(data)}
    odd = st.sampled_from([254, 255, 266, 274, 284, 292, 317, 320, 330, 338, 339, 347, 512, 513,
                           530, 532, 700, 33723, 34377, 34665, 34675])  # fmt: skip
    tags |= draw(st.dictionaries(odd, numbers, max_size=3))
    start = 8 + 2 + 12 * len(tags) + 4
    for offset in (273, 324):
        if offset in tags:
            tags[offset] = start
    file = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    for tag, value in sorted(tags.items()):
        kind, count = draw(st.just((4, 1)) | st.just((4, 1)) | st.just((4, 1)) | st.tuples(
            st.integers(0, 18), st.sampled_from([0, 1, 2, 3, 4, 1000, 2**32 - 1])))  # fmt: skip
        file += struct.pack(order + "HHII", tag, kind, count, value)
    return file + bytes(4) + data


@st.composite
def extras(draw: st.DrawFn) -> bytes:
    """A good picture with rubbish beside it: orientation, EXIF, colour profile, comments."""
    image = Image.open(io.BytesIO(samples()["PNG"])).convert("RGB")
    format_ = draw(st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"]))
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        tags = Image.Exif()
        tags[ExifTags.Base.Orientation] = draw(st.integers(0, 65_535))
        tags[ExifTags.Base.ImageDescription] = draw(st.text(st.characters(max_codepoint=126)))
        raw = tags.tobytes()
        at = draw(st.integers(0, len(raw)))
        options["exif"] = (
            raw[:at] + draw(st.binary(max_size=6)) + raw[at + draw(st.integers(0, 6)) :]
        )
    if draw(st.booleans()):
        profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
        for at, value in draw(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)))):
            profile[at] = value
        profile[:] = profile.replace(b"sRGB", b"mine").replace(b"s\0R\0G\0B", b"m\0i\0n\0e")
        options["icc_profile"] = bytes(
            profile[: draw(st.integers(0, len(profile)) | st.just(9999))]
        )
    try:
        return encoded(image, format_, **options)
    except Exception:  # what Pillow will not write: damage what it has written
        return draw(damaged(format_))


def jpeg_of_scans(side: int, count: int) -> bytes:
    """A grey progressive JPEG by hand: a first scan, then `count` that say nothing of any block.

    Its only AC code, one 0, is a run of 2^14 blocks and as many more as 14 bits say.
    """

    def segment(kind: int, data: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, kind, len(data) + 2) + data

    blocks = (-(-side // 8)) ** 2
    bits = ("0" + "1" * 14) * (blocks // 32_767 + 1)
    bits += "1" * (-len(bits) % 8)
    runs = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
    return b"".join([
        b"\xff\xd8", segment(0xDB, b"\0" + b"\1" * 64),
        segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0"),
        segment(0xC4, b"\0\1" + bytes(16)), segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0"),
        segment(0xDA, b"\1\1\0\0\0\0"), bytes(blocks // 8 + 1),
        (segment(0xDA, b"\1\1\0\1\x3f\0") + runs.replace(b"\xff", b"\xff\0")) * count,
        b"\xff\xd9",
    ])  # fmt: skip


def scans() -> Bytes:
    """JPEGs of many scans, of which each costs a visit to every block."""
    return st.builds(
        jpeg_of_scans, st.sampled_from([40, 300, 1999]), st.sampled_from([0, 10, 999, 1001, 50_000])
    )


pictures: Bytes = st.one_of(
    damaged(), damaged(), spliced(), claims(), boxes(), tiffs(), extras(), scans(),
    st.sampled_from(list(samples().values())),
)  # fmt: skip
