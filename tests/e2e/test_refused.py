"""A job that cannot go on says why and touches nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from anonlib.config import load_config
from anonlib.errors import ConfigError, JobError
from anonlib.job import Job
from tests.support import photos
from tests.support.runs import contents, job, run_job

SOLID: dict[str, Any] = {"method": {"name": "solid"}}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    content = [("a.jpg", photos.jpeg(photos.nobody())), ("b.jpg", photos.jpeg(photos.astronaut()))]
    return photos.tar(tmp_path / "input" / "00000.tar", content).parent


def test_a_changed_input_or_a_new_file_is_refused(source: Path, tmp_path: Path) -> None:
    run_job(source, tmp_path, **SOLID)
    before = contents(tmp_path / "release")
    photos.tar(source / "00000.tar", [("a.jpg", photos.jpeg(photos.astronaut()))])
    with pytest.raises(JobError, match=r"came, went or changed.*new workspace"):
        Job(job(source, tmp_path, **SOLID))
    photos.tar(source / "00001.tar", [("c.jpg", photos.jpeg(photos.nobody()))])
    with pytest.raises(JobError, match="is not the one that the workspace"):
        Job(job(source, tmp_path, **SOLID))
    assert contents(tmp_path / "release") == before


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
    places = {"input": "input", "output": output, "workspace": workspace}
    with pytest.raises(ConfigError, match="must be separate places"):
        load_config({name: {"uri": str(tmp_path / place)} for name, place in places.items()})


def test_an_inventory_that_was_cut_short_is_written_by_the_next_run(source: Path, tmp_path: Path) -> None:
    """The driver may die between the note and the table."""
    Job(job(source, tmp_path, **SOLID)).scan()
    inventory = tmp_path / "workspace" / "inventory.parquet"
    whole = inventory.read_bytes()
    inventory.unlink()
    Job(job(source, tmp_path, **SOLID)).scan()
    assert inventory.read_bytes() == whole
