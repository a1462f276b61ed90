"""Claims about what an attacker holds."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from anonlib.audit.evidence.evidence import SIDE, frame
from anonlib.audit.trained.data import DataSplit, TrainingPairs, placed, recover, split
from anonlib.faces import align
from anonlib.synthesis.redact import redact
from tests.audit.trained.made import held


def test_nobody_is_learnt_from_chosen_by_and_attacked() -> None:
    people = np.random.default_rng(0).integers(0, 100, 700)
    parts = split(people, 3)
    groups = [set(people[rows].tolist()) for rows in (parts.learn, parts.choose, parts.attack)]
    assert sum(map(len, groups)) == len(set(people.tolist())) == len(set.union(*groups))
    assert len(groups[2]) == 50
    assert sorted(np.concatenate([parts.learn, parts.choose, parts.attack]).tolist()) == list(range(700))


def test_mirrored_points_go_with_their_picture() -> None:
    data = held("solid")
    drawn = TrainingPairs(data, None).draw(np.arange(60), np.random.default_rng(1))
    left, right = drawn.points[:, [0, 3], 0], drawn.points[:, [1, 4], 0]
    assert (left < right).all()


def test_too_few_people_are_refused() -> None:
    with pytest.raises(ValueError, match="5 people"):
        split(np.arange(5), 0)


def test_a_frame_holds_the_whole_ellipse_of_a_redaction() -> None:
    image = np.full((300, 400, 3), 255, np.uint8)
    box = np.array([150, 80, 230, 190], np.float32)
    redact(image, box, "solid")
    picture = align.crop(image, frame(box), SIDE)
    grey = np.abs(picture[:, SIDE // 2, 0].astype(int) - 127) < 3
    assert 0.88 < grey.mean() < 0.92
    assert (picture[[0, -1]] == 255).all()
    centre = align.apply(frame(box), np.array([[190, 135]], np.float32))
    assert np.allclose(centre, SIDE / 2, atol=1e-3)


def test_an_attacker_anonymizes_what_he_moved_himself() -> None:
    one = held("solid")
    again = partial(redact, how="blur")
    drawn = TrainingPairs(one, again).draw(np.arange(20), np.random.default_rng(0))
    for row in range(20):
        expected = drawn.clear[row].copy()
        redact(expected, drawn.boxes[row], "blur")
        assert np.array_equal(drawn.released[row], expected)
    assert not np.array_equal(drawn.clear, one.clear[:20])


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
