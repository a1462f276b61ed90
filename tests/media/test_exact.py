"""What leaves with its own data looks the same, carries nothing else, and hides nothing; through the sandbox too."""

import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from anonlib.config import LimitsConfig
from anonlib.errors import ImageProblem
from anonlib.media import exact, jpeg
from anonlib.media.codec import decode
from anonlib.media.colour import ColourSpace, profile_of
from anonlib.media.sandbox.process import changed_blocks_apart, decode_apart, replace_apart

LIMITS = LimitsConfig(image_mpx=1, image_seconds=20)
FORMATS = {
    "jpeg": ("JPEG", {"quality": 85}),
    "progressive": ("JPEG", {"quality": 85, "progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"quality": 80}),
    "lossless webp": ("WEBP", {"lossless": True}),
}


def pixels(height: int = 37, width: int = 53) -> np.ndarray:
    rng = np.random.default_rng(5)
    small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def loaded(kind: str, orientation: int = 1, space: ColourSpace | None = None, **more: object) -> bytes:
    """A file with b"SECRET" in all that a Pillow image can carry."""
    image_format, options = FORMATS[kind]
    tags = Image.Exif()
    tags[0x112], tags[0x10F] = orientation, "SECRET"
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "SECRET")
    info.add(b"prVt", b"SECRET")
    extra = {"PNG": {"pnginfo": info}, "JPEG": {"comment": "SECRET"}, "WEBP": {"xmp": b"SECRET"}}[image_format]
    out = io.BytesIO()
    if space:
        extra["icc_profile"] = profile_of(space)
    Image.fromarray(pixels()).save(out, image_format, exif=tags, **options, **extra, **more)
    return out.getvalue() + b"SECRET"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", FORMATS)
def test_the_picture_stays_bit_for_bit_and_nothing_else_does(kind: str, orientation: int) -> None:
    file = loaded(kind, orientation)
    before = decode_apart(file, LIMITS)
    assert before.is_exact
    clean = exact.rewrite(file, before.stored)
    after = decode(clean, max_mpx=1)
    assert b"SECRET" not in clean
    assert np.array_equal(after.rgb, before.rgb)
    assert after.orientation == orientation
    assert after.stripped == (() if orientation == 1 else ("exif",))
    assert exact.rewrite(clean, after.stored) == clean


@pytest.mark.parametrize("kind", FORMATS)
def test_a_named_profile_is_written_anew(kind: str) -> None:
    file = loaded(kind, 6, "Display P3")
    clean = exact.rewrite(file, decode(file, max_mpx=1).stored)
    assert Image.open(io.BytesIO(clean)).info["icc_profile"] == profile_of("Display P3")
    assert decode(clean, max_mpx=1).space == "Display P3"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_new_pixels_go_where_the_file_keeps_them(orientation: int) -> None:
    file = loaded("jpeg", orientation)
    before = decode_apart(file, LIMITS)
    after = before.rgb.copy()
    after[4:12, 20:30] = 255 - after[4:12, 20:30]
    frame = jpeg.parse(file)
    stored = exact.as_stored(before.rgb, orientation), exact.as_stored(after, orientation)
    changed = jpeg.touched_mcus(frame, *stored)
    written = replace_apart(file, changed, jpeg.pixels_of(stored[1], frame, changed), before.stored, LIMITS)
    seen = decode(written, max_mpx=1)
    assert seen.orientation == orientation
    touched = (stored[0] != stored[1]).any(axis=2)
    assert changed_blocks_apart(file, written, touched, LIMITS) == 0
    assert changed_blocks_apart(file, written, np.zeros_like(touched), LIMITS) > 0
    difference = np.abs(seen.rgb.astype(int) - after).max(axis=2)
    assert difference[6:10, 22:28].max() < 60
    far = np.ones(difference.shape, bool)
    far[:30, :53] = False
    assert not difference[far].any()


def test_a_file_that_is_no_jpeg_is_a_problem_of_its_photo() -> None:
    with pytest.raises(ImageProblem, match="does not begin as a JPEG"):
        stored = exact.Stored("JPEG", 1, None)
        replace_apart(b"x", np.ones((1, 1), bool), np.zeros((1, 8, 8, 3), np.uint8), stored, LIMITS)
