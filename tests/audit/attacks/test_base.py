"""Groups hold the photos that their names say; thresholds never rest on people who are reported on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonlib.audit.attacks import base
from anonlib.audit.attacks.base import Attacker, Material, conditional_logit, groups_of
from anonlib.audit.attacks.similarity import FAR, dot, found_within, impostor_pairs, places, threshold_at_far
from anonlib.audit.evidence.evidence import CLEAR, Evidence
from anonlib.faces.embed import THRESHOLDS
from tests.support.evidence import NAME, evidence, looking, units


def attacker(whole: Evidence) -> Attacker:
    (found,) = Material(whole, None, ()).attackers
    return found


def test_every_photo_is_in_the_right_group_of_each_kind_and_an_unknown_value_in_none() -> None:
    pose = np.zeros((300, 3), np.float32)
    pose[:, 0] = np.resize([0, -10, 14.9, 15, -20, 30, -31, 80], 300)
    whole = evidence(eye_distance=(20 + np.arange(300)).astype(np.float32))
    female = np.resize([0.1, 0.4, 0.5, 0.9], 300).astype(np.float32)
    age = np.resize([20, 29.9, 30, 50, 50.1, 80], 300).astype(np.float32)
    groups = groups_of(looking(whole, CLEAR, female=female, age=age, pose=pose))
    for kind in ("gender", "age", "pose", "size"):
        assert (sum(rows.astype(int) for by, _, rows in groups if by == kind) == 1).all()
    named = {name: rows for _, name, rows in groups}
    assert named["female"][:4].tolist() == [False, False, True, True]
    assert named["under 30"][:6].tolist() == [True, True, False, False, False, False]
    assert named["over 50"][:6].tolist() == [False, False, False, False, True, True]
    assert named["frontal"][:8].tolist() == [True, True, True, False, False, False, False, False]
    assert named["turned over 30 degrees"][:8].tolist() == [False] * 6 + [True, True]
    assert named["eyes 120 to 219 px apart"].sum() == 100
    unknown = groups_of(evidence(eye_distance=np.full(300, np.nan, np.float32)))
    assert not any(rows.any() for _, _, rows in unknown)


def test_a_threshold_rests_on_the_people_who_are_not_reported_on(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evidence()
    half, found = attacker(whole).reported, attacker(whole).threshold
    pairs = impostor_pairs(whole.clear.vectors[NAME][~half], whole.subjects[~half])
    assert (pairs >= found).sum() == int(len(pairs) * FAR) and not attacker(whole).threshold_note

    def where_alike(rows: np.ndarray) -> float:
        alike = np.where(rows[:, None], units(1, 5), whole.clear.vectors[NAME]).astype(np.float32)
        return attacker(looking(whole, CLEAR, vectors=alike)).threshold

    assert where_alike(half) == found
    assert where_alike(~half) > found + 0.05
    monkeypatch.setattr(base, "ENOUGH_IMPOSTORS", 10_000)
    few = attacker(whole)
    assert few.threshold == THRESHOLDS[NAME] and f"{len(pairs):,} clear pairs are few" in few.threshold_note


def test_the_logit_weighs_what_helps_and_nothing_negatively() -> None:
    random = np.random.default_rng(1)
    scores = random.normal(size=(3, 400, 30)).astype(np.float32)
    own = random.integers(0, 30, 400)
    scores[0, np.arange(400), own] += 2
    scores[2, np.arange(400), own] -= 2
    weights = conditional_logit(scores, own)
    assert weights[0] > 1 and weights[1] < 0.2 and weights[2] == 0


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 9))
def test_the_first_place_is_what_a_loop_finds_and_all_places_hold_everybody(seed: int, count: int, people: int) -> None:
    random = np.random.default_rng(seed)
    probes, gallery = units(count, seed), units(people, seed + 1)
    who, subjects = random.integers(0, people, count), random.permutation(people)
    expected = [
        float(subjects[max(range(people), key=lambda row: float(probe @ gallery[row]))] == person)
        for probe, person in zip(probes, who, strict=True)
    ]
    ranks = places(dot(probes, gallery), np.arange(count), np.argsort(subjects)[who])
    assert found_within(1, *ranks).tolist() == expected
    assert (found_within(people, *ranks) == 1).all()


@given(st.lists(st.sampled_from([-0.5, 0.0, 0.1, 0.2, 0.5, 0.9]), min_size=1, max_size=60), st.floats(0.0, 1.0))
def test_the_threshold_is_the_least_that_keeps_the_far(values: list[float], far: float) -> None:
    impostors = np.array(values, np.float32)
    threshold = threshold_at_far(impostors, far)
    assert (impostors >= threshold).mean() <= far + 1e-9
    below = impostors[impostors < threshold]
    assert not len(below) or (impostors >= below.max()).mean() > far
