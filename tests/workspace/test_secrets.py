"""The secret comes from where the job says, and is in nothing that travels."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from anonlib.config import JobConfig, SecretConfig, load_config
from anonlib.errors import ConfigError
from anonlib.job import Job
from anonlib.privacy.keys import Keyring, stretched
from anonlib.storage import open_storage
from anonlib.verification.certificate import public_key
from anonlib.verification.release import verify
from anonlib.workspace.layout import open_stores
from anonlib.workspace.secrets import bind, open_in_worker, open_keyring, release_name, signing_secret
from tests.support.runs import SECRET, job, manifest, run_job

BY_ENV = {"env": "ANONLIB_TEST_SECRET"}


def opened(config: JobConfig, make: bool = False) -> Keyring:
    return open_keyring(config, open_stores(config), make=make)


def test_file_and_environment_give_the_same_keyring_and_nothing_that_travels_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANONLIB_TEST_SECRET", f"{SECRET}\t \r\n")
    by_env = job(tmp_path / "in", tmp_path, secret=BY_ENV)
    keyring = opened(by_env)
    assert keyring.digest("x") == opened(job(tmp_path / "in", tmp_path)).digest("x")
    travelling = pickle.dumps((by_env, open_stores(by_env)))
    assert SECRET.encode() not in travelling and SECRET not in by_env.to_yaml() and SECRET not in repr(keyring)


def test_a_secret_is_made_only_when_asked_for(tmp_path: Path) -> None:
    config = job(tmp_path / "in", tmp_path, secret={})
    with pytest.raises(ConfigError, match="the workspace has no secret"):
        opened(config)
    made = opened(config, make=True)
    assert opened(config, make=True).digest("x") == made.digest("x")
    bind(config, open_stores(config), made)
    holding = [path.name for path in tmp_path.rglob("*") if path.is_file() and made.secret in path.read_bytes()]
    assert holding == ["secret"]
    kept = [tmp_path / "workspace" / name for name in ("secret", "salt")]
    assert [path.stat().st_mode & 0o777 for path in kept] == [0o600, 0o600]
    assert len({path.read_text() for path in kept}) == 2


def test_a_workspace_takes_one_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = job(tmp_path / "in", tmp_path)
    stores = open_stores(config)
    first = opened(config)
    bind(config, stores, first)
    bind(config, stores, first)
    with pytest.raises(ConfigError, match="holds another secret"):
        bind(config, stores, Keyring(b"another secret, quite a lot longer", "tests"))
    kept = tmp_path / "workspace" / "secret-check"
    assert SECRET not in kept.read_text() and SECRET.encode().hex() not in kept.read_text()
    monkeypatch.setenv("ANONLIB_TEST_SECRET", f"not {SECRET}")
    with pytest.raises(ConfigError, match="variable ANONLIB_TEST_SECRET holds another secret than the one that"):
        opened(job(tmp_path / "in", tmp_path, secret=BY_ENV))
    # Who forgets to name it does not get a new one.
    with pytest.raises(ConfigError, match="name the one that it was planned with"):
        opened(job(tmp_path / "in", tmp_path, secret={}), make=True)


def test_a_worker_with_another_secret_is_refused(tmp_path: Path) -> None:
    config = job(tmp_path / "in", tmp_path)
    stores, check = open_stores(config), opened(config).check()
    assert open_in_worker(config, stores, check).check() == check
    (tmp_path / "secret").write_text(f"not {SECRET}")
    with pytest.raises(ConfigError, match="than the one that this job was started with") as problem:
        open_in_worker(config, stores, check)
    assert str(tmp_path / "secret") in str(problem.value) and check not in str(problem.value)


def test_a_secret_has_one_source() -> None:
    for source in ({"env": "A", "manager": "b"}, {"kms": "a", "version": "b"}, {"file": "a", "profile": "b"}):
        with pytest.raises(ValidationError, match=r"give one of|belong to manager|belongs to manager and kms"):
            SecretConfig.model_validate(source)


# --- the salt ----------------------------------------------------------------------------------------------------


def unsalted(config: JobConfig) -> JobConfig:
    """As a user's job begins, whose workspace has no salt yet."""
    (Path(config.workspace.uri) / "salt").unlink()
    return config


def test_two_outputs_of_one_name_share_nothing(people_tars: Path, tmp_path: Path) -> None:
    """s3://a/release and s3://b/release: the same secret, photos and last part of the URI."""
    names = []
    for name in ("a", "b"):
        root = tmp_path / name
        config = job(people_tars, root, output={"uri": f"{root}/release"}, method={"name": "solid"}, rekey=True)
        Job(unsalted(config)).run()
        names.append({value for row in manifest(root / "release") for value in (row["key"], row["input_hmac"])})
    assert names[0].isdisjoint(names[1]) and all(len(values) > 20 for values in names)
    assert release_name(config) == "release" and release_name(job("in", tmp_path)) == "tests"


def test_releases_of_two_names_or_places_from_one_workspace_share_nothing(tmp_path: Path) -> None:
    outputs = [{"uri": f"{tmp_path}/one"}, {"uri": f"{tmp_path}/two"}, {"uri": f"{tmp_path}/two", "release": "three"}]
    keyrings = [opened(job(tmp_path / "in", tmp_path, output=output)) for output in outputs]
    assert len({keyring.digest("x") for keyring in keyrings}) == 3
    assert len({keyring.check() for keyring in keyrings}) == 1
    assert len({keyring.person("label", "Ada") for keyring in keyrings}) == 1


def test_a_salt_is_made_once_and_read_by_workers(tmp_path: Path) -> None:
    config = unsalted(job(tmp_path / "in", tmp_path))
    stores = open_stores(config)
    with pytest.raises(ConfigError, match="has no file salt"):
        opened(config)
    with ThreadPoolExecutor(8) as pool:
        keyrings = list(pool.map(lambda _: opened(config, make=True), range(8)))
    made = keyrings[0]
    assert len((tmp_path / "workspace" / "salt").read_text()) == 64
    keyrings += [opened(config, make=True), open_in_worker(config, stores, made.check())]
    assert len({keyring.digest("x") for keyring in keyrings}) == 1
    bind(config, stores, made)
    with pytest.raises(ConfigError, match=r"has no file salt, .* give this job a new workspace and output"):
        opened(unsalted(config), make=True)


# --- the secret that signs ---------------------------------------------------------------------------------------


def test_a_secret_of_its_own_signs_and_draws_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = SECRET[::-1]
    monkeypatch.setenv("ANONLIB_TEST_SIGNING", other)
    plain, config = (
        job(tmp_path / "in", tmp_path, **changes) for changes in ({}, {"signing": {"env": "ANONLIB_TEST_SIGNING"}})
    )
    stores, keyring = open_stores(config), opened(plain)
    assert signing_secret(plain, stores, keyring) == SECRET.encode()
    assert signing_secret(config, stores, opened(config)) == other.encode()
    monkeypatch.delenv("ANONLIB_TEST_SIGNING")
    with pytest.raises(ConfigError, match=r"ANONLIB_TEST_SIGNING \(signing.env\) is not set"):
        signing_secret(config, stores, keyring)
    for without in (opened(config), open_in_worker(config, stores, keyring.check())):
        assert without.digest("x") == keyring.digest("x") and without.check() == keyring.check()


def test_a_certificate_is_of_the_secret_that_signs(people_tars: Path, tmp_path: Path) -> None:
    (tmp_path / "signs").write_text("a passphrase that signs for years\n")
    run_job(people_tars, tmp_path, method={"name": "solid"}, signing={"file": str(tmp_path / "signs")})
    key = public_key(stretched(b"a passphrase that signs for years"))
    assert verify(open_storage(f"{tmp_path}/release"), key).pinned


def test_a_weak_or_nameless_secret_that_signs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "signs").write_text("short")
    config = job(tmp_path / "in", tmp_path, signing={"file": str(tmp_path / "signs")})
    with pytest.raises(ConfigError, match=r"signs \(signing\) has 5 characters"):
        signing_secret(config, open_stores(config), Keyring(SECRET.encode(), ""))
    places = {"input.uri": "in", "output.uri": "out", "workspace.uri": "ws"}
    with pytest.raises(ConfigError, match="name a secret by signing"):
        load_config(overrides=places | {"signing": {}})
