"""What a storage promises at S3, Google and Azure, under every fault of faults/proxy.py, and what it says of them."""

import gzip
import os
import pickle
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from azure.storage.blob import ContentSettings

from anonlib.errors import AccessDenied, Changed, NotFound, StorageError, Unavailable, VersionsRemain
from anonlib.storage import Storage, open_storage
from anonlib.storage.azure import AzureStorage
from anonlib.storage.gs import GoogleStorage
from tests.faults.proxy import TRANSIENT, FaultProxy, fits
from tests.support.clouds import Cloud, cloud_of
from tests.support.s3server import free_port, one_sentence


@pytest.fixture(params=["s3", "gs", "abfs"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    return cloud_of(request, request.param)


@pytest.fixture
def proxy(cloud: Cloud) -> Iterator[FaultProxy]:
    with FaultProxy(cloud.endpoint, slow_s=0.01) as proxy, cloud.acting(proxy.endpoint):
        yield proxy


@pytest.fixture
def place(cloud: Cloud, proxy: FaultProxy, hurried: None, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setattr("anonlib.storage.objects.READ_BLOCK_BYTES", 8 << 20)
    return open_storage(f"{cloud.scheme}://{cloud.bucket()}/p")


@pytest.mark.parametrize("fault", TRANSIENT)
def test_what_passes_is_not_noticed(place: Storage, proxy: FaultProxy, fault: str, tmp_path: Path) -> None:
    place.publish("x", data := os.urandom(3 << 20))
    (tmp_path / "large").write_bytes(large := os.urandom(1 << 20) * 20)
    verbs = {
        "GET": lambda: place.read("x") == data and place.exists("x"),
        "LIST": lambda: [entry.path for entry in place.list()] == ["large", "x"],
        "PUT": lambda: place.publish("large", tmp_path / "large") is None and place.read("large") == large,
        "CLAIM": lambda: place.claim("claimed", b"1") and not place.claim("claimed", b"2"),
        "DELETE": lambda: place.delete("claimed") is None and not place.exists("claimed"),
    }
    place.publish("large", b"1")
    for name, verb in verbs.items():
        before = len(proxy.log)
        if any(fits(fault, method) for method in {"LIST": ["GET"], "CLAIM": ["PUT"]}.get(name, [name])):
            proxy.inject(fault, "*" if fault != "torn-body" else "GET *", once=True)
        assert verb(), (name, fault)
        assert len(proxy.log) - before <= 1
        proxy.heal()
    assert proxy.log


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("503", Unavailable, "overloaded or failing"),
        ("denied", AccessDenied, r"may not (write|do s3:PutObject)"),
        ("full", StorageError, "is full"),
        ("reset-before", Unavailable, "reached"),
    ],
)
def test_what_lasts_is_one_sentence(
    place: Storage, proxy: FaultProxy, fault: str, kind: type[StorageError], words: str
) -> None:
    proxy.inject(fault, "*", times=-1)
    began = time.monotonic()
    with pytest.raises(kind, match=words) as caught:
        place.publish("secret-name.jpg", b"1")
    assert one_sentence(caught.value) and "secret-name" not in str(caught.value)
    assert caught.value.path in (None, "secret-name.jpg") and time.monotonic() - began < 25


def test_a_claim_whose_answer_was_lost_is_still_known_to_be_ours(place: Storage, proxy: FaultProxy) -> None:
    for won in (True, False):
        proxy.inject("reset-after", "P* *")
        assert place.claim("commit", b"1") == won
        assert proxy.log[-1].fault == "reset-after"


def test_a_missing_bucket_and_a_missing_file_are_told_apart(cloud: Cloud, place: Storage) -> None:
    with pytest.raises(NotFound, match="no such file"):
        place.read("nothing")
    missing = open_storage(f"{cloud.scheme}://no-such-bucket/p")
    for verb in (missing.exists, lambda _: list(missing.list()), lambda path: missing.claim(path, b"1")):
        with pytest.raises(StorageError, match=r"does not know the bucket|no bucket") as caught:
            verb("y")
        assert not isinstance(caught.value, NotFound) and one_sentence(caught.value)


def test_a_dead_endpoint_is_given_up_within_twenty_seconds(cloud: Cloud) -> None:
    began = time.monotonic()
    with cloud.acting(f"http://127.0.0.1:{free_port()}"), pytest.raises(Unavailable, match="cannot be reached"):
        open_storage(f"{cloud.scheme}://bucket/p").probe()
    assert time.monotonic() - began < 20


def test_an_object_replaced_while_it_is_read_is_noticed(place: Storage) -> None:
    place.publish("x", bytes(20 << 20))
    with place.open_read("x") as stream:
        stream.read(10)
        place.publish("x", os.urandom(20 << 20))
        with pytest.raises(Changed):
            stream.read()


def test_no_secret_is_in_a_pickle_or_in_a_name(cloud: Cloud, place: Storage) -> None:
    place.publish("x", b"1")
    stored = pickle.dumps(place)
    assert pickle.loads(stored).read("x") == b"1"
    assert b"AccountKey" not in stored and (cloud.key or "no key").encode() not in stored + repr(place).encode()


def test_a_wrong_key_is_a_sentence_without_it(abfs: Cloud) -> None:
    wrong = replace(abfs, key="d3Jvbmctc2VjcmV0")
    with wrong.acting(), pytest.raises(AccessDenied, match="or they are wrong") as caught:
        open_storage(f"abfs://{abfs.bucket()}").read("x")
    assert one_sentence(caught.value) and wrong.key not in str(caught.value)


@pytest.mark.parametrize("uri", ["s3://some-bucket", "gs://bucket", "abfs://container"])
def test_no_credentials_at_all_is_a_sentence(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "STORAGE_EMULATOR"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("HOME", "/nowhere")
    with pytest.raises(StorageError, match="No usable") as caught:
        open_storage(uri).read("x")
    assert str(caught.value).endswith(".")


def test_a_key_or_a_signature_of_azure_is_sent_to_its_own_account_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)

    def reached(uri: str) -> tuple[str, bool]:
        place = open_storage(uri)
        assert isinstance(place, AzureStorage)
        return place.client.url, type(place.client.credential).__name__ != "DefaultAzureCredential"

    own, other = "abfs://c@mine.blob.core.windows.net", "az://c@other.dfs.core.chinacloudapi.cn"
    for name, value in {"AZURE_STORAGE_KEY": "c2VjcmV0", "AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=secret"}.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(StorageError, match="AZURE_STORAGE_ACCOUNT"):
                reached(other)
            patch.setenv("AZURE_STORAGE_ACCOUNT", "mine")
            assert reached(other) == ("https://other.blob.core.chinacloudapi.cn/c", False)
            for uri in (own, "abfs://c"):
                url, used = reached(uri)
                assert url.startswith("https://mine.blob.core.windows.net/c") and used


def test_a_blob_that_says_it_is_compressed_is_read_as_it_is_stored(abfs: Cloud) -> None:
    with abfs.acting():
        bucket, data = abfs.bucket(), gzip.compress(os.urandom(9) * (9 << 20), 1)
        settings = ContentSettings(content_encoding="gzip")
        abfs.client(bucket).upload_blob("p/x", data, content_settings=settings)
        assert open_storage(f"abfs://{bucket}/p").read("x") == data


@pytest.mark.parametrize("way", ["versions", "soft_deleted"])
def test_a_bucket_that_keeps_old_versions_cannot_pretend_to_be_purged(
    gs: Cloud, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The emulator keeps none, so what Google would list is put behind its answer."""
    with gs.acting():
        place = open_storage(f"gs://{gs.bucket()}/p")
        assert isinstance(place, GoogleStorage)
        place.publish("x", b"1")
        place.publish("kept", b"1")
        asked = place.client.list_blobs
        old = place.client.bucket(place.bucket).blob("p/x", generation=1)
        old._properties |= {
            "size": "1",
            "timeDeleted" if way == "versions" else "softDeleteTime": "2026-11-01T00:00:00Z",
        }
        monkeypatch.setattr(place.client, "list_blobs", lambda *a, **k: [*asked(*a, **k), *([old] if way in k else [])])
        with pytest.raises(VersionsRemain, match=r" 1 files .* are hidden"):
            place.delete_tree("", keep=["kept"])


def test_blocks_of_an_upload_that_was_cut_off_are_purged(abfs: Cloud) -> None:
    with abfs.acting():
        bucket = abfs.bucket()
        client, place = abfs.client(bucket), open_storage(f"abfs://{bucket}/p")
        place.publish("kept", b"kept")
        client.get_blob_client("p/half").stage_block("AAAA", b"a face")
        assert place.delete_tree("", keep=["kept"]) == 0 and place.read("kept") == b"kept"
        assert [blob.name for blob in client.list_blobs(include=["uncommittedblobs"])] == ["p/kept"]
