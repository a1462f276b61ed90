"""A release is believed as it was written; what a forger changes is named, even where every hash and signature fits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from anonlib.cli import app
from anonlib.storage import Storage, open_storage
from anonlib.verification.certificate import (
    K_ANONYMITY,
    METRIC_PRIVACY,
    VERSION,
    AuditStatement,
    Claim,
    canonical,
    public_key,
)
from anonlib.verification.release import unproved
from anonlib.workspace.release import publish_audit, remove_audit
from anonlib.workspace.schemas import STATEMENT
from tests.support import forgery
from tests.support.forgery import CLASSES, MANIFEST, MARKER, OTHER, PHOTO, SHARD, SURROGATES, TAR, Forger, Rows, swap
from tests.support.forgery import SECRET as FORGERS
from tests.support.runs import SECRET, Run

CLI = CliRunner()
OURS = public_key(SECRET.encode())


def test_a_release_is_as_it_says(finished: Run) -> None:
    found = forgery.check(finished.output, OURS)
    counts, summary = found.certificate.counts, finished.summary
    assert found.pinned
    assert (counts.images, counts.faces, counts.released) == (summary.images, summary.faces, summary.released)
    assert counts.faces == counts.replaced + counts.next_surrogate + counts.solid + counts.withheld
    assert counts.replaced > 0 and found.classes > 1
    assert found.files == sum(path.is_file() for path in finished.output.rglob("*"))


def test_without_the_key_it_says_that_anybody_could_have_signed(finished: Run, forger: Forger) -> None:
    assert any("anybody can sign" in line for line in unproved(forgery.check(finished.output)))
    assert not any("anybody can sign" in line for line in unproved(forgery.check(finished.output, OURS.upper())))
    forger.reseal()
    assert forgery.check(forger.root).certificate.public_key == public_key(FORGERS)
    forgery.refused(forger.root, "is signed by the key", OURS)


def flip(release: Forger, name: str, at: int) -> None:
    data = bytearray(release.path(name).read_bytes())
    data[at] ^= 1
    release.path(name).write_bytes(data)


def rows(change: Callable[[Rows], Rows | None], path: str = MANIFEST) -> forgery.Tampering:
    return lambda release: release.rows(path, change)


def certificate_says(change: Callable[[dict[str, Any]], object]) -> forgery.Tampering:
    """The certificate with a word changed, under the old signature."""

    def tamper(release: Forger) -> None:
        document = json.loads(release.path("certificate.json").read_text())
        change(document)
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        release.path("certificate.json").write_text(text + "\n")

    return tamper


UNSIGNED: dict[str, tuple[forgery.Tampering, str]] = {
    "a byte in a tar": (lambda r: flip(r, TAR, 5000), f"{TAR} is not the one that was signed"),
    "a dropped row": (rows(lambda rows: rows[1:]), f"the manifest of shard {SHARD} is not the one"),
    "two shards swapped": (
        lambda r: (swap(r, MANIFEST, f"manifest/{OTHER}.parquet"), swap(r, MARKER, f"commits/{OTHER}.json")),
        f"the marker of shard {SHARD} speaks of shard {OTHER}",
    ),
    "a marker removed": (lambda r: r.path(MARKER).unlink(), f"{MARKER} is missing"),
    "a marker's hash": (lambda r: r.json(MARKER, lambda one: one["files"].update({TAR: "0" * 64})), "Merkle root"),
    "a file added": (lambda r: r.path("data/more.tar").write_bytes(b""), "data/more.tar is in the release"),
    "an unfinished file": (lambda r: r.path("data/.anonlib-publish-1").write_bytes(b""), "publish-1 is in the release"),
    "a shard added": (lambda r: shutil.copy(r.path(MARKER), r.path("commits/more.json")), "nobody vouches for it"),
    "another run.json": (lambda r: r.json("run.json", lambda n: n.update(keep_fields=["gps"])), "run.json is not the"),
    "a claim raised": (certificate_says(lambda one: one["claim"].update(k=50)), "signature does not fit"),
    "another key": (certificate_says(lambda one: one.update(public_key=public_key(FORGERS))), "signature does not fit"),
}


def members(change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]) -> forgery.Tampering:
    return lambda release: release.tar(TAR, change)


def row_says(number: int, **changes: Any) -> forgery.Tampering:
    return rows(lambda rows: rows[number].update(changes))  # type: ignore[func-returns-value]


def secret_file(release: Forger) -> None:
    release.path("secret.csv").write_text("Ada")
    release.json(MARKER, lambda marker: marker["files"].update({"secret.csv": ""}))


def lost_shard(release: Forger) -> None:
    release.json("run.json", lambda note: note["shards"].remove(SHARD))
    release.path(MARKER).unlink()


SIGNED: dict[str, tuple[forgery.Tampering, str]] = {
    "a person in two classes": (
        rows(lambda rows: rows[1].update(people=sorted([*rows[1]["people"], rows[0]["people"][0]])), CLASSES),  # type: ignore[func-returns-value]
        "is in two classes",
    ),
    "a column that joins the tables": (lambda r: r.column(SURROGATES, "class", "0" * 24), "unknown column 'class'"),
    "an embedding column": (lambda r: r.column(MANIFEST, "embedding", [0.1] * 128), "restricted column 'embedding'"),
    "a face with another surrogate": (forgery.face_says(None, surrogate_digest="0" * 64), "which no class was dealt"),
    "a face left as it was": (forgery.face_says(None, method="none", surrogate_digest=None), "was replaced by none"),
    "a dropped row": (rows(lambda rows: rows[1:]), f"{TAR} holds"),
    "a row twice": (rows(lambda rows: [rows[0], *rows]), "has two rows for"),
    "a photo that was withheld and is there": (row_says(-1, review="withheld"), "and a reviewer otherwise"),
    "a quarantined photo with data": (row_says(-1, status="quarantined"), "and names data that is not"),
    "two manifests swapped": (lambda r: swap(r, MANIFEST, f"manifest/{OTHER}.parquet"), "that its marker does not"),
    "another picture": (members(lambda found: [(found[0][0], PHOTO), *found[1:]]), "is not the one in its manifest"),
    "a picture beside another": (
        members(lambda found: [found[0], (found[0][0].replace(".jpg", ".before.jpg"), PHOTO), *found[1:]]),
        "comes with .before.jpg, which keep_fields does not allow",
    ),
    "a sample without a row": (members(lambda found: [*found, ("zz.jpg", PHOTO)]), "holds 'zz', which no row"),
    "more in a sidecar than was kept": (
        members(lambda found: [found[0], (found[1][0], b'{"caption": "x", "gps": "52.5,13.3"}'), *found[2:]]),
        "holds more than keep_fields allows",
    ),
    "more after the archive": (lambda r: r.path(TAR).write_bytes(r.path(TAR).read_bytes() + PHOTO), "after its end"),
    "a shard left out": (lost_shard, f"{TAR} is in the release, and nobody vouches for it"),
    "a file outside data that a marker vouches for": (secret_file, "vouches for files outside data/"),
    "a marker of another run": (lambda r: r.json(MARKER, lambda one: one.update(run="0" * 64)), "is of another run"),
    "a larger k everywhere": (lambda r: r.method(k=50), "claims k-anonymity of the identity channel, k = 2"),
    "a setting that nobody knows": (lambda r: r.method(remark="of Ada"), "is none that this anonlib knows"),
    "a shard listed twice": (lambda r: r.json("run.json", lambda n: n["shards"].append(SHARD)), "lists a shard twice"),
}


@pytest.mark.parametrize("what", UNSIGNED)
def test_a_change_without_a_signature_is_seen(what: str, forger: Forger) -> None:
    tamper, sentence = UNSIGNED[what]
    tamper(forger)
    forgery.refused(forger.root, sentence)


@pytest.mark.parametrize("what", SIGNED)
def test_a_change_is_seen_though_every_hash_fits_and_it_is_signed(what: str, forger: Forger) -> None:
    tamper, sentence = SIGNED[what]
    tamper(forger)
    forger.reseal()
    forgery.refused(forger.root, sentence)


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
        ({"version": VERSION + 1}, f"is of version {VERSION + 1}"),
        ({"version": 1}, f"is of schema version {VERSION}, the certificate 1"),
    ],
)
def test_a_signed_certificate_that_lies_is_seen(changes: dict[str, Any], sentence: str, forger: Forger) -> None:
    forger.reseal(**changes)
    forgery.refused(forger.root, sentence)


def test_counts_that_are_not_the_manifests_are_seen(forger: Forger, monkeypatch: pytest.MonkeyPatch) -> None:
    forger.reseal()
    counts = forgery.check(forger.root).certificate.counts
    for name in ("shards", "images", "no_face", "quarantined", "faces", "replaced", "solid", "withheld"):
        forger.certificate(counts=replace(counts, **{name: getattr(counts, name) + 1}))
        forgery.refused(forger.root, "the certificate counts")
    honest = forgery._counts
    for name in ("images", "faces", "released", "no_face", "quarantined", "fallbacks"):
        monkeypatch.setattr(forgery, "_counts", lambda rows, name=name: honest(rows) | {name: honest(rows)[name] + 1})
        forger.reseal()
        forgery.refused(forger.root, f"the marker of shard {SHARD} counts")


# ---- an audit belongs to one release ---------------------------------------------------------------------------

REPORT = {"report.json": b"{}\n", "report.html": b"<p>all well</p>"}


@pytest.fixture
def release(forger: Forger) -> Storage:
    """A release with the audit of its maker, whose secret is the job's."""
    release = open_storage(str(forger.root))
    publish_audit(release, SECRET.encode(), REPORT, [])
    return release


def resign(root: Path, secret: bytes = SECRET.encode(), **changes: Any) -> None:
    """Change the statement and sign what comes of it."""
    read = AuditStatement(**json.loads((root / STATEMENT).read_text()))
    (root / STATEMENT).write_bytes(replace(read, **changes).sign(secret).to_bytes())


def test_an_audited_release_is_verified_with_its_report(forger: Forger, release: Storage) -> None:
    found = forgery.check(forger.root)
    assert found.audit is not None and found.audit.passed and set(found.audit.files) == set(REPORT)
    assert not any("audited" in line for line in unproved(found))
    done = CLI.invoke(app, ["verify", str(forger.root)])
    assert done.exit_code == 0 and "passed its policy" in done.stdout


def test_a_later_audit_replaces_an_earlier_one(forger: Forger, finished: Run, release: Storage) -> None:
    publish_audit(release, SECRET.encode(), {"report.json": b"[]"}, ["leak"])
    assert not (forger.root / "report.html").exists()
    found = forgery.check(forger.root).audit
    assert found is not None and not found.passed
    for _ in range(2):
        remove_audit(release)
    assert forgery.check(forger.root).files == forgery.check(finished.output).files


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda path: (path / "report.json").write_bytes(b"[]"), "report.json is not the one that was signed"),
        (lambda path: (path / "report.html").unlink(), "report.html is missing"),
        (lambda path: (path / STATEMENT).unlink(), "is in the release, and nobody vouches for it"),
    ],
)
def test_a_changed_report_is_refused(
    change: Callable[[Path], object], sentence: str, forger: Forger, release: Storage
) -> None:
    change(forger.root)
    forgery.refused(forger.root, sentence)


def test_a_fail_cannot_be_turned_into_a_pass_nor_audited_by_anybody_else(forger: Forger) -> None:
    release = open_storage(str(forger.root))
    publish_audit(release, SECRET.encode(), REPORT, ["leak, GPS"])
    made = json.loads(forger.path(STATEMENT).read_text())
    for data, sentence in (
        (canonical(made | {"passed": True, "failed": []}) + b"\n", "signature does not fit"),
        (b"", "cannot be read"),
        (b'{"version": 1}', "cannot be read"),
    ):
        forger.path(STATEMENT).write_bytes(data)
        forgery.refused(forger.root, sentence)
    publish_audit(release, FORGERS, REPORT, [])
    forgery.refused(forger.root, "another key")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"certificate_sha256": "0" * 64}, "the audit of another release"),
        ({"passed": False}, "contradicts itself"),
        ({"failed": ["leak"]}, "contradicts itself"),
        ({"files": {"notes.txt": "0" * 64}}, "contradicts itself"),
        ({"version": 2}, "another version"),
    ],
)
def test_a_maker_cannot_contradict_himself(
    forger: Forger, release: Storage, changes: dict[str, Any], said: str
) -> None:
    resign(forger.root, **changes)
    forgery.refused(forger.root, said)
