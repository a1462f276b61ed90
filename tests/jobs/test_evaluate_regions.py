"""What is drawn into a photo is known to the px, and what a box holds is counted."""

from __future__ import annotations

import numpy as np
import pytest

from anonlib.faces.regions import Regions
from tests.support.jobs import script

REGIONS = script("evaluate_regions")


@pytest.mark.parametrize("plate", [False, True])
def test_ink_is_where_a_line_was_drawn(plate: bool) -> None:
    photo = np.full((200, 300, 3), 250, np.uint8)
    for seed in range(5):
        shown, ink, height = REGIONS.drawn(photo, plate, np.random.default_rng(seed))
        changed = (shown != photo).any(axis=2)
        assert ink.sum() > height and changed[ink].all()
        assert changed.sum() > 2 * ink.sum() if plate else (changed == ink).all()


def test_a_box_holds_the_points_inside_it() -> None:
    boxes = Regions.of_kind("person", np.array([[0, 0, 10, 10], [5, 5, 20, 20]], np.float32), np.ones(2, np.float32))
    points = np.array([[2, 2], [7, 7], [30, 7]], np.float32)
    assert REGIONS.holds(boxes, points).tolist() == [[True, True, False], [False, True, False]]
