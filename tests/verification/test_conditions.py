"""The conditions let every sound table pass, and no table with a known defect; of schema version 1 too."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.errors import VerificationError
from anonlib.storage import open_storage
from anonlib.verification.certificate import CertifiedCounts
from anonlib.verification.conditions import (
    ClaimTable,
    ClassTable,
    DrawTable,
    FirstClassTable,
    ReleaseCounter,
    Row,
    claim_of,
    gallery_digests,
)
from anonlib.verification.parsing import CLASSES_1, ReleasedMethod
from anonlib.verification.release import TELLS_MORE, unproved, verify
from anonlib.workspace.schemas import CERTIFIED_CLASSES, CERTIFIED_DRAWS, CERTIFIED_SURROGATES

VECTORS: dict[str, dict[str, Any]] = {
    "dp-laplace": {"epsilon": 10.0},
    "dp-vmf": {"kappa": 0.3},
    "dp-purkayastha": {"epsilon": 2.0},
    "dp-subset": {"epsilon": 4.0},
    "dp-uniform": {},
    "sampling": {},
    "surrogate": {},
}


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def name(*parts: object) -> str:
    """A pseudonym."""
    return digest(*parts)[:24]


def face(worn: str | None, k: int | None = None, epsilon: float | None = None, **said: Any) -> Row:
    return {"method": "k-diff", "k": k, "epsilon": epsilon, "surrogate_digest": worn, "fallback": None, **said}


def refused(check: Callable[..., object], *arguments: Any, match: str | None = None) -> None:
    with pytest.raises(VerificationError, match=match):
        check(*arguments)


@st.composite
def plans(draw: st.DrawFn, most: int = 8) -> tuple[int, list[dict[str, Any]]]:
    """k and sound classes, with the fields of both versions: each wears the next class's average."""
    k = draw(st.integers(2, 5))
    donors = draw(st.lists(st.integers(k, 2 * k), min_size=2, max_size=most))
    rows = []
    for number, count in enumerate(donors):
        guests = draw(st.integers(0, 3))
        weights = {name("person", number, at): 1 / count if at < count else 0.0 for at in range(count + guests)}
        people = sorted(weights)
        rows.append(
            {"class": name("class", number), "people": people, "weights": [weights[person] for person in people],
             "k": count + guests, "effective_k": draw(st.integers(k, count)),
             "made": digest(number), "wears": digest((number + 1) % len(donors))}
        )  # fmt: skip
    return k, sorted(rows, key=lambda row: row["class"])


def table(k: int, rows: list[dict[str, Any]], surrogates: list[dict[str, Any]] | None = None) -> ClassTable:
    classes = ClassTable(k)
    worn = [{"digest": one, "donors": k} for one in sorted({row["wears"] for row in rows})]
    for row in [*rows, *(worn if surrogates is None else surrogates)]:
        classes.add(row)
    classes.close()
    return classes


def first_table(k: int, rows: list[dict[str, Any]], own_average: bool = False) -> FirstClassTable:
    classes = FirstClassTable(k, own_average=own_average)
    for row in rows:
        classes.add(row)
    classes.close()
    return classes


@settings(deadline=None)
@given(plans())
def test_every_sound_plan_passes_and_faces_carry_what_it_assigns(plan: tuple[int, list[dict[str, Any]]]) -> None:
    k, rows = plan
    worn = rows[0]["wears"]
    for classes, size in ((table(k, rows), k), (first_table(k, rows), rows[0]["k"])):
        assert classes.people == sum(row["k"] for row in rows) and classes.rows == len(rows)
        classes.check_assigned(face(worn, size))
        for wrong in (face(digest("x"), size), face(None, size), face(worn, 99), face(worn), face(worn, size, 0.0)):
            refused(classes.check_assigned, wrong)
    first_table(k, rows).check_next_surrogate(face(rows[-1]["made"], rows[0]["k"]))
    refused(first_table(k, rows).check_next_surrogate, face(digest("x"), rows[0]["k"]))
    alone = face(worn, k, fallback="next-surrogate")
    refused(ReleaseCounter("k-diff", table(k, rows)).add_image, "released", [alone], match="chosen for it alone")


Spoil = Callable[[dict[str, Any], int], dict[str, Any]]
DEFECTS: dict[str, tuple[Spoil, str]] = {
    "fewer than k": (
        lambda row, k: {"people": row["people"][: k - 1], "k": k - 1, "effective_k": k - 1}, "fewer than k",
    ),
    "an effective k below k": (lambda row, k: {"effective_k": k - 1}, "effective k"),
    "an effective k above the persons": (lambda row, k: {"effective_k": row["k"] + 1}, "effective k"),
    "more people said than listed": (lambda row, k: {"k": row["k"] + 1}, "and lists"),
    "a name of no pseudonym": (lambda row, k: {"class": row["class"].upper() + "z"}, "no pseudonym"),
    "a person of no pseudonym": (lambda row, k: {"people": ["Ada", *row["people"][1:]]}, "no pseudonym"),
    "a person twice": (lambda row, k: {"people": [row["people"][0], *row["people"][:-1]]}, "one person twice"),
    "people out of order": (lambda row, k: {"people": row["people"][::-1]}, "order may speak"),
}  # fmt: skip
FIRST_DEFECTS: dict[str, tuple[Spoil, str]] = {
    "weights that add up to more": (lambda row, k: {"weights": [2 * one for one in row["weights"]]}, "not uniform"),
    "no weights": (lambda row, k: {"weights": []}, "not of at least k"),
    "few donors": (
        lambda row, k: {"weights": [1 / (k - 1)] * (k - 1) + [0.0] * (row["k"] - k + 1)}, "not of at least k",
    ),
    "a digest of no digest": (lambda row, k: {"made": "Ada"}, "no digest"),
    "its own average": (lambda row, k: {"wears": row["made"]}, "average of its own|dealt one surrogate"),
}  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(plans(most=3), st.data())
def test_a_defect_in_any_class_of_any_plan_is_seen(plan: tuple[int, list[dict[str, Any]]], data: st.DataObject) -> None:
    k, rows = plan
    first = data.draw(st.booleans())
    defects = DEFECTS | FIRST_DEFECTS if first else DEFECTS
    spoil, sentence = defects[data.draw(st.sampled_from(sorted(defects)))]
    at = data.draw(st.integers(0, len(rows) - 1))
    spoiled = [*rows[:at], rows[at] | spoil(rows[at], k), *rows[at + 1 :]]
    refused(first_table if first else table, k, spoiled, match=sentence)


@settings(deadline=None)
@given(plans())
def test_a_person_in_two_classes_is_seen(plan: tuple[int, list[dict[str, Any]]]) -> None:
    """Each query's own k nearest neighbours, instead of a partition."""
    k, rows = plan
    people = sorted([rows[0]["people"][0], *(name("new", one) for one in range(k))])
    extra = rows[0] | {"class": "f" * 24, "people": people, "k": k + 1, "effective_k": k}
    refused(table, k, [*rows, extra], match="is in two classes")


def test_a_class_of_version_1_has_an_average_of_its_own_and_a_surrogate_where_there_are_others() -> None:
    bare = {"class": name(1), "people": sorted((name(2), name(3))), "weights": [0.5, 0.5], "k": 2, "effective_k": 2,
            "made": digest(1), "wears": None}  # fmt: skip
    first_table(2, [bare])
    other = bare | {"people": sorted((name(4), name(5))), "class": "f" * 24, "made": digest(2), "wears": digest(1)}
    refused(first_table, 2, [bare, other], match="no surrogate to wear")
    refused(first_table, 2, [other | {"class": "0" * 24}, bare | {"made": digest(2)}], match="have one average")
    refused(first_table, 2, [other], True, match="as k-same has it")


def test_what_the_surrogates_table_says_is_checked() -> None:
    row = {"class": name(1), "people": sorted((name(2), name(3))), "k": 2, "effective_k": 2, "wears": digest(1)}
    one, two = ({"digest": each, "donors": 2} for each in sorted((digest(1), digest(2))))
    for surrogates, sentence in (
        ([], "in no row of surrogates"),
        ([one, two], "no class wears"),
        ([two, one], "order"),
        ([{"digest": digest(1), "donors": 1}], "made of 1 people"),
        ([{"digest": "Ada", "donors": 2}], "no digest"),
    ):
        refused(table, 2, [row], surrogates, match=sentence)


def test_no_released_table_says_of_which_class_a_surrogate_was_made() -> None:
    """A row with two digests would lead from a released face to the average of its own class."""
    for schema in (CERTIFIED_CLASSES, CERTIFIED_SURROGATES, CERTIFIED_DRAWS):
        assert sum(field in schema.names for field in ("wears", "made", "digest")) == 1
    assert set(CERTIFIED_CLASSES.names).isdisjoint(CERTIFIED_SURROGATES.names)


@pytest.mark.parametrize("method", VECTORS)
def test_a_face_of_a_vector_method_carries_a_draw_and_the_claims_epsilon(method: str) -> None:
    draws = DrawTable(claim_of(ReleasedMethod(name=method, **VECTORS[method])).epsilon)
    epsilon = next(iter(VECTORS[method].values()), 0.0 if method == "dp-uniform" else None)
    for one in sorted(digest(number) for number in range(4)):
        draws.add({"digest": one, "epsilon": epsilon})
    stored = None if epsilon is None else float(np.float32(epsilon))
    draws.check_assigned(face(digest(0), None, stored))
    for wrong in (face(digest(9), None, stored), face(digest(0), None, 0.125), face(digest(0), 5, stored)):
        refused(draws.check_assigned, wrong)
    again = face(digest(9), fallback="next-surrogate")
    DrawTable(epsilon, redraws=True).check_next_surrogate(again)
    if epsilon is None:
        draws.check_next_surrogate(again)
        refused(draws.check_next_surrogate, face(digest(9), None, 1.0), match="claims epsilon")
    else:
        refused(draws.check_next_surrogate, again, match="drawn for it alone")


def test_a_draw_is_dealt_once_and_at_the_claims_epsilon() -> None:
    def dealt(*rows: Row) -> None:
        draws = DrawTable(10.0)
        for row in rows:
            draws.add(row)

    one, two = ({"digest": each, "epsilon": 10.0} for each in sorted((digest(1), digest(2))))
    dealt(one, two)
    refused(dealt, one, one, match="twice")
    refused(dealt, two, one, match="order")
    refused(dealt, one | {"epsilon": 1.0}, match=r"has epsilon 1\.0, the claim 10\.0")
    refused(dealt, one | {"epsilon": None}, match="epsilon None")
    refused(dealt, one | {"digest": "Ada"}, match="no digest")


def test_faces_are_counted_by_what_the_claim_covers() -> None:
    counter = ReleaseCounter("solid", ClaimTable())
    plain = face(None, method="solid")
    counter.add_shard()
    counter.add_image("released", [plain, plain])
    counter.add_image("no_face", [])
    counter.add_image("quarantined", [face(None, 3, method="anything")])
    assert counter.counts == CertifiedCounts(
        shards=1, images=3, released=1, no_face=1, quarantined=1, faces=3, replaced=2, withheld=1
    )


@pytest.mark.parametrize(
    ("status", "faces", "sentence"),
    [
        ("lost", [], "status 'lost'"),
        ("released", [], "released with 0 faces"),
        ("no_face", [face(None, method="blur")], "no_face with 1 faces"),
        ("released", [face(None, method="none")], "replaced by none"),
        ("released", [face(None, method="solid")], "replaced by solid"),
        ("released", [face(None, 5, method="solid", fallback="solid")], "redacted face claims"),
        ("released", [face(None, 5, method="fill", fallback="review")], "redacted face claims"),
        ("released", [face(None, method="fill", fallback="solid")], "replaced by fill"),
        ("released", [face(None, None, 0.1, method="blur")], "redacted face claims"),
        ("released", [face(None, method="blur", fallback="next-surrogate")], "there is none"),
        ("released", [face(None, method="blur", fallback="solid")], "fallback 'solid' without its method"),
    ],
)
def test_an_image_or_face_that_cannot_be_is_seen(status: str, faces: list[Row], sentence: str) -> None:
    refused(ReleaseCounter("blur", ClaimTable()).add_image, status, faces, match=sentence)


def test_a_release_of_before_is_verified_with_a_sentence_that_it_tells_too_much(tmp_path: Path) -> None:
    """Made by anonlib 0.1.0, of generated faces."""
    with tarfile.open(Path(__file__).with_name("release-0.1.0.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    release = open_storage(str(tmp_path / "release"))
    found = verify(release)
    assert (found.certificate.anonlib, found.certificate.version, found.classes) == ("0.1.0", 1, 2)
    assert TELLS_MORE in unproved(found)
    path = tmp_path / "release" / "classes.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[0]["wears"] = rows[0]["made"]
    pq.write_table(pa.Table.from_pylist(rows, CLASSES_1), path)
    refused(verify, release, match=r"classes\.parquet is not the one that was signed")


def test_a_surrogate_without_donors_is_a_face_of_the_shipped_gallery() -> None:
    worn, alone, shipped = digest(1), digest(2), gallery_digests()
    rows = sorted([(worn, shipped[0]), (alone, shipped[1])])
    people = sorted(name(person) for person in range(3))
    wears = {"class": name(9), "people": people, "k": 3, "effective_k": 3, "wears": worn}

    def filled(of: list[tuple[str, str | None]], donors: int = 0) -> ClassTable:
        table = ClassTable(3)
        for row in (wears, *({"digest": own, "donors": donors, "gallery": face} for own, face in of)):
            table.add(row)
        table.close()
        return table

    table = filled(list(rows))
    table.check_assigned(face(worn, 3))
    table.check_lot(face(alone, fallback="lot"))
    refused(table.check_lot, face(digest(3), fallback="lot"), match="is no face of the gallery")
    refused(table.check_lot, face(alone, 3, fallback="lot"), match="claims k or epsilon")
    refused(table.check_assigned, face(alone, 3), match="no class was dealt")
    refused(filled, [(worn, "0" * 64), *[row for row in rows if row[0] != worn]], match="no face of the gallery that")
    refused(filled, [(own, None) for own, _ in rows], match="made of 0 people")
    refused(ClaimTable().check_lot, face(alone, fallback="lot"), match="deals none")


@pytest.mark.parametrize("said", [{"kind": "plate"}, {"method": "blur"}, {"fallback": "fill"}, {"worn": "ab" * 32}])
def test_a_region_that_is_no_face_is_hidden_as_the_release_says(said: dict[str, Any]) -> None:
    counter = ReleaseCounter("k-diff", ClaimTable(), {"text": "fill"})
    text = {"method": "fill", "kind": "text"}
    counter.add_image("released", [face(None, **text), face(None, **text | {"method": "solid"})])
    counter.add_image("quarantined", [face(None, **text)])
    assert (counter.counts.faces, counter.hidden["text"]) == (0, 2)
    wrong = dict(said)
    refused(counter.add_image, "released", [face(wrong.pop("worn", None), **text | wrong)])
