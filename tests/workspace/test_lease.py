"""A run at work is seen, and what a killed one left is not taken for one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from anonlib.storage import OURS, Storage, open_storage
from anonlib.workspace import lease as lease_module
from anonlib.workspace.lease import Lease, at_work
from tests.support.s3server import S3Server, policy


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "BEAT_S", 0.05)
    monkeypatch.setattr(lease_module, "WATCH_S", 3.0)


@pytest.fixture
def workspace(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "workspace"))


@pytest.mark.parametrize("on_s3", [False, True])
def test_a_run_is_seen_while_it_is_at_work_and_not_by_itself(workspace: Storage, s3: S3Server, on_s3: bool) -> None:
    with s3.acting_as():
        if on_s3:
            workspace = open_storage(f"s3://{s3.bucket()}/workspace", s3.options)
        lease = Lease(workspace)
        with lease.held(), lease.held():
            assert "process" in str(at_work(workspace)) and lease.beside() is None
            assert "process" in str(Lease(workspace).beside())
            assert list(workspace.list()) == []
        assert list(workspace.list(unfinished=True)) == []
        assert at_work(workspace) is None


def test_a_run_that_was_killed_on_this_machine_holds_nobody_up(workspace: Storage) -> None:
    script = (
        "import os, sys; from anonlib.workspace.lease import Lease; from anonlib.storage import open_storage\n"
        "with Lease(open_storage(sys.argv[1])).held():\n    os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, workspace.uri], check=False)
    assert len(list(workspace.list(unfinished=True))) == 1
    assert at_work(workspace, wait=lambda _: pytest.fail("waited")) is None


def test_one_of_another_machine_is_watched_and_taken_for_ended_if_nothing_changes(
    workspace: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "WATCH_S", 0.3)
    workspace.publish(f"{OURS}run-elsewhere-1-0a", b"7\n")
    waited: list[float] = []
    assert at_work(workspace, wait=lambda seconds: waited.append(seconds)) is None
    assert waited


def test_a_role_that_may_only_read_the_workspace_goes_on_unseen(s3: S3Server) -> None:
    bucket = s3.bucket()
    with s3.acting_as(s3.user(policy(bucket, "s3:GetObject", "s3:ListBucket"))):
        lease = Lease(open_storage(f"s3://{bucket}/workspace", s3.options))
        with lease.held():
            assert at_work(lease.workspace) is None
