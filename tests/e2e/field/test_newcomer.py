"""What a new user types, with the README and --help alone: each line is answered by what he can act on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from anonlib.cli import app
from anonlib.job import Job
from anonlib.terminal import print_summary
from anonlib.workspace.layout import plan_store
from anonlib.workspace.status import crowd_of
from tests.support import photos
from tests.support.runs import Run, contents, job, planned_copy, started

CLI = CliRunner()
PLACES = ["--input", "i", "--output", "o", "--workspace", "w"]


def said(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    done = CLI.invoke(app, list(arguments))
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def blacked_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with a photo that was run by flags alone, and the places of the run."""
    root = tmp_path_factory.mktemp("newcomer")
    photos.fill(root / "in", {"a.jpg": photos.jpeg(photos.astronaut())})
    places = ["--workspace", str(root / "workspace"), "--output", str(root / "release")]
    done = said("run", "--input", str(root / "in"), *places, "--method", "solid", "--actors", "0")
    assert done[0] == 0, done
    return root, places


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--method", "solidd"], "method.name: there is no 'solidd'; did you mean solid?"),
        (["--method", "zzz"], "method.name: there is no 'zzz'; it is one of k-diff, k-same,"),
        (["--texture", "averge"], "method.texture: there is no 'averge'; did you mean average?"),
        (["--detector", "scrdf"], "there is no detector 'scrdf'; did you mean scrfd?"),
        (["--method", "dp-vmf"], "dp-vmf needs a value of method.kappa"),
        (["--method", "dp-laplace"], "dp-laplace needs a value of method.epsilon"),
        (["--k", "1"], "method.k: must be at least 2"),
    ],
)
def test_a_mistyped_word_is_answered_by_the_nearest_and_a_missing_value_by_its_name(
    flags: list[str], sentence: str
) -> None:
    code, _, stderr = said("run", *PLACES, *flags)
    assert code == 1 and sentence in stderr and stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"input": "shards"}, "input: holds keys of its own; write input: {uri: ...}"),
        ({"secret": "a-passphrase-in-a-wrong-place"}, "secret: holds keys of its own; write secret: {env: ...}"),
        ({"keep_fields": "caption"}, "keep_fields: must be a list, such as [caption]"),
        ({"method": {"k": "many"}}, "method.k: must be a whole number"),
        ({"rekey": "perhaps"}, "rekey: must be true or false"),
        ({"keep_field": ["a"]}, "keep_field: is not a key of a job file; did you mean keep_fields?"),
        ({"k": 5}, "k: is not a key of a job file; did you mean method.k?"),
        ({"method": {"textre": "average"}}, "method.textre: is not a key of a job file; did you mean texture?"),
        ({"ray": {"actor": 1}}, "ray.actor: is not a key of a job file; did you mean actors?"),
        ({"method": {"name": ["solid"]}}, "method.name: there is no '['solid']'"),
        ({"detector": {"name": "none"}}, "none stands alone, and needs input.boxes_field"),
    ],
)
def test_a_job_file_that_is_wrong_is_answered_in_plain_words(
    change: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({name: {"uri": name} for name in ("input", "output", "workspace")} | change))
    code, _, stderr = said("run", str(path))
    assert code == 1 and sentence in stderr and stderr.count("\n") == 1
    assert not any(word in stderr for word in ("Input should", "valid dictionary", "a-passphrase"))


def test_a_summary_says_who_was_told_apart_who_crosses_and_what_the_claim_covers(
    finished: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    job_done = Job(finished.config)
    print_summary(job_done, finished.summary)
    shown = capsys.readouterr().out
    store = plan_store(job_done.stores, job_done.plan_key)
    crowd = crowd_of(store)
    assert crowd is not None
    people, number, other_gender, other_age = crowd
    assert people == 12 and 2 <= number <= 6
    crossing = f"{other_gender} wear a face that is not of their gender, {other_age} one that is not of"
    assert f"people     12 in {number} classes; {crossing} their age band\n" in shown
    assert "\nwarning    classes are few: people in one photo may wear the same face" in shown
    assert "claim      k-anonymity of the identity channel, k = 2: 24 of 24 faces are inside it\n" in shown
    # Counted anew: a class of a man and a woman shows a face that is not of the gender of one of them, or of both.
    strata = {row["person_id"]: row["stratum"] for row in store.subjects().to_pylist()}
    for row in store.classes():
        genders = {strata[member][0] for member in row["members"]}
        assert len(genders) == 1 or other_gender > 0


@pytest.mark.parametrize(
    ("k", "sentence"),
    [
        (50, "k = 50 is more than half of the 12 people that the plan found"),
        (7, "ellipses; take k of 6 or less, add photos of more people"),
        (5, "none of the 12 people that the plan found can get a new face at k = 5"),
    ],
)
def test_a_job_of_too_few_people_ends_after_the_plan_and_goes_on_when_told(
    finished: Run, tmp_path: Path, k: int, sentence: str
) -> None:
    config = planned_copy(finished, tmp_path, method={"name": "k-diff", "k": k, "texture": "average"}, too_few="stop")
    (tmp_path / "job.yaml").write_text(config.to_yaml())
    for _ in range(2):  # the plan is there the second time
        code, out, stderr = said("run", str(tmp_path / "job.yaml"))
        assert code == 1 and out == "" and sentence in stderr.splitlines()[-1] and "--too-few ellipse" in stderr
    assert contents(tmp_path / "release") == {}
    assert said("plan", str(tmp_path / "job.yaml"), "--too-few", "ellipse")[0] == 0


# A shell's foreground process hears of Ctrl-C; that of a test's worker process is told to ignore it.
COMMAND = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from anonlib.cli import main; sys.argv[1:] = ['run', sys.argv[1]]; main()"
)


@pytest.mark.parametrize("actors", [0, pytest.param(1, marks=pytest.mark.cluster)])
def test_ctrl_c_leaves_one_sentence_and_no_word_of_a_worker_that_died(tmp_path: Path, actors: int) -> None:
    for number in range(40):
        photos.tar(tmp_path / "in" / f"{number}.tar", [("a.jpg", photos.jpeg(photos.nobody()[:64, :64]))])
    config = job(tmp_path / "in", tmp_path, ray={"actors": actors}, method={"name": "solid"})
    with started(config, tmp_path / "run", COMMAND) as running:
        assert running.wait_for(lambda: '"unit"' in running.complaints)
        os.killpg(running.process.pid, signal.SIGINT)  # as a terminal sends it
        assert running.finish(60) == 130
    *log, empty, sentence = running.complaints.splitlines()
    assert (empty, sentence) == ("", "anonlib: interrupted; what is finished is kept, and the same command continues.")
    last = json.loads(log[-1])
    assert all(json.loads(line)["stage"] for line in log) and "died" not in running.complaints
    assert last["remaining"] > 0 and last["why"] == "the round was cut short before they were done"
    assert running.lines == []


@pytest.mark.parametrize("places", [slice(None), slice(2)])
def test_a_job_that_has_run_is_named_by_its_workspace_alone(
    blacked_out: tuple[Path, list[str]], places: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Any] = []
    monkeypatch.setattr("anonlib.review.review", lambda config, *_, **__: served.append(config))
    root, named = blacked_out[0], blacked_out[1][places]
    assert "rendered   1 of 1 shards" in said("status", *named)[1]
    assert said("review", *named)[0] == 0 and served[0].input.uri == str(root / "in")
    if len(named) == 4:
        (root / "release").rename(root / "moved")
        assert said("status", *named[:3], str(root / "moved"))[0] == 0
        (root / "moved").rename(root / "release")


def test_a_command_without_a_place_or_with_a_wrong_key_is_a_sentence(
    blacked_out: tuple[Path, list[str]], tmp_path: Path
) -> None:
    for verb in ("review", "audit", "purge"):
        assert "name a job file, or the workspace by --workspace" in said(verb)[2]
        assert "keeps no job; name the job file" in said(verb, "--workspace", str(tmp_path / "w"))[2]
    assert "nothing has run here" in said("status", "--workspace", str(tmp_path / "w"))[1]
    for place in (tmp_path / "nonexist", tmp_path):
        assert said("verify", str(place)) == (1, "", f"anonlib: there is no release at {place}\n")
    code, _, stderr = said("verify", str(blacked_out[0] / "release"), "--key", "abcd")
    assert code == 1 and "'abcd' is not a public key: 64 hex digits" in stderr
    assert "not by the one that was given" in said("verify", str(blacked_out[0] / "release"), "--key", "0" * 64)[2]


def test_every_command_of_the_readme_has_the_flags_that_it_is_given() -> None:
    text = (Path(__file__).parents[3] / "README.md").read_text()
    lines = [line.split("#")[0].split() for line in text.splitlines() if line.startswith("    anonlib ")]
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert len(lines) > 12 and len(text.encode()) < 9_000
    for _, verb, *arguments in lines:
        known = {option for parameter in commands[verb].params for option in parameter.opts}
        assert {word for word in arguments if word.startswith("--")} <= known | {"--help"}, verb
    own = text.partition("## A folder of your own")[2].partition("\n## ")[0]
    assert len([line for line in own.splitlines() if line.startswith("    ")]) <= 10
