"""The command line: instant help, a flag for every key, one sentence for every failure, and exit codes that mean it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from anonlib.cli import app
from anonlib.config import JobConfig, keys
from tests.support import photos
from tests.support.jobs import script
from tests.support.runs import contents, job

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


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom anonlib.cli import app\n"
        f"try: app(['--help'])\nfinally: print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "purge" in done.stdout


def test_every_key_is_described_and_on_its_page_and_but_for_a_mapping_has_a_flag_of_its_own() -> None:
    found = list(keys())
    assert all(key.description.endswith(".") for key in found)
    assert {key.path for key in found if key.flag is None} == {"hide", "input.boxes_kinds", "policy.kept"}
    flags = [flag for key in found if key.flag for flag in key.flag.split("/")]
    assert len(set(flags)) == len(flags)
    text = (Path(__file__).parents[1] / "docs" / "job-file.md").read_text()
    assert script("job_file").page(text) == text, "run python jobs/job_file.py"
    assert {"--input", "--method", "--k", "--detector-side", "--keep-field", "--max-mpx", "--no-rekey"} <= set(flags)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    path = written(job(tmp_path / "input", tmp_path), tmp_path)
    flags = ["--k", "7", "--keep-field", "b", "--keep-field", "a", "--rekey", "--detector-score", "0.3"]
    done = CLI.invoke(app, ["run", path, *flags, "--print-config"])
    assert done.exit_code == 0
    shown = yaml.safe_load(done.stdout)
    assert (shown["method"]["k"], shown["keep_fields"], shown["rekey"]) == (7, ["a", "b"], True)
    assert shown["detector"]["score"] == 0.3
    assert shown["input"]["subject_field"] == "person"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run"], "input: is missing"),
        (["run", "nowhere.yaml"], "cannot be read"),
        (["run", "--input", "a", "--output", "a", "--workspace", "w"], "must be separate places"),
        (["scan", "--input", "{i}", "--output", "o", "--workspace", "{w}", "--method", "magic"], "method.name"),
        (["run", "--input", "{i}", "--output", "{o}", "--workspace", "{w}"], "nothing-here"),
        (["status"], "--workspace"),
        (["purge", "--yes", "--input", "{i}", "--output", "{o}", "--workspace", "{w}"], "holds no workspace"),
    ],
)
def test_what_a_person_can_mend_is_a_sentence_and_exit_code_1(
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
    done = CLI.invoke(app, ["models", "pull", "--set", "centrface"])
    assert done.exit_code == 2 and "there is no 'centrface'; did you mean centerface?" in done.stderr


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


def test_a_second_run_says_the_same_and_status_writes_nothing(small: JobConfig, tmp_path: Path) -> None:
    path = written(small, tmp_path)
    assert "nothing has run here" in CLI.invoke(app, ["status", path]).stdout
    first = CLI.invoke(app, ["run", path])
    before = contents(tmp_path)
    second = CLI.invoke(app, ["run", path])
    assert (first.exit_code, second.exit_code) == (3, 3)
    assert first.stdout == second.stdout and second.stderr == ""
    assert str(tmp_path / "release" / "manifest") in first.stdout
    said = CLI.invoke(app, ["status", path]).stdout
    for line in ("scanned    1 of 1 shards", "rendered   1 of 1 shards", "1 quarantined: the file is not an image"):
        assert line in said
    places = ["--workspace", small.workspace.uri, "--output", small.output.uri]
    assert CLI.invoke(app, ["status", *places]).stdout == said
    assert contents(tmp_path) == before


def test_a_purge_asks_first(copied: JobConfig, tmp_path: Path) -> None:
    workspace, path = tmp_path / "workspace", written(copied, tmp_path)
    assert CLI.invoke(app, ["purge", path], input="n\n").exit_code == 1
    assert (workspace / "inventory.parquet").exists()
    assert CLI.invoke(app, ["purge", path, "--yes"]).exit_code == 0
    assert [one.name for one in workspace.iterdir()] == ["purged.json"]
    for verb in ("status", "run", "audit", "review"):
        refused = CLI.invoke(app, [verb, path])
        assert (refused.exit_code, "was purged" in refused.stderr) == (1, True), verb


@pytest.mark.cluster
def test_nothing_of_ray_reaches_the_terminal(small: JobConfig, tmp_path: Path) -> None:
    path = written(small, tmp_path)
    command = [sys.executable, "-W", "error::DeprecationWarning:anonlib", "-m", "anonlib", "run", path, "--actors", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["stage"] for line in lines] == ["redact"] * 2
    assert done.stdout.splitlines()[0].startswith("images")


def test_labels_are_never_taken_for_signed_pictures(tmp_path: Path) -> None:
    asked = ["export", "release", "--to", "coco", "--into", str(tmp_path), "--private-key", "key.pem"]
    done = CLI.invoke(app, asked)
    assert done.exit_code == 2 and "only c2pa signs" in done.output
