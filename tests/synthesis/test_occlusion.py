"""What lies over a face is told from it: caps stay, whatever lies below the brows goes, and frames leave nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from anonlib.faces import topology
from anonlib.synthesis.canonical import SIZE, canonical_frame, vertices_of
from anonlib.synthesis.light import STEP, Light, hair_zone
from anonlib.synthesis.occlusion import GLASSES_STEP, bare, glasses, over_forehead, without_rims
from anonlib.synthesis.textures.average import detail_of

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


def test_drawing_glasses_on_a_face_raises_its_score(photo, mesh) -> None:
    vertices, worn = vertices_of(mesh), photo.copy()
    inner = topology.LEFT_EYE_INNER, topology.RIGHT_EYE_INNER
    for ends in zip((topology.LEFT_EYE_OUTER, topology.RIGHT_EYE_OUTER), inner, strict=True):
        eye = mesh[list(ends), :2]
        radius = int(0.75 * np.linalg.norm(eye[0] - eye[1]))
        cv2.circle(worn, np.rint(eye.mean(axis=0)).astype(int).tolist(), radius, (20, 20, 25), 2)
    cv2.line(worn, *np.rint(mesh[list(inner), :2]).astype(int).tolist(), (20, 20, 25), 2)
    plain, score = (glasses(detail_of(image, vertices, GLASSES_STEP)[0]) for image in (photo, worn))
    assert plain < 0 < score and score > plain + 1


@pytest.fixture
def points() -> np.ndarray:
    """Points of which only the eyes matter."""
    points = np.zeros((468, 3), np.float32)
    points[topology.LEFT_EYE_OUTER, :2], points[topology.RIGHT_EYE_OUTER, :2] = (120, 150), (190, 150)
    return points


@pytest.mark.parametrize(("width", "colour", "left"), [(4, 10, 120), (4, 240, 120), (30, 10, 10)])
def test_a_rim_beside_the_eye_gives_way_to_its_surroundings_and_what_is_broader_stays(
    points: np.ndarray, width: int, colour: int, left: int
) -> None:
    view = np.full((300, 300, 3), 120, np.uint8)
    cv2.line(view, (102, 135), (102, 165), (colour,) * 3, width)
    out = without_rims(view, points, 50.0)
    assert (out[150, 102] == left).all() and (view[150, 102] == colour).all()
