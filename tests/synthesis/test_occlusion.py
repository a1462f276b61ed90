"""What lies over a face is told from it: caps stay, whatever lies below the brows goes, and frames leave nothing."""

from __future__ import annotations

import numpy as np
import pytest

from anonlib.faces import topology
from anonlib.synthesis.canonical import SIZE, canonical_frame
from anonlib.synthesis.light import STEP, Light, hair_zone
from anonlib.synthesis.occlusion import bare, over_forehead

SMALL = SIZE // STEP
SPREAD = 0.1
BROWS = int(canonical_frame().points[[*topology.LEFT_BROW, *topology.RIGHT_BROW], 1].min()) // STEP


def skin() -> np.ndarray:
    return np.full((SMALL, SMALL, 3), 0.01, np.float32)


def test_whatever_lies_on_the_face_nothing_is_kept_below_the_brows() -> None:
    residual = np.full((SMALL, SMALL, 3), -1.5, np.float32)
    worn = over_forehead(residual, SPREAD, "wide")
    assert worn[hair_zone()[::STEP, ::STEP] == 0].max() == 0 and worn[BROWS:].max() < 0.2


def under(*colour: float) -> Light:
    """A light that is the same everywhere."""
    coefficients = np.zeros((10, 3))
    coefficients[0] = np.log(colour)
    return Light(coefficients, SPREAD, 1.0)


def test_shades_of_dark_skin_are_skin_as_those_of_light_skin_are() -> None:
    shades = 9.0 * np.where(np.arange(SMALL) // 8 % 2, 1, -1)[:, None, None]
    for colour in ((60.0, 40.0, 18.0), (200.0, 160.0, 140.0)):
        residual = np.broadcast_to(np.log1p(shades / np.array(colour)), (SMALL, SMALL, 3)).astype(np.float32)
        assert bare(residual, under(*colour)) > 0.95
    assert bare(residual + 0.6, under(200, 160, 140)) < 0.1


@pytest.mark.parametrize(("left", "share"), [(0.01, 1), (-1.5, 0.5), (0, 1)], ids=["bare", "covered", "not shown"])
def test_a_face_is_bare_as_far_as_what_the_photo_shows_of_it(left: float, share: float) -> None:
    residual = skin()
    residual[:, : SMALL // 2] = left
    assert bare(residual, under(150)) == pytest.approx(share, abs=0.06)
    assert bare(0 * residual, under(150)) == bare(residual - 3, under(150)) == 0
