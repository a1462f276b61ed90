"""Purge destroys what is personal, keeps a record of it, and a purged workspace takes no writes."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anonlib.config import JobConfig
from anonlib.errors import JobError, StorageError, VersionsRemain, WorkspacePurged
from anonlib.job import Job
from anonlib.methods.base import released_digest
from anonlib.privacy.classes import stratum_of
from anonlib.privacy.dp import identities
from anonlib.privacy.keys import Keyring
from anonlib.storage import Storage, open_storage
from anonlib.storage.local import LocalStorage
from anonlib.workspace import purge as purge_module
from anonlib.workspace.layout import PURGED, Workspace, open_stores
from anonlib.workspace.purge import purge
from anonlib.workspace.secrets import open_keyring
from tests.support import photos
from tests.support.methods import method_with_files
from tests.support.runs import Run, contents, images, job, manifest, planned_copy
from tests.support.s3server import S3Server, one_sentence


def record(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / "workspace" / PURGED).read_text()))


def test_nothing_but_the_record_is_left_and_the_release_stays_as_it_was(copied: JobConfig, tmp_path: Path) -> None:
    (tmp_path / "workspace" / ".anonlib-write-1").write_bytes(b"left by a killed worker")
    files, release = contents(tmp_path / "workspace"), contents(tmp_path / "release")
    purged = purge(copied)
    assert list(contents(tmp_path / "workspace")) == [PURGED]
    assert contents(tmp_path / "release") == release
    assert purged.files == len(files) - 1
    run = json.loads((tmp_path / "release" / "run.json").read_text())["run"]
    kept = record(tmp_path)
    assert (purged.run, kept["run"], kept["finished"]) == (run, run, True)
    assert set(kept) == {"at", "anonlib", "run", "files", "bytes", "secret", "remains", "finished"}
    assert "Person" not in json.dumps(kept)
    # As a worker leaves it that is killed between its write and its look for the mark.
    (tmp_path / "workspace" / ".anonlib-write-2").write_bytes(b"embeddings")
    assert purge(copied) == purged and list(contents(tmp_path / "workspace")) == [PURGED]


def test_with_a_secret_that_is_kept_a_release_can_be_recomputed_before_a_purge_and_not_after(
    finished: Run, tmp_path: Path
) -> None:
    """Names of samples, digests of inputs, and the drawn vectors: from the secret, the photos and the job file."""
    config = planned_copy(finished, tmp_path, method={"name": "dp-uniform"}, rekey=True)
    (tmp_path / "workspace" / "salt").write_text(secrets.token_hex(32))
    Job(config).run()
    release = manifest(tmp_path / "release")
    worn = {face["surrogate_digest"] for row in release for face in row["faces"]} - {None}
    tars = sorted(finished.input.glob("*.tar"))
    photos = [data for tar in tars for name, data in images(tar).items() if not name.endswith(".json")]
    sidecars = [json.loads(data) for tar in tars for name, data in images(tar).items() if name.endswith(".json")]
    people = sorted({sidecar["person"] for sidecar in sidecars if "person" in sidecar})
    assert 6 <= len(worn) <= len(people) == 12 and len(photos) > 20

    def recomputed(keyring: Keyring) -> dict[str, int]:
        """How many of the release's digests, keys and drawn faces come out of the kept secret."""
        digests = {keyring.digest("input", photo).hex() for photo in photos}
        keys = {keyring.pseudonym("key", tar.stem, name.partition(".")[0]) for tar in tars for name in images(tar)}
        ids = [keyring.pseudonym("subject", "label", name) for name in people]
        method = method_with_files(config)
        points = method.decoder.identity(np.eye(len(ids), 128, dtype=np.float32))
        drawn = identities(method.mechanism, points, ids, keyring)
        kinds = [stratum_of(*look) for look in product((0.0, 1.0), (20.0, 42.0, 70.0), (0.0, 255.0))]
        names = {method.draw_name(method.draw_of(z, kind), keyring) for z in drawn for kind in kinds}
        faces = {released_digest(keyring, name) for name in names}
        return {
            "input": sum(row["input_hmac"] in digests for row in release),
            "key": sum(row["key"] in keys for row in release),
            "face": len(worn & faces),
        }

    everything = {"input": len(release), "key": len(release), "face": len(worn)}
    assert recomputed(open_keyring(config, open_stores(config))) == everything
    purge(config)
    with pytest.raises(WorkspacePurged, match="was purged"):
        open_keyring(config, open_stores(config))
    for guess in ("", "tests", str(config.output.uri)):
        assert recomputed(Keyring((tmp_path / "secret").read_bytes(), guess)) == dict.fromkeys(everything, 0)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "workspace").rglob("*") if path.is_file())
    assert json.loads(kept)["finished"] is True, "the record is all that is left"


@pytest.mark.parametrize("times", [1, 99])
def test_what_comes_in_while_a_purge_goes_on_is_removed_too_or_said_to_go_on(
    copied: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """And the mark that refuses writers is there all the time."""
    destroy, marked = LocalStorage.delete_tree, []

    def late(self: LocalStorage, prefix: str, *, keep: Collection[str]) -> int:
        removed = destroy(self, prefix, keep=keep)
        marked.append((tmp_path / "workspace" / PURGED).exists())
        if len(marked) <= times:
            self.publish("plan/a/subjects.parquet", b"who is who")
        return removed

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "delete_tree", late)
        if times > 1:
            with pytest.raises(JobError, match="goes on writing"):
                purge(copied)
            assert not record(tmp_path)["finished"]
        else:
            purge(copied)
    assert all(marked) and len(marked) >= 2
    purge(copied)
    assert record(tmp_path)["finished"] and list(contents(tmp_path / "workspace")) == [PURGED]


def test_an_unfinished_release_is_refused_unless_forced_and_what_is_no_workspace_always(
    copied: JobConfig, tmp_path: Path
) -> None:
    note = tmp_path / "workspace" / "inventory.json"
    for spoil, problem, force in (
        ((tmp_path / "release" / "commits" / "00001.json").unlink, "2 of 3 shards", False),
        (lambda: shutil.rmtree(tmp_path / "release"), "holds no release yet", False),
        (lambda: note.rename(tmp_path / "note"), "no workspace of anonlib", True),
    ):
        spoil()
        before = contents(tmp_path)
        with pytest.raises(JobError, match=problem):
            purge(copied, force=force)
        assert contents(tmp_path) == before
    (tmp_path / "note").rename(note)
    assert purge(copied, force=True).run is None


def test_a_purge_takes_the_salt_first_and_one_that_was_cut_off_refuses_runs_and_is_continued(
    copied: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, destroy = len(contents(tmp_path / "workspace")), LocalStorage.delete_tree

    def fail(self: object, prefix: str, *, keep: object) -> int:
        raise StorageError("the disk went away")

    def remain(self: LocalStorage, prefix: str, *, keep: Collection[str]) -> int:
        destroy(self, prefix, keep=keep)
        raise VersionsRemain("The bucket keeps old versions.")

    monkeypatch.setattr(LocalStorage, "delete_tree", fail)
    with pytest.raises(StorageError):
        purge(copied)
    assert not (tmp_path / "workspace" / "salt").exists() and (tmp_path / "workspace" / "scan").exists()
    with pytest.raises(JobError, match="was purged"):
        Job(copied)
    monkeypatch.setattr(LocalStorage, "delete_tree", remain)
    purged = purge(copied)
    assert (purged.files, purged.remains) == (files, "The bucket keeps old versions.")
    assert list(contents(tmp_path / "workspace")) == [PURGED]


# --- writes to a purged workspace --------------------------------------------------------------------------------

WRITES: tuple[Callable[[Storage], object], ...] = (
    lambda storage: storage.publish("scan/faces", b"1"),
    lambda storage: storage.claim("scan/faces", b"1"),
)


@pytest.fixture(params=["disk", "s3"])
def inner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "disk":
        yield open_storage(str(tmp_path / "workspace"))
        return
    server: S3Server = request.getfixturevalue("s3")
    with server.acting_as():
        yield open_storage(f"s3://{server.bucket()}/workspace", server.options)


def paths(storage: Storage) -> list[str]:
    return [entry.path for entry in storage.list(unfinished=True)]


@pytest.mark.parametrize("write", WRITES)
def test_a_write_after_the_purge_is_refused(inner: Storage, write: Callable[[Storage], object]) -> None:
    workspace = Workspace(inner)
    write(workspace)
    inner.delete_tree("")
    inner.publish(PURGED, b"{}")
    for use in (write, lambda storage: storage.read("scan/faces")):
        with pytest.raises(WorkspacePurged, match="was purged") as refused:
            use(workspace)
        assert one_sentence(refused.value)
    assert paths(inner) == [PURGED] and not workspace.exists("scan/faces")


@pytest.mark.parametrize("write", WRITES)
def test_a_write_that_the_purge_overtook_is_removed_by_its_writer(
    inner: Storage, write: Callable[[Storage], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The purge marks, removes everything and lists again, all between the writer's first look and its write."""
    workspace, looked, look = Workspace(inner), list[str](), inner.exists

    def overtaken(path: str) -> bool:
        is_there = look(path)
        if not looked:
            looked.append(path)
            inner.publish(PURGED, b"{}")
        return is_there

    monkeypatch.setattr(inner, "exists", overtaken)
    with pytest.raises(WorkspacePurged):
        write(workspace)
    assert looked == [PURGED] and paths(inner) == [PURGED]


@pytest.fixture
def two(tmp_path: Path) -> JobConfig:
    """A job of two shards that has not run yet."""
    for number in range(2):
        photos.tar(tmp_path / "input" / f"{number:05d}.tar", [("a.jpg", photos.jpeg(photos.nobody()))])
    return job(tmp_path / "input", tmp_path, method={"name": "solid"})


def test_a_run_whose_workspace_is_purged_under_it_stops_and_leaves_nothing(
    two: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease is not seen, as that of a run that may not write one."""
    monkeypatch.setattr(purge_module, "at_work", lambda workspace: None)
    running = Job(two, report=lambda stage, outcome, units: outcome.error or purge(two, force=True))
    with pytest.raises(JobError, match=r"stopped in shard or block 0000\d of its scan stage.*was purged"):
        running.scan()
    assert list(contents(tmp_path / "workspace")) == [PURGED]


def test_a_workspace_is_not_purged_under_a_run(two: JobConfig, tmp_path: Path) -> None:
    refused: list[str] = []

    def report(*_: object) -> None:
        with pytest.raises(JobError, match="is at work on") as problem:
            purge(two, force=True)
        refused.append(str(problem.value))

    Job(two, report=report).scan()
    assert len(refused) == 2 and "end it first" in refused[0]
    assert purge(two, force=True).files > 0
    assert list(contents(tmp_path / "workspace")) == [PURGED]
