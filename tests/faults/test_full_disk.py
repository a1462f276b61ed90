"""On a full disk a job stops with a sentence, quarantines nothing, and goes on once there is room.

As a script this file runs a job again and again in a mount namespace of its own, with KIB left free on MOUNT for each
run in turn, and at last with enough room. MOUNT is a file system in memory, where temporary files go, too. It prints
why each run stopped and what lay under its final name then.

    unshare -m python test_full_disk.py JOB.yaml MOUNT KIB...
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from anonlib.config import JobConfig, load_config
from anonlib.errors import JobError, StorageError
from anonlib.job import Job
from tests.support.namespaces import unshared
from tests.support.runs import Run, contents, job, lasting, salted

ROOMS = (4, 28, 36, 60)
"""KiB left free for one run after the other."""
NAMESPACE = unshared("--mount")


def finished(root: Path) -> dict[str, str]:
    """What lies in the job's two places under a final name, and in the release all else, too."""
    kept = {f"workspace/{path}": digest for path, digest in lasting(root / "workspace").items()}
    return kept | {f"release/{path}": digest for path, digest in contents(root / "release").items()}


def squeezed(config: JobConfig, mount: Path, *kibibytes: int) -> list[Any]:
    mount.mkdir(exist_ok=True)
    (mount.parent / "job.yaml").write_text(config.to_yaml())
    command = [sys.executable, __file__, str(mount.parent / "job.yaml"), str(mount), *map(str, kibibytes)]
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


@pytest.mark.parametrize(("folder", "rooms"), [("disk", ROOMS), (".", (0,))], ids=["places", "temporary files"])
def test_a_full_disk_stops_a_job_in_a_sentence(
    redacted: Run, tmp_path: Path, folder: str, rooms: tuple[int, ...]
) -> None:
    secret = redacted.config.secret.model_dump()
    config = job(redacted.input, tmp_path / folder, method={"name": "solid"}, secret=secret)
    *stopped, (code, made_at_last) = squeezed(config, tmp_path / "disk", *rooms)
    clean, stages = finished(redacted.output.parent), set()
    for sentence, left in stopped:
        assert "full; free some space." in sentence and "\n" not in sentence, sentence
        assert left.items() <= clean.items(), "a file under its final name is not the one it will be"
        stages.add(sentence.partition(" stage")[0].rpartition(" ")[2])
    assert "redact" in stages, stages
    assert code == "3" and made_at_last == clean


def main() -> None:
    config, mount = load_config(Path(sys.argv[1])), Path(sys.argv[2])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(mount)], check=True)
    tempfile.tempdir = str(mount)
    salted(config)
    root, ballast = Path(config.output.uri).parent, mount / "ballast"
    for kibibytes in map(int, sys.argv[3:]):
        with ballast.open("wb", buffering=0) as stream, suppress(OSError):
            while stream.write(bytes(1024)):
                pass
        os.truncate(ballast, max(ballast.stat().st_size - (kibibytes << 10), 0))
        try:
            end = str(Job(config).run())
        except (JobError, StorageError) as error:
            end = str(error)
        print(json.dumps([end, finished(root)]), flush=True)
        ballast.unlink()
    print(json.dumps([str(Job(config).run().code), finished(root)]), flush=True)


if __name__ == "__main__":
    main()
