import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonlib.synthesis.redact import GREY, ellipse, redact

BOX = np.array([40, 30, 80, 90], np.float32)


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (120, 140, 3), dtype=np.uint8)


def test_solid_leaves_no_px_of_the_box_but_its_corners() -> None:
    image = noise()
    redact(image, BOX, "solid")
    rows, columns = np.mgrid[30:90, 40:80]
    inside = ((columns - 60) / 20) ** 2 + ((rows - 60) / 30) ** 2 <= 1
    assert (image[30:90, 40:80][inside] == GREY).all()


@pytest.mark.parametrize("how", ["solid", "blur", "pixelate"])
def test_nothing_outside_the_ellipse_changes_and_the_face_does(how: str) -> None:
    image, before = noise(), noise()
    redact(image, BOX, how)
    mask, (x0, y0, x1, y1) = ellipse(BOX, image.shape)
    changed = (image != before).any(axis=2)
    assert not changed[:y0].any() and not changed[y1:].any() and not changed[:, :x0].any() and not changed[:, x1:].any()
    assert not changed[y0:y1, x0:x1][mask == 0].any()
    assert changed[y0:y1, x0:x1][mask > 0].mean() > 0.95


@given(st.floats(-50, 200), st.floats(-50, 200), st.floats(0, 300), st.floats(0, 300))
def test_any_box_at_all_can_be_redacted(x: float, y: float, width: float, height: float) -> None:
    image = noise()
    redact(image, np.array([x, y, x + width, y + height], np.float32), "solid")
    assert image.shape == (120, 140, 3)


def test_an_unknown_redaction_is_refused() -> None:
    with pytest.raises(ValueError, match="no redaction"):
        redact(noise(), BOX, "emoji")
