"""The original's own px are known again after another encoding; a face of somebody else, a blur or a shade is not."""

from __future__ import annotations

import numpy as np
import pytest

from anonlib.audit.leaks.pixels import EQUAL, SAME, changed_outside, face_core, left_of, may_change
from anonlib.media.codec import Picture, decode, encode
from anonlib.synthesis.redact import redact
from tests.support import photos

BOX = np.array([170, 60, 280, 200], np.float32)
BEFORE = photos.astronaut()
SIZE = BEFORE.shape[0], BEFORE.shape[1]
CORE = face_core(SIZE, BOX, None)


def through_jpeg(pixels: photos.Pixels, quality: int) -> photos.Pixels:
    return photos.decoded(photos.encoded(pixels, "JPEG", quality=quality))


def hidden(how: str) -> photos.Pixels:
    image = BEFORE.copy()
    redact(image, BOX, how)
    return image


@pytest.mark.parametrize("how", ["solid", "blur", "pixelate"])
def test_a_redacted_face_is_not_the_original(how: str) -> None:
    left = left_of(BEFORE, hidden(how), CORE)
    assert left.detail is not None and left.detail < 0.7 and left.equal < EQUAL and not left.original


@pytest.mark.parametrize("quality", [92, 75, 50])
def test_the_original_is_known_after_another_encoding(quality: int) -> None:
    left = left_of(BEFORE, through_jpeg(BEFORE, quality), CORE)
    assert left.detail is not None and left.detail > SAME and left.original


def test_light_and_tone_may_stay_but_one_eye_may_not() -> None:
    darker = np.clip(BEFORE * 0.5 + 40, 0, 255).astype(np.uint8)
    assert not left_of(hidden("blur"), darker, CORE).original
    eye = hidden("solid")
    eye[95:135, 180:225] = BEFORE[95:135, 180:225]
    assert left_of(BEFORE, through_jpeg(eye, 90), CORE).original


def test_equal_px_count_where_there_is_little_detail_to_compare() -> None:
    grain = np.random.default_rng(0).normal(100, 2, SIZE).round().astype(np.uint8)
    soft = np.repeat(grain[..., None], 3, axis=2)
    left = left_of(soft, soft, CORE)
    assert left.detail is None and left.equal == 1.0 and left.original
    flat = np.zeros_like(BEFORE)
    assert not left_of(flat, flat, CORE).original
    tiny = face_core(SIZE, np.array([10, 10, 18, 18], np.float32), None)
    assert left_of(BEFORE, BEFORE, tiny).detail is None


# ---- outside --------------------------------------------------------------------------------------------------


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
    allowed = may_change(SIZE, BOX, None)
    assert changed_outside(*released(kind, tampered=False), allowed, 92) == 0
    assert changed_outside(*released(kind, tampered=True), allowed, 92) >= 256


def test_a_single_px_of_a_lossless_photo_and_its_transparency_count() -> None:
    allowed = may_change(SIZE, BOX, None)
    before, after = released("PNG", tampered=False)
    after.rgb[500, 3, 2] ^= 1
    assert changed_outside(before, after, allowed, 92) == 1
    holes = np.full(SIZE, 255, np.uint8)
    holes[0, :5] = 0
    see_through = decode(photos.encoded(np.dstack([BEFORE, holes]), "PNG"), max_mpx=1)
    assert changed_outside(see_through, see_through, allowed, 92) == 0
    assert changed_outside(before, see_through, allowed, 92) == 5


def test_what_a_redaction_paints_is_exactly_what_it_may() -> None:
    changed = (hidden("solid") != BEFORE).any(axis=2)
    allowed = may_change(SIZE, BOX, None)
    assert not (changed & ~allowed).any() and changed[allowed].mean() > 0.95
    assert not (CORE & ~allowed).any()
