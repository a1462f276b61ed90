"""The most photographed member is named for the whole class: 1/k where all have as many photos, and more where not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from anonlib.audit.attacks.base import Material
from anonlib.audit.attacks.guess import NO_CLASSES, NOT_SAID, guess
from anonlib.audit.evidence.published import Published
from anonlib.audit.findings import Disclosure
from anonlib.verification.certificate import METRIC_PRIVACY, Claim
from tests.support.evidence import digest, evidence, published

PLAN, SHOWN = "right guess, all faces, classes by the plan", "right guess, all faces, classes by what faces show"
CERTIFIED: dict[str, list[dict[str, Any]]] = {
    "classes.parquet": [{"wears": digest(number), "effective_k": 5.0} for number in range(12)]
}


def unequal() -> Published:
    """The first of each class of five has 12 photos, the others 2."""
    said = published(evidence(), tables=CERTIFIED)
    number = np.repeat(np.arange(60), [2 if person % 5 else 12 for person in range(60)])
    faces = [f"shard/{row}#0" for row in range(len(number))]
    person = dict(zip(faces, number.tolist(), strict=True))
    plan = said.plan._replace(person=person, class_of={face: who // 5 for face, who in person.items()})
    manifest = pa.table({"surrogate_digest": [digest(who) for who in number // 5]})
    return replace(said, faces=faces, names=[f"p{who}" for who in number], manifest=manifest, plan=plan)


def by_target(said: Published) -> dict[str, Disclosure]:
    return {finding.target: finding for finding in guess(Material(None, said, ()))}


def test_where_all_have_as_many_photos_nobody_is_right_more_than_once_in_k() -> None:
    found = by_target(published(evidence(), tables=CERTIFIED))
    for target in (PLAN, SHOWN):
        one = found[target]
        assert one.found.value == pytest.approx(0.2) and one.allowed == pytest.approx(0.2)
        assert one.excess is not None and one.excess.value == pytest.approx(0) and one.judged_by == "value"


def test_the_most_photographed_is_named_more_often_than_a_certificate_of_k_allows() -> None:
    found = by_target(unequal())
    for target in (PLAN, SHOWN):
        one = found[target]
        assert one.found.value == pytest.approx(12 / 20) and one.allowed == pytest.approx(0.2)
        assert one.excess is not None and one.excess.low is not None and one.excess.low > 0.2
        assert "1/effective k measured here 60.0%" in one.note and "the worst class allows 60.0%" in one.note


def test_the_named_are_reported_apart_and_not_judged() -> None:
    said = unequal()
    found = by_target(replace(said, names=[name if row % 2 else None for row, name in enumerate(said.names)]))
    named = found["right guess, named faces, classes by the plan"]
    assert named.judged_by is None and named.found.count == 120
    assert named.found.value == pytest.approx(0.6)


def test_without_classes_or_a_certified_effective_k_nothing_is_held_against_it() -> None:
    shown = by_target(published(evidence()))[SHOWN]
    assert shown.judged_by is None and shown.allowed is None and NOT_SAID in shown.note
    (one,) = guess(Material(None, published(evidence(), claim=Claim(METRIC_PRIVACY, epsilon=0.0)), ()))
    assert (one.note, one.found.count, one.judged_by) == (NO_CLASSES, 0, None)
