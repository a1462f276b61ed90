"""The images' recipe is pinned, complete and runs as nobody in particular; nothing of the user's gets into a layer."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import dockerfiles
import pytest

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
    "a cache in a layer": ("Dockerfile", "--no-cache-dir --no-deps .", "--no-deps .", "DL3042"),
    "a package list in a layer": ("Dockerfile", " && rm -rf /var/lib/apt/lists/*", "", "DL3009"),
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
