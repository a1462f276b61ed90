import cv2
import numpy as np
import pytest
from skimage import data

from anonlib.errors import BackendMissing
from anonlib.faces.centerface import CenterFaceDetector, decode
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import has_bf16, load_engine


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


def test_scale_does_not_move_a_face(detector: CenterFaceDetector) -> None:
    photo = data.astronaut()
    (small,) = detector.detect([photo])
    (large,) = detector.detect([np.repeat(np.repeat(photo, 3, axis=0), 3, axis=1)])
    assert np.allclose(large.boxes[0] / 3, small.boxes[0], atol=6)


def test_noise_and_a_single_px_have_no_faces(detector: CenterFaceDetector) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    assert [len(found) for found in detector.detect([noise, np.zeros((1, 1, 3), np.uint8)])] == [0, 0]


def test_decode_places_a_box_and_its_points() -> None:
    heat, scale = np.zeros((8, 8), np.float32), np.zeros((2, 8, 8), np.float32)
    heat[3, 5] = 0.9
    scale[:, 3, 5] = np.log([4, 2])
    points = np.zeros((10, 8, 8), np.float32)
    points[2:4, 3, 5] = (0.25, 0.5)
    faces = decode(heat, scale, np.zeros((2, 8, 8), np.float32), points, 0.5)
    assert faces.boxes[0].tolist() == [18, 6, 26, 22]
    assert faces.landmarks[0, 1].tolist() == [18 + 0.5 * 8, 6 + 0.25 * 16]


def test_bf16_finds_the_faces_that_f32_finds(detector: CenterFaceDetector) -> None:
    model = model_bytes("centerface")
    if not has_bf16():
        with pytest.raises(BackendMissing, match="bf16"):
            load_engine(model, precision="bf16")
        pytest.skip("this CPU does not compute in bfloat16")
    photos = [data.astronaut(), data.astronaut()[:, ::-1].copy(), cv2.resize(data.astronaut(), (300, 300))]
    short = CenterFaceDetector(load_engine(model, precision="bf16"), side=640, score=0.4).detect(photos)
    exact = detector.detect(photos)
    assert [len(regions) for regions in short] == [len(regions) for regions in exact] == [1, 1, 1]
    for rounded, full in zip(short, exact, strict=True):
        assert np.abs(rounded.boxes - full.boxes).max() < 0.05 * np.ptp(full.boxes[0])
        assert 0 < np.abs(rounded.scores - full.scores).max() < 0.03
