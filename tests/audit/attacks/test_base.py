"""Groups hold the photos that their names say; thresholds never rest on people who are reported on."""

from __future__ import annotations

import numpy as np
import pytest

from anonlib.audit.attacks import base
from anonlib.audit.attacks.base import Attacker, conditional_logit, groups_of, reported, threshold_of
from anonlib.audit.attacks.similarity import impostor_pairs
from anonlib.audit.evidence.evidence import CLEAR, RELEASED, Evidence
from anonlib.faces.embed import THRESHOLDS
from tests.support.evidence import NAME, blurred, evidence, looking, units


def known(count: int = 300) -> Evidence:
    pose = np.zeros((count, 3), np.float32)
    pose[:, 0] = np.resize([0, -10, 14.9, 15, -20, 30, -31, 80], count)
    whole = evidence(eye_distance=(20 + np.arange(count)).astype(np.float32))
    female = np.resize([0.1, 0.4, 0.5, 0.9], count).astype(np.float32)
    age = np.resize([20, 29.9, 30, 50, 50.1, 80], count).astype(np.float32)
    return looking(whole, CLEAR, female=female, age=age, pose=pose)


def test_every_photo_is_in_the_right_group_of_each_kind() -> None:
    groups = groups_of(known())
    for kind in ("gender", "age", "pose", "size"):
        assert (sum(rows.astype(int) for by, _, rows in groups if by == kind) == 1).all()
    named = {name: rows for _, name, rows in groups}
    assert named["female"][:4].tolist() == [False, False, True, True]
    assert named["under 30"][:6].tolist() == [True, True, False, False, False, False]
    assert named["over 50"][:6].tolist() == [False, False, False, False, True, True]
    assert named["frontal"][:8].tolist() == [True, True, True, False, False, False, False, False]
    assert named["turned over 30 degrees"][:8].tolist() == [False] * 6 + [True, True]
    sizes = {name: int(rows.sum()) for by, name, rows in groups if by == "size"}
    assert sizes == dict.fromkeys(
        ("eyes under 120 px apart", "eyes 120 to 219 px apart", "eyes over 219 px apart"), 100
    )


def test_unknown_values_are_in_no_group() -> None:
    groups = groups_of(evidence(eye_distance=np.full(300, np.nan, np.float32)))
    assert {by for by, _, _ in groups} == {"gender", "age", "pose"}
    assert not any(rows.any() for _, _, rows in groups)


def test_a_person_is_on_one_side_with_all_photos_and_the_sides_are_about_equal() -> None:
    names = np.repeat([f"person {number}" for number in range(400)], 3)
    half = reported(names)
    assert (half.reshape(400, 3).sum(axis=1) % 3 == 0).all()
    assert 0.4 < half.mean() < 0.6
    np.testing.assert_array_equal(half[::-1], reported(names[::-1]))
    assert (half != reported(names, seed=1)).any()


def test_a_threshold_rests_on_the_people_who_are_not_reported_on() -> None:
    whole = evidence()
    half, found = reported(whole.names), threshold_of(whole, NAME)
    pairs = impostor_pairs(whole.clear.vectors[NAME][~half], whole.subjects[~half])
    assert found.measured_here and found.people == len(set(whole.subjects[~half].tolist()))
    assert found.pairs == len(pairs) >= base.ENOUGH_IMPOSTORS
    assert (pairs >= found.cosine).sum() == int(len(pairs) * found.far)
    alike = np.where(half[:, None], units(1, 5), whole.clear.vectors[NAME]).astype(np.float32)
    assert threshold_of(looking(whole, CLEAR, vectors=alike), NAME) == found
    alike = np.where(~half[:, None], units(1, 5), whole.clear.vectors[NAME]).astype(np.float32)
    assert threshold_of(looking(whole, CLEAR, vectors=alike), NAME).cosine > found.cosine + 0.05


def test_few_impostors_leave_the_threshold_to_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "ENOUGH_IMPOSTORS", 10_000)
    found = threshold_of(evidence(), NAME)
    assert found.pairs < 10_000 and not found.measured_here
    assert found.cosine == THRESHOLDS[NAME]
    monkeypatch.setattr(base, "_MOST_PHOTOS", 40)
    assert threshold_of(evidence(), NAME).pairs <= 40 * 39 / 2


def test_a_histogram_is_of_people_who_are_reported_on() -> None:
    whole = looking(evidence(), RELEASED, vectors=blurred(units(60, 14), 5, 0.05, 15))
    shown = Attacker(whole, NAME, held_out=True).histogram()
    middles = (np.array(shown.edges[:-1]) + np.array(shown.edges[1:])) / 2
    for shares in (shown.genuine, shown.impostor, shown.released):
        assert sum(shares) == pytest.approx(1)
    assert np.dot(shown.genuine, middles) > 0.9
    assert abs(np.dot(shown.impostor, middles)) < 0.1 and abs(np.dot(shown.released, middles)) < 0.1
    others = ~reported(whole.names)
    hidden = np.where(others[:, None], units(1, 9), whole.clear.vectors[NAME]).astype(np.float32)
    assert Attacker(looking(whole, CLEAR, vectors=hidden), NAME, held_out=True).histogram().genuine == shown.genuine


def test_the_logit_weighs_what_helps_and_nothing_negatively() -> None:
    random = np.random.default_rng(1)
    scores = random.normal(size=(3, 400, 30)).astype(np.float32)
    own = random.integers(0, 30, 400)
    scores[0, np.arange(400), own] += 2
    scores[2, np.arange(400), own] -= 2
    weights = conditional_logit(scores, own)
    assert weights[0] > 1 and weights[1] < 0.2 and weights[2] == 0
