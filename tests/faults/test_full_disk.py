"""On a full disk a job stops with a sentence, quarantines nothing, and goes on once there is room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anonlib.config import JobConfig
from tests.faults import full_disk
from tests.faults.full_disk import finished
from tests.support.runs import Run, job

ROOMS = (4, 28, 36, 60)
"""KiB left free for one run after the other."""
NAMESPACE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]


def squeezed(config: JobConfig, mount: Path, *kibibytes: int) -> list[Any]:
    mount.mkdir(exist_ok=True)
    (mount.parent / "job.yaml").write_text(config.to_yaml())
    command = [sys.executable, full_disk.__file__, str(mount.parent / "job.yaml"), str(mount), *map(str, kibibytes)]
    tests = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([*NAMESPACE, *command], stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module", autouse=True)
def may_mount(tmp_path_factory: pytest.TempPathFactory) -> None:
    mount = tmp_path_factory.mktemp("mount")
    tried = subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "none", str(mount)], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"a disk can only be filled where one may mount it: {tried.stderr.strip()}")


def test_no_room_in_workspace_or_release(redacted: Run, tmp_path: Path) -> None:
    clean = finished(redacted.output.parent)
    config = job(
        redacted.input, tmp_path / "disk", method={"name": "solid"}, secret=redacted.config.secret.model_dump()
    )
    *stopped, (code, made_at_last) = squeezed(config, tmp_path / "disk", *ROOMS)
    stages = set()
    for sentence, left in stopped:
        assert "full; free some space." in sentence and "\n" not in sentence, sentence
        assert left.items() <= clean.items(), "a file under its final name is not the one it will be"
        stages.add(sentence.partition(" stage")[0].rpartition(" ")[2])
    assert {"scan", "render"} <= stages, stages
    assert code == "3" and made_at_last == clean


def test_no_room_for_temporary_files(redacted: Run, tmp_path: Path) -> None:
    config = job(redacted.input, tmp_path, method={"name": "solid"}, secret=redacted.config.secret.model_dump())
    (sentence, left), (code, made_at_last) = squeezed(config, tmp_path / "disk", 0)
    assert "render stage" in sentence and "full; free some space." in sentence
    assert not [path for path in left if path.startswith("release/commits")]
    assert code == "3" and made_at_last == finished(redacted.output.parent)
