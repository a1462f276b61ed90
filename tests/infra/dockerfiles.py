"""What is wrong with a Dockerfile and the two files beside it, as far as that can be known without building it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

HADOLINT = shutil.which("hadolint", path=f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}") or "hadolint"
PINNED = re.compile(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}")
REQUIREMENT = re.compile(r"^([\w-]+)==(\S+) \\\n    --hash=sha256:([0-9a-f]{64})$", re.MULTILINE)
SECRET = re.compile(r"\b(?:ARG|ENV)\b.*?\b\w*(?:SECRET|TOKEN|PASSWORD|CREDENTIAL|ACCESS_KEY)\w*", re.IGNORECASE)


def problems(folder: Path) -> list[str]:
    """Sentences about infra/docker of the repository in `folder`; none if it is sound."""
    file = folder / "infra" / "docker" / "Dockerfile"
    lines = instructions(file.read_text())
    return [*_hadolint(file), *_bases(lines), *_packages(folder, lines), *_final(lines), *_context(folder, lines)]


def instructions(text: str) -> list[str]:
    """Each instruction on one line, without comments."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [" ".join(one.split()) for one in re.sub(r"\\\n", " ", kept).splitlines() if one.strip()]


def locked(folder: Path) -> dict[str, str]:
    """Package -> version in the images, torch among them."""
    docker = folder / "infra" / "docker"
    pins = REQUIREMENT.findall((docker / "requirements.txt").read_text())
    torch = set(re.findall(r"torch==([\d.]+)", (docker / "Dockerfile").read_text()))
    assert len(torch) == 1, "both images have one torch"
    return {name: version for name, version, _ in pins} | {"torch": torch.pop()}


def unmet(folder: Path, needs: list[str]) -> list[str]:
    """Those of the project's dependencies that the images do not hold, or hold in another version."""
    versions = locked(folder)
    wanted = [Requirement(text) for text in needs]
    return [str(one) for one in wanted if not one.specifier.contains(versions.get(one.name, "0"))]


def _packages(folder: Path, lines: list[str]) -> Iterator[str]:
    """Every file that pip takes is known by its hash, but torch's, and nothing is fetched to build with."""
    text = (folder / "infra" / "docker" / "requirements.txt").read_text()
    pinned = REQUIREMENT.sub("", text)
    yield from (f"{line} has no version with a sha256" for line in pinned.splitlines() if line and line[0] != "#")
    for line in (line for line in lines if "pip install" in line):
        for command in re.findall(r"pip install ([^&]*)", line):
            if "requirements.txt" in command and not {"--require-hashes", "--no-deps"} <= set(command.split()):
                yield "pip installs requirements.txt without looking at hashes"
            if " . " in f" {command} " and not {"--no-build-isolation", "--no-deps"} <= set(command.split()):
                yield "pip fetches what it builds anonlib with, in whatever version there is"
            if not re.search(r"requirements\.txt|torch==|(^| )\.( |$)", command):
                yield f"pip install {command.strip()} is pinned nowhere"


def _hadolint(file: Path) -> Iterator[str]:
    done = subprocess.run([HADOLINT, "--no-color", str(file)], capture_output=True, text=True, timeout=60, check=False)
    yield from (line.removeprefix(f"{file}:") for line in (done.stdout + done.stderr).splitlines())


def _bases(lines: list[str]) -> Iterator[str]:
    """Every base is a stage of the file, or pinned by digest; ACCELERATOR may choose between two stages."""
    stages: set[str] = set()
    for line in lines:
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            base, stage = match.groups()
            chosen = {base.replace("${ACCELERATOR}", one) for one in ("cpu", "gpu")}
            if not chosen <= stages and not PINNED.fullmatch(base):
                yield f"{base} is not pinned by digest"
            stages.add(stage)


def _final(lines: list[str]) -> Iterator[str]:
    """What the stage that ships must say, and what none may."""
    everything = "\n".join(lines)
    last = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM")) :]
    users = [line.split()[1] for line in last if line.startswith("USER")]
    if not users or not re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", users[-1]):
        yield "the image does not run as a user with a number other than 0, which runAsNonRoot needs"
    if not any(line.startswith("HEALTHCHECK") and "doctor" in line for line in last):
        yield "the image has no health check"
    if "RAY_USAGE_STATS_ENABLED=0" not in everything or "RAY_USAGE_STATS_REPORT_URL=http://127.0.0.1" not in everything:
        yield "Ray would report its use"
    if not any("PATH=/opt/venv/bin" in line and "/etc/profile.d/" in line for line in last):
        yield "a login shell would not find anonlib"
    for wanted in ("models pull --set core", "models check --set core", "pip check"):
        if wanted not in everything:
            yield f"the build does not run {wanted}"
    yield from (f"a secret would lie in a layer: {line}" for line in lines if SECRET.search(line))


def _context(folder: Path, lines: list[str]) -> Iterator[str]:
    """What is copied exists and is let through; what is let through is copied."""
    ignore = (folder / "infra" / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    if rules[:1] != ["*"]:
        yield "the builder is sent whatever lies around"
    allowed = {line[1:] for line in rules if line.startswith("!")}
    copied = {
        source for line in lines if line.startswith("COPY") and "--from" not in line for source in line.split()[1:-1]
    }
    yield from (f"{one} is copied and not let through" for one in sorted(copied - allowed))
    yield from (f"{one} is let through and not copied" for one in sorted(allowed - copied))
    yield from (f"{one} does not exist" for one in sorted(copied) if not (folder / one).exists())
