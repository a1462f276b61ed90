"""The same job gives the same bytes: on Ray or not, once or twice, on a disk or on S3."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anonlib.job import Job
from tests.support.runs import SECRET, Run, contents, job, lasting, manifest, run_job, started


@pytest.fixture(scope="module")
def on_ray(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the same job run by two actors on two shards each, in small chunks, its secret in the environment."""
    root = tmp_path_factory.mktemp("ray")
    how = {"ray": {"actors": 2, "shards": 2}, "limits": {"chunk": 5, "memory_mib": 4}}
    config = job(finished.input, root, **how, secret={"env": "ANONLIB_TEST_SECRET"})
    with started(config, root / "process", ANONLIB_TEST_SECRET=SECRET) as run:
        assert run.finish() == 0, run.complaints
        assert json.loads(run.lines[-1])["committed"] == finished.summary.shards
    return root


@pytest.mark.cluster
def test_two_actors_on_two_shards_each_end_in_the_bytes_of_a_serial_run(finished: Run, on_ray: Path) -> None:
    assert finished.summary.released > 20 and finished.summary.faces > 20
    assert contents(on_ray / "release") == contents(finished.output)
    assert lasting(on_ray / "workspace") == lasting(finished.workspace)


def test_a_second_run_does_nothing(finished: Run) -> None:
    def stamps() -> dict[str, int]:
        places = (finished.output, finished.workspace)
        return {str(path): path.stat().st_mtime_ns for place in places for path in place.rglob("*")}

    before, bytes_before, reports = stamps(), contents(finished.output), []
    again = Job(finished.config, report=lambda stage, outcome, units: reports.append(stage)).run()
    assert again == finished.summary
    assert reports == []
    assert contents(finished.output) == bytes_before
    assert stamps() == before


def test_only_the_secret_and_the_name_of_the_release_make_new_keys(one_shard: Run, tmp_path: Path) -> None:
    def keys(root: str, secret: str, release: str) -> list[str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ANONLIB_TEST_SECRET", secret)
            places = {"output": {"uri": str(tmp_path / root / "release"), "release": release}}
            changes = places | {"secret": {"env": "ANONLIB_TEST_SECRET"}, "method": {"name": "solid"}, "rekey": True}
            return [row["key"] for row in manifest(run_job(one_shard.input, tmp_path / root, **changes).output)]

    first = keys("first", SECRET, "one")
    assert keys("again", SECRET, "one") == first
    assert not set(keys("secret", SECRET + "!", "one")) & set(first)
    assert not set(keys("release", SECRET, "two")) & set(first)


def test_no_marker_has_a_time_a_host_or_a_process(finished: Run) -> None:
    for path in [*finished.workspace.rglob("*.json"), *finished.output.rglob("*.json")]:
        keys = set(json.loads(path.read_text()))
        assert not keys & {"time", "host", "pid", "worker", "seconds", "began", "date"}
