"""What a release says is read face by face beside the scan, and labels for the evaluation reach no plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from anonlib.audit.evidence.published import by_truth, read_published
from anonlib.config import JobConfig
from anonlib.errors import JobError
from anonlib.job import Job
from tests.support.evidence import evidence, published
from tests.support.runs import Run, manifest, run_job


@pytest.fixture(scope="module")
def unlabelled(people_tars: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished job that was told nobody's name."""
    return run_job(people_tars, tmp_path_factory.mktemp("unlabelled"), input={"uri": str(people_tars)})


def test_every_released_face_has_its_row_its_name_and_its_class(copied: JobConfig, finished: Run) -> None:
    found = read_published(Job(copied))
    rows = [face for row in manifest(finished.output) if row["status"] != "quarantined" for face in row["faces"]]
    assert found.manifest.to_pylist() == rows and len(found.faces) == len(rows)
    assert (found.evaluated, found.clustered, found.claim.k) == (False, False, 2)
    assert found.named.sum() == 24 and len({name for name in found.names if name}) == 12
    shown = [found.surrogates[number] if number >= 0 else None for number in found.shown]
    assert shown == [row["surrogate_digest"] for row in rows] and set(found.surrogates) <= found.plan.by_digest.keys()
    certified = sorted((row["k"], row["effective_k"]) for row in found.tables["classes.parquet"])
    assert sorted(found.plan.sizes) == certified


def test_tables_are_read_and_what_an_audit_or_a_shard_wrote_is_not(copied: JobConfig, tmp_path: Path) -> None:
    (tmp_path / "release" / "extra.json").write_text('{"groups": [{"a": "x", "b": {"c": [1, 2]}}], "x": "y"}')
    (tmp_path / "release" / "report.json").write_text("{}")
    found = read_published(Job(copied)).tables
    assert {"classes.parquet", "run.json", "certificate.json", "extra.json"} <= set(found)
    assert not any(path.startswith(("data/", "manifest/", "commits/", "report.json")) for path in found)
    assert found["extra.json, groups"] == [{"a": "x", "b": {"c": [1, 2]}}]
    assert {"key": "x", "value": "y"} in found["extra.json, entries"]
    (tmp_path / "release" / "extra.json").write_text("{")
    with pytest.raises(JobError, match=r"extra\.json in the release is not JSON"):
        read_published(Job(copied))


def test_labels_for_the_evaluation_are_read_where_the_job_had_none(unlabelled: Run) -> None:
    job = Job(unlabelled.config)
    blind, told = read_published(job), read_published(job, truth_field="person")
    assert not blind.named.any() and (blind.clustered, blind.evaluated) == (True, False)
    assert told.evaluated and told.named.sum() == 24 and len({name for name in told.names if name}) == 12
    assert told.faces == blind.faces and told.plan == blind.plan
    with pytest.raises(JobError, match="no photo of the input has a field 'nobody'"):
        read_published(job, truth_field="nobody")


def test_people_of_the_evidence_are_those_of_the_labels() -> None:
    whole = evidence(names=evidence().faces, labelled=False)
    said = published(evidence())
    told = by_truth(whole, said)
    assert told.labelled and told.names.tolist() == said.names
    assert (told.subjects == evidence().subjects).all()
