"""A file as our encoder writes it carries nothing; what a camera or a program adds is found by its kind."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from anonlib.audit.leaks.containers import (
    COMMENT,
    EXIF,
    GPS,
    IPTC,
    KINDS,
    PART,
    PICTURE,
    PROFILE,
    THUMBNAIL,
    TRAILING,
    XMP,
    carried,
    is_picture,
)
from anonlib.media.codec import decode, encode
from anonlib.media.colour import profile_of
from tests.support import photos

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")


def ours(kind: str, pixels: photos.Pixels = PIXELS, **options: object) -> bytes:
    """As the pipeline writes it."""
    picture = decode(photos.encoded(pixels, kind, **options), max_mpx=1)
    return encode(picture.rgb, picture, jpeg_quality=92)


def exif(gps: bool = False) -> bytes:
    block = Image.Exif()
    block[0x010F] = "a maker"
    if gps:
        block.get_ifd(0x8825)[1] = "N"
    return block.tobytes()


def with_thumbnail() -> bytes:
    """EXIF with a second directory that names a JPEG."""
    import struct

    small = photos.jpeg(PIXELS[:8, :8])
    first = struct.pack("<HHHIII", 1, 0x0112, 3, 1, 1, 26)
    second = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, len(small), 0)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + second + small


@pytest.mark.parametrize("kind", FORMATS)
def test_what_we_write_carries_nothing(kind: str) -> None:
    assert carried(ours(kind)) == set()
    assert is_picture(ours(kind))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_colour_profile_of_ours_may_stay_and_no_other(kind: str) -> None:
    theirs = photos.encoded(PIXELS, kind, icc_profile=photos.srgb())
    assert carried(theirs) >= {PROFILE}
    data = ours(kind, icc_profile=photos.srgb())
    assert b"acsp" in data or kind == "PNG"
    assert carried(data) == set()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_may_stay(kind: str) -> None:
    assert carried(ours(kind, np.dstack([PIXELS, PIXELS[..., 0]]))) == set()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("tail", [b"x", photos.jpeg(PIXELS)], ids=["a byte", "a picture"])
def test_bytes_after_the_end_are_seen(kind: str, tail: bytes) -> None:
    assert TRAILING in carried(ours(kind) + tail)


@pytest.mark.parametrize("kind", FORMATS)
def test_half_a_file_is_no_clean_file(kind: str) -> None:
    data = ours(kind)
    assert carried(data[: len(data) // 2])
    assert carried(data[:20])


JPEGS: list[tuple[set[str], Callable[[], bytes]]] = [
    ({EXIF}, lambda: photos.jpeg(PIXELS, exif=exif())),
    ({EXIF, GPS}, lambda: photos.jpeg(PIXELS, exif=exif(gps=True))),
    ({EXIF, THUMBNAIL}, lambda: photos.with_segments(photos.jpeg(PIXELS), photos.jpeg_segment(0xE1, with_thumbnail()))),
    ({COMMENT}, lambda: photos.jpeg(PIXELS, comment=b"by Ada")),
    ({XMP}, lambda: photos.jpeg(PIXELS, xmp=b"<x:xmpmeta/>")),
    ({XMP, GPS}, lambda: photos.jpeg(PIXELS, xmp=b"<x exif:GPSLatitude='1'/>")),
    (
        {IPTC, THUMBNAIL},
        lambda: photos.with_segments(
            photos.jpeg(PIXELS), photos.jpeg_segment(0xED, b"Photoshop 3.0\x008BIM\x04\x0c\0\0\0\0\0\0")
        ),
    ),
    ({"C2PA manifest"}, lambda: photos.with_segments(photos.jpeg(PIXELS), photos.jpeg_segment(0xEB, b"JP\0\1jumb"))),
    ({PART}, lambda: photos.with_segments(photos.jpeg(PIXELS), photos.jpeg_segment(0xE5, b"a maker's own"))),
    ({THUMBNAIL}, lambda: photos.with_segments(photos.jpeg(PIXELS), photos.jpeg_segment(0xE0, b"JFXX\0\x10x"))),
    ({PICTURE}, lambda: photos.with_segments(photos.jpeg(PIXELS), photos.jpeg_segment(0xE2, b"MPF\0II*\0"))),
    ({TRAILING, PICTURE}, lambda: photos.jpeg(PIXELS) + photos.jpeg(PIXELS)),
    ({PROFILE}, lambda: photos.jpeg(PIXELS, icc_profile=photos.srgb() + b"a name")),
    ({PROFILE}, lambda: photos.jpeg(PIXELS, icc_profile=profile_of("sRGB") + b"a name")),
]


@pytest.mark.parametrize(
    ("kinds", "make"), JPEGS, ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else ""
)
def test_what_a_jpeg_carries_is_named(kinds: set[str], make: Callable[[], bytes]) -> None:
    assert carried(make()) == kinds <= set(KINDS)


def png(*chunks: bytes) -> bytes:
    data = ours("PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def test_what_a_png_carries_is_named() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "Ada")
    assert carried(photos.encoded(PIXELS, "PNG", pnginfo=info)) == {COMMENT}
    assert carried(photos.encoded(PIXELS, "PNG", exif=exif(gps=True))) == {EXIF, GPS}
    assert carried(png(photos.png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>"))) == {XMP}
    assert carried(png(photos.png_chunk(b"zTXt", b"Raw profile type exif\0\0x"))) == {EXIF}
    assert carried(png(photos.png_chunk(b"zzZz", b"a maker's own"))) == {PART}


def test_rows_below_the_picture_are_seen() -> None:
    """A decoder stops at the height that the header says."""
    tall = photos.encoded(np.zeros((50, 56, 3), np.uint8), "PNG")
    header = photos.png_chunk(b"IHDR", (56).to_bytes(4, "big") + (40).to_bytes(4, "big") + b"\x08\x02\0\0\0")
    assert carried(tall[:8] + header + tall[33:]) == {TRAILING}


@pytest.mark.parametrize("kind", ["WEBP", "TIFF"])
def test_exif_is_seen_in_other_formats(kind: str) -> None:
    assert carried(photos.encoded(PIXELS, kind, exif=exif(gps=True))) >= ({EXIF, GPS} if kind == "WEBP" else {GPS})


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "PNG"])
def test_further_pictures_are_seen_in_other_formats(kind: str) -> None:
    out = io.BytesIO()
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    frames[0].save(out, kind, save_all=True, append_images=frames[1:])
    assert PICTURE in carried(out.getvalue())


@pytest.mark.parametrize("kind", ["GIF", "BMP", "PPM"])
def test_a_format_that_no_release_has_is_a_picture_and_an_unknown_part(kind: str) -> None:
    data = photos.encoded(PIXELS, kind)
    assert is_picture(data) and carried(data) == {PART}


def test_what_is_no_image_is_an_unknown_part() -> None:
    assert carried(b"") == carried(b"hello") == {PART}
    assert not is_picture(b"") and not is_picture(b"Platter") and not is_picture(b"BMW cars")
    assert carried(photos.encoded(PIXELS, "TIFF", software="by Ada")) == {PART}
