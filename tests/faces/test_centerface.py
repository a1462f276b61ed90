import numpy as np
import pytest
from skimage import data

from anonlib.faces.centerface import CenterFaceDetector
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import load_engine


@pytest.fixture(scope="module")
def detector() -> CenterFaceDetector:
    return CenterFaceDetector(load_engine(model_bytes("centerface")), side=640, score=0.4)


def test_the_astronaut_has_one_face_with_eyes_above_mouth(detector: CenterFaceDetector) -> None:
    (faces,) = detector.detect([data.astronaut()])
    assert len(faces) == 1
    left, right, nose, *mouth = faces.landmarks[0]
    assert left[0] < nose[0] < right[0]
    assert max(left[1], right[1]) < nose[1] < min(corner[1] for corner in mouth)
    x0, y0, x1, y1 = faces.boxes[0]
    assert 150 < x0 < x1 < 300 and 50 < y0 < y1 < 250


def test_a_photo_gives_the_same_faces_whatever_else_is_in_the_call(detector: CenterFaceDetector) -> None:
    photo = data.astronaut()
    other = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    (alone,) = detector.detect([photo])
    together = detector.detect([other, photo, photo[:300], photo])
    for found in (together[1], together[3]):
        assert np.allclose(found.boxes, alone.boxes, atol=1e-2)
    assert len(together) == 4


def test_noise_and_a_single_px_have_no_faces(detector: CenterFaceDetector) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    assert [len(found) for found in detector.detect([noise, np.zeros((1, 1, 3), np.uint8)])] == [0, 0]
