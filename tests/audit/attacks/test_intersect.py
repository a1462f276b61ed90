"""Whom clustering split is in several classes, or has several draws; only labels that the job never used show it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from anonlib.audit.attacks.base import Material
from anonlib.audit.attacks.intersect import NEEDS_LABELS, intersect
from anonlib.audit.evidence.published import Published
from anonlib.audit.findings import Disclosure
from anonlib.verification.certificate import METRIC_PRIVACY, WITHOUT_LABELS, Claim
from tests.support.evidence import evidence, published

DRAWS = Claim(METRIC_PRIVACY, epsilon=8.0)


def clustered(split: int) -> Published:
    """The last photo of the first `split` people was taken for another person, in a class far away."""
    whole = evidence()
    apart = (whole.subjects < split) & (np.arange(300) % 5 == 4)
    people = np.where(apart, whole.people + 60, whole.people)
    classes = np.where(apart, (whole.classes + 1 + whole.subjects % 11) % 12, whole.classes)
    worn = np.where(apart, people, whole.worn)
    return replace(published(replace(whole, people=people, classes=classes, worn=worn)), clustered=True, evaluated=True)


def found_in(said: Published) -> list[Disclosure]:
    return list(intersect(Material(None, said, ())))


def test_people_in_several_classes_are_named_by_them() -> None:
    several, named = found_in(clustered(split=10))
    assert several.found.value == named.found.value == pytest.approx(10 / 60)
    assert (named.allowed, named.allowed_by, named.judged_by) == (0.0, WITHOUT_LABELS, "high")
    assert named.excess is not None and named.excess.low is not None and named.excess.low > 0.05
    assert "of 60 people 10 were taken for several, up to 2" in named.note


def test_two_classes_that_two_people_share_name_nobody() -> None:
    said = clustered(split=0)
    for face, name in zip(said.faces, said.names, strict=True):
        if name in ("p00", "p01") and face.endswith(("/4#0", "/9#0")):
            said.plan.class_of[face] = 7
    several, named = found_in(said)
    assert several.found.value == pytest.approx(2 / 60) and named.found.value == 0


def test_of_a_method_that_draws_the_draws_of_a_person_are_counted() -> None:
    (found,) = found_in(replace(clustered(split=10), claim=DRAWS))
    assert found.found.value == pytest.approx(10 / 60) and found.judged_by == "high"
    assert "up to 2 draws, which cost 2 times the epsilon of one" in found.note


@pytest.mark.parametrize("claim", [published(evidence()).claim, DRAWS])
def test_where_nobody_was_split_nothing_is_found(claim: Claim) -> None:
    for said in (clustered(split=0), published(evidence())):  # by labels of the evaluation, and by those that were used
        *_, last = found_in(replace(said, claim=claim))
        assert last.found.value == 0 and last.excess is not None and (last.excess.high or 1) < 0.07


def test_without_labels_that_the_job_did_not_use_it_says_that_it_needs_them() -> None:
    (one,) = found_in(replace(clustered(split=10), evaluated=False, names=[None] * 300))
    assert (one.note, one.judged_by, one.found.count) == (NEEDS_LABELS, None, 0)
