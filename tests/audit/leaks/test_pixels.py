"""The original's own px are known again after another encoding; a face of somebody else, a blur or a shade is not."""

from __future__ import annotations

import numpy as np
import pytest

from anonlib.audit.leaks.pixels import changed_outside, face_core, is_original, may_change
from anonlib.media.codec import Picture, decode, encode
from anonlib.synthesis.redact import redact
from tests.support import photos

BOX = np.array([170, 60, 280, 200], np.float32)
BEFORE = photos.astronaut()
SIZE = BEFORE.shape[0], BEFORE.shape[1]
CORE = face_core(SIZE, BOX, None)
ALLOWED = may_change(SIZE, BOX, None)


def hidden(how: str) -> photos.Pixels:
    image = BEFORE.copy()
    redact(image, BOX, how)
    return image


@pytest.mark.parametrize("how", ["solid", "blur", "pixelate"])
def test_a_redacted_face_is_not_the_original(how: str) -> None:
    assert is_original(BEFORE, hidden(how), CORE) is False


@pytest.mark.parametrize(("quality", "whole"), [(92, True), (50, True), (90, False)])
def test_the_original_or_one_eye_of_it_is_known_after_another_encoding(quality: int, whole: bool) -> None:
    after = BEFORE.copy() if whole else hidden("solid")
    after[95:135, 180:225] = BEFORE[95:135, 180:225]
    after = photos.decoded(photos.encoded(after, "JPEG", quality=quality))
    assert is_original(BEFORE, after, CORE) is True


def test_light_and_tone_of_a_blurred_face_may_stay() -> None:
    darker = np.clip(BEFORE * 0.5 + 40, 0, 255).astype(np.uint8)
    assert not is_original(hidden("blur"), darker, CORE)


def test_equal_px_count_where_there_is_little_detail_to_compare() -> None:
    grain = np.random.default_rng(0).normal(100, 2, SIZE).round().astype(np.uint8)
    soft, flat = np.repeat(grain[..., None], 3, axis=2), np.zeros_like(BEFORE)
    assert is_original(soft, soft, CORE) is True and is_original(flat, flat, CORE) is None
    assert is_original(BEFORE, BEFORE, face_core(SIZE, np.array([10, 10, 18, 18], np.float32), None)) is None


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
    changed = (hidden("solid") != BEFORE).any(axis=2)
    assert not (changed & ~ALLOWED).any() and changed[ALLOWED].mean() > 0.95
    assert not (CORE & ~ALLOWED).any()
