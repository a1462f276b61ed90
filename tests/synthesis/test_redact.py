from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonlib.synthesis.redact import GREY, Redaction, covered, fill_hole, level_alpha, redact

BOX = np.array([40, 30, 80, 90], np.float32)
HEIGHT, WIDTH = 90, 110
ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
GRADIENT = np.stack([40 + 1.2 * COLUMNS, 200 - ROWS, 60 + 0.5 * (ROWS + COLUMNS)], axis=2)
ALL = np.ones((HEIGHT, WIDTH), bool)
DISC = (COLUMNS - 50) ** 2 + (ROWS - 45) ** 2 < 25**2


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (120, 140, 3), dtype=np.uint8)


@given(st.floats(-50, 200), st.floats(-50, 200), st.floats(0, 300), st.floats(0, 300))
def test_solid_leaves_no_px_of_any_box_but_its_corners(x: float, y: float, width: float, height: float) -> None:
    image = noise()
    redact(image, np.array([x, y, x + width, y + height], np.float32), "solid")
    rows, columns = np.mgrid[0:120, 0:140]
    across, down = (columns - x - width / 2) / (width / 2 + 1e-9), (rows - y - height / 2) / (height / 2 + 1e-9)
    assert min(width, height) < 2 or (image[across**2 + down**2 <= 1] == GREY).all()


@pytest.mark.parametrize("how", get_args(Redaction))
def test_nothing_outside_the_ellipse_changes_and_the_face_does(how: str) -> None:
    image = noise()
    redact(image, BOX, how)
    whole = covered(BOX[None], (120, 140))
    changed = (image != noise()).any(axis=2)
    assert not changed[~whole].any() and changed[whole].mean() > 0.95


def test_an_alpha_is_even_in_the_ellipse_and_a_cut_out_keeps_its_outline() -> None:
    flat, cut_out = noise()[..., 0], np.zeros((120, 140), np.uint8)
    cut_out[:, 60:] = 200
    painted = np.zeros((120, 140), bool)
    painted[60, 50:70] = True
    before = flat.copy()
    level_alpha(flat, BOX)
    whole = covered(BOX[None], (120, 140))
    assert np.ptp(flat[whole]) == 0 and np.array_equal(flat[~whole], before[~whole])
    level_alpha(cut_out, BOX, painted)
    assert (cut_out[60, 50:60] == 200).all() and not cut_out[59, :60].any() and (cut_out[:, 60:] == 200).all()


@given(st.integers(0, 140), st.integers(0, 120), st.booleans())
def test_a_fill_depends_on_no_px_under_any_ellipse_of_the_photo(x: int, y: int, both: bool) -> None:
    boxes = np.array([BOX, [x, y, x + 30, y + 40]], np.float32)
    image, hidden = noise(), covered(boxes, (120, 140))
    other = np.where(hidden[..., None], 255 - image, image)
    for number in (0, 1) if both else (1,):
        for each in (image, other):
            redact(each, boxes[number], "fill", np.delete(boxes, number, axis=0))
    painted = hidden if both else covered(boxes[1:], (120, 140))
    assert (image[painted] == other[painted]).all()


@given(st.lists(st.tuples(*[st.floats(-60, 200)] * 2, *[st.floats(0, 90)] * 2), max_size=8), st.booleans(), st.data())
def test_a_part_of_what_is_covered_is_a_part_of_the_whole(rows: list[Any], whole: bool, data: st.DataObject) -> None:
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in rows], np.float32).reshape(-1, 4)
    x0, y0 = data.draw(st.integers(0, 139)), data.draw(st.integers(0, 119))
    x1, y1 = data.draw(st.integers(x0 + 1, 140)), data.draw(st.integers(y0 + 1, 120))
    part = covered(boxes, (120, 140), whole, (x0, y0, x1, y1))
    assert np.array_equal(part, covered(boxes, (120, 140), whole)[y0:y1, x0:x1])


def test_a_face_before_a_larger_one_is_filled_from_around_both() -> None:
    wall = np.full((400, 600, 3), 200, np.uint8)
    boxes = np.array([[290, 190, 310, 210], [100, 50, 500, 350]], np.float32)
    redact(wall, boxes[0], "fill", boxes[1:])
    assert (wall == 200).all()


def photo(grain: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, grain, GRADIENT.shape) if grain else 0
    return np.clip(np.rint(GRADIENT + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "hole", [DISC, DISC & (ROWS > 40), DISC | (np.abs(COLUMNS - 84) < 6) & (np.abs(ROWS - 45) < 30)]
)
def test_a_hole_in_a_gradient_leaves_no_seam(hole: np.ndarray) -> None:
    filled = fill_hole(photo(0), hole, ~ALL, b"seed")
    away = np.abs(filled - GRADIENT)[hole]
    assert away.max() <= 1.5


def test_the_grain_is_as_strong_as_the_photos_and_its_seed_decides_it() -> None:
    first, again, other = (fill_hole(photo(6), DISC, ~ALL, seed) for seed in (b"1", b"1", b"2"))
    spread = (first - GRADIENT)[DISC].std(axis=0)
    assert (np.abs(spread / 6 - 1) < 0.2).all()
    assert (first == again).all() and (first != other)[DISC].any()


def test_a_hole_without_surroundings_is_grey() -> None:
    assert (fill_hole(photo(6), DISC, ~DISC, b"seed")[DISC] == GREY).all()
