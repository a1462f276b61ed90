"""The evidence pairs every face with its own original, in any format, and no evaluation changes a release."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import photos
import pytest
from runs import Run, contents, images, job, run_job

from anonlib.audit.again import nearest
from anonlib.audit.attacks import attack
from anonlib.audit.evidence import Evidence
from anonlib.audit.gather import RECOGNIZERS, gather
from anonlib.audit.utility import measure
from anonlib.config import JobConfig
from anonlib.faces.detect import Faces
from anonlib.pipeline.job import JobError
from anonlib.pipeline.outcome import Outcome

SCRIPT = Path(__file__).parents[2] / "jobs" / "evaluate.py"


@pytest.fixture(scope="module")
def gathered(finished: Run) -> Evidence:
    return gather(finished.config, context=True)


@pytest.fixture
def copied(finished: Run, tmp_path: Path) -> JobConfig:
    shutil.copytree(finished.workspace, tmp_path / "workspace")
    shutil.copytree(finished.output, tmp_path / "release")
    return job(finished.input, tmp_path)


def boxes(*rows: tuple[float, float, float, float]) -> Faces:
    count = len(rows)
    return Faces(
        np.array(rows, np.float32).reshape(count, 4), np.ones(count, np.float32), np.zeros((count, 5, 2), np.float32)
    )


def test_every_labelled_face_is_there_once(gathered: Evidence) -> None:
    assert Counter(Counter(gathered.subjects.tolist()).values()) == {2: 12}
    assert (gathered.images, gathered.quarantined) == (27, 0)
    assert len(gathered.labelled_fallbacks) == 24
    for vectors in (gathered.clear, gathered.released, gathered.context):
        assert vectors is not None
        for name in RECOGNIZERS:
            assert len(vectors[name]) == 24
            np.testing.assert_allclose(np.linalg.norm(vectors[name], axis=1), 1.0, atol=1e-4)


def test_a_face_is_compared_with_itself_and_not_with_its_neighbour(gathered: Evidence) -> None:
    used = gathered.replaced & gathered.found
    assert used.sum() >= 6
    assert np.nanmedian(gathered.mesh_error[used]) < 0.15


def test_people_and_classes_are_those_of_the_plan(gathered: Evidence) -> None:
    assert len(set(zip(gathered.subjects.tolist(), gathered.people.tolist(), strict=True))) == 12
    assert (gathered.people >= 0).all()
    assert (gathered.worn[gathered.replaced] >= 0).all()
    assert (gathered.worn[gathered.replaced] != gathered.classes[gathered.replaced]).all()  # k-diff wears another's
    assert (gathered.worn[~gathered.replaced] == -1).all()


def test_a_donor_is_in_the_class_that_averages_it(gathered: Evidence) -> None:
    class_of = dict(zip(gathered.people.tolist(), gathered.classes.tolist(), strict=True))
    donors = dict(zip(gathered.donor_people.tolist(), gathered.donor_classes.tolist(), strict=True))
    assert donors
    assert all(class_of[person] == number for person, number in donors.items() if person in class_of)
    assert gathered.averaged.sum() == np.isin(gathered.donor_people, gathered.people).sum()


def test_a_hidden_face_is_another_picture(gathered: Evidence) -> None:
    assert gathered.context is not None
    for name in RECOGNIZERS:
        assert (gathered.clear[name] * gathered.context[name]).sum(axis=1).max() < 0.95


def test_clear_people_are_known_again_and_replaced_ones_less(gathered: Evidence) -> None:
    rates = attack(gathered, "fr-feature").rates
    assert rates["rank-1 clear"].value > 0.8
    assert rates["rank-1 naive"].value < rates["rank-1 clear"].value
    assert measure(gathered).rates["found again"].value > 0.9


def test_shards_are_reported_as_they_are_done(finished: Run) -> None:
    said: list[tuple[str, Outcome, int]] = []
    gather(finished.config, report=lambda *one: said.append(one))
    assert [(stage, one.unit, one.images, one.faces, of) for stage, one, of in said] == [
        ("evaluate", f"0000{shard}", 9, 8, 3) for shard in range(3)
    ]


def test_a_folder_under_new_keys_is_paired_like_a_tar(finished: Run, gathered: Evidence, tmp_path: Path) -> None:
    for tar in sorted(finished.input.glob("*.tar")):
        for name, content in images(tar).items():
            (tmp_path / "input").mkdir(exist_ok=True)
            (tmp_path / "input" / name).write_bytes(content)
    run = run_job(tmp_path / "input", tmp_path, rekey=True)
    looked = gather(run.config)
    assert len(looked.subjects) == 24
    assert looked.images == 27
    used = looked.replaced & looked.found
    assert used.sum() >= 6
    assert np.nanmedian(looked.mesh_error[used]) < 0.15
    assert sorted(looked.clear["faceres"][:, 0].tolist()) == sorted(gathered.clear["faceres"][:, 0].tolist())


def test_a_redaction_has_no_classes_and_a_lost_face_is_judged_where_it_was(people_tars: Path, tmp_path: Path) -> None:
    run = run_job(people_tars, tmp_path, method={"name": "solid"})
    looked = gather(run.config, context=True)
    assert not looked.found.any()
    assert (looked.classes == -1).all()
    assert len(looked.donor_people) == 0
    assert looked.context is not None
    for name in RECOGNIZERS:  # a solid release is what the context attack looks at, but for the JPEG
        assert np.median((looked.released[name] * looked.context[name]).sum(axis=1)) > 0.95
    rates = attack(looked, "faceres").rates
    assert rates["within class naive"].count == rates["donors' portraits"].count == 0
    assert measure(looked).rates["found again"].value == 0.0


def test_an_image_that_is_not_the_manifests_stops_it(copied: JobConfig, tmp_path: Path) -> None:
    path = tmp_path / "release" / "data" / "00001.tar"
    content = images(path)
    content["holiday-001.jpg"] = photos.jpeg(photos.nobody())
    photos.tar(path, content.items())
    with pytest.raises(JobError, match="missing or not the one in its manifest"):
        gather(copied)


def test_without_a_finished_release_there_is_nothing_to_evaluate(copied: JobConfig, tmp_path: Path) -> None:
    (tmp_path / "release" / "commits" / "00002.json").unlink()
    with pytest.raises(JobError, match="2 of 3 shards are rendered"):
        gather(copied)
    shutil.rmtree(tmp_path / "release")
    with pytest.raises(JobError, match="run it first"):
        gather(copied)


def test_an_empty_place_stays_empty(finished: Run, tmp_path: Path) -> None:
    config = job(finished.input, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(JobError, match="run it first"):
        gather(config)
    assert contents(tmp_path) == before


def test_a_face_is_found_again_only_where_it_was() -> None:
    box = np.array([100, 100, 200, 200], np.float32)
    assert len(nearest(boxes(), box)) == 0
    assert len(nearest(boxes((136, 100, 236, 200)), box)) == 0
    assert nearest(boxes((134, 100, 234, 200), (90, 100, 190, 200)), box).boxes.tolist() == [[90, 100, 190, 200]]


def test_the_script_writes_into_the_workspace_alone(copied: JobConfig, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(copied.to_yaml())
    before = contents(tmp_path)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(file), "--context"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    after = contents(tmp_path)
    assert set(after) - set(before) == {"workspace/evaluation.json"}
    assert {name: digest for name, digest in after.items() if name in before} == before
    said = json.loads((tmp_path / "workspace" / "evaluation.json").read_bytes())
    assert (said["people"], said["photos"]) == (12, 24)
    assert set(said["attacks"]) == set(RECOGNIZERS)
    assert said["attacks"]["faceres"]["rates"]["rank-1 context"]["count"] == 12
    for line in ("rank-1 naive", "within class parrot", "gender kept", "quarantined", "evaluation.json"):
        assert line in done.stdout


def test_the_script_asks_for_the_field_that_names_people(copied: JobConfig) -> None:
    places = ["--input", copied.input.uri, "--output", copied.output.uri, "--workspace", copied.workspace.uri]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *places], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "--subject-field" in done.stderr
