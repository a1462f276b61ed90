"""The secret comes from where the job says, and is in nothing that travels."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError
from runs import SECRET, job

from anonlib.config import ConfigError, SecretConfig
from anonlib.pipeline.places import open_places
from anonlib.pipeline.secret import bind, open_in_worker, open_keyring, release_name
from anonlib.privacy.keys import Keyring


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
    bind(config, open_places(config), made)
    holding = [path.name for path in tmp_path.rglob("*") if path.is_file() and made.secret in path.read_bytes()]
    assert holding == ["secret"]
    kept = [path for path in tmp_path.rglob("secret") if path.is_file()]
    assert [path.stat().st_mode & 0o777 for path in kept] == [0o600]


def test_a_workspace_takes_one_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = job(tmp_path / "in", tmp_path)
    places = open_places(config)
    bind(config, places, open_keyring(config, places))
    bind(config, places, open_keyring(config, places))
    (kept,) = (path for path in (tmp_path / "workspace").rglob("*") if path.is_file())
    assert SECRET not in kept.read_text() and SECRET.encode().hex() not in kept.read_text()
    monkeypatch.setenv("ANONLIB_TEST_SECRET", f"not {SECRET}")
    other = job(tmp_path / "in", tmp_path, secret={"env": "ANONLIB_TEST_SECRET"})
    with pytest.raises(ConfigError, match="variable ANONLIB_TEST_SECRET holds another secret than the one that"):
        open_keyring(other, places)
    # Who forgets to name it does not get a new one.
    with pytest.raises(ConfigError, match="name the one that it was planned with"):
        open_keyring(job(tmp_path / "in", tmp_path, secret={}), places, make=True)


def test_of_two_secrets_at_once_one_wins(tmp_path: Path) -> None:
    config = job(tmp_path / "in", tmp_path)
    places = open_places(config)
    mine, yours = open_keyring(config, places), Keyring(b"another secret, quite long", "tests")
    bind(config, places, yours)
    with pytest.raises(ConfigError, match="holds another secret"):
        bind(config, places, mine)


def test_a_worker_with_another_secret_is_refused(tmp_path: Path) -> None:
    config = job(tmp_path / "in", tmp_path)
    places = open_places(config)
    check = open_keyring(config, places).check()
    assert open_in_worker(config, places, check).check() == check
    (tmp_path / "secret").write_text(f"not {SECRET}")
    with pytest.raises(ConfigError, match="than the one that this job was started with") as problem:
        open_in_worker(config, places, check)
    assert str(tmp_path / "secret") in str(problem.value) and check not in str(problem.value)


@pytest.mark.parametrize("padding", ["\n", " \r\n", "\t"])
def test_space_around_a_secret_is_not_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, padding: str) -> None:
    config = job(tmp_path / "in", tmp_path, secret={"env": "ANONLIB_TEST_SECRET"})
    monkeypatch.setenv("ANONLIB_TEST_SECRET", SECRET)
    check = open_keyring(config, open_places(config)).check()
    monkeypatch.setenv("ANONLIB_TEST_SECRET", f"{SECRET}{padding}")
    assert open_keyring(config, open_places(config)).check() == check


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"env": "A", "manager": "b"}, "give one of"),
        ({"file": "a", "kms": "b"}, "give one of"),
        ({"env": "A", "field": "b"}, "belong to secret.manager"),
        ({"kms": "a", "version": "b"}, "belong to secret.manager"),
        ({"file": "a", "profile": "b"}, "belongs to secret.manager and secret.kms"),
    ],
)
def test_a_secret_has_one_source(given: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SecretConfig.model_validate(given)


def test_what_travels_to_a_worker_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANONLIB_TEST_SECRET", SECRET)
    config = job(tmp_path / "in", tmp_path, secret={"env": "ANONLIB_TEST_SECRET"})
    travelling = pickle.dumps((config, open_places(config)))
    assert SECRET.encode() not in travelling and SECRET not in config.to_yaml()
