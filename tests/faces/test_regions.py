import numpy as np
import pytest

from anonlib.faces.original import face_core, is_original
from anonlib.faces.regions import FACE, IN_ALPHA, Regions, labelled_face, main_face, non_maximum, share_inside
from anonlib.workspace.schemas import GROW
from tests.support import photos
from tests.support.photos import redacted_astronaut


def regions(*boxes: tuple[float, float, float, float], kinds: tuple[str, ...] = ()) -> Regions:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Regions(array, np.ones(len(array), np.float32), np.zeros((len(array), 5, 2), np.float32), kinds)


CORNER, MIDDLE, SMALL = (0, 0, 60, 60), (80, 80, 130, 130), (95, 95, 105, 105)


def test_of_two_overlapping_boxes_the_better_stays() -> None:
    boxes = np.array([[20, 20, 30, 30], [1, 1, 11, 11], [0, 0, 10, 10]], np.float32)
    assert non_maximum(boxes, np.array([0.5, 0.8, 0.9], np.float32), 0.3).tolist() == [2, 0]


def test_a_share_inside_an_area_counts_its_growth() -> None:
    boxes = np.array([[120, 120, 180, 180], [90, 90, 110, 110], [300, 100, 400, 200], [205, 100, 235, 200]], np.float32)
    shares = share_inside(boxes, np.array([[100, 100, 200, 200]], np.float32), GROW)
    assert shares[:3].tolist() == [1.0, 1.0, 0.0] and 0.2 < shares[3] < 0.3
    assert share_inside(boxes, boxes[:0]).tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("boxes", "kinds", "row"),
    [
        ([CORNER, MIDDLE, SMALL], (), 1),
        ([CORNER], (), 0),
        ([], (), -1),
        ([MIDDLE, CORNER], ("plate", FACE), 1),
        ([MIDDLE], ("plate",), -1),
    ],
)
def test_a_label_means_the_large_and_central_face(
    boxes: list[tuple[float, float, float, float]], kinds: tuple[str, ...], row: int
) -> None:
    found = regions(*boxes, kinds=kinds)
    assert labelled_face(found, (200, 200, 3)) == row
    chosen = main_face(found, (200, 200, 3))
    assert chosen.boxes.tolist() == ([] if row < 0 else [list(boxes[row])])


def test_what_shows_only_on_a_background_is_added_without_landmarks() -> None:
    others = regions((82, 79, 131, 128), CORNER, SMALL, kinds=(FACE, FACE, "plate"))
    plain = regions(MIDDLE, kinds=(FACE,)).with_new(others, 0.5)
    assert plain.kinds == (FACE, FACE, "plate") and np.isfinite(plain.landmarks[1]).all()
    found = regions(MIDDLE, kinds=(FACE,)).with_new(others.in_alpha(), 0.5)
    assert found.boxes.tolist() == [list(MIDDLE), list(CORNER), list(SMALL)]
    assert found.kinds == (FACE, IN_ALPHA, "plate") and np.isnan(found.landmarks[1:]).all() and len(found.faces) == 1


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
