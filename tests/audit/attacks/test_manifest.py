"""Figures and flags that depend on the person place them; a row that says nothing of the source adds nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from anonlib.audit.attacks.base import Attacker, Material
from anonlib.audit.attacks.manifest import NOTHING, flags, manifest, queries
from anonlib.audit.evidence.evidence import RELEASED, Evidence
from anonlib.audit.findings import Disclosure
from tests.support.evidence import NAME, averaged, blurred, digest, evidence, looking, published, units


def drawn() -> Evidence:
    """Every photo shows a face of nobody."""
    return looking(evidence(), RELEASED, vectors=units(300, 31))


def attacked(whole: Evidence, rows: dict[str, list[Any]], **changes: Any) -> dict[str, Disclosure]:
    material = Material(whole, published(whole, rows, **changes), ())
    return {found.target: found for found in manifest(material)}


def low(one: Disclosure) -> float:
    assert one.excess is not None and one.excess.low is not None
    return one.excess.low


def high(one: Disclosure) -> float:
    assert one.excess is not None and one.excess.high is not None
    return one.excess.high


def test_a_number_that_belongs_to_the_person_is_found_whatever_it_is_called() -> None:
    own = np.repeat(np.random.default_rng(2).normal(size=60), 5) + 0.001 * np.random.default_rng(3).normal(size=300)
    asked = attacked(drawn(), {"coverage": own.tolist()})["rank-1, picture, manifest"]
    assert low(asked) > 0.3


def test_rows_that_say_nothing_of_the_source_add_nothing() -> None:
    lot = np.random.default_rng(6)
    rows: dict[str, list[Any]] = {
        "score": lot.uniform(size=300).tolist(),
        "detected_again": (lot.uniform(size=300) < 0.9).tolist(),
        "box": lot.integers(0, 99, (300, 2)).repeat(2, axis=1).tolist(),
        "k": [5] * 300,
    }
    asked = attacked(drawn(), rows)["rank-1, picture, manifest"]
    assert "detected_again" in asked.note and "k" not in asked.note.removeprefix("asked: ").split(", ")
    assert high(asked) < 0.04


def test_where_all_rows_are_alike_the_picture_is_reported_alone() -> None:
    found = attacked(drawn(), {"method": ["k-diff"] * 300, "k": list(range(300))})
    assert list(found) == ["rank-1, picture alone"]
    alone = found["rank-1, picture alone"]
    assert (alone.note, alone.judged_by) == (NOTHING, None)


def test_what_the_tables_give_is_put_together_with_the_rows() -> None:
    whole = averaged()
    table = [{"wears": digest((one + 1) % 12), "made": digest(one)} for one in range(12)]
    own = np.repeat(np.random.default_rng(2).normal(size=60), 5) + 0.3 * np.random.default_rng(3).normal(size=300)
    found = attacked(whole, {"coverage": own.tolist()}, tables={"classes.parquet": table})
    rates = {target: one.found.value or 0.0 for target, one in found.items()}
    both = rates["rank-1, picture, manifest and tables"]
    assert both > rates["rank-1, picture, tables"] > 0.1 > rates["rank-1, picture alone"]
    assert both > rates["rank-1, picture, manifest"]


def refused(placing: bool) -> tuple[Evidence, dict[str, list[Any]]]:
    """One photo each of 15 people was refused; with `placing`, since what they wear looks like them."""
    whole = evidence()
    people = np.arange(60) < 15
    own = whole.clear.vectors[NAME][::5]
    worn = np.where((people & placing)[:, None], own, units(60, 41)).astype(np.float32)
    whole = looking(whole, RELEASED, vectors=blurred(worn, 5, 0.02, 42))
    flagged = people[whole.subjects] & (np.arange(300) % 5 == 2)
    whole = replace(whole, worn=np.where(flagged, -1, whole.subjects))
    return whole, {"fallback": ["solid" if flag else None for flag in flagged]}


@pytest.mark.parametrize("placing", [True, False])
def test_a_refusal_places_the_person_only_where_it_depends_on_likeness(placing: bool) -> None:
    whole, rows = refused(placing)
    (one,) = flags(Material(whole, published(whole, rows), ()))
    assert one.target == "rank-5 by a flag (solid)"
    assert (one.judged_by, one.found.count) == ("low", 15)
    assert (low(one) > 0.5) == placing and (low(one) <= 0.0) == (not placing)


def test_every_query_scores_every_candidate_and_what_is_unknown_is_neutral() -> None:
    whole = drawn()
    scores = [None if number % 3 == 0 else float(number) for number in range(300)]
    attacker = Attacker(whole, NAME, held_out=True, published=published(whole, {"score": scores}))
    asked = queries(attacker)["score"](np.arange(240))
    assert asked.shape == (240, 60) and np.isfinite(asked).all()
    unknown = [number for number in range(300) if number % 5][3 - 1 : 3]
    assert unknown == [3] and np.ptp(asked[2]) == 0
