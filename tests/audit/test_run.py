"""`anonlib audit` on a small job: attacked, judged, reported and signed; a leak that comes after fails the next one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from anonlib.audit import run
from anonlib.audit.attacks.suite import ON_RECORDS
from anonlib.audit.findings import AuditReport
from anonlib.audit.gate import NAMING
from anonlib.audit.trained import suite
from anonlib.audit.utility.downstream import NAME as TASK
from anonlib.cli import app
from anonlib.config import JobConfig
from anonlib.storage import open_storage
from anonlib.verification.certificate import public_key
from anonlib.verification.release import verify
from anonlib.workspace.schemas import AUDIT_FILES, STATEMENT
from tests.support.runs import SECRET, Run

CLI = CliRunner()


@dataclass(frozen=True)
class Audit:
    """An audited copy of the finished run: its job file, its release, and what the command said."""

    job: Path
    output: Path
    done: Result

    @property
    def report(self) -> AuditReport:
        return AuditReport.model_validate_json((self.output / "report.json").read_bytes())


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """The attackers are taught in their own tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(suite, "STEPS", 0)
        patched.setattr(suite, "DRAWN", 1)
        patched.setattr(suite, "BASELINES", ("solid",))
        yield


@pytest.fixture(scope="module")
def audited(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    root = tmp_path_factory.mktemp("audited")
    shutil.copytree(finished.workspace, root / "workspace")
    shutil.copytree(finished.output, root / "release")
    (root / "secret").write_text(SECRET)
    document = finished.config.model_dump(mode="json")
    document |= {
        "output": {"uri": str(root / "release"), "release": "tests"},
        "workspace": {"uri": str(root / "workspace")},
        "secret": {"file": str(root / "secret")},
    }
    (root / "job.yaml").write_text(JobConfig.model_validate(document).to_yaml())
    return Audit(root / "job.yaml", root / "release", CLI.invoke(app, ["audit", str(root / "job.yaml")]))


def test_a_release_that_fails_its_policy_ends_in_4_and_names_the_lines(audited: Audit) -> None:
    report, failed = audited.report, [line for line in audited.report.gate.lines if not line.passed]
    assert audited.done.exit_code == 4, audited.done.output
    assert failed and not report.gate.passed
    for line in failed:
        assert line.name in audited.done.stdout
    statement = json.loads((audited.output / STATEMENT).read_text())
    assert statement["failed"] == [line.name for line in failed]


def test_the_report_lies_in_the_release_signed_and_verified(audited: Audit) -> None:
    found = verify(open_storage(str(audited.output)), public_key(SECRET.encode()))
    assert found.audit is not None and set(found.audit.files) == set(AUDIT_FILES) - {STATEMENT}
    assert (audited.output / "report.pdf").read_bytes().startswith(b"%PDF")
    assert "FAIL" in (audited.output / "report.html").read_text()


def test_everything_was_tried(audited: Audit, finished: Run) -> None:
    report = audited.report
    assert {one.name for one in report.attacks} >= {*NAMING, "parrot", "context", "linkage", "donors"}
    assert {one.name for one in report.disclosures} == set(ON_RECORDS)
    assert "what the release says beside its pictures" in audited.done.stdout
    assert (report.people, report.labelled) == (12, True)
    assert report.counts.faces == finished.summary.faces and report.counts.images == finished.summary.images
    assert {one.name for one in report.utility} >= {"faces found again", "gender kept", TASK}
    assert report.leaks and report.missed.second.count == report.counts.images - report.counts.quarantined
    assert {one.used_for for one in report.models} == {"release", "audit"}


def test_no_original_key_or_person_is_in_the_report(audited: Audit, finished: Run) -> None:
    people = {line.split('"')[3] for line in _sidecars(finished.input) if '"person"' in line}
    for name in ("report.json", "report.html", "croissant.json", STATEMENT):
        text = (audited.output / name).read_text()
        assert not [person for person in people if person in text], name


def test_a_leak_that_comes_after_is_found_and_the_old_audit_is_gone(
    audited: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "write_pdf", lambda page: b"not set again")
    shutil.copytree(audited.job.parent, tmp_path / "copy")
    job = tmp_path / "copy" / "job.yaml"
    job.write_text(job.read_text().replace(str(audited.job.parent), str(tmp_path / "copy")))
    (tmp_path / "copy" / "release" / "notes.json").write_text('{"embedding": [0.1, 0.2]}')
    done = CLI.invoke(app, ["audit", str(job)])
    report = AuditReport.model_validate_json((tmp_path / "copy" / "release" / "report.json").read_bytes())
    failed = {line.name for line in report.gate.lines if not line.passed}
    assert done.exit_code == 4 and "certificate" in failed
    assert any(one.found and one.name == "file that belongs to no shard" for one in report.leaks)
    assert (tmp_path / "copy" / "release" / "report.pdf").read_bytes() == b"not set again"


def _sidecars(folder: Path) -> list[str]:
    import tarfile

    lines = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name.endswith(".json"):
                    content = archive.extractfile(member)
                    assert content is not None
                    lines.append(content.read().decode())
    return lines
