"""A job that cannot go on says why in a sentence, and touches nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from anonlib.config import load_config
from anonlib.errors import ConfigError, JobError
from anonlib.job import Job
from anonlib.workspace.layout import PURGED
from tests.support import photos
from tests.support.runs import SECRET, contents, job, run_job

SOLID: dict[str, Any] = {"method": {"name": "solid"}}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    content = [("a.jpg", photos.jpeg(photos.nobody())), ("b.jpg", photos.jpeg(photos.astronaut()))]
    return photos.tar(tmp_path / "input" / "00000.tar", content).parent


def test_a_changed_input_is_refused(source: Path, tmp_path: Path) -> None:
    run_job(source, tmp_path, **SOLID)
    before = contents(tmp_path / "release")
    photos.tar(source / "00000.tar", [("a.jpg", photos.jpeg(photos.astronaut()))])
    with pytest.raises(JobError, match=r"came, went or changed.*new workspace"):
        Job(job(source, tmp_path, **SOLID))
    assert contents(tmp_path / "release") == before


def test_a_new_file_in_the_input_is_refused(source: Path, tmp_path: Path) -> None:
    run_job(source, tmp_path, **SOLID)
    photos.tar(source / "00001.tar", [("c.jpg", photos.jpeg(photos.nobody()))])
    with pytest.raises(JobError, match="is not the one that the workspace"):
        Job(job(source, tmp_path, **SOLID))


def test_an_input_that_changes_between_scan_and_render_is_not_released(source: Path, tmp_path: Path) -> None:
    """The boxes of the old image would be painted on the new one."""
    opened = Job(job(source, tmp_path, **SOLID))
    opened.scan()
    os.utime(source / "00000.tar", (1, 1))
    summary = opened.render(opened.make_plan())
    assert (summary.quarantined, summary.released, summary.code) == (2, 0, 3)
    assert not (tmp_path / "release" / "data").exists()


@pytest.mark.parametrize("change", [{"method": {"name": "blur"}}, {"rekey": True}, {"jpeg_quality": 80}])
def test_the_output_of_another_job_is_refused(source: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    run_job(source, tmp_path, **SOLID)
    before = contents(tmp_path / "release")
    with pytest.raises(JobError, match="holds a release of another job"):
        Job(job(source, tmp_path, **(SOLID | change))).run()
    assert contents(tmp_path / "release") == before


@pytest.mark.parametrize(
    ("output", "workspace"),
    [("same", "same"), ("same/release", "same"), ("same", "same/work"), ("input", "work"), ("input/out", "work")],
)
def test_places_inside_each_other_are_refused(tmp_path: Path, output: str, workspace: str) -> None:
    document = {
        "input": {"uri": str(tmp_path / "input")},
        "output": {"uri": str(tmp_path / output)},
        "workspace": {"uri": str(tmp_path / workspace)},
    }
    with pytest.raises(ConfigError, match="must be separate places"):
        load_config(None, document)


def test_a_purged_workspace_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / PURGED).write_text("{}")
    with pytest.raises(JobError, match="was purged"):
        Job(job(source, tmp_path, **SOLID))


def test_rendering_before_the_scan_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="1 of 1 shards are not scanned yet"):
        Job(job(source, tmp_path, **SOLID)).render()


def test_an_inventory_that_was_cut_short_is_written_by_the_next_run(source: Path, tmp_path: Path) -> None:
    """The driver may die between the note and the table."""
    Job(job(source, tmp_path, **SOLID)).scan()
    inventory = tmp_path / "workspace" / "inventory.parquet"
    whole = inventory.read_bytes()
    inventory.unlink()
    Job(job(source, tmp_path, **SOLID)).scan()
    assert inventory.read_bytes() == whole


def test_a_missing_or_short_secret_is_a_sentence(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANONLIB_TEST_SECRET", raising=False)
    config = job(source, tmp_path, secret={"env": "ANONLIB_TEST_SECRET"}, **SOLID)
    with pytest.raises(ConfigError, match=r"ANONLIB_TEST_SECRET .* is not set"):
        Job(config).scan()
    monkeypatch.setenv("ANONLIB_TEST_SECRET", "short")
    with pytest.raises(ConfigError, match="has 5 characters") as problem:
        Job(config).scan()
    assert "short" not in str(problem.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        Job(job(source, tmp_path, secret={"file": str(tmp_path / "nowhere")}, **SOLID)).scan()


def test_what_was_planned_with_one_secret_is_not_rendered_with_another(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANONLIB_TEST_SECRET", f"not {SECRET}")
    other = {"secret": {"env": "ANONLIB_TEST_SECRET"}}
    planned = Job(job(source, tmp_path, **SOLID))
    planned.scan()
    plan = planned.make_plan()
    with pytest.raises(ConfigError, match="holds another secret than the one that the workspace"):
        Job(job(source, tmp_path, **SOLID, **other)).scan()
    planned.render(plan)
    before = contents(tmp_path / "release")
    # Nor is a release gone on with, from a workspace that knows nothing of the first secret.
    elsewhere = {"workspace": {"uri": str(tmp_path / "another")}}
    with pytest.raises(JobError, match="holds a release of another job"):
        Job(job(source, tmp_path, **SOLID, **other, **elsewhere)).run()
    assert contents(tmp_path / "release") == before


def test_a_secret_that_nobody_gave_is_made_once_and_stays_in_the_workspace(source: Path, tmp_path: Path) -> None:
    run_job(source, tmp_path, secret={}, **SOLID)
    made = (tmp_path / "workspace" / "secret").read_bytes()
    run_job(source, tmp_path, secret={}, **SOLID)
    assert (tmp_path / "workspace" / "secret").read_bytes() == made != SECRET.encode()
    release = b"".join(path.read_bytes() for path in (tmp_path / "release").rglob("*") if path.is_file())
    assert made not in release
