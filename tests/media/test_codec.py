"""Bytes in, upright px out, and nothing but px and a colour space's name out again."""

from __future__ import annotations

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image, PngImagePlugin

from anonlib.codes import Note
from anonlib.errors import ImageProblem
from anonlib.media.codec import decode, encode
from tests.support import photos

RNG = np.random.default_rng(3)
SMALL = RNG.integers(0, 255, (6, 4, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
VALID = {
    "JPEG": photos.jpeg(SMALL, exif=Image.Exif(), icc_profile=photos.srgb()),
    "progressive": photos.jpeg(SMALL, progressive=True),
    "alpha": photos.encoded(np.dstack([SMALL, SMALL[:, :, :1]]), "PNG", icc_profile=photos.srgb()),
    "WEBP": photos.encoded(SMALL, "WEBP"),
    "lossless": photos.encoded(SMALL, "WEBP", lossless=True),
    "GIF": photos.encoded(SMALL, "GIF"),
    "TIFF": photos.encoded(SMALL, "TIFF"),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF", "JPEG2000"])
def test_a_format_comes_out_as_itself_or_as_png_with_a_note(kind: str) -> None:
    kept = kind in ("JPEG", "PNG", "WEBP")
    picture = decode(photos.encoded(SMALL, kind), max_mpx=1)
    assert picture.format == (kind if kept else "PNG")
    assert kept == (picture.notes == ()) and all(note.endswith("to PNG") for note in picture.notes)
    data = encode(picture.rgb, picture, jpeg_quality=92)
    again = decode(data, max_mpx=1)
    assert again.format == picture.format == Image.open(io.BytesIO(data)).format
    assert np.abs(again.rgb.astype(int) - picture.rgb).mean() < (8 if kept else 1e-9)
    assert data == encode(picture.rgb, picture, jpeg_quality=92)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_px_are_upright_whatever_the_orientation(orientation: int) -> None:
    across = SMALL.transpose(1, 0, 2)
    straight = (SMALL, SMALL[:, ::-1], SMALL[::-1, ::-1], SMALL[::-1])
    turned = (across, np.rot90(SMALL, -1), across[::-1, ::-1], np.rot90(SMALL))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decode(photos.encoded(SMALL, "PNG", exif=exif), max_mpx=1)
    assert np.array_equal(picture.rgb, (straight + turned)[orientation - 1])
    assert "exif" in picture.stripped
    written = Image.open(io.BytesIO(encode(picture.rgb, picture, jpeg_quality=92)))
    assert dict(written.getexif()) == ({} if orientation == 1 else {0x112: orientation})


def test_px_under_an_alpha_of_zero_are_blanked_and_alpha_stays() -> None:
    alpha = np.full(SMALL.shape[:2], 255, np.uint8)
    alpha[:20, :16] = 0
    picture = decode(photos.encoded(np.dstack([SMALL, alpha]), "PNG"), max_mpx=1)
    assert (picture.rgb[:20, :16] == 0).all()
    assert np.array_equal(picture.rgb[20:], SMALL[20:])
    again = decode(encode(picture.rgb, picture, jpeg_quality=92), max_mpx=1)
    assert again.alpha is not None and np.array_equal(again.alpha, alpha)


def test_px_under_a_transparent_colour_are_blanked() -> None:
    flat = SMALL.copy()
    flat[:8, :8] = (1, 2, 3)
    picture = decode(photos.encoded(flat, "PNG", transparency=(1, 2, 3)), max_mpx=1)
    assert (picture.rgb[:8, :8] == 0).all()
    assert picture.alpha is not None and (picture.alpha[:8, :8] == 0).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"x" * 100, "not an image"),
        (photos.png_header(30000, 30000), "limits.image_mpx"),
        (photos.png_header(100, 100), "damaged"),
        (VALID["JPEG"][:400], "damaged"),
        (photos.jpeg(SMALL)[:-60], "damaged"),
    ],
    ids=["empty", "text", "bomb", "few-px", "cut", "cut-late"],
)
def test_what_cannot_be_read_is_a_sentence(data: bytes, reason: str) -> None:
    with pytest.raises(ImageProblem, match=reason) as problem:
        decode(data, max_mpx=100)
    assert str(problem.value).isprintable()


def test_a_reduced_decode_keeps_the_true_size_and_at_least_the_side_asked_for() -> None:
    pixels = np.zeros((721, 1281, 3), np.uint8)
    pixels[:, 640:] = 200
    data = simplejpeg.encode_jpeg(pixels, quality=95)
    reduced = decode(data, max_mpx=10, least_side=640)
    assert reduced.size == (721, 1281)
    assert reduced.rgb.shape == (361, 641, 3)
    assert decode(data, max_mpx=10, least_side=700).rgb.shape == (721, 1281, 3)
    with pytest.raises(ImageProblem, match="damaged"):
        decode(data[: len(data) // 2], max_mpx=10, least_side=640)


# ---- what viewers open ----------------------------------------------------------------------------------------

COLOURS = photos.astronaut()
GREYS = np.asarray(Image.fromarray(COLOURS).convert("L")).astype(np.uint16)


def with_scan_band(file: bytes, band: bytes) -> bytes:
    """A JPEG whose scan header names another band of coefficients, as some phones write it."""
    at = file.index(b"\xff\xda")
    at += 5 + 2 * file[at + 4]
    return file[:at] + band + file[at + 3 :]


def large_text() -> PngImagePlugin.PngInfo:
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "x" * ((1 << 20) + 10), zip=True)
    return text


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(with_scan_band(photos.jpeg(COLOURS), bytes(3)), id="a scan header of zeros"),
        pytest.param(photos.jpeg(COLOURS)[:20] + b"\0\0" + photos.jpeg(COLOURS)[20:], id="bytes between segments"),
        pytest.param(photos.encoded(COLOURS, "PNG", pnginfo=large_text()), id="a megabyte of text"),
        pytest.param(photos.encoded(COLOURS, "PNG", icc_profile=bytes(1 << 20) + b"more"), id="a megabyte of profile"),
    ],
)
def test_what_a_viewer_opens_is_decoded_with_a_note(file: bytes) -> None:
    picture = decode(file, max_mpx=1)
    assert np.abs(picture.rgb.astype(int) - COLOURS).mean() < 3
    assert Note.LENIENT in picture.notes


def test_an_exif_block_that_cannot_be_read_costs_nothing() -> None:
    broken = b"Exif\0\0II*\0\xff\xff\xff\xff" + b"junk" * 8
    picture = decode(photos.with_segments(photos.jpeg(COLOURS), photos.jpeg_segment(0xE1, broken)), max_mpx=1)
    assert picture.stripped == ("exif",) and picture.is_exact


@pytest.mark.parametrize(
    "levels",
    [
        pytest.param(GREYS * 257, id="16 bits"),
        pytest.param(GREYS * 16, id="12 bits in 16"),
        pytest.param(7000 + GREYS * 8, id="an eighth of 14 bits"),
        pytest.param((GREYS / 255).astype(np.float32), id="fractions"),
    ],
)
def test_depth_is_judged_by_the_levels_in_use(levels: np.ndarray) -> None:
    picture = decode(photos.encoded(levels, "TIFF"), max_mpx=1)
    assert np.abs(picture.rgb[:, :, 0].astype(int) - GREYS).max() <= 3
    assert Note.EIGHT_BITS in picture.notes


def test_a_thumbnail_page_of_a_tiff_goes_and_a_second_picture_is_refused() -> None:
    def pages(side: int) -> bytes:
        out = io.BytesIO()
        more = [Image.fromarray(COLOURS).resize((side, side))]
        Image.fromarray(COLOURS).save(out, "TIFF", save_all=True, append_images=more)
        return out.getvalue()

    assert np.array_equal(decode(pages(64), max_mpx=1).rgb, COLOURS)
    with pytest.raises(ImageProblem, match="2 pages"):
        decode(pages(512), max_mpx=1)
