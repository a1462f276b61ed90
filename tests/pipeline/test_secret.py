"""The secret comes from where the job says, and is in nothing that travels."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from runs import SECRET, job

from anonlib.config import ConfigError
from anonlib.pipeline.places import open_places
from anonlib.pipeline.secret import open_keyring, release_name


def test_a_release_is_named_by_its_uri_unless_it_has_a_name(tmp_path: Path) -> None:
    config = job(tmp_path / "in", tmp_path, output={"uri": "s3://bucket/2026-11/"})
    assert release_name(config) == "2026-11"
    assert release_name(job(tmp_path / "in", tmp_path)) == "tests"


def test_file_and_environment_give_the_same_keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANONLIB_TEST_SECRET", SECRET)
    by_file = job(tmp_path / "in", tmp_path)
    by_env = job(tmp_path / "in", tmp_path, secret={"env": "ANONLIB_TEST_SECRET"})
    one, other = (open_keyring(config, open_places(config)) for config in (by_file, by_env))
    assert one.digest("x") == other.digest("x")
    assert SECRET not in repr(one)


def test_a_secret_is_made_only_when_asked_for(tmp_path: Path) -> None:
    config = job(tmp_path / "in", tmp_path, secret={})
    with pytest.raises(ConfigError, match="the workspace has no secret"):
        open_keyring(config, open_places(config))
    made = open_keyring(config, open_places(config), make=True)
    assert open_keyring(config, open_places(config), make=True).digest("x") == made.digest("x")
    kept = [path for path in tmp_path.rglob("secret") if path.is_file()]
    assert [path.stat().st_mode & 0o777 for path in kept] == [0o600]


def test_what_travels_to_a_worker_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANONLIB_TEST_SECRET", SECRET)
    config = job(tmp_path / "in", tmp_path, secret={"env": "ANONLIB_TEST_SECRET"})
    travelling = pickle.dumps((config, open_places(config)))
    assert SECRET.encode() not in travelling and SECRET not in config.to_yaml()
