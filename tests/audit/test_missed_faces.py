"""A face that was left as it was is found by the second look; those that the job replaced or hid are not."""

from __future__ import annotations

import numpy as np
import pytest

from anonlib.audit.missed_faces import SECOND_BY, SecondDetector, covered, look_twice
from anonlib.job import Job
from tests.support import photos
from tests.support.runs import Run, by_key, run_job


def scene(side: int) -> photos.Pixels:
    """Two astronauts of very different size on one large empty place; the small one is `side` px wide."""
    import cv2

    canvas = np.full((900, 1200, 3), 90, np.uint8)
    canvas[100:612, 50:562] = photos.astronaut()
    small = np.asarray(cv2.resize(photos.astronaut(), (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    canvas[700 : 700 + side, 900 : 900 + side] = small
    return canvas


@pytest.fixture(scope="module")
def nearsighted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A job whose detector sees photos so small that it overlooks the small astronaut; one photo has none."""
    root = tmp_path_factory.mktemp("nearsighted")
    content = photos.members("two", scene(110), {}) + photos.members("one", photos.astronaut(), {})
    photos.tar(root / "input" / "00000.tar", content + photos.members("none", photos.nobody(), {}))
    return run_job(root / "input", root, method={"name": "solid"}, detector={"side": 320})


def test_an_overlooked_face_is_found_and_named(nearsighted: Run) -> None:
    assert {key: len(row["faces"]) for key, row in by_key(nearsighted.output).items()} == {
        "two": 1,
        "one": 1,
        "none": 0,
    }
    seen = look_twice(Job(nearsighted.config))
    assert seen.images.tolist() == [1.0, 0.0, 0.0]
    (face,) = seen.faces
    assert (face.shard, face.key) == ("00000", "two")
    x0, y0, x1, y1 = face.box
    assert 900 <= x0 < x1 <= 1010 and 700 <= y0 < y1 <= 810 and x1 - x0 < 40


def test_faces_of_the_releases_own_making_do_not_count(finished: Run) -> None:
    job = Job(finished.config)
    job.shards = job.shards[:1]
    seen = look_twice(job)
    assert len(seen.images) == 9 and seen.faces == ()


def test_the_finding_says_who_looked_and_what_a_person_found() -> None:
    look = SecondDetector(np.array([1.0, 0, 0, 0]), ())
    found = look.missed()
    assert (found.second.value, found.second.count, found.second_by) == (0.25, 4, SECOND_BY.format("centerface"))
    assert (found.sampled, found.upper) == (0, 1.0)
    assert look.missed(sampled=300, wrong=0).upper == pytest.approx(0.00994, abs=1e-5)
    nothing = SecondDetector(np.zeros(0), ()).missed()
    assert (nothing.second.value, nothing.second.count) == (None, 0)


def test_what_lies_inside_a_painted_ellipse_is_covered() -> None:
    painted = np.array([[100, 100, 200, 200]], np.float32)
    boxes = np.array([[120, 120, 180, 180], [90, 90, 110, 110], [300, 100, 400, 200], [205, 100, 235, 200]], np.float32)
    shares = covered(boxes, painted)
    assert shares[0] == 1.0 and shares[1] == 1.0 and shares[2] == 0.0 and 0.2 < shares[3] < 0.3
    assert covered(boxes, np.zeros((0, 4), np.float32)).tolist() == [0.0] * 4
