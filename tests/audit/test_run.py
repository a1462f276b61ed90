"""`anonlib audit` on a small job: attacked, judged, reported and signed; a leak that comes after fails the next one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from anonlib.audit import run
from anonlib.audit.attacks.records import ON_RECORDS
from anonlib.audit.evidence.evidence import Evidence
from anonlib.audit.findings import AuditReport
from anonlib.audit.gate import NAMING
from anonlib.audit.leaks.scan import CHECKS
from anonlib.audit.trained import suite
from anonlib.audit.utility import TASK
from anonlib.cli import app
from anonlib.storage import open_storage
from anonlib.verification.certificate import Certificate, public_key
from anonlib.verification.release import verify
from anonlib.workspace.layout import JobStores
from anonlib.workspace.schemas import AUDIT_FILES, CERTIFICATE, STATEMENT
from tests.support import photos
from tests.support.forgery import MANIFEST, Forger
from tests.support.runs import SECRET, Run, finished_copy, run_job


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """The attackers are taught in their own tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(suite, "STEPS", 0)
        patched.setattr(suite, "DRAWN", 1)
        patched.setattr(suite, "BASELINES", ("solid", "one-face"))
        yield


@pytest.fixture(scope="module")
def audited(looked_at: tuple[Run, Evidence], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with an audited copy of the finished run and its job file, and what the command said."""
    root = tmp_path_factory.mktemp("audited")
    (root / "job.yaml").write_text(finished_copy(looked_at[0], root).to_yaml())
    return root, audit(root)


def audit(root: Path, *flags: str) -> str:
    """What the command says of a release that fails its policy."""
    done = CliRunner().invoke(app, ["audit", str(root / "job.yaml"), *flags])
    assert done.exit_code == 4, done.output
    return done.stdout


def report_of(root: Path) -> AuditReport:
    return AuditReport.model_validate_json((root / "release" / "report.json").read_bytes())


def test_a_release_that_fails_its_policy_names_the_lines_and_is_signed_with_its_report(
    audited: tuple[Path, str],
) -> None:
    root, said = audited
    report, release = report_of(root), root / "release"
    failed = [line.name for line in report.failed]
    assert failed and not report.passed and all(name in said for name in failed)
    assert json.loads((release / STATEMENT).read_text())["failed"] == failed
    verified = verify(open_storage(str(release)), public_key(SECRET.encode()))
    assert verified.audit is not None and set(verified.audit.files) == set(AUDIT_FILES) - {STATEMENT}
    assert (release / "report.pdf").read_bytes().startswith(b"%PDF")
    assert "FAIL" in (release / "report.html").read_text()
    schema = json.loads((release / "report.schema.json").read_text())
    assert schema == AuditReport.model_json_schema()


def test_everything_was_tried_and_said(audited: tuple[Path, str]) -> None:
    root, _ = audited
    report = report_of(root)
    assert {attack.name for attack in report.attacks} >= {*NAMING, "parrot", "donors"}
    assert {disclosure.name for disclosure in report.disclosures} == set(ON_RECORDS)
    assert (report.people, report.labelled) == (12, True)
    assert {measure.name for measure in report.utility} >= {"faces found again", "gender kept", TASK}
    assert report.leaks and report.missed.second.count == report.counts.images - report.counts.quarantined
    assert (report.claim.k, report.claim.text) == (2, "k-anonymity of the identity channel, k = 2")
    classes = sum(report.claim.class_sizes.values())
    assert min(report.claim.class_sizes) >= 2 and sum(report.claim.effective_sizes.values()) == classes > 1
    signed = Certificate.from_bytes((root / "release" / CERTIFICATE).read_bytes())
    assert {model.name for model in report.models if model.used_for == "release"} == set(signed.models)
    judges = [model for model in report.models if model.used_for == "audit"]
    assert judges and all(model.licence and len(model.sha256) == 64 for model in judges)
    assert report.settings == {"name": "k-diff", "k": 2, "texture": "average", "region": "skin"}


@pytest.mark.parametrize("faces", [True, False])
def test_a_redaction_without_labels_is_audited_but_for_what_compares_photos(
    faces: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "write_pdf", lambda page: b"not set")
    pixels = {"face": photos.astronaut(), "place": photos.nobody()} if faces else {"place": photos.nobody()}
    members = [member for key, image in pixels.items() for member in photos.members(key, image, {})]
    photos.tar(tmp_path / "input" / "00000.tar", members)
    redacted = run_job(tmp_path / "input", tmp_path, method={"name": "solid"}, keep_fields=[])
    (tmp_path / "job.yaml").write_text(redacted.config.to_yaml())
    said, report = audit(tmp_path), report_of(tmp_path)
    assert "input.subject_field" in caplog.text  # before anything is looked at
    failed = {line.name: line.why for line in report.failed}
    assert failed.keys() == {"attacks that compare photos", "missed faces, second look"}  # of so few images
    assert "input.subject_field" in failed["attacks that compare photos"] and all(
        why in said for why in failed.values()
    )
    assert (report.attacks, report.missed.second.count, report.counts.faces) == ((), len(pixels), int(faces))
    assert {check.name for check in report.leaks} == set(CHECKS) and not any(check.found for check in report.leaks)
    assert {finding.name for finding in report.disclosures} == {"guess", "intersect"}
    assert "Attacks that compare photos were left out" in (tmp_path / "release" / "report.html").read_text()


def test_counts_are_those_of_the_job_and_exceptions_have_their_reason(forger: Forger, finished: Run) -> None:
    def damage_two(rows: list[dict[str, Any]]) -> None:
        for row in rows[:2]:
            row |= {"status": "quarantined", "reason": "damaged"}

    stores = [
        JobStores(open_storage(str(finished.workspace)), open_storage(str(path)))
        for path in (finished.output, forger.root)
    ]
    counts, summary = run.counts_of(stores[0]), finished.summary
    assert (counts.shards, counts.images, counts.faces) == (summary.shards, summary.images, summary.faces)
    assert counts.images == counts.released + counts.no_face + counts.quarantined
    assert sum(counts.methods.values()) == counts.faces > 0
    assert sum(counts.fallbacks.values()) >= summary.fallbacks
    forger.rows(MANIFEST, damage_two)
    assert run.counts_of(stores[1]).quarantine_reasons == {"the image or clip is damaged": 2}


def test_no_person_is_in_the_report(audited: tuple[Path, str], finished: Run) -> None:
    members = [member for tar in finished.input.glob("*.tar") for member in photos.content_of(tar).items()]
    sidecars = [json.loads(data) for name, data in members if name.endswith(".json")]
    people = {sidecar["person"] for sidecar in sidecars if "person" in sidecar}
    assert len(people) == 12
    for name in ("report.json", "report.html", "croissant.json", STATEMENT):
        text = (audited[0] / "release" / name).read_text()
        assert not [person for person in people if person in text], name


def test_a_quick_audit_trains_nothing_cannot_pass_and_finds_a_leak_that_came_after_the_one_before(
    audited: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "write_pdf", lambda page: b"not set again")
    root = tmp_path / "copy"
    shutil.copytree(audited[0], root)
    (root / "job.yaml").write_text((root / "job.yaml").read_text().replace(str(audited[0]), str(root)))
    (root / "release" / "notes.json").write_text('{"embedding": [0.1, 0.2]}')
    said, report = audit(root, "--quick"), report_of(root)
    made, failed = {attack.name for attack in report.attacks}, {line.name for line in report.failed}
    assert report.quick and "naive" in made and not any("trained" in name or "inversion" in name for name in made)
    assert TASK not in {measure.name for measure in report.utility}
    assert {"trained attack", "certificate"} <= failed and "trained attack" in said
    assert any(check.found and check.name == "file that belongs to no shard" for check in report.leaks)
    assert (root / "release" / "report.pdf").read_bytes() == b"not set again"
    assert "This was a quick audit" in (root / "release" / "report.html").read_text()
