"""Linkage says .5 where there is nothing to link, 1 where all is, and what hair and gender alone would give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from anonlib.audit.attacks.base import Material
from anonlib.audit.attacks.linkage import linkage, linkage_of_releases
from anonlib.audit.evidence.evidence import CLEAR, RELEASED, Evidence
from anonlib.audit.findings import Attack
from tests.support.evidence import NAME, blurred, evidence, looking, units


def fresh(seed: int) -> Evidence:
    """Each person shows a new face, the same on all photos."""
    return looking(evidence(), RELEASED, vectors=blurred(units(60, seed), 5, 0.05, seed + 1))


def of(first: Evidence, second: Evidence) -> tuple[Attack, Attack]:
    everyone, same_gender = linkage_of_releases(first, second, used=(NAME,))
    assert not everyone.held_out
    return everyone, same_gender


def within(whole: Evidence) -> Attack:
    (found,) = [attack for attack in linkage(Material(whole, None, ())) if attack.target == "AUC"]
    return found


def value(attack: Attack) -> float:
    assert attack.released.value is not None
    return attack.released.value


def test_one_face_on_all_photos_links_them_within_a_release_and_a_flat_ellipse_does_not() -> None:
    found = within(fresh(50))
    assert value(found) > 0.99
    assert found.baselines["solid"].value == pytest.approx(0.5)
    assert found.identity is not None and found.identity.low is not None and found.identity.low > 0.45
    assert 0.4 < value(within(looking(evidence(), RELEASED, vectors=units(300, 9)))) < 0.6


def test_the_same_faces_in_both_releases_are_linked_and_fresh_ones_are_not() -> None:
    worn = evidence()
    assert value(of(worn, worn)[0]) > 0.99
    everyone, _ = of(fresh(50), fresh(60))
    assert 0.4 < value(everyone) < 0.6 and (everyone.baselines["clear"].value or 0) > 0.99


def test_only_people_of_both_releases_count_and_no_ellipse() -> None:
    worn = evidence()
    others = replace(worn, names=np.array([f"other {name}" if name < "p20" else name for name in worn.names]))
    found, _ = of(worn, others)
    assert found.note == "40 people are in both" and found.released.count == 40 * 25
    gone = replace(worn, replaced=np.zeros(len(worn.names), bool))
    assert of(worn, gone)[0].released.value is None


def test_what_gender_alone_links_is_not_counted_among_pairs_of_one_gender() -> None:
    female = (np.arange(60) % 2).repeat(5).astype(np.float32)
    gendered = units(300, 70) + 4 * np.where(female[:, None] > 0.5, 1, -1) * units(1, 71)
    faces = np.asarray(gendered / np.linalg.norm(gendered, axis=1, keepdims=True), np.float32)
    telling = looking(looking(evidence(), CLEAR, female=female), RELEASED, vectors=faces)
    other = looking(telling, RELEASED, vectors=np.roll(faces, 10, axis=0))
    everyone, alike = of(telling, other)
    assert value(everyone) > 0.7
    assert 0.4 < value(alike) < 0.6
