"""Claims about what an attacker holds, and what a linear map brings back of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from anonlib.audit.trained.data import AttackerData, recover, split, standing
from anonlib.synthesis.redact import redact
from tests.audit.trained.made import held


def test_nobody_is_learnt_from_chosen_by_and_attacked() -> None:
    people = np.random.default_rng(0).integers(0, 100, 700)
    parts = split(people, 3)
    groups = [set(people[rows].tolist()) for rows in parts]
    assert sum(map(len, groups)) == len(set(people.tolist())) == len(set.union(*groups))
    assert len(groups[2]) == 50
    assert sorted(np.concatenate(parts).tolist()) == list(range(700))
    with pytest.raises(ValueError, match="5 people"):
        split(np.arange(5), 0)


def test_an_attacker_anonymizes_what_he_moved_and_mirrored_himself() -> None:
    data = replace(held("solid"), anonymize=partial(redact, how="blur"))
    pairs = data.pairs(np.arange(60), 1, np.random.default_rng(1))
    assert pairs.rows.tolist() == [*range(60), *range(60)]
    assert np.array_equal(pairs.clear[:60], data.clear[:60]) and not np.array_equal(pairs.clear[60:], data.clear[:60])
    for row in range(60, 120):
        expected = pairs.clear[row].copy()
        redact(expected, pairs.boxes[row], "blur")
        assert np.array_equal(pairs.released[row], expected)
    assert (pairs.points[:, [0, 3], 0] < pairs.points[:, [1, 4], 0]).all()  # left stays left


def people_of(
    people: np.ndarray, learn: np.ndarray, choose: np.ndarray, attack: np.ndarray, classes: np.ndarray | None = None
) -> AttackerData:
    """Data of which nothing but who is who matters."""
    whole = replace(held("blur", people=8, photos=1), people=people, learn=learn, choose=choose, attack=attack)
    return whole if classes is None else replace(whole, classes=classes)


NOBODY = np.arange(0)


def test_the_place_of_the_right_person_is_counted_and_a_tie_takes_the_middle() -> None:
    people = np.array([0, 1, 2, 3, 0, 1, 2])
    vectors = np.concatenate([np.eye(4), [[1, 0.5, 0, 0], [0.9, 0.5, 0.6, 0], [1, 1, 1, 1]]]).astype(np.float32)
    found = recover(people_of(people, NOBODY, NOBODY, np.arange(7)), vectors, vectors)
    assert found[0, 4:].tolist() == [1, 3, 2.5] and np.isnan(found[:, :4]).all()
    nearer = vectors.copy()
    nearer[5] = vectors[1]
    assert standing(nearer, vectors, people, np.arange(7)) > standing(vectors, vectors, people, np.arange(7))


def test_photos_of_one_person_are_asked_together_and_the_plan_leaves_the_class() -> None:
    people, classes = np.array([0, 1, 2, 3, 0, 0, 1]), np.array([0, 1, 1, 0, 0, 0, 1])
    data = people_of(people, np.array([2, 3]), NOBODY, np.array([0, 1, 4, 5, 6]), classes)
    gallery = np.concatenate([np.eye(4), np.zeros((3, 4))]).astype(np.float32)
    probes = np.array([[0] * 4] * 4 + [[5, 6, 0, 0], [9, 2, 0, 0], [0, 1, 3, 2]], np.float32)
    assert recover(data, probes, gallery)[0, 4:].tolist() == [2, 1, 1]
    together = recover(data, probes, gallery, together=True)[0]
    assert together[[4, 6]].tolist() == [1, 1] and np.isnan(together[[0, 1, 2, 3, 5]]).all()
    # People who were learned from stand in the class, too.
    planned = recover(data, probes, gallery, planned=True)[0]
    assert planned[4:].tolist() == [1, 1, 2] and np.isnan(planned[:4]).all()


def test_only_photos_of_the_attacked_that_are_not_in_the_gallery_are_asked() -> None:
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(40), 3)
    data = people_of(people, *split(people, 1))
    vectors = np.repeat(random.normal(size=(40, 16)), 3, axis=0).astype(np.float32)
    noise = 0.01 * random.normal(size=vectors.shape).astype(np.float32)
    ranks, accepted = recover(data, vectors + noise, vectors)
    asked = ~np.isnan(ranks)
    assert set(people[asked].tolist()) == set(people[data.attack].tolist()) and asked.sum() == 2 * 20
    assert (ranks[asked] == 1).all() and (accepted[asked] == 1).all() and np.isnan(accepted[~asked]).all()
