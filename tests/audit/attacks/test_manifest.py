"""Figures and flags that depend on the person place them; a row that says nothing of the source adds nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from anonlib.audit.attacks.base import Material
from anonlib.audit.attacks.manifest import NOTHING, flags, manifest, queries
from anonlib.audit.evidence.evidence import RELEASED, Evidence
from anonlib.audit.findings import Disclosure
from tests.support.evidence import NAME, averaged, blurred, digest, evidence, looking, published, units

DRAWN = looking(evidence(), RELEASED, vectors=units(300, 31))
"""Every photo shows a face of nobody."""


def attacked(whole: Evidence, rows: dict[str, list[Any]], **changes: Any) -> dict[str, Disclosure]:
    material = Material(whole, published(whole, rows, **changes), ())
    return {found.target: found for found in manifest(material)}


def bounds(finding: Disclosure) -> tuple[float, float]:
    assert finding.excess is not None and finding.excess.low is not None and finding.excess.high is not None
    return finding.excess.low, finding.excess.high


def own_number(noise: float) -> list[float]:
    """One for each person, and a little different on each photo."""
    people = np.repeat(np.random.default_rng(2).normal(size=60), 5)
    return [float(number) for number in people + noise * np.random.default_rng(3).normal(size=300)]


def test_a_number_that_belongs_to_the_person_is_found_whatever_it_is_called() -> None:
    asked = attacked(DRAWN, {"coverage": own_number(0.001)})["rank-1, picture, manifest"]
    assert bounds(asked)[0] > 0.3


def test_rows_that_say_nothing_of_the_source_add_nothing() -> None:
    random = np.random.default_rng(6)
    rows: dict[str, list[Any]] = {
        "score": random.uniform(size=300).tolist(),
        "detected_again": (random.uniform(size=300) < 0.9).tolist(),
        "box": random.integers(0, 99, (300, 2)).repeat(2, axis=1).tolist(),
        "k": [5] * 300,
    }
    asked = attacked(DRAWN, rows)["rank-1, picture, manifest"]
    assert asked.note == "asked: score, detected_again, box size" and bounds(asked)[1] < 0.04


def test_where_all_rows_are_alike_the_picture_is_reported_alone() -> None:
    (alone,) = attacked(DRAWN, {"method": ["k-diff"] * 300, "k": list(range(300))}).values()
    assert (alone.target, alone.note, alone.judged_by) == ("rank-1, picture alone", NOTHING, None)


def test_what_the_tables_give_is_put_together_with_the_rows() -> None:
    table = [{"wears": digest((number + 1) % 12), "made": digest(number)} for number in range(12)]
    found = attacked(averaged(), {"coverage": own_number(0.3)}, tables={"classes.parquet": table})
    rates = {target: finding.found.value or 0.0 for target, finding in found.items()}
    both = rates["rank-1, picture, manifest and tables"]
    assert both > rates["rank-1, picture, tables"] > 0.1 > rates["rank-1, picture alone"]
    assert both > rates["rank-1, picture, manifest"]


@pytest.mark.parametrize("placing", [True, False])
def test_a_refusal_places_the_person_only_where_it_depends_on_likeness(placing: bool) -> None:
    """One photo each of 15 people was refused; with `placing`, since what they wear looks like them."""
    whole = evidence()
    people = np.arange(60) < 15
    own = whole.clear.vectors[NAME][::5]
    worn = np.where((people & placing)[:, None], own, units(60, 41)).astype(np.float32)
    flagged = people[whole.subjects] & (np.arange(300) % 5 == 2)
    whole = looking(whole, RELEASED, vectors=blurred(worn, 5, 0.02, 42))
    whole = replace(whole, worn=np.where(flagged, -1, whole.subjects))
    rows = {"fallback": ["solid" if flag else None for flag in flagged]}
    (found,) = flags(Material(whole, published(whole, rows), ()))
    assert found.target == "rank-5 by a flag (solid)"
    assert (found.judged_by, found.found.count) == ("low", 15)
    assert bounds(found)[0] > 0.5 if placing else bounds(found)[0] <= 0.0


def test_every_query_scores_every_candidate_and_what_is_unknown_is_neutral() -> None:
    scores = [None if number % 3 == 0 else float(number) for number in range(300)]
    (attacker,) = Material(DRAWN, published(DRAWN, {"score": scores}), ()).attackers
    asked = queries(attacker)["score"](np.arange(240))
    assert asked.shape == (240, 60) and np.isfinite(asked).all()
    assert np.ptp(asked[2]) == 0  # the third probe is photo 3, whose score is unknown
