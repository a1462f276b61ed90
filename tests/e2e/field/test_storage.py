"""What stores and disks of the field do: checksums refused, archived objects, no hard links, one object at fault."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from anonlib.config import JobConfig
from anonlib.datasets import open_input
from anonlib.errors import AccessDenied, DatasetError, JobError, StorageError
from anonlib.job import Job
from anonlib.storage import StorageOptions, open_storage
from anonlib.storage import local as local_module
from anonlib.storage import s3 as s3_module
from anonlib.workspace.purge import purge
from tests.faults.proxy import FaultProxy
from tests.support import photos
from tests.support.runs import job, manifest
from tests.support.s3server import REGION, S3Server, one_sentence

Headers = Mapping[str, str]


@pytest.fixture(scope="module")
def photo() -> bytes:
    return photos.jpeg(photos.nobody()[::4, ::4])


@pytest.fixture
def proxy(s3: S3Server, hurried: None) -> Iterator[FaultProxy]:
    """In front of the server, for its root user."""
    with s3.acting_as(), FaultProxy(s3.endpoint) as proxy:
        yield proxy


def on_s3(
    s3: S3Server, endpoint: str, files: Mapping[str, bytes], root: Path | None = None, **storage: Any
) -> JobConfig:
    """A job over these files that reaches their bucket at `endpoint`; its places are there too, or below `root`."""
    bucket = s3.bucket()
    for name, data in files.items():
        s3.client().put_object(Bucket=bucket, Key=f"in/{name}", Body=data)
    return job(
        f"s3://{bucket}/in",
        root or f"s3://{bucket}/{uuid4().hex}",
        input={"uri": f"s3://{bucket}/in"},
        method={"name": "solid"},
        storage={"endpoint_url": endpoint, "region": REGION} | storage,
        secret={},
    )


def there(s3: S3Server, uri: str) -> list[str]:
    return [entry.path for entry in open_storage(uri, s3.options).list(unfinished=True)]


def has_checksum(headers: Headers) -> bool:
    names = {name.lower() for name in headers}
    trailing = "aws-chunked" in headers.get("Content-Encoding", "")
    return trailing or any(
        name.startswith(("x-amz-checksum-", "x-amz-sdk-checksum", "x-amz-trailer")) for name in names
    )


REFUSALS = (
    ((400, "InvalidArgument"), (400, "MissingContentMD5")),
    ((400, "AuthorizationHeaderMalformed"), (501, "NotImplemented")),
    ((400, "XAmzContentChecksumMismatch"), (405, "MethodNotAllowed")),
)


def refuse_checksums(proxy: FaultProxy, refusal: tuple[int, str], of_many: tuple[int, str]) -> None:
    def refuse(method: str, key: str, headers: Headers) -> tuple[int, str] | None:
        if method == "POST" and key.endswith("?delete"):
            return of_many
        return refusal if has_checksum(headers) else None

    proxy.refuse = refuse


def test_a_store_that_refuses_checksums_takes_a_whole_job_and_its_purge(
    s3: S3Server, proxy: FaultProxy, photo: bytes
) -> None:
    refuse_checksums(proxy, *REFUSALS[0])
    config = on_s3(s3, proxy.endpoint, {"a.jpg": photo})
    assert Job(config).run().images == 1
    assert purge(config).remains is None
    assert there(s3, config.workspace.uri) == ["purged.json"]


@pytest.mark.parametrize(("refusal", "of_many"), REFUSALS[1:])
def test_whatever_such_a_store_says_it_is_written_read_and_emptied(
    s3: S3Server, proxy: FaultProxy, refusal: tuple[int, str], of_many: tuple[int, str], tmp_path: Path
) -> None:
    refuse_checksums(proxy, refusal, of_many)
    (tmp_path / "file").write_bytes(b"2")
    place = open_storage(f"s3://{s3.bucket()}/x", StorageOptions(proxy.endpoint, REGION))
    place.publish("a/b", b"1")
    place.publish("a/c", tmp_path / "file")
    assert [place.claim("d", b"3"), place.claim("d", b"4")] == [True, False]
    assert [place.read(entry.path) for entry in place.list()] == [b"1", b"2", b"3"]
    assert place.delete_tree("", keep=("d",)) == 2
    assert there(s3, place.uri) == ["d"]


def test_an_endpoint_of_the_environment_counts_as_one_and_what_a_user_has_set_about_checksums_stays(
    s3: S3Server, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.refuse = lambda method, key, headers: (400, "InvalidArgument") if has_checksum(headers) else None
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
    open_storage(f"s3://{s3.bucket()}/x").publish("a", b"1")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    with pytest.raises(StorageError, match="AWS_REQUEST_CHECKSUM_CALCULATION=when_required"):
        open_storage(f"s3://{s3.bucket()}/x").publish("a", b"1")


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("AuthorizationHeaderMalformed", r"set storage.region \(--region\)"),
        ("KMS.NotFoundException", r"check storage\.kms_key"),
    ],
)
def test_a_refusal_names_the_key_of_the_job_that_mends_it(
    s3: S3Server, proxy: FaultProxy, code: str, sentence: str
) -> None:
    proxy.refuse = lambda *request: (400, code)
    with pytest.raises(StorageError, match=sentence) as refused:
        open_storage(f"s3://{s3.bucket()}/x", StorageOptions(proxy.endpoint, REGION)).publish("a", b"1")
    assert one_sentence(refused.value)


def test_a_batch_that_may_not_be_deleted_is_no_purge(s3: S3Server, proxy: FaultProxy) -> None:
    place = open_storage(f"s3://{s3.bucket()}/x", StorageOptions(proxy.endpoint, REGION))
    place.publish("a", b"1")
    proxy.refuse = lambda method, key, headers: (403, "AccessDenied") if method in ("POST", "DELETE") else None
    with pytest.raises(StorageError, match="s3:DeleteObject"):
        place.delete_tree("")


def test_buckets_get_their_key_their_payer_and_no_signature_for_a_public_input(s3: S3Server, proxy: FaultProxy) -> None:
    asked: list[tuple[str, str, Headers]] = []

    def note(method: str, key: str, headers: Headers) -> None:
        asked.append((method, key, {name.lower(): value for name, value in headers.items()}))

    proxy.refuse = note
    options = {"kms_key": "alias/release", "requester_pays": True, "anonymous": True}
    config = on_s3(s3, proxy.endpoint, {"a.jpg": b"1"}, **options)
    with pytest.raises(AccessDenied):  # the server behind has no public buckets
        open_input(config)
    open_storage(config.output.uri, config.storage.options).publish("run.json", b"{}")
    assert {headers.get("x-amz-request-payer") for _, _, headers in asked} == {"requester"}
    reads = [headers for _, key, headers in asked if key.endswith("/in")]
    assert reads and not any("authorization" in headers for headers in reads)
    writes = [headers for method, _, headers in asked if method == "PUT"]
    assert writes and all("authorization" in headers for headers in writes)
    encryption = {
        (h.get("x-amz-server-side-encryption"), h["x-amz-server-side-encryption-aws-kms-key-id"]) for h in writes
    }
    assert encryption == {("aws:kms", "alias/release")}


@pytest.mark.parametrize("code", ["EPERM", "ENOSYS", "EIO"])
def test_a_disk_without_hard_links_is_said_before_anything_is_scanned(
    tmp_path: Path, photo: bytes, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos.fill(tmp_path / "in", {"a.jpg": photo})
    config = job(tmp_path / "in", tmp_path, method={"name": "solid"})

    def refuse(source: Path, target: Path) -> None:
        if Path(target).is_relative_to(tmp_path / "release"):
            raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)), str(source))
        real(source, target)

    real = os.link
    monkeypatch.setattr("anonlib.storage.local.os.link", refuse)
    with pytest.raises(JobError, match=f"the output {tmp_path}/release cannot be used: .* without hard links"):
        Job(config).run()
    assert not (tmp_path / "workspace" / "scan").exists() and not list((tmp_path / "release").iterdir())


@pytest.mark.parametrize(("place", "uri"), [("output", "/proc/x"), ("workspace", "/dev/null/x"), ("ledger", "/proc/x")])
def test_a_place_that_cannot_be_written_is_named_before_anything_is_scanned(
    tmp_path: Path, photo: bytes, place: str, uri: str
) -> None:
    photos.fill(tmp_path / "in", {"a.jpg": photo})
    changes = {place: {"uri": uri}} | ({"secret": {}} if place == "workspace" else {})
    config = job(tmp_path / "in", tmp_path, method={"name": "solid"}, **changes)
    with pytest.raises(JobError, match=f"the {place} {uri} cannot be used: Cannot write"):
        Job(config).run()
    assert not (tmp_path / "workspace" / "scan").exists()


def test_archived_objects_are_counted_before_the_work(s3: S3Server, proxy: FaultProxy, photo: bytes) -> None:
    config = on_s3(s3, proxy.endpoint, {f"{name}.jpg": photo for name in "abc"})
    bucket = config.input.uri.split("/")[2]
    for name, archive in (("a", "GLACIER"), ("b", "DEEP_ARCHIVE")):
        s3.client().put_object(Bucket=bucket, Key=f"in/{name}.jpg", Body=photo, StorageClass=archive)
    with pytest.raises(DatasetError, match=r"2 of the 3 image.* are archived .* restore them first"):
        Job(config)
    assert there(s3, config.workspace.uri) == []


def test_what_is_restored_or_at_hand_is_not_archived() -> None:
    deep, tiered = {"StorageClass": "DEEP_ARCHIVE"}, {"StorageClass": "INTELLIGENT_TIERING"}
    begun, restored = ({"Restore": f'ongoing-request="{word}", expiry-date="Fri"'} for word in ("true", "false"))
    archived = (deep, deep | begun, tiered | {"ArchiveStatus": "DEEP_ARCHIVE_ACCESS"})
    at_hand = (deep | restored, {"StorageClass": "GLACIER_IR"}, tiered, {})
    assert all(map(s3_module._is_archived, archived)) and not any(map(s3_module._is_archived, at_hand))


def tars(photo: bytes, tmp_path: Path) -> dict[str, bytes]:
    """Three shards of a photo each."""
    paths = [photos.tar(tmp_path / f"{name}.tar", [(f"{name}.jpg", photo)]) for name in "abc"]
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize("answer", [(403, "AccessDenied"), (400, "KMS.DisabledException")])
def test_a_shard_that_cannot_be_read_is_quarantined_and_the_others_go_on(
    s3: S3Server, proxy: FaultProxy, photo: bytes, tmp_path: Path, answer: tuple[int, str]
) -> None:
    config = on_s3(s3, proxy.endpoint, tars(photo, tmp_path), tmp_path)
    proxy.refuse = lambda method, key, headers: answer if key.endswith("/in/b.tar") else None
    summary = Job(config).run()
    assert (summary.committed, summary.images, summary.quarantined) == (3, 3, 1)


def test_a_shard_that_fails_for_ever_while_others_are_read_is_quarantined(
    s3: S3Server, proxy: FaultProxy, photo: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anonlib.storage.base.FILE_TRIES", 3)
    config = on_s3(s3, proxy.endpoint, tars(photo, tmp_path), tmp_path)
    proxy.inject("500", "GET */in/b.tar", times=-1)
    assert Job(config).run().quarantined == 1


@pytest.mark.parametrize("answer", [(403, "AccessDenied"), (503, "SlowDown")])
def test_an_input_of_which_nothing_can_be_read_stops_the_job(
    s3: S3Server, proxy: FaultProxy, photo: bytes, tmp_path: Path, answer: tuple[int, str]
) -> None:
    config = on_s3(s3, proxy.endpoint, tars(photo, tmp_path), tmp_path)
    proxy.refuse = lambda method, key, headers: answer if method == "GET" and key.endswith(".tar") else None
    with pytest.raises(JobError, match="the job stopped in shard or block"):
        Job(config).run()
    assert not list((tmp_path / "workspace").glob("scan/*/commits/*"))


@pytest.mark.parametrize("every", [False, True], ids=["one file", "every file"])
def test_a_disk_that_gives_no_bytes_of_a_file_is_not_a_disk_that_gives_none(
    tmp_path: Path, photo: bytes, every: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for name, data in tars(photo, tmp_path).items():
        (tmp_path / "in" / name).write_bytes(data)
    real = local_module._File.readinto

    def readinto(file: local_module._File, buffer: Any) -> int | None:
        if every or Path(f"/proc/self/fd/{file.fileno()}").readlink() == tmp_path / "in" / "b.tar":
            with file._reading():
                raise OSError(errno.EIO, "Input/output error")
        return real(file, buffer)

    config = job(tmp_path / "in", tmp_path, method={"name": "solid"})
    opened = Job(config)
    monkeypatch.setattr(local_module._File, "readinto", readinto)
    if every:
        with pytest.raises((JobError, StorageError)):
            opened.scan()
        return
    assert opened.run().quarantined == 1


def test_a_photo_that_cannot_be_read_is_quarantined_and_its_neighbours_are_released(
    s3: S3Server, proxy: FaultProxy, photo: bytes, tmp_path: Path
) -> None:
    config = on_s3(s3, proxy.endpoint, {f"{name}.jpg": photo for name in "abc"}, tmp_path)
    proxy.refuse = lambda method, key, headers: (400, "InvalidObjectState") if key.endswith("/in/b.jpg") else None
    assert Job(config).run().images == 3
    rows = {row["key"]: (row["status"], row["reason"]) for row in manifest(tmp_path / "release")}
    assert rows == {"a.jpg": ("no_face", None), "b.jpg": ("quarantined", "unreadable"), "c.jpg": ("no_face", None)}


def test_a_photo_that_goes_or_changes_after_the_scan_is_quarantined_alone(tmp_path: Path, photo: bytes) -> None:
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / "in" / f"{name}.jpg").write_bytes(photo)
    opened = Job(job(tmp_path / "in", tmp_path, method={"name": "solid"}))
    opened.scan()
    (tmp_path / "in" / "b.jpg").unlink()
    (tmp_path / "in" / "c.jpg").write_bytes(photos.jpeg(photos.astronaut()))
    assert opened.render().quarantined == 2
    reasons = {row["key"]: row["reason"] for row in manifest(tmp_path / "release")}
    assert reasons == {"a.jpg": None, "b.jpg": "unreadable", "c.jpg": "changed"}
    assert sorted(path.name for path in (tmp_path / "release" / "data").iterdir()) == ["a.jpg"]
