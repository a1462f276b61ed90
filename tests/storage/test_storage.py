"""Storage keeps its promises on a disk, on a real S3 server, and at emulators of Google and Azure."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from anonlib.config import load_config
from anonlib.errors import Changed, ConfigError, LinkRefused, NotAFile, NotFound, StorageError
from anonlib.storage import Storage, StorageOptions, open_storage
from anonlib.storage.local import REFUSED_LINK, LocalStorage
from anonlib.storage.objects import ObjectStorage
from tests.support.clouds import cloud_of
from tests.support.s3server import one_sentence


@pytest.fixture(params=["local", "s3", "gs", "abfs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "local":
        yield open_storage(str(tmp_path / "root"))
    else:
        cloud = cloud_of(request, request.param)
        with cloud.acting():
            yield open_storage(f"{cloud.scheme}://{cloud.bucket()}/some/prefix")


def test_what_is_published_is_read_back(place: Storage, tmp_path: Path) -> None:
    place.publish("a/b.bin", b"one")
    (tmp_path / "source").write_bytes(b"two" * 1000)
    place.publish("a/c.bin", tmp_path / "source")
    assert place.read("a/b.bin") == b"one"
    with place.open_read("a/c.bin") as stream:
        assert stream.read() == b"two" * 1000
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
    for module in ("s3", "gs", "azure"):
        monkeypatch.setattr(f"anonlib.storage.{module}.PAGE", 3)
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
    place.publish("empty/later/1", b"1")
    place.delete("empty/later/1")
    assert place.sweep() == 2
    assert [entry.path for entry in place.list(unfinished=True, foreign=True)] == ["data/1"]


def test_what_is_no_file_is_listed_on_request_alone(place: Storage, tmp_path: Path) -> None:
    place.publish("a/file", b"1")
    if isinstance(place, LocalStorage):
        root = tmp_path / "root"
        (root / "empty" / "inner").mkdir(parents=True)
        (root / "again").symlink_to("a")
        (root / "outside").symlink_to(tmp_path)
        os.mkfifo(root / "pipe")
        foreign = ["again", "empty/inner/", "outside", "pipe"]
        assert [entry.path for entry in place.list("a/", foreign=True)] == ["a/file"]
        (root / "outside").unlink()
        assert [entry.path for entry in place.list()] == ["a/file", "pipe"]
        (root / "outside").symlink_to(tmp_path)
    else:
        assert isinstance(place, ObjectStorage)
        for key, body in (("some/prefix/", b"1"), ("some/prefix/mark/", b""), ("some/prefix/table.csv/", b"1")):
            place._put(key, body)
        foreign = ["/", "mark/", "table.csv/"]
        assert [entry.path for entry in place.list()] == ["a/file"]
    assert sorted(entry.path for entry in place.list(foreign=True)) == sorted([*foreign, "a/file"])


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


@pytest.mark.parametrize(
    "uri", ["", "s3://", "gs:///x", "ftp://bucket/x", "hf://models/a/b", "hf://datasets/a", "file://host/x"]
)
def test_a_location_that_makes_no_sense_is_a_sentence(uri: str) -> None:
    with pytest.raises(StorageError) as caught:
        open_storage(uri)
    assert one_sentence(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "abfs://c@hunter2.example.org/p",
        "az://c@hunter2.dfs.core.windows.net.example.org/p",
        "abfs://c@x.hunter2.dfs.core.windows.net/p",
        "abfs://c@hunter2@account.dfs.core.windows.net/p",
        "abfs://me:hunter2@account.dfs.core.windows.net/p",
        "s3://me:hunter2@bucket/p",
        "https://account.blob.core.windows.net/c?sv=2026&sig=hunter2",
        "s3://bucket/x.tar?X-Amz-Signature=hunter2",
    ],
)
def test_a_secret_in_a_location_or_a_host_that_may_get_none_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(StorageError) as caught:
        open_storage(uri)
    assert one_sentence(caught.value) and "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="workspace: ") as refused:
        load_config({"input": {"uri": "a"}, "output": {"uri": "b"}, "workspace": {"uri": uri}})
    assert "hunter2" not in str(refused.value)


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


def test_a_pipe_is_refused_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotAFile, match="is a pipe, a socket or a device and no file") as refused:
        open_storage(str(tmp_path)).read("pipe")
    assert refused.value.of_the_file


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


@pytest.mark.parametrize("full", [False, True], ids=["no source", "full disk"])
def test_a_failed_local_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    def no_room(handle: int) -> None:
        raise OSError(28, "No space left on device")

    place = open_storage(str(tmp_path / "root"))
    place.publish("x", b"old")
    if full:
        monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(StorageError, match="is full" if full else "Cannot write") as caught:
        place.publish("x", b"1" if full else tmp_path / "missing")
    assert one_sentence(caught.value) and place.read("x") == b"old"
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["x"]
