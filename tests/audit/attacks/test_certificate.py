"""A table that leads from a worn face to its own class is followed; tables that share nothing lead nowhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from anonlib.audit.attacks.base import Material
from anonlib.audit.attacks.certificate import NOTHING, certificate, trails_of
from anonlib.audit.evidence.evidence import RELEASED, Evidence
from anonlib.audit.findings import Disclosure
from tests.support.evidence import NAME, averaged, digest, looking, published

Rows = list[dict[str, Any]]
CLASSES = range(12)
WORN: Rows = [{"class": f"class {one:03d}", "k": 5, "wears": digest((one + 1) % 12)} for one in CLASSES]
"""What each class wears, under pseudonyms of its own."""
MADE = [digest(one) for one in CLASSES]


def shuffled(rows: Rows, seed: int = 3) -> Rows:
    return [rows[number] for number in np.random.default_rng(seed).permutation(len(rows))]


def attacked(whole: Evidence, tables: dict[str, Rows]) -> list[Disclosure]:
    return list(certificate(Material(whole, published(whole, tables=tables), ())))


WITHIN_ONE_ROW = {"classes.parquet": [row | {"made": made} for row, made in zip(WORN, MADE, strict=True)]}
LEAKS: dict[str, dict[str, Rows]] = {
    "within one row": WITHIN_ONE_ROW,
    "over shared names": {
        "classes.parquet": WORN,
        "surrogates.parquet": shuffled([{"digest": MADE[one], "of": f"class {one:03d}"} for one in CLASSES]),
    },
    "over nested people": {
        "classes.parquet": [
            row | {"people": [f"p{5 * one + own}" for own in range(5)]} for one, row in enumerate(WORN)
        ],
        "surrogates.json": shuffled([{"faces": {"digest": MADE[one], "donors": [f"p{5 * one}"]}} for one in CLASSES]),
    },
    "over sizes": {
        "classes.parquet": [row | {"k": 5 + one} for one, row in enumerate(WORN)],
        "surrogates.parquet": shuffled([{"digest": MADE[one], "donors": ["x"] * (5 + one)} for one in CLASSES]),
    },
    "over the order": {"classes.parquet": WORN, "surrogates.parquet": [{"digest": made} for made in MADE]},
}


@pytest.mark.parametrize("leak", LEAKS)
def test_whatever_joins_a_worn_face_to_its_own_class_is_followed(leak: str) -> None:
    first, tenth = attacked(averaged(), LEAKS[leak])
    assert first.found.value == pytest.approx(1 / 5)  # one of the five whose average it is
    assert first.allowed is not None and first.allowed < 0.02
    assert first.excess is not None and first.excess.low is not None and first.excess.low > 0.08
    assert tenth.found.value is not None and tenth.found.value > 0.95
    assert (first.judged_by, tenth.judged_by) == ("high", None)
    assert "wears" in first.note


def test_two_tables_in_an_order_of_their_own_lead_nowhere() -> None:
    made: Rows = [{"digest": made} for made in MADE]
    first, _ = attacked(averaged(), {"classes.parquet": shuffled(WORN, 1), "surrogates.parquet": shuffled(made)})
    assert first.excess is not None and (first.found.value, first.excess.value) == (0.0, 0.0)


def test_without_a_trail_the_picture_is_reported_and_nothing_is_judged() -> None:
    (alone,) = attacked(averaged(), {"classes.parquet": WORN})
    assert (alone.target, alone.note, alone.judged_by) == ("rank-1, picture alone", NOTHING, None)
    assert alone.found.count == 240


def test_a_face_from_which_no_trail_begins_is_looked_up_by_its_picture() -> None:
    whole = averaged()
    bare = np.arange(300) % 2 == 0
    seen = np.where(bare[:, None], whole.clear.vectors[NAME], whole.released.vectors[NAME])
    whole = replace(looking(whole, RELEASED, vectors=seen), worn=np.where(bare, -1, whole.worn))
    first, _ = attacked(whole, WITHIN_ONE_ROW)
    assert first.found.value is not None and first.found.value > 0.5


def test_a_trail_never_leads_back_to_where_it_began() -> None:
    links: Rows = [{"a": made, "b": made} for made in MADE]
    assert not trails_of(published(averaged(), tables={"links.json": links}))
