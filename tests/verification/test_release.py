"""A release is believed as it was written; what a forger changes is named, even where every hash and signature fits."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from anonlib.cli import app
from anonlib.errors import VerificationError
from anonlib.storage import open_storage
from anonlib.verification.certificate import K_ANONYMITY, METRIC_PRIVACY, Claim, public_key
from anonlib.verification.release import unproved
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
from tests.support.forgery import SECRET as FORGERS
from tests.support.runs import SECRET, Run, images
from tests.support.s3server import S3Server

CLI = CliRunner()
OURS = public_key(SECRET.encode())


def test_a_release_is_as_it_says(finished: Run) -> None:
    found = check(finished.output, OURS)
    counts, summary = found.certificate.counts, finished.summary
    assert found.pinned
    assert (counts.images, counts.faces, counts.released) == (summary.images, summary.faces, summary.released)
    assert counts.faces == counts.replaced + counts.next_surrogate + counts.solid + counts.withheld
    assert counts.replaced > 0 and found.classes > 1
    assert found.files == sum(path.is_file() for path in finished.output.rglob("*"))


def test_the_command_prints_what_is_proved_and_what_is_not(finished: Run) -> None:
    done = CLI.invoke(app, ["verify", str(finished.output), "--key", OURS])
    assert done.exit_code == 0
    for words in ("k-anonymity of the identity channel, k = 2", OURS, "not proved", "hair", "each within one of"):
        assert words in done.stdout


def test_without_the_key_it_says_that_anybody_could_have_signed(finished: Run, forger: Forger) -> None:
    assert any("anybody can sign" in line for line in unproved(check(finished.output)))
    assert not any("anybody can sign" in line for line in unproved(check(finished.output, OURS.upper())))
    forger.reseal()
    assert check(forger.root).certificate.public_key == public_key(FORGERS)
    with pytest.raises(VerificationError, match="is signed by the key"):
        check(forger.root, OURS)


def test_on_s3_as_on_a_disk(finished: Run, s3: S3Server) -> None:
    with s3.acting_as():
        uri = f"s3://{s3.bucket()}/november"
        storage = open_storage(uri, s3.options)
        for path in finished.output.rglob("*"):
            if path.is_file():
                storage.publish(str(path.relative_to(finished.output)), path)
        flags = ["--endpoint-url", s3.endpoint, "--region", "us-east-1"]
        assert CLI.invoke(app, ["verify", uri, *flags]).exit_code == 0
        storage.delete(TAR)
        done = CLI.invoke(app, ["verify", uri, *flags])
        assert done.exit_code == 1 and "is missing" in done.stderr


def flip(release: Forger, name: str, at: int) -> None:
    data = bytearray(release.path(name).read_bytes())
    data[at] ^= 1
    release.path(name).write_bytes(data)


def rows(change: Callable[[Rows], Rows | None], path: str = MANIFEST) -> Tampering:
    return lambda release: release.rows(path, change)


def certificate_says(change: Callable[[dict[str, Any]], object]) -> Tampering:
    """The certificate with a word changed, under the old signature."""

    def tamper(release: Forger) -> None:
        document = json.loads(release.path("certificate.json").read_text())
        change(document)
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        release.path("certificate.json").write_text(text + "\n")

    return tamper


UNSIGNED: dict[str, tuple[Tampering, str]] = {
    "a byte in a tar": (lambda r: flip(r, TAR, 5000), f"{TAR} is not the file that its marker names"),
    "a dropped row": (rows(lambda rows: rows[1:]), f"the manifest of shard {SHARD} is not the one"),
    "two shards swapped": (
        lambda r: (swap(r, MANIFEST, f"manifest/{OTHER}.parquet"), swap(r, MARKER, f"commits/{OTHER}.json")),
        f"the marker of shard {SHARD} speaks of shard {OTHER}",
    ),
    "a marker removed": (lambda r: r.path(MARKER).unlink(), f"missing: {MARKER}"),
    "a tar removed": (lambda r: r.path(TAR).unlink(), f"a file of shard {SHARD} is missing"),
    "a certificate removed": (lambda r: r.path("certificate.json").unlink(), "certificate.json is missing"),
    "a marker's hash": (
        lambda r: r.json(MARKER, lambda marker: marker["files"].update({TAR: "0" * 64})),
        "Merkle root",
    ),
    "a file added": (lambda r: r.path("data/more.tar").write_bytes(b""), "data/more.tar is in the release"),
    "an unfinished file added": (
        lambda r: r.path("data/.anonlib-publish-1").write_bytes(b""),
        "data/.anonlib-publish-1 is in the release",
    ),
    "a shard added": (
        lambda r: shutil.copy(r.path(MARKER), r.path("commits/more.json")),
        "commits/more.json is in the release, and nobody vouches for it",
    ),
    "a class dropped": (rows(lambda rows: rows[1:], CLASSES), f"{CLASSES} is not the one that was signed"),
    "another run.json": (
        lambda r: r.json("run.json", lambda note: note.update(keep_fields=["caption", "person"])),
        "run.json is not the one that was signed",
    ),
    "a claim raised": (certificate_says(lambda one: one["claim"].update(k=50)), "signature does not fit"),
    "a word added": (certificate_says(lambda one: one.update(approved=True)), "approved is not as it should be"),
    "another key": (certificate_says(lambda one: one.update(public_key=public_key(FORGERS))), "signature does not fit"),
}


@pytest.mark.parametrize("what", UNSIGNED)
def test_a_change_without_a_signature_is_seen(what: str, forger: Forger) -> None:
    tamper, sentence = UNSIGNED[what]
    tamper(forger)
    with pytest.raises(VerificationError) as lie:
        check(forger.root)
    assert sentence in str(lie.value)


def members(change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]) -> Tampering:
    return lambda release: release.tar(TAR, change)


def row_says(number: int, **changes: Any) -> Tampering:
    return rows(lambda rows: rows[number].update(changes))  # type: ignore[func-returns-value]


def lost_shard(release: Forger) -> None:
    release.json("run.json", lambda note: note["shards"].remove(SHARD))
    release.path(MARKER).unlink()


SIGNED: dict[str, tuple[Tampering, str]] = {
    "a person in two classes": (
        rows(lambda rows: rows[1].update(people=sorted([*rows[1]["people"], rows[0]["people"][0]])), CLASSES),  # type: ignore[func-returns-value]
        "is in two classes",
    ),
    "an average of one person": (rows(lambda rows: rows[0].update(donors=1), SURROGATES), "made of 1 people"),  # type: ignore[func-returns-value]
    "a surrogate without a class": (
        rows(lambda rows: [*rows, {"digest": "f" * 64, "donors": 9}], SURROGATES),
        "is a surrogate that no class wears",
    ),
    "a column that joins the tables": (
        lambda r: r.column(SURROGATES, "class", "0" * 24),
        "surrogates.parquet has the unknown column 'class'",
    ),
    "an embedding column": (
        lambda r: r.column(MANIFEST, "embedding", [0.1] * 128),
        f"the manifest of shard {SHARD} has the restricted column 'embedding'",
    ),
    "a face with another surrogate": (face_says(None, surrogate_digest="0" * 64), "which no class was dealt"),
    "a face left as it was": (face_says(None, method="none", surrogate_digest=None), "was replaced by none"),
    "a dropped row": (rows(lambda rows: rows[1:]), f"{TAR} holds"),
    "the last row dropped": (rows(lambda rows: rows[:-1]), "which no row of its manifest vouches for"),
    "a row twice": (rows(lambda rows: [rows[0], *rows]), "has two rows for"),
    "rows in another order": (rows(lambda rows: rows[::-1]), "where its manifest has"),
    "a photo that was withheld and is there": (row_says(-1, review="withheld"), "and a reviewer otherwise"),
    "a masked photo without a face": (row_says(0, review="masked"), "and a reviewer otherwise"),
    "a review in other words": (row_says(-1, review="fine"), "and a reviewer otherwise"),
    "a quarantined photo with data": (row_says(-1, status="quarantined"), "and names data that is not"),
    "two manifests swapped": (lambda r: swap(r, MANIFEST, f"manifest/{OTHER}.parquet"), "that its marker does not"),
    "another picture": (members(lambda found: [(found[0][0], PHOTO), *found[1:]]), "is not the one in its manifest"),
    "a picture beside another": (
        members(lambda found: [found[0], (found[0][0].replace(".jpg", ".before.jpg"), PHOTO), *found[1:]]),
        "comes with .before.jpg, which keep_fields does not allow",
    ),
    "a sample without a row": (members(lambda found: [*found, ("zz.jpg", PHOTO)]), "holds 'zz', which no row"),
    "a picture that readers skip": (members(lambda found: [*found, ("._zz.jpg", PHOTO)]), "belongs to no sample"),
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
    "a marker of another run": (lambda r: r.json(MARKER, lambda one: one.update(run="0" * 64)), "is of another run"),
    "a larger k everywhere": (lambda r: r.method(k=50), "claims k-anonymity of the identity channel, k = 2"),
    "a method of no claim": (lambda r: r.method(name="blur"), "its method allows none"),
    "a method that nobody knows": (lambda r: r.method(name="magic"), "its method allows none"),
    "a setting that nobody knows": (lambda r: r.method(remark="of Ada"), "is none that this anonlib knows"),
    "a shard listed twice": (lambda r: r.json("run.json", lambda n: n["shards"].append(SHARD)), "lists a shard twice"),
}


@pytest.mark.parametrize("what", SIGNED)
def test_a_change_is_seen_though_every_hash_fits_and_it_is_signed(what: str, forger: Forger) -> None:
    tamper, sentence = SIGNED[what]
    tamper(forger)
    forger.reseal()
    with pytest.raises(VerificationError) as lie:
        check(forger.root)
    assert sentence in str(lie.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"claim": Claim(K_ANONYMITY, k=50)}, "claims k-anonymity of the identity channel, k = 50; its"),
        ({"claim": Claim(METRIC_PRIVACY, epsilon=0.0, metric="release", pure_epsilon=0.0)}, "claims epsilon metric"),
        ({"anonlib": "9"}, "the certificate and run.json differ in anonlib"),
        ({"run": "0" * 64}, "the certificate and run.json differ in run"),
        ({"models": {}}, "the certificate and run.json differ in models"),
        ({"method": {"name": "solid"}}, "run.json differ in method"),
        ({"tables": ()}, "the certificate of k-diff must name classes.parquet and surrogates.parquet"),
        ({"version": 3}, "is of version 3"),
        ({"version": 1}, "is of schema version 2, the certificate 1"),
    ],
)
def test_a_certificate_that_says_other_things_is_seen_though_it_is_signed(
    changes: dict[str, Any], sentence: str, forger: Forger
) -> None:
    forger.reseal(**changes)
    with pytest.raises(VerificationError) as lie:
        check(forger.root)
    assert sentence in str(lie.value)


def test_counts_that_are_not_the_manifests_are_seen(forger: Forger, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support import forgery

    forger.reseal()
    counts = check(forger.root).certificate.counts
    for name in ("shards", "images", "no_face", "quarantined", "faces", "replaced", "solid", "withheld"):
        forger.certificate(counts=replace(counts, **{name: getattr(counts, name) + 1}))
        with pytest.raises(VerificationError, match="the certificate counts"):
            check(forger.root)
    honest = forgery._counts
    for name in ("images", "faces", "released", "no_face", "quarantined", "fallbacks"):
        monkeypatch.setattr(forgery, "_counts", lambda rows, name=name: honest(rows) | {name: honest(rows)[name] + 1})
        forger.reseal()
        with pytest.raises(VerificationError, match=f"the marker of shard {SHARD} counts"):
            check(forger.root)


def test_an_original_that_is_put_back_is_seen(forger: Forger, finished: Run) -> None:
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
        for row in rows:
            row["output_sha256"] = hashlib.sha256(forged[row["key"]]).hexdigest()

    forger.rows(MANIFEST, fit)
    forger.reseal()
    check(forger.root)
    with pytest.raises(VerificationError, match="is signed by the key"):
        check(forger.root, OURS)
