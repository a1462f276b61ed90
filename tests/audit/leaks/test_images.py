"""What a file carries is found by its kind; the original's px are known again, another face or a blur is not."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from anonlib.audit.leaks.images import KINDS, carried, changed_outside, is_picture, may_change
from anonlib.faces.original import face_core
from anonlib.media.codec import Picture, decode, encode
from anonlib.media.colour import profile_of
from anonlib.synthesis.redact import redact
from tests.support import photos
from tests.support.photos import redacted_astronaut

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)
FORMATS = ("JPEG", "PNG", "WEBP")


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


def png_with(kind: bytes, body: bytes) -> bytes:
    data = ours("PNG")
    return data[:33] + photos.png_chunk(kind, body) + data[33:]


def png_of_more_rows() -> bytes:
    """A decoder stops at the height that the header says."""
    tall = photos.encoded(np.zeros((50, 56, 3), np.uint8), "PNG")
    header = photos.png_chunk(b"IHDR", (56).to_bytes(4, "big") + (40).to_bytes(4, "big") + b"\x08\x02\0\0\0")
    return tall[:8] + header + tall[33:]


@pytest.mark.parametrize("kind", FORMATS)
def test_what_we_write_carries_nothing_but_a_colour_profile_of_ours(kind: str) -> None:
    assert is_picture(ours(kind)) and carried(ours(kind)) == set()
    data = ours(kind, icc_profile=photos.srgb())
    assert (b"acsp" in data or kind == "PNG") and carried(data) == set()
    assert carried(photos.encoded(PIXELS, kind, icc_profile=photos.srgb())) >= {"foreign colour profile"}
    if kind != "JPEG":
        assert carried(ours(kind, np.dstack([PIXELS, PIXELS[..., 0]]))) == set()


@pytest.mark.parametrize("kind", FORMATS)
def test_less_or_more_than_a_file_and_a_second_picture_are_seen(kind: str) -> None:
    data, out = ours(kind), io.BytesIO()
    assert all("bytes after the end" in carried(data + tail) for tail in (b"x", photos.jpeg(PIXELS)))
    assert carried(data[: len(data) // 2]) and carried(data[:20])
    kind = "MPO" if kind == "JPEG" else kind
    Image.fromarray(PIXELS).save(out, kind, save_all=True, append_images=[Image.fromarray(255 - PIXELS)])
    assert "further picture" in carried(out.getvalue())


# Segments of a JPEG are planted in test_planted.py.
CARRIERS: list[tuple[str, Callable[[], bytes]]] = [
    ("EXIF", lambda: photos.jpeg(PIXELS, exif=exif())),
    ("EXIF+GPS position", lambda: photos.jpeg(PIXELS, exif=exif(gps=True))),
    ("comment", lambda: photos.jpeg(PIXELS, comment=b"by Ada")),
    ("XMP", lambda: photos.jpeg(PIXELS, xmp=b"<x:xmpmeta/>")),
    ("bytes after the end+further picture", lambda: photos.jpeg(PIXELS) + photos.jpeg(PIXELS)),
    ("foreign colour profile", lambda: photos.jpeg(PIXELS, icc_profile=profile_of("sRGB") + b"a name")),
    ("comment", lambda: png_with(b"tEXt", b"Author\0Ada")),
    ("EXIF+GPS position", lambda: photos.encoded(PIXELS, "PNG", exif=exif(gps=True))),
    ("XMP", lambda: png_with(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>")),
    ("EXIF", lambda: png_with(b"zTXt", b"Raw profile type exif\0\0x")),
    ("unknown part", lambda: png_with(b"zzZz", b"a maker's own")),
    ("bytes after the end", png_of_more_rows),
    ("EXIF+GPS position", lambda: photos.encoded(PIXELS, "WEBP", exif=exif(gps=True))),
    *(("unknown part", lambda kind=kind: photos.encoded(PIXELS, kind)) for kind in ("TIFF", "GIF", "BMP", "PPM")),
]


@pytest.mark.parametrize(("kinds", "make"), CARRIERS)
def test_what_an_image_carries_is_named(kinds: str, make: Callable[[], bytes]) -> None:
    assert is_picture(make()) and carried(make()) == set(kinds.split("+")) <= set(KINDS)


# ---- px beside the original's ---------------------------------------------------------------------------------

BOX = photos.ASTRONAUT_FACE
BEFORE = photos.astronaut()
SIZE = BEFORE.shape[0], BEFORE.shape[1]
ALLOWED = may_change(SIZE, BOX, None)


def released(kind: str, tampered: bool) -> tuple[Picture, Picture]:
    """A photo before and after a face was hidden, and a square far off was painted."""
    before = decode(photos.encoded(BEFORE, kind), max_mpx=1)
    out = before.rgb.copy()
    redact(out, BOX, "solid")
    if tampered:
        out[400:440, 400:440] = 255 - out[400:440, 400:440]
    return before, decode(encode(out, before, jpeg_quality=92), max_mpx=1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_only_a_change_outside_is_a_change(kind: str) -> None:
    assert changed_outside(*released(kind, tampered=False), ALLOWED, 92) == 0
    assert changed_outside(*released(kind, tampered=True), ALLOWED, 92) >= 256


def test_a_single_px_of_a_lossless_photo_and_its_transparency_count() -> None:
    before, after = released("PNG", tampered=False)
    after.rgb[500, 3, 2] ^= 1
    assert changed_outside(before, after, ALLOWED, 92) == 1
    holes = np.full(SIZE, 255, np.uint8)
    holes[0, :5] = 0
    see_through = decode(photos.encoded(np.dstack([BEFORE, holes]), "PNG"), max_mpx=1)
    assert changed_outside(see_through, see_through, ALLOWED, 92) == 0
    assert changed_outside(before, see_through, ALLOWED, 92) == 5


def test_what_a_redaction_paints_is_exactly_what_it_may() -> None:
    changed = (redacted_astronaut("solid") != BEFORE).any(axis=2)
    assert not (changed & ~ALLOWED).any() and changed[ALLOWED].mean() > 0.95
    assert not (face_core(SIZE, BOX, None) & ~ALLOWED).any()
