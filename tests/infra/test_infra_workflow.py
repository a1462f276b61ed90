"""The workflow runs the project's own commands, with no right that it does not need and no action that may change."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
ZIZMOR = shutil.which("zizmor", path=f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}") or "zizmor"
PLANTED = {
    "an action by its tag": ("@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2", "@v6", "unpinned-uses"),
    "credentials that stay": ("        with:\n          persist-credentials: false\n", "", "artipacked"),
    "every right": (
        "    permissions:\n      contents: read\n",
        "    permissions: write-all\n",
        "excessive-permissions",
    ),
    "a stranger's words in a shell": ("make lint", "echo ${{ github.event.pull_request.title }}", "template-injection"),
    "a stranger's code with our rights": ("  pull_request:", "  pull_request_target:", "dangerous-triggers"),
}


def audited(file: Path) -> tuple[int, str]:
    """zizmor's exit code and what it says; it asks no network."""
    command = [ZIZMOR, "--offline", "--no-progress", "--persona=pedantic", "--format=plain", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_zizmor_finds_nothing() -> None:
    code, said = audited(WORKFLOW)
    assert code == 0, said


@pytest.mark.parametrize("mistake", PLANTED)
def test_zizmor_finds_a_planted_mistake(mistake: str, tmp_path: Path) -> None:
    old, new, rule = PLANTED[mistake]
    text = WORKFLOW.read_text()
    assert old in text
    file = tmp_path / ".github" / "workflows" / "ci.yml"
    file.parent.mkdir(parents=True)
    file.write_text(text.replace(old, new))
    code, said = audited(file)
    assert code != 0 and rule in said, said


def test_the_workflow_runs_what_a_person_runs_on_the_python_of_the_project() -> None:
    workflow: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())
    assert workflow["permissions"] == {} and list(workflow["jobs"]) == ["test"]
    steps = workflow["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["make lint", "make test"]
    targets = (ROOT / "Makefile").read_text()
    assert all(f"\n{name}:" in targets for name in ("lint", "test"))
    python = next(step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", ""))
    assert f"PYTHON ?= python{python}\n" in targets
