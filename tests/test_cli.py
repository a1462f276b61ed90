"""The command line: instant help, a flag for every key, one sentence for every failure, and exit codes that mean it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from anonlib.cli import app
from anonlib.config import JobConfig, keys, page
from tests.support import photos
from tests.support.runs import Run, contents, job

HEAVY = ("torch", "ray", "cv2", "pyarrow", "faiss", "scipy", "openvino", "onnxruntime", "boto3")
CLI = CliRunner()


@pytest.fixture
def small(tmp_path: Path) -> JobConfig:
    """A folder with one good photo and one broken one, to be blacked out in this process."""
    source = tmp_path / "input"
    source.mkdir()
    (source / "good.jpg").write_bytes(photos.jpeg(photos.astronaut()))
    (source / "broken.jpg").write_bytes(b"not an image")
    return job(source, tmp_path, method={"name": "solid"})


def written(config: JobConfig, folder: Path) -> str:
    path = folder / "job.yaml"
    path.write_text(config.to_yaml())
    return str(path)


def test_help_loads_nothing_heavy_and_answers_within_half_a_second() -> None:
    code = (
        "import sys\nfrom anonlib.cli import app\n"
        "try: app(['--help'])\nfinally: print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    )
    seconds = []  # of the processor, since others may share the machine
    for _ in range(3):
        began = os.times()
        done = subprocess.run(
            [sys.executable, "-c", code.replace("{heavy}", repr(HEAVY))], capture_output=True, text=True, check=True
        )
        now = os.times()
        seconds.append(now.children_user + now.children_system - began.children_user - began.children_system)
        assert done.stderr.strip() == "[]"
        assert "purge" in done.stdout
    assert min(seconds) < 0.5


def test_every_key_is_described_and_but_for_a_mapping_has_a_flag_of_its_own() -> None:
    found = list(keys())
    assert all(key.description.endswith(".") for key in found)
    assert {key.path for key in found if key.flag is None} == {"policy.kept"}
    flags = [flag for key in found if key.flag for flag in key.flag.split("/")]
    assert len(set(flags)) == len(flags)
    assert {"--input", "--method", "--k", "--detector-side", "--keep-field", "--max-mpx", "--no-rekey"} <= set(flags)


def test_the_page_of_the_job_file_is_current() -> None:
    text = (Path(__file__).parents[1] / "docs" / "job-file.md").read_text()
    assert page(text) == text, "run python -m anonlib.config docs/job-file.md"


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    path = written(job(tmp_path / "input", tmp_path), tmp_path)
    flags = ["--k", "7", "--keep-field", "b", "--keep-field", "a", "--rekey", "--detector-score", "0.3"]
    done = CLI.invoke(app, ["run", path, *flags, "--print-config"])
    assert done.exit_code == 0
    shown = yaml.safe_load(done.stdout)
    assert (shown["method"]["k"], shown["keep_fields"], shown["rekey"]) == (7, ["a", "b"], True)
    assert shown["detector"]["score"] == 0.3
    assert shown["input"]["subject_field"] == "person"


def test_a_job_needs_no_file(tmp_path: Path) -> None:
    done = CLI.invoke(app, ["plan", "--input", "i", "--output", "o", "--workspace", "w", "--print-config"])
    assert yaml.safe_load(done.stdout)["workspace"] == {"uri": "w"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run"], "input: is missing"),
        (["run", "nowhere.yaml"], "cannot be read"),
        (["run", "--input", "a", "--output", "a", "--workspace", "w"], "must be separate places"),
        (["scan", "--input", "{i}", "--output", "o", "--workspace", "{w}", "--method", "magic"], "method.name"),
        (["run", "--input", "{i}", "--output", "{o}", "--workspace", "{w}"], "nothing-here"),
        (["status"], "--workspace"),
        (["sheet", "--input", "{i}", "--output", "{o}", "--workspace", "{w}"], "holds no release yet"),
        (["purge", "--yes", "--input", "{i}", "--output", "{o}", "--workspace", "{w}"], "holds no workspace"),
    ],
)
def test_what_a_person_can_mend_is_one_sentence_and_exit_code_1(
    arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    places = {"{i}": "nothing-here", "{o}": "o", "{w}": "w"}
    done = CLI.invoke(app, [str(tmp_path / places[one]) if one in places else one for one in arguments])
    assert done.exit_code == 1
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.output


def test_wrong_usage_is_exit_code_2() -> None:
    assert CLI.invoke(app, ["run", "--k", "many"]).exit_code == 2
    assert CLI.invoke(app, ["models", "pull", "--set", "every"]).exit_code == 2


def test_a_secret_is_never_shown(small: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT", "hush-hush")
    config = JobConfig.model_validate(small.model_dump() | {"secret": {"env": "SHORT"}})
    done = CLI.invoke(app, ["run", written(config, tmp_path)])
    assert done.exit_code == 1
    assert "SHORT (secret) has 9 characters; a secret is 32 random bytes" in done.stderr
    assert "hush" not in done.output


def test_the_stages_alone_make_a_job_and_each_refuses_what_it_lacks(small: JobConfig, tmp_path: Path) -> None:
    path = written(small, tmp_path)

    def verb(name: str) -> tuple[int, str]:
        done = CLI.invoke(app, [name, path])
        return done.exit_code, done.output

    assert verb("plan") == (1, "anonlib: 1 of 1 shards are not scanned yet; run `anonlib scan` first\n")
    assert verb("scan")[0] == 0
    code, said = verb("render")
    assert (code, "`anonlib plan` first" in said) == (1, True)
    assert verb("plan")[0] == 0
    code, said = verb("render")
    assert code == 3
    assert "2 = 1 released + 0 without a face + 1 quarantined" in said
    assert "1 quarantined: the file is not an image in a known format" in said


def test_a_quarantined_image_is_exit_code_3_and_a_second_run_says_the_same(small: JobConfig, tmp_path: Path) -> None:
    path = written(small, tmp_path)
    first = CLI.invoke(app, ["run", path])
    before = contents(tmp_path)
    second = CLI.invoke(app, ["run", path])
    assert (first.exit_code, second.exit_code) == (3, 3)
    assert first.stdout == second.stdout
    assert str(tmp_path / "release" / "manifest") in first.stdout
    assert second.stderr == ""
    assert contents(tmp_path) == before


def test_status_reads_markers_and_writes_nothing(small: JobConfig, tmp_path: Path) -> None:
    path = written(small, tmp_path)
    assert "nothing has run here" in CLI.invoke(app, ["status", path]).stdout
    CLI.invoke(app, ["run", path])
    before = contents(tmp_path)
    said = CLI.invoke(app, ["status", path]).stdout
    assert "scanned    1 of 1 shards" in said
    assert "rendered   1 of 1 shards" in said
    assert "1 quarantined: the file is not an image" in said
    places = ["--workspace", small.workspace.uri, "--output", small.output.uri]
    assert CLI.invoke(app, ["status", *places]).stdout == said
    assert contents(tmp_path) == before


def test_ctrl_c_says_that_a_rerun_continues(small: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("anonlib.job.Job.run", interrupted)
    done = CLI.invoke(app, ["run", written(small, tmp_path)])
    assert done.exit_code == 130
    assert "the same command continues" in done.stderr


def test_a_purge_asks_first(finished: Run, tmp_path: Path) -> None:
    workspace, release = tmp_path / "workspace", tmp_path / "release"
    shutil.copytree(finished.workspace, workspace)
    shutil.copytree(finished.output, release)
    path = written(job(finished.input, tmp_path), tmp_path)
    assert CLI.invoke(app, ["purge", path], input="n\n").exit_code == 1
    assert (workspace / "inventory.parquet").exists()
    assert CLI.invoke(app, ["purge", path, "--yes"]).exit_code == 0
    assert [one.name for one in workspace.iterdir()] == ["purged.json"]
    for verb in ("status", "run", "audit", "sheet", "review"):
        refused = CLI.invoke(app, [verb, path])
        assert (refused.exit_code, "was purged" in refused.stderr) == (1, True), verb


@pytest.mark.cluster
def test_nothing_of_ray_reaches_the_terminal(small: JobConfig, tmp_path: Path) -> None:
    path = written(small, tmp_path)
    command = [sys.executable, "-W", "error::DeprecationWarning:anonlib", "-m", "anonlib", "run", path]
    command[3:5] = ["-c", "from anonlib.cli import main; main()"]
    done = subprocess.run([*command, "--actors", "1"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["stage"] for line in lines] == ["scan"] * 2 + ["render"] * 2
    assert done.stdout.splitlines()[0].startswith("images")
