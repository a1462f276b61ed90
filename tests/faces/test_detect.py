"""Claims about what finds faces, of every detector that ships."""

from pathlib import Path

import numpy as np
import pytest
from skimage import data

from anonlib.config import DetectorConfig
from anonlib.faces.detect import Finder, open_detector
from tests.support.packs import scrfd


@pytest.fixture(scope="module", params=["centerface", "yuface", "centerface,yuface"])
def detector(request: pytest.FixtureRequest) -> Finder:
    return open_detector(DetectorConfig(name=request.param))


def test_the_astronaut_has_one_face_with_eyes_above_mouth(detector: Finder) -> None:
    (faces,) = detector.detect([data.astronaut()])
    assert len(faces) == 1
    left, right, nose, *mouth = faces.landmarks[0]
    assert left[0] < nose[0] < right[0]
    assert max(left[1], right[1]) < nose[1] < min(corner[1] for corner in mouth)
    x0, y0, x1, y1 = faces.boxes[0]
    assert 150 < x0 < x1 < 300 and 50 < y0 < y1 < 250


def test_a_photo_gives_the_same_faces_whatever_else_is_in_the_call(detector: Finder) -> None:
    photo = data.astronaut()
    other = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    (alone,) = detector.detect([photo])
    together = detector.detect([other, photo, photo[:300], photo])
    for found in (together[1], together[3]):
        assert np.allclose(found.boxes, alone.boxes, atol=1e-2)
    assert len(together) == 4


def test_noise_and_a_single_px_have_no_faces(detector: Finder) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    assert [len(found) for found in detector.detect([noise, np.zeros((1, 1, 3), np.uint8)])] == [0, 0]


def test_several_detectors_find_what_any_of_them_finds_each_place_once(tmp_path: Path) -> None:
    """A toy network finds a red cell beside the astronaut, whose face both others find."""
    photo = np.zeros((512, 640, 3), np.uint8)
    photo[:, 128:] = data.astronaut() // 2
    photo[64:96, 96:128, 0] = 255
    names = ["scrfd", "centerface", "yuface"]
    settings = DetectorConfig(name=names, path=str(scrfd(tmp_path / "det.onnx")))
    assert settings.names == (*names,) and settings.name == "scrfd,centerface,yuface"
    (found,) = open_detector(settings).detect([photo])
    (alone,) = open_detector(DetectorConfig()).detect([photo])
    assert [64, 32, 128, 128] in found.boxes.tolist() and alone.boxes[0].tolist() in found.boxes.tolist()
    assert len(found) == 2
