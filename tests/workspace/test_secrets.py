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


def test_a_release_is_named_by_its_uri_unless_it_has_a_name(tmp_path: Path) -> None:
    config = job(tmp_path / "in", tmp_path, output={"uri": "s3://bucket/2026-11/"})
    assert release_name(config) == "2026-11"
    assert release_name(job(tmp_path / "in", tmp_path)) == "tests"


def test_file_and_environment_give_the_same_keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANONLIB_TEST_SECRET", SECRET)
    by_file = job(tmp_path / "in", tmp_path)
    by_env = job(tmp_path / "in", tmp_path, secret={"env": "ANONLIB_TEST_SECRET"})
    one, other = (open_keyring(config, open_stores(config)) for config in (by_file, by_env))
    assert one.digest("x") == other.digest("x")
    assert SECRET not in repr(one)


def test_a_secret_is_made_only_when_asked_for(tmp_path: Path) -> None:
    config = job(tmp_path / "in", tmp_path, secret={})
    with pytest.raises(ConfigError, match="the workspace has no secret"):
        open_keyring(config, open_stores(config))
    made = open_keyring(config, open_stores(config), make=True)
    assert open_keyring(config, open_stores(config), make=True).digest("x") == made.digest("x")
    bind(config, open_stores(config), made)
    holding = [path.name for path in tmp_path.rglob("*") if path.is_file() and made.secret in path.read_bytes()]
    assert holding == ["secret"]
    kept = [tmp_path / "workspace" / name for name in ("secret", "salt")]
    assert [path.stat().st_mode & 0o777 for path in kept] == [0o600, 0o600]
    assert len({path.read_text() for path in kept}) == 2


def test_a_workspace_takes_one_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = job(tmp_path / "in", tmp_path)
    stores = open_stores(config)
    bind(config, stores, open_keyring(config, stores))
    bind(config, stores, open_keyring(config, stores))
    kept = tmp_path / "workspace" / "secret-check"
    assert SECRET not in kept.read_text() and SECRET.encode().hex() not in kept.read_text()
    monkeypatch.setenv("ANONLIB_TEST_SECRET", f"not {SECRET}")
    other = job(tmp_path / "in", tmp_path, secret={"env": "ANONLIB_TEST_SECRET"})
    with pytest.raises(ConfigError, match="variable ANONLIB_TEST_SECRET holds another secret than the one that"):
        open_keyring(other, stores)
    # Who forgets to name it does not get a new one.
    with pytest.raises(ConfigError, match="name the one that it was planned with"):
        open_keyring(job(tmp_path / "in", tmp_path, secret={}), stores, make=True)


def test_of_two_secrets_at_once_one_wins(tmp_path: Path) -> None:
    config = job(tmp_path / "in", tmp_path)
    stores = open_stores(config)
    mine, yours = open_keyring(config, stores), Keyring(b"another secret, quite a lot longer", "tests")
    bind(config, stores, yours)
    with pytest.raises(ConfigError, match="holds another secret"):
        bind(config, stores, mine)


def test_a_worker_with_another_secret_is_refused(tmp_path: Path) -> None:
    config = job(tmp_path / "in", tmp_path)
    stores = open_stores(config)
    check = open_keyring(config, stores).check()
    assert open_in_worker(config, stores, check).check() == check
    (tmp_path / "secret").write_text(f"not {SECRET}")
    with pytest.raises(ConfigError, match="than the one that this job was started with") as problem:
        open_in_worker(config, stores, check)
    assert str(tmp_path / "secret") in str(problem.value) and check not in str(problem.value)


def test_space_around_a_secret_is_not_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = job(tmp_path / "in", tmp_path, secret={"env": "ANONLIB_TEST_SECRET"})
    monkeypatch.setenv("ANONLIB_TEST_SECRET", SECRET)
    check = open_keyring(config, open_stores(config)).check()
    monkeypatch.setenv("ANONLIB_TEST_SECRET", f"{SECRET}\t \r\n")
    assert open_keyring(config, open_stores(config)).check() == check


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"env": "A", "manager": "b"}, "give one of"),
        ({"file": "a", "kms": "b"}, "give one of"),
        ({"env": "A", "field": "b"}, "belong to manager"),
        ({"kms": "a", "version": "b"}, "belong to manager"),
        ({"file": "a", "profile": "b"}, "belongs to manager and kms"),
    ],
)
def test_a_secret_has_one_source(given: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SecretConfig.model_validate(given)


def test_what_travels_to_a_worker_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANONLIB_TEST_SECRET", SECRET)
    config = job(tmp_path / "in", tmp_path, secret={"env": "ANONLIB_TEST_SECRET"})
    travelling = pickle.dumps((config, open_stores(config)))
    assert SECRET.encode() not in travelling and SECRET not in config.to_yaml()


# --- the salt ----------------------------------------------------------------------------------------------------


def unsalted(config: JobConfig) -> JobConfig:
    """As a user's job begins, whose workspace has no salt yet."""
    (Path(config.workspace.uri) / "salt").unlink()
    return config


def test_two_outputs_of_one_name_share_nothing(people_tars: Path, tmp_path: Path) -> None:
    """s3://a/release and s3://b/release: the same secret, photos and last part of the URI."""
    found = []
    for name in ("a", "b"):
        root = tmp_path / name
        config = job(people_tars, root, output={"uri": f"{root}/release"}, method={"name": "solid"}, rekey=True)
        unsalted(config)
        Job(config).run()
        rows = manifest(root / "release")
        found.append({value for row in rows for value in (row["key"], row["input_hmac"])})
    assert found[0].isdisjoint(found[1]) and all(len(one) > 20 for one in found)
    assert release_name(config) == "release"


def test_releases_of_two_names_or_places_from_one_workspace_share_nothing(tmp_path: Path) -> None:
    outputs = [{"uri": f"{tmp_path}/one"}, {"uri": f"{tmp_path}/two"}, {"uri": f"{tmp_path}/two", "release": "three"}]
    keyrings = []
    for output in outputs:
        config = job(tmp_path / "in", tmp_path, output=output)
        keyrings.append(open_keyring(config, open_stores(config)))
    assert len({one.digest("x") for one in keyrings}) == 3
    assert len({one.check() for one in keyrings}) == len({one.person("label", "Ada") for one in keyrings}) == 1


def test_a_salt_is_made_once_and_read_by_workers(tmp_path: Path) -> None:
    config = unsalted(job(tmp_path / "in", tmp_path))
    stores = open_stores(config)
    with pytest.raises(ConfigError, match="has no file salt"):
        open_keyring(config, stores)
    made = open_keyring(config, stores, make=True)
    kept = (tmp_path / "workspace" / "salt").read_text()
    assert len(kept) == 64
    again, worker = open_keyring(config, stores, make=True), open_in_worker(config, stores, made.check())
    assert made.digest("x") == again.digest("x") == worker.digest("x")
    assert (tmp_path / "workspace" / "salt").read_text() == kept
    bind(config, stores, made)
    with pytest.raises(ConfigError, match=r"has no file salt, .* give this job a new workspace and output"):
        open_keyring(unsalted(config), stores, make=True)


def test_of_two_salts_at_once_one_wins(tmp_path: Path) -> None:
    config = unsalted(job(tmp_path / "in", tmp_path))
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: open_keyring(config, open_stores(config), make=True).digest("x"), range(8)))
    assert len(set(opened)) == 1


# --- the secret that signs ---------------------------------------------------------------------------------------


def test_a_secret_of_its_own_signs_and_draws_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = SECRET[::-1]
    monkeypatch.setenv("ANONLIB_TEST_SIGNING", other)
    plain, config = (
        job(tmp_path / "in", tmp_path, **changes) for changes in ({}, {"signing": {"env": "ANONLIB_TEST_SIGNING"}})
    )
    one, signs = (open_keyring(each, open_stores(each)) for each in (plain, config))
    signers = [signing_secret(each, open_stores(each), keys) for each, keys in ((plain, one), (config, signs))]
    assert signers == [SECRET.encode(), other.encode()]
    assert one.digest("x") == signs.digest("x") and one.check() == signs.check()
    monkeypatch.delenv("ANONLIB_TEST_SIGNING")
    assert open_keyring(config, open_stores(config)).check() == signs.check()
    with pytest.raises(ConfigError, match=r"ANONLIB_TEST_SIGNING \(signing.env\) is not set"):
        signing_secret(config, open_stores(config), signs)
    assert open_in_worker(config, open_stores(config), one.check()).digest("x") == one.digest("x"), (
        "workers sign nothing"
    )


def test_a_certificate_is_of_the_secret_that_signs(people_tars: Path, tmp_path: Path) -> None:
    (tmp_path / "signs").write_text("a passphrase that signs for years\n")
    run_job(people_tars, tmp_path, method={"name": "solid"}, signing={"file": str(tmp_path / "signs")})
    found = verify(open_storage(f"{tmp_path}/release"), public_key(stretched(b"a passphrase that signs for years")))
    assert found.pinned


def test_a_weak_or_nameless_secret_that_signs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "signs").write_text("short")
    config = job(tmp_path / "in", tmp_path, signing={"file": str(tmp_path / "signs")})
    with pytest.raises(ConfigError, match=r"signs \(signing\) has 5 characters"):
        signing_secret(config, open_stores(config), Keyring(SECRET.encode(), ""))
    stores = {"input.uri": "in", "output.uri": "out", "workspace.uri": "ws"}
    with pytest.raises(ConfigError, match="name a secret by signing"):
        load_config(overrides=stores | {"signing": {}})
