"""What a release says beside its pictures is followed, asked, guessed from and intersected; what says nothing adds
nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from anonlib.audit.attacks.base import Material
from anonlib.audit.attacks.records import (
    NEEDS_LABELS,
    NO_CLASSES,
    NO_FIELD,
    NO_TRAIL,
    NOT_SAID,
    ON_RECORDS,
    attack_records,
    certificate,
    flags,
    guess,
    intersect,
    manifest,
)
from anonlib.audit.attacks.trails import trails_of
from anonlib.audit.evidence.evidence import RELEASED, Evidence
from anonlib.audit.evidence.published import Published
from anonlib.audit.findings import Disclosure, Figure
from anonlib.verification.certificate import METRIC_PRIVACY, WITHOUT_LABELS, Claim
from tests.support.evidence import NAME, averaged, blurred, digest, evidence, looking, published, units

Rows = list[dict[str, Any]]


def bounds(figure: Figure | None) -> tuple[float, float]:
    assert figure is not None and figure.low is not None and figure.high is not None
    return figure.low, figure.high


def test_records_are_attacked_by_the_recognizers_that_the_method_never_used() -> None:
    whole = evidence()
    found = attack_records(Material(whole, published(whole), ()))
    assert {finding.name for finding in found} == set(ON_RECORDS)
    assert [finding.recognizer for finding in found if finding.name == "certificate"] == [NAME]
    assert attack_records(Material(whole, published(whole), (NAME,))) == found  # there is no other


# ---- certificate --------------------------------------------------------------------------------------------------

CLASSES = range(12)
WORN: Rows = [{"class": f"class {one:03d}", "k": 5, "wears": digest((one + 1) % 12)} for one in CLASSES]
"""What each class wears, under pseudonyms of its own."""
MADE = [digest(one) for one in CLASSES]


def shuffled(rows: Rows, seed: int = 3) -> Rows:
    return [rows[number] for number in np.random.default_rng(seed).permutation(len(rows))]


def followed(whole: Evidence, tables: dict[str, Rows]) -> Disclosure:
    (found,) = certificate(Material(whole, published(whole, tables=tables), ()))
    return found


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
    found = followed(averaged(), LEAKS[leak])
    assert found.found.value == pytest.approx(1 / 5)  # one of the five whose average it is
    assert found.allowed is not None and found.allowed < 0.02
    assert bounds(found.excess)[0] > 0.08 and found.judged_by == "high" and "wears" in found.note


def test_tables_that_share_nothing_lead_nowhere() -> None:
    made: Rows = [{"digest": made} for made in MADE]
    found = followed(averaged(), {"classes.parquet": shuffled(WORN, 1), "surrogates.parquet": shuffled(made)})
    assert found.excess is not None and (found.found.value, found.excess.value) == (0.0, 0.0)
    alone = followed(averaged(), {"classes.parquet": WORN})
    assert (alone.target, alone.note, alone.judged_by) == ("rank-1, picture alone", NO_TRAIL, None)
    assert alone.found.count == 240
    links: Rows = [{"a": made, "b": made} for made in MADE]  # back to where it began
    assert not trails_of(published(averaged(), tables={"links.json": links}))


def test_a_face_from_which_no_trail_begins_is_looked_up_by_its_picture() -> None:
    whole = averaged()
    bare = np.arange(300) % 2 == 0
    seen = np.where(bare[:, None], whole.clear.vectors[NAME], whole.released.vectors[NAME])
    whole = replace(looking(whole, RELEASED, vectors=seen), worn=np.where(bare, -1, whole.worn))
    assert (followed(whole, WITHIN_ONE_ROW).found.value or 0) > 0.5


# ---- manifest -----------------------------------------------------------------------------------------------------

DRAWN = looking(evidence(), RELEASED, vectors=units(300, 31))
"""Every photo shows a face of nobody."""


def asked(rows: dict[str, list[Any]]) -> list[Disclosure]:
    return list(manifest(Material(DRAWN, published(DRAWN, rows), ())))


def test_a_number_that_belongs_to_the_person_is_found_whatever_it_is_called_even_where_some_are_unknown() -> None:
    people = np.repeat(np.random.default_rng(2).normal(size=60), 5)
    own = (people + 0.001 * np.random.default_rng(3).normal(size=300)).tolist()
    (found,) = asked({"coverage": own})
    assert bounds(found.excess)[0] > 0.3
    (fewer,) = asked({"coverage": [None if number % 3 == 0 else value for number, value in enumerate(own)]})
    assert bounds(fewer.excess)[0] > 0.1


def test_rows_that_say_nothing_of_the_source_add_nothing() -> None:
    random = np.random.default_rng(6)
    rows: dict[str, list[Any]] = {
        "score": random.uniform(size=300).tolist(),
        "detected_again": (random.uniform(size=300) < 0.9).tolist(),
        "box": random.integers(0, 99, (300, 2)).repeat(2, axis=1).tolist(),
        "k": [5] * 300,
    }
    (found,) = asked(rows)
    assert found.note == "asked: score, detected_again, box size" and bounds(found.excess)[1] < 0.04
    (alone,) = asked({"method": ["k-diff"] * 300, "k": list(range(300))})
    assert (alone.target, alone.note, alone.judged_by) == ("rank-1, picture alone", NO_FIELD, None)


def test_what_the_tables_give_is_put_together_with_the_rows() -> None:
    people, noise = np.repeat(np.random.default_rng(2).normal(size=60), 5), np.random.default_rng(3).normal(size=300)
    whole, rows = averaged(), {"coverage": (people + 0.3 * noise).tolist()}
    found = {found.target: found.found.value or 0.0 for found in followed_and_asked(whole, rows)}
    assert found["rank-1, picture, manifest and tables"] > max(found["rank-1, picture, manifest"], found["rank-1"])


def followed_and_asked(whole: Evidence, rows: dict[str, list[Any]]) -> list[Disclosure]:
    material = Material(whole, published(whole, rows, tables=WITHIN_ONE_ROW), ())
    return [*certificate(material), *manifest(material)]


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
    assert (found.target, found.judged_by, found.found.count) == ("rank-5 by a flag (solid)", "low", 15)
    assert bounds(found.excess)[0] > 0.5 if placing else bounds(found.excess)[0] <= 0.0


# ---- guess --------------------------------------------------------------------------------------------------------

PLAN, SHOWN = "right guess, all faces, classes by the plan", "right guess, all faces, classes by what faces show"
CERTIFIED: dict[str, Rows] = {
    "classes.parquet": [{"wears": digest(number), "effective_k": 5.0} for number in range(12)]
}


def unequal() -> Published:
    """The first of each class of five has 12 photos, the others 2."""
    said = published(evidence(), tables=CERTIFIED)
    number = np.repeat(np.arange(60), [2 if person % 5 else 12 for person in range(60)])
    faces = [f"shard/{row}#0" for row in range(len(number))]
    person = dict(zip(faces, number.tolist(), strict=True))
    plan = said.plan._replace(person=person, class_of={face: who // 5 for face, who in person.items()})
    shown = pa.table({"surrogate_digest": [digest(who) for who in number // 5]})
    return replace(said, faces=faces, names=[f"p{who}" for who in number], manifest=shown, plan=plan)


def guessed(said: Published) -> dict[str, Disclosure]:
    return {finding.target: finding for finding in guess(Material(None, said, ()))}


def test_the_most_photographed_is_named_more_often_than_a_certificate_of_k_allows() -> None:
    even, uneven = guessed(published(evidence(), tables=CERTIFIED)), guessed(unequal())
    for target in (PLAN, SHOWN):
        assert even[target].found.value == pytest.approx(0.2) and even[target].judged_by == "value"
        assert even[target].excess is not None and even[target].excess.value == pytest.approx(0)
        assert uneven[target].found.value == pytest.approx(12 / 20) and uneven[target].allowed == pytest.approx(0.2)
        assert bounds(uneven[target].excess)[0] > 0.2
        assert "1/effective k measured here 60.0%" in uneven[target].note
        assert "the worst class allows 60.0%" in uneven[target].note


def test_what_no_certificate_says_is_not_judged() -> None:
    shown = guessed(published(evidence()))[SHOWN]
    assert shown.judged_by is None and shown.allowed is None and NOT_SAID in shown.note
    (none,) = guessed(published(evidence(), claim=Claim(METRIC_PRIVACY, epsilon=0.0))).values()
    assert (none.note, none.found.count, none.judged_by) == (NO_CLASSES, 0, None)


# ---- intersect ----------------------------------------------------------------------------------------------------

DRAWS = Claim(METRIC_PRIVACY, epsilon=8.0)


def clustered(split: int) -> Published:
    """The last photo of the first `split` people was taken for another person, in a class far away."""
    whole = evidence()
    apart = (whole.subjects < split) & (np.arange(300) % 5 == 4)
    people = np.where(apart, whole.people + 60, whole.people)
    classes = np.where(apart, (whole.classes + 1 + whole.subjects % 11) % 12, whole.classes)
    worn = np.where(apart, people, whole.worn)
    return replace(published(replace(whole, people=people, classes=classes, worn=worn)), clustered=True, evaluated=True)


def intersected(said: Published) -> list[Disclosure]:
    return list(intersect(Material(None, said, ())))


def test_people_in_several_classes_are_named_by_them() -> None:
    several, named = intersected(clustered(split=10))
    assert several.found.value == named.found.value == pytest.approx(10 / 60)
    assert (named.allowed, named.allowed_by, named.judged_by) == (0.0, WITHOUT_LABELS, "high")
    assert bounds(named.excess)[0] > 0.05 and "of 60 people 10 were taken for several, up to 2" in named.note
    said = clustered(split=0)
    for face, name in zip(said.faces, said.names, strict=True):
        if name in ("p00", "p01") and face.endswith(("/4#0", "/9#0")):
            said.plan.class_of[face] = 7
    several, named = intersected(said)
    assert several.found.value == pytest.approx(2 / 60) and named.found.value == 0


def test_of_a_method_that_draws_the_draws_of_a_person_are_counted() -> None:
    (found,) = intersected(replace(clustered(split=10), claim=DRAWS))
    assert found.found.value == pytest.approx(10 / 60) and found.judged_by == "high"
    assert "up to 2 draws, which cost 2 times the epsilon of one" in found.note


@pytest.mark.parametrize("claim", [published(evidence()).claim, DRAWS])
def test_where_nobody_was_split_nothing_is_found(claim: Claim) -> None:
    for said in (clustered(split=0), published(evidence())):  # by labels of the evaluation, and by those that were used
        *_, last = intersected(replace(said, claim=claim))
        assert last.found.value == 0 and bounds(last.excess)[1] < 0.07


def test_without_labels_that_the_job_did_not_use_it_says_that_it_needs_them() -> None:
    (one,) = intersected(replace(clustered(split=10), evaluated=False, names=[None] * 300))
    assert (one.note, one.judged_by, one.found.count) == (NEEDS_LABELS, None, 0)
