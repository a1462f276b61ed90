"""The doctor tries what a job will do, and says what to mend."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from anonlib.cli import app
from anonlib.config import JobConfig
from anonlib.doctor import CheckResult, _shape, examine
from anonlib.execution.capacity import ClusterNode
from tests.support import photos
from tests.support.runs import SECRET, job


@pytest.fixture
def ready(tmp_path: Path) -> JobConfig:
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(photos.jpeg(photos.nobody()))
    return job(folder, tmp_path, input={"uri": str(folder)})


def about(what: str, config: JobConfig | None) -> list[CheckResult]:
    return [one for one in examine(config) if one.what == what]


def changed(config: JobConfig, **changes: object) -> JobConfig:
    return JobConfig.model_validate(config.model_dump() | changes)


def test_a_job_that_can_run_has_no_problem(ready: JobConfig, tmp_path: Path) -> None:
    findings = list(examine(ready))
    assert [one for one in findings if one.level == "problem"] == []
    assert {"python", "ray", "models", "licences", "input", "output", "workspace", "secret", "disk"} <= {
        one.what for one in findings
    }
    path = tmp_path / "job.yaml"
    path.write_text(ready.to_yaml())
    assert CliRunner().invoke(app, ["doctor", str(path)]).exit_code == 0


def test_a_missing_model_is_named(ready: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANONLIB_MODELS", str(tmp_path / "none"))
    (finding,) = about("models", ready)
    assert (finding.level, finding.advice) == ("problem", "anonlib models pull")
    assert "centerface is missing" in finding.found
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 1


def test_an_input_without_the_label_is_a_warning_and_none_at_all_a_problem(ready: JobConfig, tmp_path: Path) -> None:
    config = changed(ready, input=ready.input.model_dump() | {"subject_field": "persona"})
    assert [one.level for one in about("input", config)] == ["ok", "warning"]
    config = changed(ready, input={"uri": str(tmp_path / "nowhere")}, ray={"actors": 0})
    levels = {one.what: one.level for one in examine(config)}
    assert (levels["input"], levels["workspace"]) == ("problem", "ok")


def test_a_place_that_cannot_be_written_is_a_problem(ready: JobConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    config = changed(ready, output={"uri": str(tmp_path / "file" / "release")})
    (finding,) = about("output", config)
    assert finding.level == "problem"
    drawn = {"name": "dp-uniform", "texture": "ksame-net"}
    config = changed(ready, ledger={"uri": str(tmp_path / "file" / "ledger")}, method=drawn, secret={"env": "S"})
    assert [one.level for one in about("ledger", config)] == ["problem"]
    assert any("add ksame-net to accept_licences" in finding.found for finding in about("models", config))


def test_a_secret_is_found_but_never_shown(ready: JobConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"secret": {"env": "ANONLIB_TEST_SECRET"}, "signing": {"env": "ANONLIB_TEST_SECRET"}}
    config = changed(ready, ray={"actors": 0}, **both)
    assert {one.what for one in examine(config) if one.level == "problem"} == {"secret", "signing"}
    for secret, level in (("hush-hush-hush-hush", "warning"), (SECRET, "ok")):
        monkeypatch.setenv("ANONLIB_TEST_SECRET", secret)
        (finding,) = about("secret", config)
        assert finding.level == level and ("openssl rand -hex 32" in finding.advice) == (level == "warning")
        assert not any(secret[:4] in one.found + one.advice for one in examine(config))
    assert [one.level for one in about("signing", config)] == ["ok"] and about("signing", ready) == []
    (finding,) = about("secret", changed(ready, secret={}))
    assert "makes one" in finding.found


def test_a_shape_that_ray_would_wait_on_for_ever_is_a_problem_but_where_machines_may_still_come(
    ready: JobConfig,
) -> None:
    there = [ClusterNode(cpus=0), ClusterNode(cpus=4, gpus=1)]
    never = _shape(changed(ready, ray={"actors": 1, "num_gpus": 99}), 1, there)
    assert (never.level, "each with 1 CPU and 99 GPUs of one machine, but" in never.found) == ("problem", True)
    short = _shape(changed(ready, ray={"actors": 8, "address": "here:1"}), 8, there)
    assert (short.level, "waits up to 300 s" in short.advice) == ("warning", True)
