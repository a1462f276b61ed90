"""The workflow runs the project's own commands, with no right that it does not need and no action that may change."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
ZIZMOR = shutil.which("zizmor", path=f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}") or "zizmor"


def loose() -> list[str]:
    """What `make` would install in whatever version there is."""
    makefile = (ROOT / "Makefile").read_text()
    commands = re.findall(r"pip install (.*)", makefile)
    assert commands and (ROOT / "constraints.txt").is_file() and "PINS   ?= constraints.txt\n" in makefile
    pinned = "--constraint $(PINS)", "--constraint tests/infra/checkov.txt"
    built = [command for command in commands if "-e " in command and "--no-build-isolation" not in command]
    return built + [command for command in commands if not any(words in command for words in pinned)]


def unpinned() -> list[str]:
    """The project's own needs that constraints.txt does not hold in a version that pyproject.toml accepts."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = ("run", "cluster", "notebooks", "report", "review", "dev")
    needs = [*project["dependencies"], *(need for name in groups for need in project["optional-dependencies"][name])]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    wanted = [need for need in map(Requirement, needs) if need.name != "anonlib"]
    return [str(need) for need in wanted if not need.specifier.contains(pins.get(canonicalize_name(need.name), "0"))]


def test_make_installs_pinned_versions_alone() -> None:
    assert loose() == [] and unpinned() == []


def test_zizmor_finds_nothing() -> None:
    command = [ZIZMOR, "--offline", "--no-progress", "--persona=pedantic", "--format=plain", str(WORKFLOW)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_runs_what_a_person_runs_on_the_python_of_the_project() -> None:
    workflow: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())
    assert workflow["permissions"] == {} and list(workflow["jobs"]) == ["test"]
    steps = workflow["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["make lint", "make test"]
    targets = (ROOT / "Makefile").read_text()
    assert all(f"\n{name}:" in targets for name in ("lint", "test"))
    python = next(step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", ""))
    assert f"PYTHON ?= python{python}\n" in targets


CHECKOV = Path(os.environ.get("CHECKOV") or Path(sys.prefix) / "checkov" / "bin" / "checkov")
FRAMEWORKS = ("terraform", "dockerfile", "kubernetes")


@pytest.mark.skipif(not CHECKOV.is_file(), reason=f"there is no {CHECKOV}: `make test` makes it")
def test_checkov_finds_nothing_in_infra_and_asks_no_network() -> None:
    """It lives in an environment of its own, because it pins what the project needs newer."""
    where = ["-d", str(ROOT / "infra"), "--framework", *FRAMEWORKS]
    apart = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(CHECKOV), *where, "--skip-download", "-o", "json", "--quiet"]
    done = subprocess.run(command, env=apart, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert {one["check_type"] for one in found} == set(FRAMEWORKS)
    assert not any(one["summary"]["parsing_errors"] for one in found)
    assert {check["check_id"] for one in found for check in one["results"]["failed_checks"]} == set()
