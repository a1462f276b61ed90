"""`anonlib verify` believes a release as it was written, and no hash or signature that does not fit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from anonlib.cli import app
from anonlib.errors import VerificationError
from anonlib.storage import open_storage
from anonlib.verification.certificate import public_key
from anonlib.verification.release import unproved
from tests.support.forgery import CLASSES, MANIFEST, MARKER, OTHER, SHARD, TAR, Forger, Tampering, check, swap
from tests.support.forgery import SECRET as FORGERS
from tests.support.runs import SECRET, Run
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


def test_without_the_key_it_says_that_anybody_could_have_signed(finished: Run) -> None:
    assert any("anybody can sign" in line for line in unproved(check(finished.output)))
    assert not any("anybody can sign" in line for line in unproved(check(finished.output, OURS.upper())))


def test_the_command_prints_what_is_proved_and_what_is_not(finished: Run) -> None:
    done = CLI.invoke(app, ["verify", str(finished.output), "--key", OURS])
    assert done.exit_code == 0
    for words in (
        "k-anonymity of the identity channel, k = 2",
        OURS,
        "not proved",
        "hair",
        "each within one of",
        "caption",
    ):
        assert words in done.stdout


def test_the_command_names_a_lie_in_one_sentence(forger: Forger) -> None:
    forger.path("notes.txt").write_text("Ada lives in the third house")
    done = CLI.invoke(app, ["verify", str(forger.root)])
    assert done.exit_code == 1
    assert done.stderr == "anonlib: not as it says: notes.txt is in the release, and nobody vouches for it\n"


def test_it_needs_the_release_alone(finished: Run, tmp_path: Path) -> None:
    release = tmp_path / "elsewhere"
    shutil.copytree(finished.output, release)
    code = (
        "import sys\nfrom anonlib.cli import main\n"
        "try: main()\nfinally: print([m for m in ('ray', 'torch', 'faiss', 'onnxruntime') if m in sys.modules])"
    )
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "ANONLIB_MODELS": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", code, "verify", str(release)], env=bare, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("[]")


def test_a_forger_who_changes_nothing_is_believed_until_the_key_is_pinned(forger: Forger) -> None:
    forger.reseal()
    assert check(forger.root).certificate.public_key == public_key(FORGERS)
    with pytest.raises(VerificationError, match="is signed by the key"):
        check(forger.root, OURS)


def test_a_place_that_is_no_release_has_no_certificate(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"certificate\.json is missing"):
        check(tmp_path)


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


def spoken(change: Callable[[dict[str, Any]], object]) -> Tampering:
    """The certificate with a word changed, under the old signature."""

    def tamper(release: Forger) -> None:
        document = json.loads(release.path("certificate.json").read_text())
        change(document)
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        release.path("certificate.json").write_text(text + "\n")

    return tamper


SEEN: dict[str, tuple[Tampering, str]] = {
    "a byte in a tar": (lambda r: flip(r, TAR, 5000), f"{TAR} is not the file that its marker names"),
    "a byte in a tar's header": (lambda r: flip(r, TAR, 3), f"{TAR} is not the file that its marker names"),
    "a byte after a tar's end": (lambda r: flip(r, TAR, -1), f"{TAR} is not the file that its marker names"),
    "a dropped row": (
        lambda r: r.rows(MANIFEST, lambda rows: rows[1:]),
        f"the manifest of shard {SHARD} is not the one that its marker names",
    ),
    "two manifests swapped": (
        lambda r: swap(r, MANIFEST, f"manifest/{OTHER}.parquet"),
        f"the manifest of shard {SHARD} is not the one",
    ),
    "two shards swapped": (
        lambda r: (swap(r, MANIFEST, f"manifest/{OTHER}.parquet"), swap(r, MARKER, f"commits/{OTHER}.json")),
        f"the marker of shard {SHARD} speaks of shard {OTHER}",
    ),
    "an embedding column": (
        lambda r: r.column(MANIFEST, "embedding", [0.1] * 128),
        f"the manifest of shard {SHARD} is not the one",
    ),
    "a marker removed": (lambda r: r.path(MARKER).unlink(), f"missing: {MARKER}"),
    "a manifest removed": (lambda r: r.path(MANIFEST).unlink(), f"missing: {MANIFEST}"),
    "a tar removed": (lambda r: r.path(TAR).unlink(), f"a file of shard {SHARD} is missing"),
    "a marker's hash edited": (
        lambda r: r.json(MARKER, lambda marker: marker["files"].update({TAR: "0" * 64})),
        "Merkle root differs",
    ),
    "a marker's spelling edited": (
        lambda r: r.path(MARKER).write_text(r.path(MARKER).read_text() + " "),
        "Merkle root differs",
    ),
    "a file added": (lambda r: r.path("data/more.tar").write_bytes(b""), "data/more.tar is in the release"),
    "a file added under the name of an unfinished one": (
        lambda r: r.path("data/.anonlib-publish-1").write_bytes(b""),
        "data/.anonlib-publish-1 is in the release",
    ),
    "a shard added": (
        lambda r: shutil.copy(r.path(MARKER), r.path("commits/more.json")),
        "commits/more.json is in the release, and nobody vouches for it",
    ),
    "a class of the table": (
        lambda r: r.rows(CLASSES, lambda rows: rows[1:]),
        f"{CLASSES} is not the one that was signed",
    ),
    "another run.json": (
        lambda r: r.json("run.json", lambda note: note.update(keep_fields=["caption", "person"])),
        "run.json is not the one that was signed",
    ),
    "a claim raised": (spoken(lambda one: one["claim"].update(k=50)), "signature does not fit"),
    "a count changed": (spoken(lambda one: one["counts"].update(quarantined=1)), "signature does not fit"),
    "a word added": (spoken(lambda one: one.update(approved=True)), "approved is not as it should be"),
    "another key beside the old signature": (
        spoken(lambda one: one.update(public_key=public_key(FORGERS))),
        "signature does not fit",
    ),
    "a certificate in another spelling": (
        lambda r: r.path("certificate.json").write_text(
            json.dumps(json.loads(r.path("certificate.json").read_text()), indent=1)
        ),
        "not in canonical form",
    ),
    "half a certificate": (
        lambda r: r.path("certificate.json").write_bytes(r.path("certificate.json").read_bytes()[:300]),
        "the certificate cannot be read",
    ),
}


@pytest.mark.parametrize("what", SEEN)
def test_a_tampering_does_not_get_past_the_hashes(what: str, forger: Forger) -> None:
    tamper, sentence = SEEN[what]
    tamper(forger)
    with pytest.raises(VerificationError) as lie:
        check(forger.root)
    assert sentence in str(lie.value)
