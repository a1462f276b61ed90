import numpy as np
import pytest

from anonlib.faces.original import face_core, is_original
from tests.support import photos
from tests.support.photos import redacted_astronaut

BOX = photos.ASTRONAUT_FACE
BEFORE = photos.astronaut()
SIZE = BEFORE.shape[0], BEFORE.shape[1]
CORE = face_core(SIZE, BOX, None)


@pytest.mark.parametrize("how", ["fill", "solid", "blur", "pixelate"])
def test_a_redacted_face_is_not_the_original(how: str) -> None:
    assert is_original(BEFORE, redacted_astronaut(how), CORE) is False


@pytest.mark.parametrize(("quality", "whole"), [(92, True), (50, True), (90, False)])
def test_the_original_or_one_eye_of_it_is_known_after_another_encoding(quality: int, whole: bool) -> None:
    after = BEFORE.copy() if whole else redacted_astronaut("solid")
    after[95:135, 180:225] = BEFORE[95:135, 180:225]
    after = photos.decoded(photos.encoded(after, "JPEG", quality=quality))
    assert is_original(BEFORE, after, CORE) is True


def test_light_and_tone_of_a_blurred_face_may_stay() -> None:
    darker = np.clip(BEFORE * 0.5 + 40, 0, 255).astype(np.uint8)
    assert not is_original(redacted_astronaut("blur"), darker, CORE)


def test_equal_px_count_where_there_is_little_detail_to_compare() -> None:
    grain = np.random.default_rng(0).normal(100, 2, SIZE).round().astype(np.uint8)
    soft, flat = np.repeat(grain[..., None], 3, axis=2), np.zeros_like(BEFORE)
    assert is_original(soft, soft, CORE) is True and is_original(flat, flat, CORE) is None
    assert is_original(BEFORE, BEFORE, face_core(SIZE, np.array([10, 10, 18, 18], np.float32), None)) is None
