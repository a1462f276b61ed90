"""What a forger cannot hide though he mends every hash and signs anew: the conditions themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from anonlib.config import MethodConfig
from anonlib.errors import VerificationError
from anonlib.verification.certificate import K_ANONYMITY, Claim, public_key
from anonlib.verification.conditions import claim_of
from tests.support.forgery import (
    CLASSES,
    MANIFEST,
    MARKER,
    OTHER,
    PHOTO,
    SHARD,
    SURROGATES,
    TAR,
    Forger,
    Rows,
    Tampering,
    check,
    face_says,
    swap,
)
from tests.support.runs import SECRET, Run, images

CLI = CliRunner()
OURS = public_key(SECRET.encode())


def people_of(row: dict[str, Any], people: list[str]) -> None:
    row.update(people=people, k=len(people))


def short_class(rows: Rows) -> None:
    people_of(rows[0], rows[0]["people"][:1])
    rows[0]["effective_k"] = 1


def lonely_class(rows: Rows) -> None:
    rows[0]["effective_k"] = 1


def subject_in_two(rows: Rows) -> None:
    people_of(rows[1], sorted([*rows[1]["people"], rows[0]["people"][0]]))


def person_twice(rows: Rows) -> None:
    people_of(rows[0], sorted([*rows[0]["people"], rows[0]["people"][0]]))


def two_digests(rows: Rows) -> Rows:
    return [rows[0], rows[0] | {"wears": rows[1]["wears"]}, *rows[1:]]


def one_donor(rows: Rows) -> None:
    rows[0]["donors"] = 1


def says_more(rows: Rows) -> None:
    rows[0]["k"] += 1


def named(rows: Rows) -> Rows:
    rows[0]["people"][0] = "Ada-Quill-person-003"
    return rows


def worn_elsewhere(rows: Rows) -> None:
    rows[0]["wears"] = "f" * 64


def surrogates(change: Callable[[Rows], Rows | None]) -> Tampering:
    return lambda release: release.rows(SURROGATES, change)


def table(change: Callable[[Rows], Rows | None]) -> Tampering:
    return lambda release: release.rows(CLASSES, change)


def manifest(change: Callable[[Rows], Rows | None]) -> Tampering:
    return lambda release: release.rows(MANIFEST, change)


def row_says(**changes: Any) -> Tampering:
    return manifest(lambda rows: rows[-1].update(changes))  # type: ignore[func-returns-value]


def members(change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]) -> Tampering:
    return lambda release: release.tar(TAR, change)


def renamed_column(release: Forger) -> None:
    release.path(CLASSES).unlink()
    pq.write_table(pa.table({"class": ["0" * 24], "subject_id": ["Ada"]}), release.path(CLASSES))


def lost_shard(release: Forger) -> None:
    release.json("run.json", lambda note: note["shards"].remove(SHARD))
    release.path(MARKER).unlink()


UNDONE: dict[str, tuple[Tampering, str]] = {
    "a class of k-1": (table(short_class), "has 1 people, fewer than k = 2"),
    "a class of one person under two names": (table(lonely_class), "has an effective k of 1, not between 2 and"),
    "a subject in two classes": (table(subject_in_two), "is in two classes"),
    "a person twice in a class": (table(person_twice), "lists one person twice"),
    "two digests in one class": (table(two_digests), "is in the table twice, so it has two surrogates"),
    "an average of one person": (surrogates(one_donor), "is made of 1 people, not of at least k"),
    "a class that says more than it lists": (table(says_more), "and lists"),
    "a name where a pseudonym should be": (table(named), "has a name that is no pseudonym"),
    "classes in an order that speaks": (table(lambda rows: rows[::-1]), "not in the order of their names"),
    "a surrogate that is not in its table": (table(worn_elsewhere), "is worn, but in no row of surrogates"),
    "surrogates in an order that speaks": (surrogates(lambda rows: rows[::-1]), "not in the order of digests"),
    "a surrogate that no class wears": (
        surrogates(lambda rows: [*rows, {"digest": "f" * 64, "donors": 9}]),
        "is a surrogate that no class wears",
    ),
    "a column that joins the tables": (
        lambda r: r.column(SURROGATES, "class", "0" * 24),
        "surrogates.parquet has the unknown column 'class'",
    ),
    "a restricted column in the table": (renamed_column, "has the restricted column 'subject_id'"),
    "a face that wears what no class was dealt": (
        face_says(None, surrogate_digest="0" * 64),
        "which no class was dealt",
    ),
    "a face that counts more people": (face_says(None, k=50), "claims k = 50, not 2"),
    "a face with an epsilon": (face_says(None, epsilon=0.1), "claims epsilon"),
    "a face with a surrogate of its own": (face_says(None, fallback="next-surrogate"), "that was chosen for it alone"),
    "a face with a fallback of one's own": (face_says(None, fallback="other"), "has the fallback 'other'"),
    "a figure of the face": (
        lambda r: r.column(MANIFEST, "score", 0.9),
        f"the manifest of shard {SHARD} has the restricted column 'score'",
    ),
    "a face left as it was": (
        face_says(None, method="none", surrogate_digest=None),
        "was replaced by none, and the method of this release is k-diff",
    ),
    "a redaction that claims k": (
        face_says(None, method="solid", fallback="solid", surrogate_digest=None, k=9),
        "a redacted face claims a surrogate, k or epsilon",
    ),
    "a dropped row": (manifest(lambda rows: rows[1:]), f"{TAR} holds"),
    "the last row dropped": (manifest(lambda rows: rows[:-1]), "which no row of its manifest vouches for"),
    "a row twice": (manifest(lambda rows: [rows[0], *rows]), "has two rows for"),
    "rows in another order": (manifest(lambda rows: rows[::-1]), "where its manifest has"),
    "a status that is none": (row_says(status="fine"), "has the status 'fine'"),
    "a photo with faces that has none": (row_says(status="no_face"), "is no_face with 1 faces"),
    "a photo that was withheld and is there": (row_says(review="withheld"), "and a reviewer otherwise"),
    "a face that was hidden in a photo without any": (
        manifest(lambda rows: rows[0].update(review="masked")),  # type: ignore[func-returns-value]
        "and a reviewer otherwise",
    ),
    "a review in words of one's own": (row_says(review="fine"), "and a reviewer otherwise"),
    "a quarantined photo with data": (row_says(status="quarantined"), "and names data that is not"),
    "two manifests swapped": (
        lambda r: swap(r, MANIFEST, f"manifest/{OTHER}.parquet"),
        "names data that its marker does not",
    ),
    "an embedding column": (
        lambda r: r.column(MANIFEST, "embedding", [0.1] * 128),
        f"the manifest of shard {SHARD} has the restricted column 'embedding'",
    ),
    "a column of one's own": (
        lambda r: r.column(MANIFEST, "note", "Ada"),
        f"the manifest of shard {SHARD} has the unknown column 'note'",
    ),
    "a picture in the place of another": (
        members(lambda found: [(found[0][0], PHOTO), *found[1:]]),
        "is not the one in its manifest",
    ),
    "a picture beside another": (
        members(lambda found: [found[0], (found[0][0].replace(".jpg", ".before.jpg"), PHOTO), *found[1:]]),
        "comes with .before.jpg, which keep_fields does not allow",
    ),
    "a sample nobody vouches for": (members(lambda found: [*found, ("zz.jpg", PHOTO)]), "holds 'zz', which no row"),
    "a hidden picture that readers skip": (
        members(lambda found: [*found, ("._zz.jpg", PHOTO)]),
        "belongs to no sample",
    ),
    "a file without an ending": (members(lambda found: [*found, ("README", PHOTO)]), "belongs to no sample"),
    "more in a sidecar than was kept": (
        members(lambda found: [found[0], (found[1][0], b'{"caption": "x", "gps": "52.5,13.3"}'), *found[2:]]),
        "holds more than keep_fields allows",
    ),
    "something after the archive's end": (
        lambda r: r.path(TAR).write_bytes(r.path(TAR).read_bytes() + PHOTO),
        "after the end of the archive",
    ),
    "half a tar": (lambda r: r.path(TAR).write_bytes(r.path(TAR).read_bytes()[:20000]), "cannot be read to its end"),
    "a shard left out": (lost_shard, f"{TAR} is in the release, and nobody vouches for it"),
    "a file outside data that a marker vouches for": (
        lambda r: (
            r.path("secret.csv").write_text("Ada"),
            r.json(MARKER, lambda marker: marker["files"].update({"secret.csv": ""})),
        ),
        "vouches for files outside data/",
    ),
    "a marker of another run": (
        lambda r: r.json(MARKER, lambda marker: marker.update(run="0" * 64)),
        "is of another run",
    ),
    "a larger k everywhere": (
        lambda r: r.method(k=50),
        "the certificate claims k-anonymity of the identity channel, k = 2",
    ),
    "a method of no claim": (lambda r: r.method(name="blur"), "its method allows none"),
    "a method that nobody knows": (lambda r: r.method(name="magic"), "its method allows none"),
    "a shard listed twice": (lambda r: r.json("run.json", lambda n: n["shards"].append(SHARD)), "lists a shard twice"),
}


@pytest.mark.parametrize("what", UNDONE)
def test_a_tampering_is_caught_though_every_hash_fits_and_it_is_signed(what: str, forger: Forger) -> None:
    tamper, sentence = UNDONE[what]
    tamper(forger)
    forger.reseal()
    with pytest.raises(VerificationError) as lie:
        check(forger.root)
    assert sentence in str(lie.value)


CLAIMED: dict[str, tuple[dict[str, Any], str]] = {
    "a claim raised": ({"claim": Claim(K_ANONYMITY, k=50)}, "claims k-anonymity of the identity channel, k = 50; its"),
    "a claim of another kind": (
        {"claim": claim_of(MethodConfig(name="dp-uniform", decoder="x"))},
        "claims epsilon metric privacy",
    ),
    "another release of anonlib": ({"anonlib": "9"}, "the certificate and run.json differ in anonlib"),
    "another run": ({"run": "0" * 64}, "the certificate and run.json differ in run"),
    "other models": ({"models": {}}, "the certificate and run.json differ in models"),
    "a method that run.json does not name": ({"method": {"name": "solid"}}, "run.json differ in method"),
    "no table": ({"tables": ()}, "the certificate of k-diff must name classes.parquet and surrogates.parquet"),
    "a version to come": ({"version": 3}, "is of version 3"),
    "a version of before": ({"version": 1}, "is of schema version 2, the certificate 1"),
}


@pytest.mark.parametrize("what", CLAIMED)
def test_a_certificate_that_says_other_things_is_caught_though_it_is_signed(what: str, forger: Forger) -> None:
    changes, sentence = CLAIMED[what]
    forger.reseal(**changes)
    with pytest.raises(VerificationError) as lie:
        check(forger.root)
    assert sentence in str(lie.value)


@pytest.mark.parametrize(
    "name", ["shards", "images", "no_face", "quarantined", "faces", "replaced", "solid", "withheld"]
)
def test_a_count_of_the_certificate_that_is_not_the_manifests_is_caught(name: str, forger: Forger) -> None:
    forger.reseal()
    counts = check(forger.root).certificate.counts
    forger.certificate(counts=replace(counts, **{name: getattr(counts, name) + 1}))
    with pytest.raises(VerificationError, match="the certificate counts"):
        check(forger.root)


@pytest.mark.parametrize("name", ["images", "faces", "released", "no_face", "quarantined", "fallbacks"])
def test_a_count_of_a_marker_that_is_not_its_manifests_is_caught(
    name: str, forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support import forgery

    honest = forgery._counts
    monkeypatch.setattr(forgery, "_counts", lambda rows: honest(rows) | {name: honest(rows)[name] + 1})
    forger.reseal()
    with pytest.raises(VerificationError, match=f"the marker of shard {SHARD} counts"):
        check(forger.root)


def test_an_original_that_is_put_back_is_caught(forger: Forger, finished: Run) -> None:
    originals = images(finished.input / f"{SHARD}.tar")
    forger.tar(
        TAR, lambda found: [(name, originals[name]) if name.endswith(".jpg") else (name, it) for name, it in found]
    )
    forger.reseal()
    with pytest.raises(VerificationError, match="is not the one in its manifest"):
        check(forger.root)
    # With the manifest forged too the release is another one, which its maker did not sign.
    forged = {name.partition(".")[0]: it for name, it in images(forger.path(TAR)).items() if name.endswith(".jpg")}

    def fit(rows: Rows) -> None:
        import hashlib

        for row in rows:
            row["output_sha256"] = hashlib.sha256(forged[row["key"]]).hexdigest()

    forger.rows(MANIFEST, fit)
    forger.reseal()
    check(forger.root)
    with pytest.raises(VerificationError, match="is signed by the key"):
        check(forger.root, OURS)
