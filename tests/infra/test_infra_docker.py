"""The images' recipe is pinned, complete and runs as nobody in particular; nothing of the user's gets into a layer."""

from __future__ import annotations

import importlib.util
import shutil
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.infra import dockerfiles

ROOT = Path(__file__).parents[2]
DOCKER = Path("infra") / "docker"
PLANTED = {
    "an image by its tag": ("Dockerfile", "@sha256:", "#", "not pinned"),
    "an image without even a tag": ("Dockerfile", ":3.11.15-slim-bookworm@sha256:", "#", "not pinned"),
    "a stage that does not exist": ("Dockerfile", "AS torch-gpu", "AS torch-cuda", "not pinned"),
    "root": ("Dockerfile", "USER 1000:1000\n", "USER root\n", "other than 0"),
    "a user by name": ("Dockerfile", "USER 1000:1000\n", "USER anonlib\n", "other than 0"),
    "no user": ("Dockerfile", "USER 1000:1000\n", "", "other than 0"),
    "no health check": ("Dockerfile", "HEALTHCHECK", "# HEALTHCHECK", "health"),
    "a secret": ("Dockerfile", "ARG TORCH_INDEX", "ARG ANONLIB_SECRET\nARG TORCH_INDEX", "in a layer"),
    "a password": ("Dockerfile", "RAY_USAGE_STATS_ENABLED=0", "RAY_USAGE_STATS_ENABLED=0 PIP_TOKEN=1", "in a layer"),
    "statistics": ("Dockerfile", "RAY_USAGE_STATS_ENABLED=0", "RAY_USAGE_STATS_ENABLED=1", "report"),
    "statistics on statistics": ("Dockerfile", "http://127.0.0.1:9", "https://usage.example.com", "report"),
    "models that nobody checked": ("Dockerfile", "models check --set core", "models list", "models check"),
    "a login shell": ("Dockerfile", "/etc/profile.d/", "/etc/", "login shell"),
    "a cache in a layer": ("Dockerfile", "--no-cache-dir --no-deps --no-build", "--no-deps --no-build", "DL3042"),
    "a package list in a layer": ("Dockerfile", " && rm -rf /var/lib/apt/lists/*", "", "DL3009"),
    "a requirement without a hash": (
        "requirements.txt",
        " \\\n    --hash=sha256:9243",
        "\n# 9243",
        "no version with a sha256",
    ),
    "a requirement of any version": ("requirements.txt", "boto3==1.43.106", "boto3>=1", "no version with a sha256"),
    "hashes that nobody looks at": ("Dockerfile", "--require-hashes ", "", "without looking at hashes"),
    "a build by any setuptools": ("Dockerfile", "--no-build-isolation ", "", "fetches what it builds"),
    "another package": (
        "Dockerfile",
        " && pip check",
        " && pip install --no-cache-dir pip && pip check",
        "pinned nowhere",
    ),
    "the whole folder": ("Dockerfile", "COPY anonlib anonlib", "COPY . .", ". is copied and not let through"),
    "a file that is not there": ("Dockerfile", "COPY anonlib", "COPY anonlob", "anonlob does not exist"),
    "everything let through": ("Dockerfile.dockerignore", "*\n!LICENSE", "!LICENSE", "whatever lies around"),
    "photographs let through": ("Dockerfile.dockerignore", "!LICENSE", "!LICENSE\n!photos", "photos is let through"),
}


def test_the_recipe_is_sound() -> None:
    assert dockerfiles.problems(ROOT) == []


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_found(mistake: str, tmp_path: Path) -> None:
    name, old, new, said = PLANTED[mistake]
    for one in ("LICENSE", "README.md", "pyproject.toml", "jobs/anonymize.py", "infra/docker"):
        (tmp_path / one).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / one).is_dir() else shutil.copy
        copy(ROOT / one, tmp_path / one)
    (tmp_path / "anonlib").mkdir()
    file = tmp_path / DOCKER / name
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    found = dockerfiles.problems(tmp_path)
    assert any(said in one for one in found), found


def report(**changed: str) -> dict[str, Any]:
    """pip's report of one wheel that is locked, and of two that are not."""
    one = {"name": "Pillow_Heif", "version": "1.0", "file": "pillow_heif-1.0-cp311.whl", "sha256": "a" * 64} | changed
    given = [one, one | {"name": "torch"}, one | {"name": "nvidia-cublas"}]
    return {
        "install": [
            {
                "metadata": {"name": this["name"], "version": this["version"]},
                "download_info": {"url": f"https://example.com/{this['file']}#x", "archive_info": {"hashes": hashes}},
            }
            for this in given
            for hashes in [{"sha256": this["sha256"]} if this["sha256"] else {}]
        ]
    }


def lock() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lock", ROOT / DOCKER / "lock.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lock_is_written_as_the_checks_read_it() -> None:
    lines = lock().lines(report())
    assert lines == [f"pillow-heif==1.0 \\\n    --hash=sha256:{'a' * 64}"]
    assert dockerfiles.REQUIREMENT.findall("\n".join(lines)) == [("pillow-heif", "1.0", "a" * 64)]
    assert (ROOT / DOCKER / "requirements.txt").read_text().startswith(lock().HEAD)


@pytest.mark.parametrize("changed", [{"file": "pillow_heif-1.0.tar.gz"}, {"sha256": ""}])
def test_what_is_no_wheel_with_a_hash_is_not_locked(changed: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="pillow-heif"):
        lock().lines(report(**changed))


def project_needs() -> list[str]:
    return list(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])


def test_the_lock_holds_every_dependency_in_a_version_that_the_project_accepts() -> None:
    assert dockerfiles.unmet(ROOT, project_needs()) == []


@pytest.mark.parametrize(("old", "new"), [("boto3==", "# boto3=="), ("ray==2.60.0", "ray==2.40.0")])
def test_a_lock_that_does_not_fit_is_found(old: str, new: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / DOCKER, tmp_path / DOCKER)
    file = tmp_path / DOCKER / "requirements.txt"
    file.write_text(file.read_text().replace(f"\n{old}", f"\n{new}"))
    assert len(dockerfiles.unmet(tmp_path, project_needs())) == 1


def test_the_lock_can_serve_ray_jobs() -> None:
    needed_by_the_dashboard = {"aiohttp", "grpcio", "opencensus", "prometheus-client", "virtualenv"}
    assert needed_by_the_dashboard <= set(dockerfiles.locked(ROOT))
