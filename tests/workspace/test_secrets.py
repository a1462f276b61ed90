"""The secret comes from where the job says, AWS too, and is in nothing that travels, and in no sentence."""

from __future__ import annotations

import json
import logging
import traceback
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError
from pydantic import ValidationError

from anonlib.config import JobConfig, SecretConfig, load_config
from anonlib.errors import ConfigError
from anonlib.privacy.keys import Keyring, stretched
from anonlib.storage import open_storage
from anonlib.verification.certificate import public_key
from anonlib.verification.release import verify
from anonlib.workspace import secrets as secrets_module
from anonlib.workspace.layout import open_stores
from anonlib.workspace.secrets import bind, open_in_worker, open_keyring, release_name, signing_secret
from tests.support import photos
from tests.support.runs import SECRET, job, run_job
from tests.support.s3server import Credentials, S3Server

BY_ENV = {"env": "ANONLIB_TEST_SECRET"}


def opened(config: JobConfig, make: bool = False) -> Keyring:
    return open_keyring(config, open_stores(config), make=make)


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


def test_a_secret_has_one_source() -> None:
    for source in ({"env": "A", "manager": "b"}, {"kms": "a", "version": "b"}, {"file": "a", "profile": "b"}):
        with pytest.raises(ValidationError, match=r"give one of|belong to manager|belongs to manager and kms"):
            SecretConfig.model_validate(source)


# --- the salt ----------------------------------------------------------------------------------------------------


def unsalted(config: JobConfig) -> JobConfig:
    """As a user's job begins, whose workspace has no salt yet."""
    (Path(config.workspace.uri) / "salt").unlink()
    return config


def test_two_outputs_of_one_name_share_nothing(tmp_path: Path) -> None:
    """s3://a/release and s3://b/release: the same secret and last part of the URI."""
    outputs = [job("in", root, output={"uri": f"{root}/release"}) for root in (tmp_path / "a", tmp_path / "b")]
    first, second = (opened(unsalted(config), make=True) for config in outputs)
    assert first.digest("x") != second.digest("x") and first.pseudonym("key", "a") != second.pseudonym("key", "a")
    assert release_name(outputs[0]) == "release" and release_name(job("in", tmp_path)) == "tests"


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


def test_a_certificate_is_of_the_secret_that_signs(tmp_path: Path) -> None:
    photos.tar(tmp_path / "in" / "0.tar", [("a.jpg", photos.jpeg(photos.nobody()))])
    (tmp_path / "signs").write_text("a passphrase that signs for years\n")
    run_job(tmp_path / "in", tmp_path, method={"name": "solid"}, signing={"file": str(tmp_path / "signs")})
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


# --- the secret from AWS -----------------------------------------------------------------------------------------

SAME = Keyring(SECRET.encode(), "any").check()


@pytest.fixture
def cloud(s3: S3Server) -> Iterator[S3Server]:
    with s3.acting_as():
        yield s3


def of_manager(s3: S3Server, **content: Any) -> str:
    """The name of a new secret."""
    name = f"anonlib/{uuid4().hex}"
    s3.client("secretsmanager").create_secret(Name=name, **content)
    return name


def sealed(s3: S3Server, path: Path, key: str | None = None, context: dict[str, str] | None = None) -> str:
    """A file with the secret as KMS seals it."""
    kms = s3.client("kms")
    key = key or kms.create_key()["KeyMetadata"]["KeyId"]
    answer = kms.encrypt(KeyId=key, Plaintext=SECRET.encode(), EncryptionContext=context or secrets_module.CONTEXT)
    path.write_bytes(answer["CiphertextBlob"])
    return str(path)


def named(root: Path, **source: str) -> JobConfig:
    return job(root / "in", root, secret=source)


def check_of(config: JobConfig) -> str:
    return opened(config).check()


def refusal(config: JobConfig) -> str:
    """The one sentence; neither it nor its traceback says what a server or the secret says."""
    with pytest.raises(ConfigError) as problem:
        check_of(config)
    text = "".join(traceback.format_exception(problem.value))
    assert SECRET not in text and "QUOTED" not in text and "\n" not in str(problem.value)
    return str(problem.value)


def test_text_bytes_and_sealed_files_give_the_keyring_of_a_file_and_no_log_shows_them(
    cloud: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blob = Path(sealed(cloud, tmp_path / "blob"))
    bucket = f"s3://{cloud.bucket()}/keys"
    open_storage(bucket, cloud.options).publish("blob", b64encode(blob.read_bytes()) + b"\n")
    storage = {"endpoint_url": cloud.endpoint}
    configs = [
        named(tmp_path, manager=of_manager(cloud, SecretString=f"{SECRET}\n")),
        named(tmp_path, manager=of_manager(cloud, SecretBinary=SECRET.encode())),
        named(tmp_path, kms=str(blob)),
        job(tmp_path / "in", tmp_path, secret={"kms": f"{bucket}/blob"}, storage=storage),
    ]
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "botocore.parsers")
    for config in configs:
        caplog.clear()
        assert check_of(config) == SAME
        assert "botocore" in caplog.text
        assert SECRET not in caplog.text and b64encode(SECRET.encode()).decode() not in caplog.text
    assert logging.getLogger("botocore.parsers").level == logging.DEBUG


def test_a_store_of_ones_own_is_not_asked_for_the_secret_and_a_profile_has_its_credentials(
    cloud: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = of_manager(cloud, SecretString=SECRET)
    storage = {"endpoint_url": "http://127.0.0.1:9", "region": "of-the-store"}
    assert check_of(job(tmp_path / "in", tmp_path, secret={"manager": name}, storage=storage)) == SAME
    (tmp_path / "credentials").write_text(
        f"[vault]\naws_access_key_id = {cloud.root.key_id}\naws_secret_access_key = {cloud.root.secret}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "minio-alone-knows-me")
    assert check_of(named(tmp_path, manager=name, profile="vault")) == SAME
    assert "secret.profile" in refusal(named(tmp_path, manager=name))
    assert "configuration files" in refusal(named(tmp_path, manager=name, profile="nobody"))


def test_a_secret_that_cannot_be_had_is_a_sentence(cloud: S3Server, tmp_path: Path) -> None:
    manager = cloud.client("secretsmanager")
    doomed, short = of_manager(cloud, SecretString=SECRET), of_manager(cloud, SecretString="short")
    entries = of_manager(cloud, SecretString=json.dumps({"key": SECRET, "port": 1}))
    manager.delete_secret(SecretId=doomed, RecoveryWindowInDays=7)
    assert check_of(named(tmp_path, manager=entries, field="key")) == SAME
    assert "holds JSON; name the entry" in refusal(named(tmp_path, manager=entries))
    assert "no JSON object with a text under port" in refusal(named(tmp_path, manager=entries, field="port"))
    assert "no JSON object with a text under key" in refusal(named(tmp_path, manager=short, field="key"))
    assert "not in this version" in refusal(named(tmp_path, manager=short, version=str(uuid4())))
    assert "scheduled for deletion" in refusal(named(tmp_path, manager=doomed))
    assert "has 5 characters; a secret is 32 random bytes" in refusal(named(tmp_path, manager=short))


def test_a_missing_right_is_named(cloud: S3Server, tmp_path: Path) -> None:
    name = of_manager(cloud, SecretString=SECRET)
    nothing = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iam:GetUser", "Resource": "*"}]}
    with cloud.acting_as(cloud.user(nothing)):
        sentence = refusal(named(tmp_path, manager=name))
        assert "secretsmanager:GetSecretValue" in sentence and "kms:Decrypt" in sentence
        assert "kms:Decrypt" in refusal(named(tmp_path, kms=sealed(cloud, tmp_path / "blob")))
    with cloud.acting_as(Credentials("AKIAUNKNOWN", "x" * 40)):
        assert "does not know the credentials" in refusal(named(tmp_path, manager=name))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("ExpiredTokenException", "credentials have expired"),
        ("DecryptionFailure", "its KMS key is disabled"),
        ("ThrottlingException", "overloaded or failing"),
        ("MethodNotAllowed", "AWS_ENDPOINT_URL_S3"),
        (None, "http://127.0.0.1:9 cannot be reached"),
    ],
)
def test_what_the_service_says_is_not_repeated(
    tmp_path: Path, cloud: S3Server, monkeypatch: pytest.MonkeyPatch, code: str | None, words: str
) -> None:
    def refuse(client: Any, operation: str, arguments: Any) -> None:
        raise ClientError({"Error": {"Code": code, "Message": f"QUOTED {SECRET}"}}, operation)

    monkeypatch.setattr(secrets_module, "_TRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://user:QUOTED@127.0.0.1:9")
    if code is not None:
        monkeypatch.setattr("botocore.client.BaseClient._make_api_call", refuse)
    assert words in refusal(named(tmp_path, manager="mine"))


def test_a_blob_that_kms_does_not_open_is_a_sentence(cloud: S3Server, tmp_path: Path) -> None:
    kms = cloud.client("kms")
    disabled = kms.create_key()["KeyMetadata"]["KeyId"]
    for_another = sealed(cloud, tmp_path / "other", context={"anonlib": "ledger"})
    by_disabled = sealed(cloud, tmp_path / "disabled", disabled)
    kms.disable_key(KeyId=disabled)
    (tmp_path / "large").write_bytes(b"\xff" * 7000)
    assert "--encryption-context anonlib=secret" in refusal(named(tmp_path, kms=for_another))
    assert "its KMS key is disabled" in refusal(named(tmp_path, kms=by_disabled))
    assert "not a secret that KMS sealed" in refusal(named(tmp_path, kms=str(tmp_path / "large")))
    assert "there is no such file" in refusal(named(tmp_path, kms=str(tmp_path / "none")))
