"""What a storage promises of S3 alone: sentences for every refusal, and whole objects whatever is cut."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from anonlib.errors import AccessDenied, StorageError, Unavailable, VersionsRemain
from anonlib.storage import Storage, StorageOptions, open_storage
from anonlib.storage import s3 as s3_module
from anonlib.storage.s3_errors import as_sentence
from tests.faults.proxy import FaultProxy
from tests.support.s3server import REGION, Credentials, S3Server, one_sentence, policy

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


def test_access_denied_names_the_action_and_the_place(s3: S3Server) -> None:
    bucket = s3.bucket()
    with s3.acting_as(s3.user(policy(bucket, "s3:GetObject"))):
        place = open_storage(f"s3://{bucket}/p", s3.options)
        with pytest.raises(AccessDenied, match=f"s3:PutObject on a file in s3://{bucket}/p") as denied:
            place.publish("x", b"1")
        assert denied.value.path == "x"
        with pytest.raises(AccessDenied, match="s3:ListBucket"):
            list(place.list())
        with pytest.raises(AccessDenied, match="s3:ListBucket"):
            place.delete_tree("")


@pytest.mark.parametrize(
    ("actions", "may_write", "missing"),
    [(READ_WRITE, True, "s3:DeleteObject"), (("s3:GetObject", "s3:ListBucket"), False, "s3:PutObject")],
)
def test_what_a_role_may_not_do_is_probed_and_named(
    s3: S3Server, actions: tuple[str, ...], may_write: bool, missing: str
) -> None:
    bucket = s3.bucket()
    with s3.acting_as(s3.user(policy(bucket, *actions))):
        place = open_storage(f"s3://{bucket}/p", s3.options)
        probe = [place.probe() for _ in range(2)][1]
    assert (probe.readable, probe.writable, probe.conditional_put) == (True, may_write, may_write)
    assert len(probe.details) == 1 and missing in probe.details[0]
    with s3.acting_as():
        left = [entry.path for entry in open_storage(f"s3://{bucket}/p", s3.options).list(unfinished=True)]
    assert left == ([".anonlib-probe", ".anonlib-probe-claim"] if may_write else [])
    assert all(path in probe.details[0] for path in left)


@pytest.mark.parametrize("parts", [False, True])
def test_a_kill_in_the_middle_of_an_upload_never_leaves_a_truncated_object(
    s3: S3Server, tmp_path: Path, parts: bool
) -> None:
    bucket = s3.bucket()
    (tmp_path / "large").write_bytes(bytes(24 << 20))
    threshold = (6 if parts else 64) << 20
    script = (
        "import os, signal, socket, sys; from pathlib import Path\n"
        "from anonlib.storage import StorageOptions, open_storage, s3\n"
        f"s3.MULTIPART_FROM_BYTES, s3.PART_BYTES, sent, send = {threshold}, 5 << 20, [], socket.socket.sendall\n"
        "def sendall(self, data, *flags):\n"
        "    sent.append(len(data))\n"
        "    if sum(sent) > 12 << 20: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return send(self, data, *flags)\n"
        "socket.socket.sendall = sendall\n"
        "open_storage(sys.argv[1], StorageOptions(sys.argv[2])).publish('new', Path(sys.argv[3]))"
    )
    with s3.acting_as():
        place = open_storage(f"s3://{bucket}/p", s3.options)
        command = [sys.executable, "-c", script, f"s3://{bucket}/p", s3.endpoint, str(tmp_path / "large")]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
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


# Answers that are lost, cut or refusals.


@pytest.fixture
def proxy(s3: S3Server, hurried: None) -> Iterator[FaultProxy]:
    with s3.acting_as(), FaultProxy(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
def place(s3: S3Server, proxy: FaultProxy) -> Storage:
    return open_storage(f"s3://{s3.bucket()}", StorageOptions(proxy.endpoint, REGION))


def test_an_upload_whose_end_was_not_answered_is_not_taken_for_a_missing_file(
    place: Storage, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "MULTIPART_FROM_BYTES", 6 << 20)
    monkeypatch.setattr(s3_module, "PART_BYTES", 5 << 20)
    (tmp_path / "large").write_bytes(data := os.urandom(1 << 20) * 11)
    proxy.inject("reset-after", "POST *uploadId*")
    place.publish("large", tmp_path / "large")
    assert place.read("large") == data and len(proxy.log) == 1
    assert place.stat("large").etag.endswith("-3"), "it went up in three parts"
    # This server knows an upload that it completed; others have forgotten it when they are asked again.
    forgotten = ClientError({"Error": {"Code": "NoSuchUpload"}}, "CompleteMultipartUpload")
    with pytest.raises(Unavailable, match="run again"), as_sentence("s3:PutObject", "b", "http://s3", "large"):
        raise forgotten


def test_a_look_at_a_file_that_is_refused_says_why(place: Storage, proxy: FaultProxy) -> None:
    """The answer to HEAD has no words, so another question is asked."""
    for fault, kind, words in (("expired", StorageError, "expired"), ("denied", AccessDenied, "s3:GetObject")):
        proxy.inject(fault, "*", times=-1)
        with pytest.raises(kind, match=words):
            place.exists("x")
        proxy.heal()


def test_a_server_that_answers_a_range_with_the_whole_is_not_believed(
    place: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.publish("x", bytes(1 << 20))
    get = place.client.get_object  # type: ignore[attr-defined]
    monkeypatch.setattr(place.client, "get_object", lambda Range=None, **request: get(**request))  # type: ignore[attr-defined]
    with pytest.raises(Unavailable, match="was cut off"), place.open_read("x", seekable=True) as stream:
        stream.seek(9)
        stream.read(4)


def test_a_stream_waits_for_a_server_that_is_busy_for_a_moment(
    place: Storage, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anonlib.storage.objects.READ_BLOCK_BYTES", 1 << 20)
    place.publish("x", data := os.urandom(3 << 20))
    with place.open_read("x") as stream:
        begun = stream.read(10)
        proxy.inject("torn-body", "GET *")
        proxy.inject("503", "GET *", times=4)
        assert begun + stream.read() == data
        proxy.inject("503", "GET *", times=-1)
    with pytest.raises(Unavailable, match="overloaded"):
        place.read("x")
