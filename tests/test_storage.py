"""Storage keeps its promises on a disk and on a real S3 server."""

import io
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import FlexibleChecksumError, IncompleteReadError
from botocore.loaders import JSONFileLoader
from s3server import Credentials, Relay, S3Server, free_port, policy

from anonlib.storage import (
    REFUSED_LINK,
    AccessDenied,
    Changed,
    LinkRefused,
    NotFound,
    Storage,
    StorageError,
    StorageOptions,
    VersionsRemain,
    open_storage,
)
from anonlib.storage import s3 as s3_module
from anonlib.storage.s3_reader import S3Reader


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "local":
        yield open_storage(str(tmp_path / "root"))
    else:
        server: S3Server = request.getfixturevalue("s3")
        with server.acting_as():
            yield open_storage(f"s3://{server.bucket()}/some/prefix", server.options)


def one_sentence(error: BaseException) -> bool:
    text = str(error)
    return text.endswith(".") and "\n" not in text and len(text) < 300


def test_what_is_published_is_read_back(place: Storage, tmp_path: Path) -> None:
    place.publish("a/b.bin", b"one")
    (tmp_path / "source").write_bytes(b"two" * 1000)
    place.publish("a/c.bin", tmp_path / "source")
    assert place.read("a/b.bin") == b"one"
    with place.open_read("a/c.bin") as stream:
        assert stream.read() == b"two" * 1000
    place.fetch("a/c.bin", tmp_path / "deep" / "copy")
    assert (tmp_path / "deep" / "copy").read_bytes() == b"two" * 1000
    assert place.stat("a/b.bin").size == 3
    place.publish("a/b.bin", b"")
    assert place.read("a/b.bin") == b""


def test_a_missing_file_is_not_found_and_a_folder_is_not_a_file(place: Storage) -> None:
    place.publish("folder/file", b"1")
    assert place.exists("folder/file")
    for path in ("nothing", "folder", "folder/file2"):
        assert not place.exists(path)
        with pytest.raises(NotFound) as caught:
            place.read(path)
        assert one_sentence(caught.value)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../up", "a/../../b", "a//b", "a/.", "nul\0"])
def test_paths_cannot_leave_the_root(place: Storage, path: str) -> None:
    for verb in (place.read, place.stat, place.delete, lambda path: place.publish(path, b"")):
        with pytest.raises(StorageError):
            verb(path)


def test_listing_is_sorted_by_path_over_many_pages(place: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "PAGE", 3)
    paths = ["ab", "a/b", "a-b", "é", "a.b", "a0", "a/d/c", "A", "a b", "z/z"]
    for path in paths:
        place.publish(path, b"1")
    assert [entry.path for entry in place.list()] == sorted(paths)
    assert place.delete_tree("") == len(paths)


def test_listing_takes_a_prefix_of_text_and_never_shows_our_temporary_files(place: Storage) -> None:
    for path in ("ab/1", "abc", "b", "ab/.anonlib-write-123"):
        place.publish(path, b"1")
    assert [entry.path for entry in place.list("ab")] == ["ab/1", "abc"]
    assert [entry.path for entry in place.list("ab/")] == ["ab/1"]
    assert list(place.list("nothing/")) == []


def test_what_interrupted_writes_left_is_shown_on_request_and_swept(place: Storage) -> None:
    for path in ("data/1", "data/.anonlib-publish-9", ".anonlib-probe-1"):
        place.publish(path, b"1")
    assert [entry.path for entry in place.list()] == ["data/1"]
    assert len(list(place.list(unfinished=True))) == 3
    assert place.sweep() == 2
    assert [entry.path for entry in place.list(unfinished=True)] == ["data/1"]


def test_a_file_that_changed_is_refused_by_its_etag(place: Storage) -> None:
    place.publish("x", b"first")
    before = place.stat("x").etag
    assert place.read("x", before) == b"first"
    place.publish("x", b"second, and longer")
    for seekable in (False, True):
        with pytest.raises(Changed), place.open_read("x", before, seekable=seekable) as stream:
            stream.read()


def test_a_seekable_stream_reads_at_any_offset(place: Storage) -> None:
    data = bytes(range(256)) * 8192
    place.publish("x", data)
    with place.open_read("x", seekable=True) as stream:
        for offset, count in ((0, 4), (len(data) - 5, 5), (700_001, 300_000), (3, 2), (len(data), 1)):
            stream.seek(offset)
            assert stream.read(count) == data[offset : offset + count]
        assert stream.seek(-3, os.SEEK_END) == len(data) - 3
        assert stream.read() == data[-3:]


def test_a_claim_raced_by_eight_threads_has_exactly_one_winner(place: Storage) -> None:
    for attempt in range(5):
        gate = threading.Barrier(8)

        def claim(number: int, path: str = f"commits/{attempt}", gate: threading.Barrier = gate) -> bool:
            gate.wait()
            return place.claim(path, b"%d" % number)

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(claim, range(8)))
        assert won.count(True) == 1
        assert place.read(f"commits/{attempt}") == b"%d" % won.index(True)
    assert [entry.path for entry in place.list()] == [f"commits/{attempt}" for attempt in range(5)]


def test_delete_tree_removes_a_folder_with_our_temporary_files_and_nothing_beside_it(place: Storage) -> None:
    for path in ("faces/1", "faces/deep/2", "faces/.anonlib-write-1", "faces-old/3", "other"):
        place.publish(path, b"1")
    assert place.delete_tree("faces") == 3
    assert [entry.path for entry in place.list()] == ["faces-old/3", "other"]
    place.delete("other")
    place.delete("other")
    assert place.delete_tree("") == 1
    assert place.delete_tree("") == 0


def test_a_usable_place_is_probed_as_such_and_left_clean(place: Storage) -> None:
    probe = place.probe()
    assert (probe.readable, probe.writable, probe.conditional_put, probe.details) == (True, True, True, ())
    assert place.delete_tree("") == 0


def test_options_refuse_a_password_in_the_endpoint_and_do_not_repeat_it() -> None:
    with pytest.raises(StorageError) as caught:
        StorageOptions(endpoint_url="https://me:hunter2@example.org")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(StorageError):
        StorageOptions(endpoint_url="example.org:9000")


@pytest.mark.parametrize("uri", ["", "s3://", "gs://bucket/x", "file://host/x"])
def test_a_location_that_makes_no_sense_is_a_sentence(uri: str) -> None:
    with pytest.raises(StorageError) as caught:
        open_storage(uri)
    assert one_sentence(caught.value)


def test_file_uris_and_relative_paths_mean_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_storage("a b").uri == open_storage(f"file://{tmp_path}/a%20b").uri == f"{tmp_path}/a b"


# Local disks.


def test_links_out_of_the_root_are_listed_but_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "real" / "file").write_bytes(b"1")
    (root / "inside").symlink_to("real/file")
    (root / "outside").symlink_to(tmp_path / "secret")
    (root / "nowhere").symlink_to("missing")
    (root / "again").symlink_to("real")
    place = open_storage(str(root))
    listed = {entry.path: entry.etag for entry in place.list()}
    assert sorted(listed) == ["inside", "nowhere", "outside", "real/file"]
    assert listed["outside"] == listed["nowhere"] == REFUSED_LINK
    assert place.read("inside") == b"1"
    for path in ("outside", "nowhere"):
        with pytest.raises(LinkRefused):
            place.read(path)
    (root / "folder").symlink_to(tmp_path)
    with pytest.raises(LinkRefused):
        list(place.list())
    with pytest.raises(LinkRefused):
        place.publish("folder/x", b"1")
    place.delete_tree("")
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_a_failed_local_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    place = open_storage(str(tmp_path / "root"))
    place.publish("x", b"old")
    with pytest.raises(StorageError):
        place.publish("x", tmp_path / "missing")
    assert place.read("x") == b"old"
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["x"]


def test_a_write_whose_unfinished_file_another_job_swept_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, swept, fsync = open_storage(str(tmp_path)), [], os.fsync

    def sweep_once(handle: int) -> None:
        fsync(handle)
        if len(swept) < 1:
            swept.append(place.sweep())

    monkeypatch.setattr("anonlib.storage.local.os.fsync", sweep_once)
    place.publish("a", b"1")
    swept.clear()
    assert place.claim("b", b"2")
    assert swept == [1] and contents_of(place) == {"a": b"1", "b": b"2"}


def contents_of(place: Storage) -> dict[str, bytes]:
    return {entry.path: place.read(entry.path) for entry in place.list(unfinished=True)}


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    place = open_storage(str(tmp_path / "root"))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="is full") as caught:
        place.publish("x", b"1")
    assert one_sentence(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_probed_without_a_crash(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    probe = open_storage(str(tmp_path)).probe()
    tmp_path.chmod(0o700)
    assert (probe.readable, probe.writable) == (True, False)
    assert len(probe.details) == 1


# S3.

READ_WRITE = ("s3:GetObject", "s3:PutObject", "s3:ListBucket")


def test_a_wrong_secret_is_one_sentence_without_the_secret(s3: S3Server) -> None:
    bucket = s3.bucket()
    user = s3.user(policy(bucket, *READ_WRITE))
    with s3.acting_as(Credentials(user.key_id, "wrong-secret")):
        place = open_storage(f"s3://{bucket}/x", s3.options)
        for verb in (place.exists, place.read, lambda path: place.publish(path, b"1"), place.delete_tree):
            with pytest.raises(StorageError, match="secret key does not belong") as caught:
                verb("y")
            assert one_sentence(caught.value)
            assert "wrong-secret" not in str(caught.value) and user.key_id not in str(caught.value)
        with pytest.raises(StorageError, match="secret key does not belong"):
            place.probe()


def test_an_unknown_key_id_and_a_missing_bucket_are_sentences(s3: S3Server) -> None:
    with (
        s3.acting_as(Credentials("AKIANOBODY", "x")),
        pytest.raises(StorageError, match="does not know this access key"),
    ):
        open_storage(f"s3://{s3.bucket()}", s3.options).read("y")
    with s3.acting_as():
        place = open_storage("s3://no-such-bucket", s3.options)
        for verb in (place.exists, lambda _: list(place.list()), lambda path: place.claim(path, b"1")):
            with pytest.raises(StorageError, match="no bucket 'no-such-bucket'"):
                verb("y")


def test_no_credentials_at_all_is_a_sentence(s3: S3Server) -> None:
    with s3.acting_as() as environment:
        environment.delenv("AWS_ACCESS_KEY_ID")
        environment.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(StorageError, match="No usable AWS credentials"):
            open_storage("s3://some-bucket", s3.options).read("x")


def test_access_denied_names_the_action_and_the_place(s3: S3Server) -> None:
    bucket = s3.bucket()
    with s3.acting_as(s3.user(policy(bucket, "s3:GetObject"))):
        place = open_storage(f"s3://{bucket}/p", s3.options)
        with pytest.raises(AccessDenied, match=f"s3:PutObject on s3://{bucket}/p/x"):
            place.publish("x", b"1")
        with pytest.raises(AccessDenied, match="s3:ListBucket"):
            list(place.list())
        with pytest.raises(AccessDenied, match="s3:ListBucket"):
            place.delete_tree("")


def test_a_role_that_may_not_delete_is_probed_as_usable_with_a_remark(s3: S3Server) -> None:
    bucket = s3.bucket()
    with s3.acting_as(s3.user(policy(bucket, *READ_WRITE))):
        probe = open_storage(f"s3://{bucket}/p", s3.options).probe()
    assert (probe.readable, probe.writable, probe.conditional_put) == (True, True, True)
    assert len(probe.details) == 1 and "s3:DeleteObject" in probe.details[0]


def test_a_role_that_may_only_read_is_probed_as_such(s3: S3Server) -> None:
    bucket = s3.bucket()
    with s3.acting_as(s3.user(policy(bucket, "s3:GetObject", "s3:ListBucket"))):
        probe = open_storage(f"s3://{bucket}/p", s3.options).probe()
    assert (probe.readable, probe.writable, probe.conditional_put) == (True, False, False)
    assert "s3:PutObject" in probe.details[0]


def test_a_dead_endpoint_is_given_up_within_twenty_seconds(s3: S3Server) -> None:
    with s3.acting_as():
        place = open_storage("s3://some-bucket", StorageOptions(f"http://127.0.0.1:{free_port()}"))
        start = time.monotonic()
        with pytest.raises(StorageError, match="cannot be reached"):
            place.probe()
        assert time.monotonic() - start < 20


def test_a_pickled_storage_has_no_secret_in_it_and_still_works(s3: S3Server) -> None:
    with s3.acting_as():
        place = open_storage(f"s3://{s3.bucket()}/p", s3.options)
        place.publish("x", b"1")
        stored = pickle.dumps(place)
        assert s3.root.secret.encode() not in stored and s3.root.key_id.encode() + b"\x94" not in stored
        assert pickle.loads(stored).read("x") == b"1"


def test_what_s3_is_like_is_read_from_disk_once_a_process(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job opens three places in every actor, and the description of S3's API is a megabyte of JSON."""
    stranger = s3.user(policy("another", "s3:GetObject"))
    with s3.acting_as():
        uri = f"s3://{s3.bucket()}/one"
        open_storage(uri, s3.options).publish("a", b"1")
        monkeypatch.setattr(JSONFileLoader, "load_file", lambda *_: pytest.fail("read again"))
        assert open_storage(uri, s3.options).read("a") == b"1"
    with s3.acting_as(stranger), pytest.raises(AccessDenied):
        open_storage(uri, s3.options).read("a")  # what is shared holds nobody's rights


def test_a_large_file_goes_up_in_parts_and_comes_back_whole(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "MULTIPART_FROM_BYTES", 6 << 20)
    monkeypatch.setattr(s3_module, "PART_BYTES", 5 << 20)
    data = os.urandom(1 << 20) * 12
    (tmp_path / "large").write_bytes(data)
    with s3.acting_as():
        place = open_storage(f"s3://{s3.bucket()}/p", s3.options)
        place.publish("large", tmp_path / "large")
        assert place.stat("large").etag.endswith("-3")
        assert place.read("large") == data


def test_a_stream_that_is_cut_goes_on_where_it_stopped(s3: S3Server) -> None:
    data = os.urandom(5 << 20)
    bucket = s3.bucket()
    with s3.acting_as(), Relay(s3.endpoint, cuts=3, cut_after=1 << 20) as relay:
        open_storage(f"s3://{bucket}", s3.options).publish("x", data)
        place = open_storage(f"s3://{bucket}", StorageOptions(relay.endpoint))
        assert place.read("x") == data
        assert relay.connections == 4


def test_an_object_replaced_while_it_is_read_is_noticed(s3: S3Server) -> None:
    bucket = s3.bucket()
    with s3.acting_as(), Relay(s3.endpoint, cuts=1, cut_after=1 << 20) as relay:
        direct = open_storage(f"s3://{bucket}", s3.options)
        direct.publish("x", bytes(3 << 20))
        with open_storage(f"s3://{bucket}", StorageOptions(relay.endpoint)).open_read("x") as stream:
            stream.read(10)
            direct.publish("x", os.urandom(3 << 20))
            with pytest.raises(Changed):
                stream.read()


@pytest.mark.parametrize("parts", [False, True])
def test_a_kill_in_the_middle_of_an_upload_never_leaves_a_truncated_object(
    s3: S3Server, tmp_path: Path, parts: bool
) -> None:
    bucket = s3.bucket()
    (tmp_path / "large").write_bytes(bytes(24 << 20))
    threshold = (6 if parts else 64) << 20
    script = (
        "import sys; from pathlib import Path\n"
        "from anonlib.storage import StorageOptions, open_storage, s3\n"
        f"s3.MULTIPART_FROM_BYTES, s3.PART_BYTES = {threshold}, 5 << 20\n"
        "open_storage(sys.argv[1], StorageOptions(sys.argv[2])).publish('new', Path(sys.argv[3]))"
    )
    with s3.acting_as(), Relay(s3.endpoint, hold_after=12 << 20) as relay:
        place = open_storage(f"s3://{bucket}/p", s3.options)
        command = [sys.executable, "-c", script, f"s3://{bucket}/p", relay.endpoint, str(tmp_path / "large")]
        child = subprocess.Popen(command)
        assert relay.held.wait(30)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not place.exists("new") and list(place.list()) == []
        assert ("Uploads" in s3.client().list_multipart_uploads(Bucket=bucket)) == parts
        # What a killed upload leaves behind is personal data too, and delete_tree finds it.
        assert place.delete_tree("") == 0
        assert "Uploads" not in s3.client().list_multipart_uploads(Bucket=bucket)


def test_a_bucket_that_keeps_old_versions_cannot_pretend_to_be_purged(s3: S3Server) -> None:
    bucket = s3.bucket()
    s3.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    with s3.acting_as():
        place = open_storage(f"s3://{bucket}/p", s3.options)
        place.publish("x", b"1")
        with pytest.raises(VersionsRemain, match="hidden") as caught:
            place.delete_tree("")
        assert one_sentence(caught.value)


def test_a_claim_whose_answer_was_lost_is_still_known_to_be_ours(s3: S3Server) -> None:
    bucket = s3.bucket()
    with s3.acting_as(), Relay(s3.endpoint) as relay:
        place = open_storage(f"s3://{bucket}/p", StorageOptions(relay.endpoint))
        relay.cut(times=1, after=0)
        assert place.claim("commit", b"1")
        relay.cut(times=1, after=0)
        assert not place.claim("commit", b"1")


@pytest.mark.parametrize("fault", [IncompleteReadError(actual_bytes=1, expected_bytes=2), None])
def test_a_body_that_never_comes_is_given_up(fault: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anonlib.storage.s3_reader.FIRST_PAUSE_S", 0.001)
    asked: list[tuple[int, int | None, str | None]] = []

    class Body(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if len(asked) == 1:
                asked.append((0, None, None))
                return b"four"
            if fault:
                raise fault
            return b""

    def get(start: int, stop: int | None, etag: str | None) -> dict[str, Any]:
        asked.append((start, stop, etag))
        return {"ContentLength": 10, "ETag": '"e"', "Body": Body()}

    with pytest.raises(StorageError, match="stopped after 4 of 10 bytes") as caught:
        io.BufferedReader(S3Reader(get, "s3://b/x", None)).read()
    assert one_sentence(caught.value)
    assert asked[2:] == [(4, 10, "e")] * 4


def test_a_checksum_that_does_not_fit_is_an_error_and_no_end_of_file() -> None:
    class Body(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise FlexibleChecksumError(error_msg="x")

    reader = S3Reader(lambda *_: {"ContentLength": 10, "ETag": '"e"', "Body": Body()}, "s3://b/x", None)
    with pytest.raises(StorageError, match="checksum"):
        reader.read(1)
