"""What holds personal data on a disk is its owner's alone, whatever the umask: workspace, ledger, temporary folders."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from anonlib.config import JobConfig
from anonlib.errors import AccessDenied
from anonlib.job import Job
from anonlib.storage import OURS, open_storage
from anonlib.storage.scratch import scratch
from tests.support import photos
from tests.support.runs import job


@pytest.fixture(params=[0o022, 0o000], ids=["umask 022", "umask 000"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def everything(folder: Path) -> list[Path]:
    return [folder, *folder.rglob("*")]


@pytest.fixture
def ready(tmp_path: Path) -> JobConfig:
    photos.tar(tmp_path / "input" / "00000.tar", [("a.jpg", photos.jpeg(photos.nobody()))])
    return job(tmp_path / "input", tmp_path, method={"name": "solid"})


def test_all_that_a_job_leaves_in_its_workspace_is_its_owners_alone(
    ready: JobConfig, tmp_path: Path, umask: int
) -> None:
    Job(ready).run()
    for path in everything(tmp_path / "workspace"):
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path
    for path in everything(tmp_path / "release"):
        assert mode(path) == (0o777 if path.is_dir() else 0o666) & ~umask, path


@pytest.mark.parametrize("verb", ["publish", "claim"])
def test_a_file_is_closed_before_it_has_its_name(
    tmp_path: Path, umask: int, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, seen, fsync = open_storage(str(tmp_path / "ledger"), private=True), [], os.fsync

    def look(handle: int) -> None:
        seen.extend(mode(path) for path in (tmp_path / "ledger").rglob(f"{OURS}*"))
        fsync(handle)

    monkeypatch.setattr("anonlib.storage.local.os.fsync", look)
    (tmp_path / "source").write_bytes(b"templates")
    for source in (b"templates", tmp_path / "source"):
        getattr(storage, verb)(f"plans/{type(source).__name__}", source)
    assert set(seen) == {0o600}
    assert mode(tmp_path / "ledger") == mode(tmp_path / "ledger" / "plans") == 0o700


def test_a_root_that_others_could_look_into_is_closed_by_the_first_write(tmp_path: Path, umask: int) -> None:
    root = tmp_path / "workspace"
    root.mkdir(mode=0o755)
    storage = open_storage(str(root), private=True)
    assert "lets other users of this machine in" in str(storage.exposed())
    storage.publish("a", b"1")
    assert mode(root) == 0o700 and storage.exposed() is None


def test_a_shared_folder_is_no_workspace(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    with pytest.raises(AccessDenied, match="name a folder of its own"):
        open_storage(str(shared), private=True).publish("a", b"1")
    assert mode(shared) == 0o1777 and list(shared.iterdir()) == []


# Temporary folders.


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return tmp_path / "temporary"


_HOLD = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from anonlib.storage.scratch import scratch
with scratch() as folder:
    (folder / "photo").write_bytes(b"an original")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_a_temporary_folder_is_its_owners_alone_and_goes(temporary: Path, umask: int) -> None:
    with scratch() as folder:
        photos.fill(folder / "deep", {"photo": b"1"})
        assert folder.parent == temporary and mode(folder) == 0o700
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_run_and_what_others_use_stays(temporary: Path) -> None:
    held = [
        subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(temporary)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        killed, living = (Path(str(one.stdout and one.stdout.readline()).strip()) for one in held)
        (temporary / "anonlib-of-something-else").mkdir()
        held[0].kill()
        held[0].wait()
        assert (killed / "photo").exists()
        with scratch():
            pass
        assert sorted(temporary.iterdir()) == sorted([living, temporary / "anonlib-of-something-else"])
        assert (living / "photo").exists()
    finally:
        for one in held:
            one.kill()
            one.communicate()
