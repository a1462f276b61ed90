"""Linkage says .5 where there is nothing to link, 1 where all is, and what hair and gender alone would give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evidence import NAME, blurred, evidence, looking, units
from hypothesis import given
from hypothesis import strategies as st

from anonlib.audit.evidence import CLEAR, RELEASED
from anonlib.audit.linkage import auc, link


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_auc_is_the_share_of_pairs_won_and_half_the_ties(genuine: list[int], impostor: list[int]) -> None:
    wins = [(a > b) + 0.5 * (a == b) for a in genuine for b in impostor]
    assert auc(np.array(genuine, np.float32), np.array(impostor, np.float32)) == pytest.approx(np.mean(wins))


def test_the_same_faces_in_both_releases_are_linked_and_fresh_ones_are_not() -> None:
    worn = evidence()
    reused = link(worn, worn, NAME)
    assert reused.people == 60 and reused.all_pairs > 0.99
    fresh = [looking(worn, RELEASED, vectors=blurred(units(60, seed), 5, 0.05, seed + 1)) for seed in (50, 60)]
    assert 0.4 < link(*fresh, NAME).all_pairs < 0.6
    assert link(*fresh, NAME).clear > 0.99


def test_only_people_of_both_releases_count_and_no_ellipse() -> None:
    worn = evidence()
    others = replace(worn, names=np.array([f"other {name}" if name < "p20" else name for name in worn.names]))
    assert link(worn, others, NAME).people == 40
    gone = replace(worn, replaced=np.zeros(len(worn.names), bool))
    assert np.isnan(link(worn, gone, NAME).all_pairs)


def test_what_gender_alone_links_is_not_counted_among_pairs_of_one_gender() -> None:
    worn = evidence()
    female = (np.arange(60) % 2).repeat(5).astype(np.float32)
    gendered = units(300, 70) + 4 * np.where(female[:, None] > 0.5, 1, -1) * units(1, 71)
    faces = np.asarray(gendered / np.linalg.norm(gendered, axis=1, keepdims=True), np.float32)
    telling = looking(looking(worn, CLEAR, female=female), RELEASED, vectors=faces)
    other = looking(telling, RELEASED, vectors=np.roll(faces, 10, axis=0))
    found = link(telling, other, NAME)
    assert found.all_pairs > 0.7
    assert 0.4 < found.same_gender < 0.6
