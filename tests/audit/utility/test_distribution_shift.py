"""A crowd whose shares moved is another crowd, however well each face fares."""

from __future__ import annotations

import numpy as np
import pytest

from anonlib.audit.evidence.evidence import CLEAR, RELEASED
from anonlib.audit.utility.distribution_shift import shifts, total_variation
from tests.support.evidence import evidence, looking


def test_every_tenth_man_a_woman_is_a_tenth() -> None:
    before = ["male"] * 100
    after = ["female" if row % 10 == 0 else "male" for row in range(100)]
    found = total_variation(before, after, np.arange(100))
    assert found.value == pytest.approx(0.1)
    assert found.low is not None and found.high is not None
    assert 0.03 < found.low < 0.1 < found.high < 0.2


def test_faces_that_change_places_do_not_move_the_shares() -> None:
    assert total_variation(["a", "b"] * 50, ["b", "a"] * 50, np.arange(100)).value == 0


def test_no_common_kind_is_all_the_way() -> None:
    assert total_variation(["a"] * 10, ["b", "c"] * 5, np.arange(10)).value == 1


def test_shares_are_of_the_faces_that_can_be_read() -> None:
    found = total_variation(["a", "a", "b", "b"], ["a", None, "b", None], np.arange(4))
    assert (found.value, found.count) == (0, 2)


def test_of_faces_that_nobody_can_read_nothing_is_said() -> None:
    for before in (["a", "b"], [None, None]):
        found = total_variation(before, [None, None], np.arange(2))
        assert (found.value, found.low, found.count) == (None, None, 0)


def test_one_person_with_many_photos_makes_a_wide_interval() -> None:
    before, after = ["a"] * 100, ["b"] * 50 + ["a"] * 50
    many, one = np.arange(100), np.r_[np.zeros(50, int), np.arange(1, 51)]
    narrow, wide = (total_variation(before, after, who) for who in (many, one))
    assert narrow.value == wide.value == 0.5
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)  # type: ignore[operator]


def test_each_distribution_is_looked_at() -> None:
    count = 300
    smile, frown = np.eye(7, dtype=np.float32)[[1, 3]]
    whole = looking(
        evidence(), CLEAR, female=np.full(count, 0.9), age=np.full(count, 30.0), expression=np.tile(smile, (count, 1))
    )
    older = np.where(np.arange(count) % 4 == 0, 60.0, 30.0)
    moved = looking(whole, RELEASED, female=np.full(count, 0.8), age=older, expression=np.tile(frown, (count, 1)))
    found = {one.name: one for one in shifts(moved)}
    assert {name: one.released.value for name, one in found.items()} == {
        "shift of gender": 0,
        "shift of age band": 0.25,
        "shift of expression": 1,
    }
    assert all(one.baselines["solid"].value is None for one in found.values())
