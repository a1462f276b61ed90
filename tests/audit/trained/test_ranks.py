"""Claims about how what is recovered is counted."""

from __future__ import annotations

import numpy as np
import pytest

from anonlib.audit.trained.data import DataSplit, split
from anonlib.audit.trained.ranks import placed, recover


def test_the_place_of_the_right_person_is_counted_and_a_tie_takes_the_middle() -> None:
    gallery = np.eye(4, dtype=np.float32)
    people = np.array([0, 1, 2, 3, 0, 1, 2])
    vectors = np.concatenate([gallery, [[1, 0.5, 0, 0], [0.9, 0.5, 0.6, 0], [1, 1, 1, 1]]]).astype(np.float32)
    assert placed(vectors, vectors, people, np.arange(7)).tolist() == [1, 3, 2.5]


def test_only_photos_of_the_attacked_that_are_not_in_the_gallery_are_asked() -> None:
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(40), 3)
    parts = split(people, 1)
    vectors = np.repeat(random.normal(size=(40, 16)), 3, axis=0).astype(np.float32)
    found = recover(vectors + 0.01 * random.normal(size=vectors.shape).astype(np.float32), vectors, people, parts)
    asked = ~np.isnan(found.ranks)
    assert set(people[asked].tolist()) == set(people[parts.attack].tolist())
    assert asked.sum() == 2 * 20 and found.people == 20 and found.chance == pytest.approx(0.05)
    assert np.nanmean(found.hits()) == 1.0 and np.nanmean(found.accepted) == 1.0
    assert np.isnan(found.hits()[~asked]).all() and np.isnan(found.accepted[~asked]).all()


def test_strangers_vectors_are_found_by_chance_alone() -> None:
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(200), 6)
    parts = DataSplit(np.arange(0), np.flatnonzero(people < 50), np.flatnonzero(people >= 50))
    vectors = random.normal(size=(1200, 16)).astype(np.float32)
    found = recover(vectors, vectors, people, parts)
    assert abs(np.nanmean(found.hits(15)) - 0.1) < 0.03
    assert np.nanmean(found.accepted) < 0.01
