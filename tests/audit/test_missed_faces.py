"""A face that was left as it was is found by the second look; those that the job replaced or hid are not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from anonlib.audit.missed_faces import SECOND_BY, known, look_twice
from anonlib.audit.review_queue import draw_sample
from anonlib.job import Job
from anonlib.privacy.keys import Keyring
from tests.support import photos
from tests.support.runs import Run, by_key, run_job


def test_an_overlooked_face_is_found_and_named(tmp_path: Path) -> None:
    """A detector that sees photos very small overlooks the smaller of two astronauts on one large empty place, and at
    any size a face that an edge cuts off, which the other detector finds."""
    canvas = np.full((900, 1200, 3), 90, np.uint8)
    canvas[100:612, 50:562] = photos.astronaut()
    canvas[700:810, 900:1010] = cv2.resize(photos.astronaut(), (110, 110), interpolation=cv2.INTER_AREA)
    images = {"cut": np.ascontiguousarray(photos.astronaut()[:250, :205])}
    images |= {"two": canvas, "one": photos.astronaut(), "none": photos.nobody()}
    members = [member for key, pixels in images.items() for member in photos.members(key, pixels, {})]
    photos.tar(tmp_path / "input" / "00000.tar", members)
    run = run_job(tmp_path / "input", tmp_path, method={"name": "solid"}, detector={"side": 320})
    assert [len(row["faces"]) for row in by_key(run.output).values()] == [0, 1, 1, 0]
    missed, found = look_twice(Job(run.config), sampled=300, wrong=0)
    assert (missed.second.value, missed.second.count, missed.second_by) == (0.5, 4, SECOND_BY.format("centerface"))
    assert (missed.sampled, missed.upper) == (300, pytest.approx(0.00994, abs=1e-5))
    assert found.keys() == {("00000", "cut"), ("00000", "two")} and found["00000", "cut"][0][2] > 180
    ((x0, y0, x1, y1),) = found["00000", "two"]
    assert 900 <= x0 < x1 <= 1010 and 700 <= y0 < y1 <= 810 and x1 - x0 < 40


def test_faces_of_the_releases_own_making_do_not_count(finished: Run) -> None:
    job = Job(finished.config)
    job.shards = job.shards[:1]
    missed, faces = look_twice(job)
    assert (missed.second.value, missed.second.count, missed.sampled, missed.upper, faces) == (0.0, 9, 0, 1.0, {})


def test_a_face_that_reaches_out_of_a_hidden_person_is_new_and_one_that_reaches_out_of_a_face_is_not() -> None:
    region = [100, 100, 200, 400]
    boxes = np.array([[100, 100, 200, 400], [150, 200, 230, 280], [300, 100, 330, 140]], np.float32)
    for kind, beside in ((None, True), ("person", False)):
        assert known(boxes, [({"kind": kind}, region)]).tolist() == [True, beside, False]
    assert known(boxes, []).tolist() == [False] * 3


KEYRING = Keyring(b"a secret of 32 bytes for the tests", "tests")


def images(count: int, shard: str = "00000") -> list[tuple[str, int, str]]:
    return [(shard, row, f"photo-{row}") for row in range(count)]


def test_a_longer_sample_begins_with_the_shorter_one_whatever_the_order() -> None:
    short, long = draw_sample(images(200), 20, KEYRING), draw_sample(images(200)[::-1], 60, KEYRING)
    assert long[:20] == short and len(set(long)) == 60
    assert sorted(draw_sample(images(200), 1000, KEYRING)) == [(shard, row) for shard, row, _ in images(200)]


def test_a_sample_depends_on_the_secret_the_release_and_the_shard() -> None:
    drawn = {row for _, row in draw_sample(images(200), 50, KEYRING)}
    others = (Keyring(b"another secret of 32 bytes, tests", "tests"), Keyring(KEYRING.secret, "another release"))
    samples = [*(draw_sample(images(200), 50, other) for other in others), draw_sample(images(200, "1"), 50, KEYRING)]
    assert all(2 <= len({row for _, row in sample} & drawn) <= 30 for sample in samples)
