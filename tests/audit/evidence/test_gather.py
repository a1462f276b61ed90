"""The evidence pairs every face with its own original, in any format, and no evaluation changes a release."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from anonlib.audit.evidence import gather as module
from anonlib.audit.evidence.evidence import BASELINES, Evidence
from anonlib.audit.evidence.gather import drawn, gather
from anonlib.audit.evidence.observe import RECOGNIZERS, nearest
from anonlib.audit.evidence.published import by_truth, read_published
from anonlib.audit.utility import measures, mesh_error
from anonlib.config import JobConfig
from anonlib.errors import JobError
from anonlib.faces.regions import Regions
from anonlib.job import Job
from tests.support.evidence import evidence, published
from tests.support.runs import Run, contents, finished_copy, images, manifest, run_job


@pytest.fixture
def gathered(looked_at: tuple[Run, Evidence]) -> Evidence:
    return looked_at[1]


@pytest.fixture
def copied(looked_at: tuple[Run, Evidence], tmp_path: Path) -> JobConfig:
    """An audited job, to be changed."""
    return finished_copy(looked_at[0], tmp_path)


@pytest.fixture(scope="module")
def folder(people_tars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photos of the first tar as files."""
    folder = tmp_path_factory.mktemp("folder")
    photos = {name: data for name, data in images(people_tars / "00000.tar").items() if name.startswith("holiday")}
    for name in sorted(photos)[:8]:  # a photo and its sidecar each
        (folder / name).write_bytes(photos[name])
    return folder


def landmark_error(looked: Evidence, least: int = 6) -> float:
    used = looked.replaced & looked.released.found
    assert used.sum() >= least
    return float(np.nanmedian(mesh_error(looked.clear.mesh[used], looked.released.mesh[used])))


def test_every_labelled_face_is_there_once(gathered: Evidence) -> None:
    assert gathered.labelled
    assert Counter(Counter(gathered.subjects.tolist()).values()) == {2: 12}
    assert set(gathered.looks) == {"clear", "released", *BASELINES}
    for look in gathered.looks.values():
        for name in RECOGNIZERS:
            assert len(look.vectors[name]) == 24
            np.testing.assert_allclose(np.linalg.norm(look.vectors[name], axis=1), 1.0, atol=1e-4)
        assert look.mesh.shape == (24, 468, 2) and look.pose.shape == (24, 3) and look.crops.shape == (24, 64, 64)
    assert landmark_error(gathered) < 0.15  # a face is compared with itself, and not with its neighbour


def test_an_original_shows_what_its_scan_saw_and_a_flat_ellipse_nothing(gathered: Evidence, finished: Run) -> None:
    (faces,) = (finished.workspace / "scan").glob("*/faces")
    scanned = pq.ParquetDataset(faces).read(columns=["label", "female", "age", "yaw", "sharpness"]).to_pylist()
    rows = sorted((row for row in scanned if row["label"]), key=lambda row: row["age"])
    order = np.argsort(gathered.clear.age)
    for name, seen in {
        "age": gathered.clear.age,
        "female": gathered.clear.female,
        "yaw": gathered.clear.pose[:, 0],
        "sharpness": gathered.clear.sharpness,
    }.items():
        np.testing.assert_allclose(seen[order], [row[name] for row in rows], rtol=2e-2, atol=2e-2)
    hidden = gathered.looks["solid"]
    assert not hidden.found.any()
    looks = (hidden.female, hidden.age, hidden.expression, hidden.pose, hidden.mesh, hidden.crispness, hidden.eyes)
    for nothing in looks:
        assert np.isnan(nothing).all()
    assert ((gathered.clear.real >= 0) & (gathered.clear.real <= 1)).all()
    assert (np.ptp(gathered.clear.real, axis=0) > 0.01).all()  # a judge that says the same of everything is none


def test_people_and_classes_are_those_of_the_plan(gathered: Evidence) -> None:
    assert len(set(zip(gathered.subjects.tolist(), gathered.people.tolist(), strict=True))) == 12
    assert (gathered.people >= 0).all()
    assert (gathered.worn[gathered.replaced] >= 0).all()
    donors = dict(zip(gathered.donor_people.tolist(), gathered.donor_classes.tolist(), strict=True))
    gave = np.array([donors.get(person, -2) for person in gathered.people])
    assert (gathered.worn != gave)[gathered.replaced].all()  # k-diff wears what others gave
    assert (gathered.worn[~gathered.replaced] == -1).all()


def test_a_second_audit_looks_at_the_release_alone(
    gathered: Evidence, copied: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(tmp_path)
    kept = [name.rpartition("/")[2] for name in before if name.startswith("workspace/audit/")]
    assert kept == ["00000.npz", "00001.npz", "00002.npz"]
    monkeypatch.setattr(module, "read_image", None)
    again = gather(Job(copied))
    for kind, look in gathered.looks.items():
        for name, array in look.arrays().items():
            np.testing.assert_array_equal(array, again.looks[kind].arrays()[name])
    for name in RECOGNIZERS:
        np.testing.assert_array_equal(gathered.donors[name], again.donors[name])
    assert contents(tmp_path) == before


def test_of_a_large_dataset_people_are_drawn_with_all_their_photos_and_what_was_whole_is_not_taken_for_a_part(
    gathered: Evidence, copied: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"label": f"p{number % 500}", "face_id": f"a/{number}#0"} for number in range(2000)]
    chosen = [row["label"] for row in rows if drawn(row, 0.3)]
    assert 0.25 < len(chosen) / len(rows) < 0.35
    assert {chosen.count(label) for label in chosen} == {4}
    monkeypatch.setattr(module, "MOST", 5)
    few = gather(Job(copied))
    assert 0 < len(few.subjects) < len(gathered.subjects)
    assert set(few.faces) < set(gathered.faces)


def test_a_folder_under_new_keys_is_paired_like_a_tar(folder: Path, gathered: Evidence, tmp_path: Path) -> None:
    # A face is drawn for each, since so few people could not hide together.
    looked = gather(Job(run_job(folder, tmp_path, rekey=True, method={"name": "dp-uniform"}).config))
    assert len(looked.subjects) == 4
    assert landmark_error(looked, least=2) < 0.15
    ours, theirs = (one.clear.vectors["faceres"][:, 0] for one in (looked, gathered))
    assert np.abs(ours[:, None] - theirs[None]).min(axis=1).max() < 1e-4  # each is a face of the tar's


def test_a_redaction_has_no_classes_and_a_lost_face_is_judged_where_it_was(folder: Path, tmp_path: Path) -> None:
    looked = gather(Job(run_job(folder, tmp_path, method={"name": "solid"}).config))
    assert len(looked.subjects) == len(set(looked.names.tolist())) == 4
    assert not looked.labelled  # and a redaction asks nobody who he is, so everybody is his own
    assert not looked.released.found.any()
    assert (looked.classes == -1).all() and (looked.people == -1).all() and len(looked.donor_people) == 0
    hidden = looked.looks["solid"]
    for name in RECOGNIZERS:  # a solid release is what its baseline is, but for the JPEG
        assert np.median((looked.released.vectors[name] * hidden.vectors[name]).sum(axis=1)) > 0.95
        assert (looked.clear.vectors[name] * hidden.vectors[name]).sum(axis=1).max() < 0.95
    assert measures(looked)[0].released.value == 0.0


def test_a_face_is_found_again_only_where_it_was() -> None:
    faces = np.array([[134, 100, 234, 200], [90, 100, 190, 200]], np.float32)
    regions = Regions(faces, np.ones(2, np.float32), np.zeros((2, 5, 2), np.float32))
    assert nearest(regions, np.array([100, 100, 200, 200], np.float32)).boxes.tolist() == [[90, 100, 190, 200]]
    assert len(nearest(regions, np.array([50, 100, 150, 200], np.float32))) == 0


@pytest.fixture(scope="module")
def unlabelled(one_shard: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished job that was told nobody's name."""
    return run_job(one_shard.input, tmp_path_factory.mktemp("unlabelled"), input={"uri": str(one_shard.input)})


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
    assert told.evaluated and told.named.sum() == len({name for name in told.names if name}) == 8
    assert told.faces == blind.faces and told.plan == blind.plan
    with pytest.raises(JobError, match="no photo of the input has a field 'nobody'"):
        read_published(job, truth_field="nobody")


def test_people_of_the_evidence_are_those_of_the_labels() -> None:
    whole = evidence(names=evidence().faces, labelled=False)
    said = published(evidence())
    told = by_truth(whole, said)
    assert told.labelled and told.names.tolist() == said.names
    assert (told.subjects == evidence().subjects).all()
