"""A generator is credited with what it does: every figure falls where it fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from anonlib.audit.generators.cast import RequestedLook
from anonlib.audit.generators.fidelity import (
    Identity,
    Paintings,
    band_as_asked,
    frechet,
    gender_as_asked,
    identity,
    looks,
)
from anonlib.audit.generators.judges import REALISM, JudgedFace
from anonlib.workspace.schemas import MESH_POINTS
from tests.support.evidence import units

PEOPLE, PAIRS, SIZE = 40, 20, 16
TARGET = np.arange(PEOPLE)
HOST, OTHER_HOST = np.roll(TARGET, -1), np.roll(TARGET, -2)
AGAIN = 2 * np.arange(PAIRS)  # which are painted into a second photo
YAW = np.where(TARGET % 4 == 0, -40, 10).astype(np.float32)

Vectors = NDArray[np.float32]


def seen(count: int, **changes: object) -> JudgedFace:
    """Faces that are all found, women of 30, neutral."""
    expression = np.zeros((count, 7), np.float32)
    expression[:, 0] = 1.0
    whole = JudgedFace(
        found=np.ones(count, bool),
        meshes=np.random.default_rng(0).uniform(0, 100, (count, MESH_POINTS, 3)).astype(np.float32),
        vectors={REALISM: units(count, 3, SIZE)},
        female=np.full(count, 0.9, np.float32),
        age=np.full(count, 30.0, np.float32),
        held_female=np.full(count, 0.9, np.float32),
        held_age=np.full(count, 30.0, np.float32),
        expression=expression,
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def judged(first: Vectors, second: Vectors, people: Vectors, targets: NDArray[np.int64] = TARGET) -> Identity:
    """Paintings that look as `first` and `second` say, by a recognizer that knows the people by `people`."""
    return identity(
        Paintings(targets, HOST, YAW, seen(PEOPLE)),
        Paintings(targets[AGAIN], OTHER_HOST[AGAIN], YAW[AGAIN], seen(PAIRS)),
        AGAIN,
        (first, second),
        (people, TARGET),
        people,
    )


def test_a_generator_that_hits_every_identity_is_perfect() -> None:
    people = units(PEOPLE, 1, SIZE)
    found = judged(people, people[AGAIN], people)
    assert (found.to_target.value, found.rank_one.value, found.consistency.value) == pytest.approx((1, 1, 1), abs=1e-6)
    assert found.naive.value == 0.0
    assert abs(found.to_others) < 0.05
    crossed = (people[AGAIN] @ people[AGAIN].T)[~np.eye(PAIRS, dtype=bool)]
    assert found.different == pytest.approx(float(crossed.mean()), abs=1e-6)
    assert found.rank_one.chance == found.naive.chance == 1 / PEOPLE


def test_one_face_for_everybody_is_consistent_and_its_target_is_found_by_chance() -> None:
    people, face = units(PEOPLE, 1, SIZE), units(1, 9, SIZE)
    found = judged(face.repeat(PEOPLE, axis=0), face.repeat(PAIRS, axis=0), people)
    assert found.rank_one.value == found.naive.value == pytest.approx(1 / PEOPLE)
    assert found.consistency.value == found.different == pytest.approx(1.0)
    assert found.to_target.value == pytest.approx(found.to_others, abs=0.1)


def test_photos_of_turned_faces_are_told_apart() -> None:
    people = units(PEOPLE, 1, SIZE)
    shown = np.where((YAW == 10)[:, None], people, -people)
    found = judged(shown, shown[AGAIN], people)
    assert found.rank_one.value == 0.75
    assert (found.rank_one_frontal.value, found.rank_one_frontal.count) == (1.0, 30)


def test_a_copy_of_the_photo_gives_its_person_away() -> None:
    people = units(PEOPLE, 1, SIZE)
    found = judged(people[HOST], people[OTHER_HOST[AGAIN]], people)
    assert (found.naive.value, found.rank_one.value) == (1.0, 0.0)
    assert found.consistency.value < 0.3


def test_a_face_drawn_anew_for_each_photo_is_not_consistent() -> None:
    found = judged(units(PEOPLE, 5, SIZE), units(PAIRS, 6, SIZE), units(PEOPLE, 1, SIZE))
    assert abs(found.consistency.value) < 0.2
    assert found.rank_one.value < 0.2


def test_a_redaction_has_no_target_and_may_still_give_its_person_away() -> None:
    people = units(PEOPLE, 1, SIZE)
    nobody = np.full(PEOPLE, -1)
    found = identity(
        Paintings(nobody, HOST, YAW, seen(PEOPLE)),
        Paintings(nobody[:0], nobody[:0], YAW[:0], seen(0)),
        AGAIN[:0],
        (people[HOST], people[:0]),
        (people[:0], np.zeros(0, np.int64)),
        people,
    )
    assert (found.to_target.count, found.rank_one.count, found.consistency.count) == (0, 0, 0)
    assert np.isnan(found.to_others) and np.isnan(found.different)
    assert found.naive.value == 1.0


def test_the_face_of_a_class_is_found_if_a_member_is_nearest() -> None:
    people = units(PEOPLE, 1, SIZE)
    classes = np.where(TARGET < 30, TARGET // 5, -1)  # the last ten people are in none
    worn = TARGET % 6
    members = people[worn * 5 + 2]
    found = identity(
        Paintings(worn, HOST, YAW, seen(PEOPLE)),
        Paintings(worn[AGAIN], OTHER_HOST[AGAIN], YAW[AGAIN], seen(PAIRS)),
        AGAIN,
        (members, members[AGAIN]),
        (people, classes),
        people,
    )
    assert found.rank_one.value == 1.0
    assert found.rank_one.chance == 1 / 6
    assert 0.1 < found.to_target.value < 0.5  # the mean over five members, of whom it is one


def test_gender_and_age_band_are_held_against_what_was_asked() -> None:
    asked = [RequestedLook(0.9, 30.0), RequestedLook(0.9, 30.0), RequestedLook(0.1, 60.0), RequestedLook(0.1, 60.0)]
    female = np.array([0.8, 0.3, 0.3, np.nan], np.float32)
    np.testing.assert_array_equal(gender_as_asked(asked, female), [1.0, 0.0, 1.0, np.nan])
    age = np.array([34.9, 35.0, 51.0, np.nan], np.float32)
    np.testing.assert_array_equal(band_as_asked(asked, age), [1.0, 0.0, 1.0, np.nan])


def test_looks_are_counted_where_a_face_was_found() -> None:
    lost = np.arange(PEOPLE) < 10
    unseen = np.where(lost, np.nan, 30.0).astype(np.float32)
    there = seen(PEOPLE, found=~lost, age=unseen, held_age=np.full(PEOPLE, 45.0, np.float32))
    source = there.meshes + np.float32(3.0)
    neutral = there.expression
    happy = np.roll(neutral, 1, axis=1)
    asked = [RequestedLook(0.9, 30.0)] * PEOPLE
    real = units(50, 8, SIZE)
    paintings = Paintings(TARGET, HOST, YAW, there)
    found = looks(paintings, asked, neutral, there.meshes, source, real)
    assert found.found.value == 0.75
    assert (found.age_band.value, found.age_band.count) == (1.0, 30)
    assert found.age_band_held_out.value == 0.0
    assert (found.age_off.value, found.age_off.count) == (0.0, 30)
    assert found.age_off_held_out.value == 15.0
    assert (found.gender.value, found.gender_held_out.value, found.expression.value) == (1.0, 1.0, 1.0)
    assert found.mesh_meant.value == 0.0 < found.mesh_source.value
    assert found.mesh_source.count == 30
    assert looks(paintings, asked, happy, there.meshes, source, real).expression.value == 0.0
    unknown = looks(paintings, asked, neutral, np.full_like(source, np.nan), source, real)
    assert unknown.mesh_meant.count == 0


def test_the_frechet_distance_is_that_of_the_textbook() -> None:
    rng = np.random.default_rng(4)
    one = rng.normal(size=(300, 6)).astype(np.float32)
    other = (rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6)) + 0.5).astype(np.float32)
    apart = one.mean(axis=0) - other.mean(axis=0)
    covariance = [np.cov(rows, rowvar=False) for rows in (one, other)]
    wanted = apart @ apart + np.trace(covariance[0] + covariance[1] - 2 * sqrtm(covariance[0] @ covariance[1]).real)
    assert frechet(one, other) == pytest.approx(float(wanted), rel=1e-4)
    assert frechet(one, one) == pytest.approx(0.0, abs=1e-9)
    assert np.isnan(frechet(one, other[:1]))


def test_faces_that_lack_variety_are_farther_from_real_ones() -> None:
    real, like = units(400, 1, SIZE), units(200, 2, SIZE)
    faint = like.mean(axis=0) + 0.3 * (like - like.mean(axis=0))
    assert frechet(like, real) < 0.2 * frechet(faint, real)
