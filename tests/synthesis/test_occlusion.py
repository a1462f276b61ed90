import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.synthesis.canonical import SIZE, canonical_frame
from anonlib.synthesis.light import STEP, hair_zone
from anonlib.synthesis.occlusion import bare, mended, over_forehead, skin_of

SMALL = SIZE // STEP
SPREAD = 0.1
BROWS = int(canonical_frame().points[[*topology.LEFT_BROW, *topology.RIGHT_BROW], 1].min()) // STEP
EYES = 40.0


def nothing() -> NDArray[np.float32]:
    return np.full((SMALL, SMALL, 3), 0.01, np.float32)


def test_a_bare_face_wears_nothing() -> None:
    assert over_forehead(nothing(), SPREAD).max() == 0
    assert bare(nothing(), SPREAD) == 1


@pytest.mark.parametrize("colour", [(-1.5, -1.5, -1.5), (-1.0, -0.5, 0.6), (0.6, 0.7, 0.8)])
def test_a_cap_is_found_down_to_its_brim(colour: tuple[float, float, float]) -> None:
    residual = nothing()
    brim = BROWS - 4
    residual[:brim] = colour
    worn = over_forehead(residual, SPREAD)
    middle = slice(SMALL // 2 - 8, SMALL // 2 + 8)
    assert worn[: brim - 3, middle].min() > 0.9
    assert worn[brim + 3 :].max() < 0.1


def test_whatever_lies_on_the_face_nothing_is_kept_below_the_brows() -> None:
    residual = np.full((SMALL, SMALL, 3), -1.5, np.float32)
    worn = over_forehead(residual, SPREAD)
    assert worn[hair_zone()[::STEP, ::STEP] == 0].max() == 0
    assert worn[BROWS:].max() < 0.2
    assert bare(residual, SPREAD) == 0


def test_a_mark_on_a_bare_forehead_is_no_cap() -> None:
    residual = nothing()
    residual[BROWS - 6 : BROWS - 3, SMALL // 2 - 2 : SMALL // 2 + 2] = -1.5
    assert over_forehead(residual, SPREAD).max() < 0.05


def test_half_a_face_covered_is_half_bare() -> None:
    residual = nothing()
    residual[:, : SMALL // 2] = -1.5
    assert bare(residual, SPREAD) == pytest.approx(0.5, abs=0.06)


def test_what_the_photo_does_not_show_counts_for_nothing() -> None:
    residual = nothing()
    residual[:, : SMALL // 2] = 0
    assert bare(residual, SPREAD) == 1
    assert bare(np.zeros_like(residual), SPREAD) == 0


def test_a_thin_line_across_skin_is_skin_and_a_thick_one_is_not() -> None:
    view = np.full((80, 80, 3), 150, np.uint8)
    light = np.full((80, 80, 3), np.log(154.0), np.float32)
    thin, thick = view.copy(), view.copy()
    cv2.line(thin, (0, 40), (79, 44), (20, 20, 20), 2)
    cv2.line(thick, (0, 40), (79, 44), (20, 20, 20), 16)
    assert skin_of(thin, light, SPREAD, EYES).min() > 0.9
    assert skin_of(thick, light, SPREAD, EYES)[42, 40] < 0.05


def test_skin_between_strands_becomes_hair() -> None:
    view = np.full((80, 80, 3), 30, np.uint8)
    view[:, 36:44] = 180
    skin = np.zeros((80, 80), np.float32)
    skin[:, 35:45] = 1
    filled, hat = mended(view, skin, np.ones((80, 80), np.float32), EYES)
    assert filled.max() < 40
    assert hat.min() > 0.9


def test_where_there_is_no_hair_to_fill_from_there_is_no_hat() -> None:
    view = np.full((80, 80, 3), 180, np.uint8)
    ones = np.ones((80, 80), np.float32)
    assert mended(view, ones, ones, EYES)[1].max() == 0


def test_what_wears_no_hat_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    view = rng.integers(0, 255, (80, 80, 3), dtype=np.uint8)
    hat = np.zeros((80, 80), np.float32)
    hat[:30] = 1
    filled, _ = mended(view, rng.random((80, 80), np.float32), hat, EYES)
    assert (filled[30:] == view[30:]).all()
