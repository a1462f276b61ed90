"""The images' recipe is pinned, complete and runs as a numbered user; nothing of the user's gets into a layer.

hadolint and checkov look at the Dockerfile; here is what they do not know.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "infra" / "docker"
HADOLINT = shutil.which("hadolint", path=f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}") or "hadolint"
PINNED = re.compile(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}")
REQUIREMENT = re.compile(r"^([\w-]+)==(\S+) \\\n    --hash=sha256:([0-9a-f]{64})$", re.MULTILINE)
SECRET = re.compile(r"\b(?:ARG|ENV)\b.*?\b\w*(?:SECRET|TOKEN|PASSWORD|CREDENTIAL|ACCESS_KEY)\w*", re.IGNORECASE)


def locked(root: Path) -> dict[str, str]:
    """Package -> version in the images, torch among them."""
    pins = REQUIREMENT.findall((root / "infra" / "docker" / "requirements.txt").read_text())
    torch = set(re.findall(r"torch==([\d.]+)", (root / "infra" / "docker" / "Dockerfile").read_text()))
    assert len(torch) == 1, "both images have one torch"
    return {name: version for name, version, _ in pins} | {"torch": torch.pop()}


@pytest.fixture
def instructions() -> list[str]:
    """Each instruction of the Dockerfile on one line, without comments."""
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    kept = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    return [" ".join(line.split()) for line in re.sub(r"\\\n", " ", kept).splitlines() if line.strip()]


def test_hadolint_finds_nothing() -> None:
    command = [HADOLINT, "--no-color", str(DOCKER / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout + done.stderr == ""


def test_every_base_is_pinned_by_digest_or_a_stage(instructions: list[str]) -> None:
    stages: set[str] = set()
    for line in instructions:
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            bases = {match[1].replace("${ACCELERATOR}", kind) for kind in ("cpu", "gpu")}
            assert bases <= stages or PINNED.fullmatch(match[1]), line
            stages.add(match[2])


def test_every_file_that_pip_takes_is_known_by_its_hash(instructions: list[str]) -> None:
    rest = REQUIREMENT.sub("", (DOCKER / "requirements.txt").read_text()).splitlines()
    assert [line for line in rest if line and line[0] != "#"] == []
    for command in re.findall(r"pip install ([^&]*)", "\n".join(instructions)):
        if "requirements.txt" in command:
            assert {"--require-hashes", "--no-deps"} <= set(command.split()), command
        elif "torch==" not in command:
            assert {".", "--no-build-isolation", "--no-deps"} <= set(command.split()), command


def test_the_image_runs_as_a_numbered_user_with_checked_models_and_tells_nobody(instructions: list[str]) -> None:
    everything = "\n".join(instructions)
    last = everything[everything.rindex("\nFROM") :].splitlines()
    users = [line.split()[1] for line in last if line.startswith("USER")]
    assert re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", users[-1]), "runAsNonRoot needs a number"
    assert any(line.startswith("HEALTHCHECK") and "doctor" in line for line in last)
    assert any("PATH=/opt/venv/bin" in line and "/etc/profile.d/" in line for line in last)
    for wanted in ("models pull --set core", "models check --set core", "pip check", "RAY_USAGE_STATS_ENABLED=0"):
        assert wanted in everything
    assert "RAY_USAGE_STATS_REPORT_URL=http://127.0.0.1" in everything
    assert not any(SECRET.search(line) for line in instructions), "a secret would lie in a layer"


def test_what_is_copied_exists_and_nothing_else_is_let_through(instructions: list[str]) -> None:
    ignore = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    copies = [line for line in instructions if line.startswith("COPY") and "--from" not in line]
    copied = {source for line in copies for source in line.split()[1:-1]}
    assert rules[0] == "*" and {line[1:] for line in rules if line.startswith("!")} == copied
    assert all((ROOT / source).exists() for source in copied)


def script(path: Path) -> ModuleType:
    """A script that is in no package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lock_holds_every_dependency_in_a_version_that_the_project_accepts() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["run"]])
    versions = locked(ROOT)
    assert [str(need) for need in needs if not need.specifier.contains(versions.get(need.name, "0"))] == []
    assert {"aiohttp", "grpcio", "opencensus", "prometheus-client", "virtualenv"} <= set(versions), "Ray's dashboard"
