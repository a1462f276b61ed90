"""Slurm, Argo and Dagster divide a job into parts that know nothing of each other, and it ends in the same bytes.

Slurm's script is run, with a `sbatch` of the test's own that runs each step at once. The commands of the Argo workflow
must be the same, in the order of its graph. Dagster is not installed here: what its file says is read.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from anonlib.cli import app
from tests.support import photos
from tests.support.runs import Run, contents, job, run_job
from tests.support.runs import salted as with_salt

INFRA = Path(__file__).parents[2] / "infra"
SCRIPT, WORKFLOW, DAGSTER = INFRA / "slurm/anonlib.sh", INFRA / "argo/workflow.yaml", INFRA / "dagster/anonlib_job.py"
SBATCH = """#!/usr/bin/env bash
# Runs what it is given at once, an array's tasks all together, and answers with a number, however they ended.
array="" script=() dependency=""
for word in "$@"; do case $word in
  --array=0-*) array=${word#--array=0-};;
  --dependency=afterany:*) dependency=${word#--dependency=afterany:};;
  --parsable) ;;
  *) script+=("$word");;
esac; done
[[ -z $dependency || -e $RAN/$dependency ]] || exit 9
number=$(( $(ls "$RAN" | wc -l) + 1 ))
if [[ -n $array ]]; then
  for task in $(seq 0 "$array"); do SLURM_ARRAY_TASK_ID=$task "${script[@]}" >>"$LOG" 2>&1 & done
  wait
else "${script[@]}" >>"$LOG" 2>&1; fi
echo "${script[*]:1}" >"$RAN/$number"; echo "$number"
"""


ANONLIB = """#!/bin/sh
echo "$@" >>"$COMMANDS"
$THEN"""


def _environment(folder: Path, then: str = f'exec {sys.executable} -m anonlib "$@"') -> dict[str, str]:
    """A PATH with `sbatch`, and with an `anonlib` that notes its arguments and goes on as that of this checkout."""
    (folder / "bin").mkdir()
    (folder / "ran").mkdir()
    for name, text in (("sbatch", SBATCH), ("anonlib", ANONLIB.replace("$THEN", then))):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o700)
    path = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(INFRA.parent)}
    return os.environ | path | {name.upper(): str(folder / name) for name in ("ran", "log", "commands")}


def _commands(folder: Path, file: str) -> list[str]:
    """What `anonlib` was asked to do, a stage's parts in their order, without the name of the job file."""
    stages = ("scan", "plan", "render", "run")
    asked = (folder / "commands").read_text().replace(f" {file}", "").splitlines()
    return sorted(asked, key=lambda command: (stages.index(command.split()[0]), "--part" not in command, command))


STEPS = [
    *(f"scan --actors 0 --part {part}/2" for part in range(2)),
    "plan --actors 0",
    *(f"render --actors 0 --part {part}/2" for part in range(2)),
    "run --actors 0",
]


def _written(run: Run, folder: Path) -> Path:
    """The job of `run`, with places of its own below `folder`, in a file."""
    method = run.config.method.model_dump(exclude_unset=True)
    config = with_salt(job(run.input, folder, method=method, secret=run.config.secret.model_dump()))
    (folder / "job.yaml").write_text(config.to_yaml())
    return folder / "job.yaml"


def _slurm(run: Run, folder: Path, first: str) -> list[str]:
    environment = _environment(folder) | {"ANONLIB_FIRST": first}
    command = ["bash", str(SCRIPT), str(_written(run, folder)), "2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + (folder / "log").read_text()[-2000:]
    return _commands(folder, str(folder / "job.yaml"))


def test_slurm_divides_a_job_and_it_ends_in_the_same_bytes(finished: Run, tmp_path: Path) -> None:
    assert _slurm(finished, tmp_path, "scan") == STEPS
    assert contents(tmp_path / "release") == contents(finished.output)


def test_slurm_divides_a_redaction_in_one_step(tmp_path: Path) -> None:
    for shard, pixels in enumerate((photos.astronaut()[:300, 80:380], photos.nobody())):
        photos.tar(tmp_path / "input" / f"{shard}.tar", [("a.jpg", photos.jpeg(pixels))])
    solid = run_job(tmp_path / "input", tmp_path / "whole", method={"name": "solid"})
    (tmp_path / "parts").mkdir()
    assert _slurm(solid, tmp_path / "parts", "redact") == [
        step.replace("scan", "run") for step in (*STEPS[:2], STEPS[-1])
    ]
    assert contents(tmp_path / "parts" / "release") == contents(solid.output)


def test_argo_does_what_slurm_does_and_takes_what_is_quarantined_for_no_failure(tmp_path: Path) -> None:
    templates = {each["name"]: each for each in yaml.safe_load(WORKFLOW.read_text())["spec"]["templates"]}
    tasks = {task["name"]: task for task in templates["job"]["dag"]["tasks"]}
    order = TopologicalSorter({name: {task["depends"]} if "depends" in task else () for name, task in tasks.items()})
    assert list(order.static_order()) == ["scan", "plan", "render", "finish"]
    *shell, _ = templates["step"]["container"]["command"]
    for code, ends in ((3, 0), (1, 1)):
        (tmp_path / str(code)).mkdir()
        environment = _environment(tmp_path / str(code), f"exit {code}")
        for task in tasks.values():
            (what,) = (each["value"] for each in task["arguments"]["parameters"])
            for item in range(2) if "withSequence" in task else [0]:
                filled = what.replace("{{item}}", str(item)).replace("{{workflow.parameters.parts}}", "2")
                assert subprocess.run([*shell, filled], env=environment, check=False).returncode == ends
        assert _commands(tmp_path / str(code), "/job/job.yaml") == STEPS


def test_a_part_of_a_job_that_plans_people_is_refused(finished: Run, tmp_path: Path) -> None:
    for part, words in (("0/2", "scan --part, plan, render --part"), ("2/2", "counted from 0")):
        done = CliRunner().invoke(app, ["run", str(_written(finished, tmp_path)), "--part", part])
        assert done.exit_code in (1, 2) and words in " ".join(done.output.split()), done.output


def test_the_workflow_confines_its_pods() -> None:
    workflow: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())
    assert (workflow["apiVersion"], workflow["kind"]) == ("argoproj.io/v1alpha1", "Workflow")
    (step,) = [each for each in workflow["spec"]["templates"] if "container" in each]
    confined = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert step["container"]["securityContext"] == confined and step["securityContext"]["runAsNonRoot"]
    assert {mount["name"] for mount in step["container"]["volumeMounts"]} == {
        volume["name"] for volume in workflow["spec"]["volumes"]
    }


def test_dagster_runs_the_commands_of_the_others_in_their_order() -> None:
    tree = ast.parse(DAGSTER.read_text())
    calls = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "anonlib"
    ]
    assert [ast.literal_eval(call.args[0]) for call in calls] == ["scan", "plan", "render", "run"]
