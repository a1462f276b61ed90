"""Purge destroys what is personal, keeps a record of it, and does neither to what it should not touch."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anonlib.config import JobConfig
from anonlib.errors import JobError, StorageError, VersionsRemain, WorkspacePurged
from anonlib.job import Job
from anonlib.methods import method_of
from anonlib.methods.base import appearance, released_digest
from anonlib.privacy.dp import identities
from anonlib.privacy.keys import Keyring
from anonlib.storage.local import LocalStorage
from anonlib.synthesis.base import IdentityDraw
from anonlib.workspace.layout import open_stores
from anonlib.workspace.purge import Purged, purge
from anonlib.workspace.secrets import open_keyring
from tests.support.decoders import Fit
from tests.support.runs import Run, contents, images, job, manifest, planned_copy


@pytest.fixture
def copied(finished: Run, tmp_path: Path) -> JobConfig:
    """A finished job of its own, to be destroyed."""
    shutil.copytree(finished.workspace, tmp_path / "workspace")
    shutil.copytree(finished.output, tmp_path / "release")
    return job(finished.input, tmp_path)


def record(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / "workspace" / "purged.json").read_text()))


def test_nothing_but_the_record_is_left_and_the_release_stays_as_it_was(copied: JobConfig, tmp_path: Path) -> None:
    (tmp_path / "workspace" / ".anonlib-write-1").write_bytes(b"left by a killed worker")
    files, release = contents(tmp_path / "workspace"), contents(tmp_path / "release")
    purged = purge(copied)
    assert list(contents(tmp_path / "workspace")) == ["purged.json"]
    assert contents(tmp_path / "release") == release
    assert purged.files == len(files) - 1
    run = json.loads((tmp_path / "release" / "run.json").read_text())["run"]
    kept = record(tmp_path)
    assert (purged.run, kept["run"], kept["finished"]) == (run, run, True)
    assert set(kept) == {"at", "anonlib", "run", "files", "bytes", "secret", "remains", "late", "finished"}
    assert "Person" not in json.dumps(kept)


def test_with_a_secret_that_is_kept_a_release_can_be_recomputed_before_a_purge_and_not_after(
    finished: Run, fitted: Fit, tmp_path: Path
) -> None:
    """Names of samples, digests of inputs, and the drawn vectors: from the secret, the photos and the job file."""
    method = {"name": "dp-uniform", "decoder": str(fitted.path)}
    config = planned_copy(finished, tmp_path, method=method, rekey=True)
    (tmp_path / "workspace" / "salt").write_text(secrets.token_hex(32))
    Job(config).run()
    release = manifest(tmp_path / "release")
    worn = {face["surrogate_digest"] for row in release for face in row["faces"]} - {None}
    tars = sorted(finished.input.glob("*.tar"))
    photos = [data for tar in tars for name, data in images(tar).items() if not name.endswith(".json")]
    sidecars = [json.loads(data) for tar in tars for name, data in images(tar).items() if name.endswith(".json")]
    people = sorted({one["person"] for one in sidecars if "person" in one})
    assert 6 <= len(worn) <= len(people) == 12 and len(photos) > 20

    def recomputed(keyring: Keyring) -> dict[str, int]:
        """How many of the release's digests, keys and drawn faces come out of the kept secret."""
        digests = {keyring.digest("input", photo).hex() for photo in photos}
        keys = {keyring.pseudonym("key", tar.stem, name.partition(".")[0]) for tar in tars for name in images(tar)}
        ids = [keyring.pseudonym("subject", "label", name) for name in people]
        method = method_of(config.method, {"decoder": fitted.path.read_bytes()})
        points = method.decoder.identity(np.eye(len(ids), 128, dtype=np.float32))
        drawn = identities(method.mechanism, points, ids, keyring)
        looks = {appearance((gender, f"age-{band}")) for gender in ("female", "male") for band in range(3)}
        names = {method.draw_name(IdentityDraw(z, *look), keyring) for z in drawn for look in looks}
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


@pytest.mark.parametrize("source", [{"env": "A"}, {"file": "a"}, {"manager": "a"}, {"kms": "a"}])
def test_whose_the_secret_was_is_recorded_and_not_asked_for(
    copied: JobConfig, tmp_path: Path, source: dict[str, str]
) -> None:
    shutil.rmtree(tmp_path / "workspace" / "scan")
    assert "not ours to destroy" in purge(JobConfig.model_validate(copied.model_dump() | {"secret": source})).secret


def test_a_secret_of_the_workspace_goes_with_it(copied: JobConfig, tmp_path: Path) -> None:
    (tmp_path / "workspace" / "secret").write_text("0" * 64)
    config = JobConfig.model_validate(copied.model_dump() | {"secret": {}})
    assert purge(config).secret == "destroyed with the workspace"
    assert not (tmp_path / "workspace" / "secret").exists()


def test_a_second_purge_removes_what_came_in_since_and_counts_it(copied: JobConfig, tmp_path: Path) -> None:
    """As a worker leaves it that is killed between its write and its look for the mark."""
    first = purge(copied)
    for name in ("scan/a/faces/00000.parquet", ".anonlib-write-1"):
        (tmp_path / "workspace" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "workspace" / name).write_bytes(b"embeddings")
    second = purge(copied)
    assert list(contents(tmp_path / "workspace")) == ["purged.json"]
    assert (second.late, second.files, second.at) == (2, first.files, first.at)
    assert purge(copied) == second and record(tmp_path)["late"] == 2


def test_what_comes_in_while_a_purge_goes_on_is_removed_too(
    copied: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the mark that refuses writers is there all the time."""
    destroy, calls = LocalStorage.delete_tree, []

    def late(self: LocalStorage, prefix: str, *, keep: Collection[str]) -> int:
        removed = destroy(self, prefix, keep=keep)
        calls.append((tmp_path / "workspace" / "purged.json").exists())
        if len(calls) == 1:
            self.publish("plan/a/subjects.parquet", b"who is who")
        return removed

    monkeypatch.setattr(LocalStorage, "delete_tree", late)
    purge(copied)
    assert calls == [True, True]
    assert list(contents(tmp_path / "workspace")) == ["purged.json"]


def test_a_run_that_goes_on_writing_is_said_to(
    copied: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destroy = LocalStorage.delete_tree

    def late(self: LocalStorage, prefix: str, *, keep: Collection[str]) -> int:
        removed = destroy(self, prefix, keep=keep)
        self.publish("plan/a/subjects.parquet", b"who is who")
        return removed

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "delete_tree", late)
        with pytest.raises(JobError, match="goes on writing"):
            purge(copied)
    assert not record(tmp_path)["finished"]
    purge(copied)
    assert record(tmp_path)["finished"]


def test_an_unfinished_release_is_refused_unless_forced(copied: JobConfig, tmp_path: Path) -> None:
    next((tmp_path / "release" / "commits").iterdir()).unlink()
    with pytest.raises(JobError, match="2 of 3 shards"):
        purge(copied)
    assert (tmp_path / "workspace" / "inventory.parquet").exists()
    assert purge(copied, force=True).run is not None


def test_no_release_is_refused_unless_forced(copied: JobConfig, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "release")
    with pytest.raises(JobError, match="holds no release yet"):
        purge(copied)
    assert purge(copied, force=True).run is None


def test_a_folder_that_is_no_workspace_is_never_touched(copied: JobConfig, tmp_path: Path) -> None:
    (tmp_path / "workspace" / "inventory.json").unlink()
    before = contents(tmp_path)
    with pytest.raises(JobError, match="no workspace of anonlib"):
        purge(copied, force=True)
    assert contents(tmp_path) == before


def test_a_purge_takes_the_salt_first_and_one_that_was_cut_off_refuses_runs_and_is_continued(
    copied: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = len(contents(tmp_path / "workspace"))

    def fail(self: object, prefix: str, *, keep: object) -> int:
        raise StorageError("the disk went away")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "delete_tree", fail)
        with pytest.raises(StorageError):
            purge(copied)
    assert not (tmp_path / "workspace" / "salt").exists() and (tmp_path / "workspace" / "scan").exists()
    with pytest.raises(JobError, match="was purged"):
        Job(copied)
    assert purge(copied).files == files
    assert list(contents(tmp_path / "workspace")) == ["purged.json"]


def test_versions_that_a_bucket_keeps_are_reported(copied: JobConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    destroy = LocalStorage.delete_tree

    def hide(self: LocalStorage, prefix: str, *, keep: Collection[str]) -> int:
        destroy(self, prefix, keep=keep)
        raise VersionsRemain("The bucket keeps old versions.")

    monkeypatch.setattr(LocalStorage, "delete_tree", hide)
    purged = purge(copied)
    assert purged.remains == "The bucket keeps old versions."
    assert isinstance(purged, Purged)
