"""An audit belongs to one release: a report that was moved, changed or left behind is refused by `anonlib verify`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from anonlib.cli import app
from anonlib.errors import VerificationError
from anonlib.storage import Storage, open_storage
from anonlib.verification.certificate import AuditStatement, canonical, signature_of
from anonlib.verification.release import unproved
from anonlib.workspace.release import publish_audit, remove_audit
from anonlib.workspace.schemas import AUDIT_FILES, STATEMENT
from tests.support.forgery import SECRET as FORGERS
from tests.support.forgery import Forger, check
from tests.support.runs import SECRET, Run

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
    made = replace(read, **changes)
    (root / STATEMENT).write_bytes(replace(made, signature=signature_of(made.signed_bytes(), secret)).to_bytes())


def test_an_audited_release_is_verified_with_its_report(forger: Forger, release: Storage) -> None:
    found = check(forger.root)
    assert found.audit is not None and found.audit.passed and set(found.audit.files) == set(REPORT)
    assert not any("audited" in line for line in unproved(found))
    done = CliRunner().invoke(app, ["verify", str(forger.root)])
    assert done.exit_code == 0 and "passed its policy" in done.stdout


def test_a_release_that_failed_says_so_wherever_it_is_verified(forger: Forger) -> None:
    publish_audit(open_storage(str(forger.root)), SECRET.encode(), REPORT, ["naive attack", "leak, GPS"])
    done = CliRunner().invoke(app, ["verify", str(forger.root)])
    assert done.exit_code == 4 and "FAILED its policy: naive attack; leak, GPS" in done.stdout


def test_a_later_audit_replaces_an_earlier_one(forger: Forger, release: Storage) -> None:
    publish_audit(release, SECRET.encode(), {"report.json": b"[]"}, ["leak"])
    assert not (forger.root / "report.html").exists()
    found = check(forger.root).audit
    assert found is not None and not found.passed


def test_withdrawn_it_leaves_nothing(forger: Forger, finished: Run, release: Storage) -> None:
    for _ in range(2):
        remove_audit(release)
    assert check(forger.root).files == check(finished.output).files


def test_only_an_audits_own_files_are_vouched_for(release: Storage) -> None:
    with pytest.raises(ValueError, match=r"notes\.txt is none of"):
        publish_audit(release, SECRET.encode(), {"notes.txt": b"Ada"}, [])
    assert "notes.txt" not in AUDIT_FILES


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda path: (path / "report.json").write_bytes(b"[]"), "report.json is not the one that the audit signed"),
        (lambda path: (path / "report.html").unlink(), "report.html is missing"),
        (lambda path: (path / STATEMENT).unlink(), "is in the release, and nobody vouches for it"),
    ],
)
def test_a_report_that_was_changed_or_lost_is_refused(
    change: Callable[[Path], object], sentence: str, forger: Forger, release: Storage
) -> None:
    change(forger.root)
    with pytest.raises(VerificationError, match=sentence):
        check(forger.root)


def test_a_fail_cannot_be_turned_into_a_pass(forger: Forger) -> None:
    publish_audit(open_storage(str(forger.root)), SECRET.encode(), REPORT, ["leak, GPS"])
    made = json.loads(forger.path(STATEMENT).read_text())
    forger.path(STATEMENT).write_bytes(canonical(made | {"passed": True, "failed": []}) + b"\n")
    with pytest.raises(VerificationError, match="signature does not fit"):
        check(forger.root)


def test_nobody_else_can_audit(forger: Forger, release: Storage) -> None:
    publish_audit(release, FORGERS, REPORT, [])
    with pytest.raises(VerificationError, match="another key"):
        check(forger.root)
    resign(forger.root, FORGERS, public_key=AuditStatement(**json.loads(forger.path(STATEMENT).read_text())).public_key)
    with pytest.raises(VerificationError, match="another key"):
        check(forger.root)


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
def test_even_its_maker_cannot_contradict_himself(
    forger: Forger, release: Storage, changes: dict[str, Any], said: str
) -> None:
    resign(forger.root, **changes)
    with pytest.raises(VerificationError, match=said):
        check(forger.root)


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"version": 1}', b"\xff"])
def test_what_is_no_statement_is_refused(forger: Forger, release: Storage, data: bytes) -> None:
    forger.path(STATEMENT).write_bytes(data)
    with pytest.raises(VerificationError, match="cannot be read"):
        check(forger.root)
