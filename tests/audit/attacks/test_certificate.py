"""A table that leads from a worn face to its own class is followed; tables that share nothing lead nowhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from anonlib.audit.attacks.base import Material
from anonlib.audit.attacks.certificate import NOTHING, certificate, trails_of
from anonlib.audit.evidence.evidence import RELEASED, Evidence
from anonlib.audit.evidence.published import Published
from anonlib.audit.findings import Disclosure
from tests.support.evidence import NAME, averaged, digest, looking, published, units

Rows = list[dict[str, Any]]
CLASSES = 12


def worn() -> Rows:
    """What each class wears, under pseudonyms of its own."""
    return [{"class": f"class {one:03d}", "k": 5, "wears": digest((one + 1) % CLASSES)} for one in range(CLASSES)]


def made() -> list[str]:
    return [digest(one) for one in range(CLASSES)]


def shuffled(rows: Rows, seed: int = 3) -> Rows:
    return [rows[number] for number in np.random.default_rng(seed).permutation(len(rows))]


def attacked(whole: Evidence, tables: dict[str, Rows], **changes: Any) -> list[Disclosure]:
    return list(certificate(Material(whole, published(whole, tables=tables, **changes), ())))


def names(said: Published) -> set[str]:
    return {trail.name for trail in trails_of(said)[0]}


def within_one_row() -> dict[str, Rows]:
    return {"classes.parquet": [row | {"made": one} for row, one in zip(worn(), made(), strict=True)]}


def over_shared_names() -> dict[str, Rows]:
    other = [{"digest": one, "of": f"class {number:03d}"} for number, one in enumerate(made())]
    return {"classes.parquet": worn(), "surrogates.parquet": shuffled(other)}


def over_nested_people() -> dict[str, Rows]:
    first = [row | {"people": [f"p{5 * one + own}" for own in range(5)]} for one, row in enumerate(worn())]
    other = [{"faces": {"digest": one, "donors": [f"p{5 * number}"]}} for number, one in enumerate(made())]
    return {"classes.parquet": first, "surrogates.json": shuffled(other)}


def over_sizes() -> dict[str, Rows]:
    first = [row | {"k": 5 + one} for one, row in enumerate(worn())]
    other = [{"digest": one, "donors": ["x"] * (5 + number)} for number, one in enumerate(made())]
    return {"classes.parquet": first, "surrogates.parquet": shuffled(other)}


def over_the_order() -> dict[str, Rows]:
    return {"classes.parquet": worn(), "surrogates.parquet": [{"digest": one} for one in made()]}


@pytest.mark.parametrize("leak", [within_one_row, over_shared_names, over_nested_people, over_sizes, over_the_order])
def test_whatever_joins_a_worn_face_to_its_own_class_is_followed(leak: Any) -> None:
    first, tenth = attacked(averaged(), leak())
    assert first.found.value == pytest.approx(1 / 5)  # one of the five whose average it is
    assert first.allowed is not None and first.allowed < 0.02
    assert first.excess is not None and first.excess.low is not None and first.excess.low > 0.08
    assert tenth.found.value is not None and tenth.found.value > 0.95
    assert (first.judged_by, tenth.judged_by) == ("high", None)
    assert "wears" in first.note


def test_two_tables_in_an_order_of_their_own_lead_nowhere() -> None:
    tables = {
        "classes.parquet": shuffled(worn(), 1),
        "surrogates.parquet": shuffled([{"digest": one} for one in made()]),
    }
    first, _ = attacked(averaged(), tables)
    assert first.excess is not None and (first.found.value, first.excess.value) == (0.0, 0.0)


def test_without_a_trail_the_picture_is_reported_and_nothing_is_judged() -> None:
    (alone,) = attacked(averaged(), {"classes.parquet": worn()})
    assert (alone.target, alone.note, alone.judged_by) == ("rank-1, picture alone", NOTHING, None)
    assert alone.found.count == 240


def test_a_face_from_which_no_trail_begins_is_looked_up_by_its_picture() -> None:
    whole = averaged()
    clear = whole.clear.vectors[NAME]
    bare = np.arange(300) % 2 == 0
    seen = np.where(bare[:, None], clear, whole.released.vectors[NAME])
    whole = replace(looking(whole, RELEASED, vectors=seen), worn=np.where(bare, -1, whole.worn))
    first, _ = attacked(whole, within_one_row())
    assert first.found.value is not None and first.found.value > 0.5


def test_a_trail_never_leads_back_to_where_it_began() -> None:
    tables = {"links.json": [{"a": digest(one), "b": digest(one)} for one in range(CLASSES)]}
    assert names(published(averaged(), tables=tables)) == set()
    released = units(300, 5)
    trails, shown = trails_of(published(averaged(), tables=within_one_row()))
    trail = next(one for one in trails if one.name.endswith("-> made"))
    means, reached = trail.averages(shown, released)
    mean = released[shown == 4].sum(axis=0)
    assert reached.all()
    number = next(n for n in range(CLASSES) if np.allclose(means[n], mean / np.linalg.norm(mean), atol=1e-5))
    assert number != 4
