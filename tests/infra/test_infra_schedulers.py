"""Slurm, Argo and Dagster divide a job into parts that know nothing of each other, and it ends in the same bytes.

Slurm's script is run, with a `sbatch` of the test's own that runs each step at once; so are the commands of the Argo
workflow, in the order of its graph. Dagster is not installed here: what its file says is read.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import yaml

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


def _environment(folder: Path) -> dict[str, str]:
    """A PATH with `anonlib` of this checkout and `sbatch`."""
    (folder / "bin").mkdir()
    (folder / "ran").mkdir()
    for name, text in (("sbatch", SBATCH), ("anonlib", f'#!/bin/sh\nexec {sys.executable} -m anonlib "$@"\n')):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o700)
    path = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(INFRA.parent)}
    return os.environ | path | {"RAN": str(folder / "ran"), "LOG": str(folder / "log")}


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
    return [path.read_text().split()[-1] for path in sorted((folder / "ran").iterdir())]


def test_slurm_divides_a_job_and_it_ends_in_the_same_bytes(finished: Run, tmp_path: Path) -> None:
    assert _slurm(finished, tmp_path, "scan") == ["scan", "plan", "render", "finish"]
    assert contents(tmp_path / "release") == contents(finished.output)


def test_argo_divides_a_job_and_it_ends_in_the_same_bytes(finished: Run, tmp_path: Path) -> None:
    templates = {each["name"]: each for each in yaml.safe_load(WORKFLOW.read_text())["spec"]["templates"]}
    tasks = {task["name"]: task for task in templates["job"]["dag"]["tasks"]}
    order = TopologicalSorter({name: {task["depends"]} if "depends" in task else () for name, task in tasks.items()})
    environment, file = _environment(tmp_path), _written(finished, tmp_path)
    for task in (tasks[name] for name in order.static_order()):
        (what,) = (each["value"] for each in task["arguments"]["parameters"])
        for item in range(2) if "withSequence" in task else [0]:
            filled = what.replace("{{item}}", str(item)).replace("{{workflow.parameters.parts}}", "2")
            filled = filled.replace("/job/job.yaml", str(file))
            command = [*templates["step"]["container"]["command"][:-1], filled]
            for _ in range(1 + int(templates["step"]["retryStrategy"]["limit"])):
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                if done.returncode == 0:
                    break
            assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "release") == contents(finished.output)


def test_a_part_of_a_job_that_plans_people_is_refused(finished: Run, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "anonlib", "run", str(_written(finished, tmp_path)), "--part"]
    for part, words in (("0/2", "scan --part, plan, render --part"), ("2/2", "counted from 0")):
        done = subprocess.run([*command, part], capture_output=True, text=True, check=False)
        assert done.returncode in (1, 2) and words in " ".join(done.stderr.split()), done.stderr


@pytest.mark.parametrize("script", [SCRIPT])
def test_the_script_is_bash(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


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


def test_slurm_divides_a_redaction_in_one_step(finished: Run, tmp_path: Path) -> None:
    solid = run_job(finished.input, tmp_path / "whole", method={"name": "solid"})
    (tmp_path / "parts").mkdir()
    assert _slurm(solid, tmp_path / "parts", "redact") == ["redact", "finish"]
    assert contents(tmp_path / "parts" / "release") == contents(solid.output)
