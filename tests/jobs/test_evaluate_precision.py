"""What is counted when a network answers in two precisions; what it answers in bfloat16 needs a CPU that has it."""

from __future__ import annotations

import numpy as np

from anonlib.faces.regions import Regions
from tests.support.jobs import script

PRECISION = script("evaluate_precision")


def regions(*boxes: tuple[float, float, float, float]) -> Regions:
    count = len(boxes)
    return Regions(
        np.array(boxes, np.float32).reshape(-1, 4), np.ones(count, np.float32), np.zeros((count, 5, 2), np.float32)
    )


def test_a_face_is_in_both_where_the_boxes_overlap_by_half() -> None:
    found = PRECISION.in_both(regions((0, 0, 10, 10), (50, 50, 60, 60)), regions((0, 0, 10, 8), (70, 70, 80, 80)))
    assert found.tolist() == [np.float32(0.8)]
    assert len(PRECISION.in_both(regions((0, 0, 10, 10)), regions())) == 0


def test_rank_one_asks_people_with_several_photos_alone() -> None:
    vectors = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.7, 0.7]], np.float32)
    assert PRECISION.rank_one(vectors, np.array(["a", "a", "b", "c"])) == 1
    assert PRECISION.rank_one(vectors, np.array(["a", "b", "a", "c"])) == 0


def test_a_network_that_is_rounded_after_every_operation_answers_nearly_the_same() -> None:
    crops = np.random.default_rng(0).normal(size=(2, 3, 112, 112)).astype(np.float32)
    (single,), (half,) = PRECISION.in_f32("expression")(crops), PRECISION.emulated("expression")(crops)
    assert single.shape == half.shape and not np.array_equal(single, half)
    assert np.abs(single - half).max() < 0.05
