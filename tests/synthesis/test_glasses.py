import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.synthesis.canonical import canonical_frame, vertices_of
from anonlib.synthesis.occlusion import GLASSES_STEP, features, glasses, readout, without_rims
from anonlib.synthesis.textures.average import detail_of


def test_drawing_glasses_on_a_face_raises_its_score(photo: NDArray[np.uint8], mesh: NDArray[np.float32]) -> None:
    vertices = vertices_of(mesh)
    bare = glasses(detail_of(photo, vertices, GLASSES_STEP)[0])
    worn = photo.copy()
    for eye in ((33, 133), (362, 263)):
        centre, radius = mesh[list(eye), :2].mean(axis=0), 0.75 * np.linalg.norm(mesh[eye[0], :2] - mesh[eye[1], :2])
        cv2.circle(worn, tuple(np.rint(centre).astype(int).tolist()), int(radius), (20, 20, 25), 2)
    bridge = [tuple(np.rint(mesh[point, :2]).astype(int).tolist()) for point in (133, 362)]
    cv2.line(worn, bridge[0], bridge[1], (20, 20, 25), 2)
    assert bare < 0 < glasses(detail_of(worn, vertices, GLASSES_STEP)[0])
    assert glasses(detail_of(worn, vertices, GLASSES_STEP)[0]) > bare + 1


def test_the_readout_fits_its_features() -> None:
    size = canonical_frame().inside.shape[0] // GLASSES_STEP
    assert features(np.zeros((size, size, 3), np.float32)).shape == readout().weight.shape


def drawn(mesh: NDArray[np.float32], eyes: float, thickness: float, colour: int) -> NDArray[np.uint8]:
    """A grey view with a bar that runs upright beside the left eye."""
    view = np.full((300, 300, 3), 120, np.uint8)
    x, y = np.rint(mesh[topology.LEFT_EYE_OUTER, :2] - [0.35 * eyes, 0]).astype(int).tolist()
    half = int(0.3 * eyes)
    cv2.line(view, (x, y - half), (x, y + half), (colour,) * 3, max(1, round(thickness * eyes)))
    return view


@pytest.fixture
def eyes_apart() -> tuple[NDArray[np.float32], float]:
    """Points of which only the eyes matter, and the eye distance."""
    points = np.zeros((468, 3), np.float32)
    points[topology.LEFT_EYE_OUTER, :2], points[topology.RIGHT_EYE_OUTER, :2] = (120, 150), (190, 150)
    return points, 50.0


@pytest.mark.parametrize("colour", [10, 240])
def test_a_rim_beside_the_eye_gives_way_to_its_surroundings(
    eyes_apart: tuple[NDArray[np.float32], float], colour: int
) -> None:
    points, eyes = eyes_apart
    view = drawn(points, eyes, 0.08, colour)
    assert np.abs(without_rims(view, points, eyes).astype(int) - 120).max() == 0
    assert np.abs(view.astype(int) - 120).max() > 100


def test_what_is_broader_than_a_rim_stays(eyes_apart: tuple[NDArray[np.float32], float]) -> None:
    points, eyes = eyes_apart
    view = drawn(points, eyes, 0.6, 10)
    x, y = np.rint(points[topology.LEFT_EYE_OUTER, :2] - [0.35 * eyes, 0]).astype(int)
    assert without_rims(view, points, eyes)[y, x].max() == 10


def test_nothing_away_from_the_eyes_changes(eyes_apart: tuple[NDArray[np.float32], float]) -> None:
    points, eyes = eyes_apart
    view = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    out = without_rims(view, points, eyes)
    assert (out[:100] == view[:100]).all() and (out[200:] == view[200:]).all()
    assert (out[:, 130:180] == view[:, 130:180]).all()
    assert (out != view).any()


def test_eyes_outside_the_view_change_nothing(eyes_apart: tuple[NDArray[np.float32], float]) -> None:
    points, eyes = eyes_apart
    view = np.zeros((40, 40, 3), np.uint8)
    assert without_rims(view, points, eyes) is view
