"""Single operations of a storage whose answers are lost, cut or refusals."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from anonlib.errors import AccessDenied, NotFound, StorageError, Unavailable
from anonlib.storage import Storage, StorageOptions, open_storage
from anonlib.storage import s3 as s3_module
from anonlib.storage.s3_errors import as_sentence
from tests.faults.proxy import FaultProxy
from tests.support.s3server import REGION, S3Server


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.001)
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


@pytest.mark.parametrize(
    ("action", "endpoint", "pays", "hinted"),
    [
        ("s3:GetObject", "https://s3.eu-west-1.amazonaws.com", False, True),
        ("s3:ListBucket", "https://s3.eu-west-1.amazonaws.com", False, True),
        ("s3:ListBucket", "https://s3.eu-west-1.amazonaws.com", True, False),
        ("s3:PutObject", "https://s3.eu-west-1.amazonaws.com", False, False),
        ("s3:GetObject", "http://127.0.0.1:9000", False, False),
    ],
)
def test_a_refusal_that_payment_may_explain_says_so(action: str, endpoint: str, pays: bool, hinted: bool) -> None:
    refusal = ClientError({"Error": {"Code": "AccessDenied"}}, "any")
    with pytest.raises(AccessDenied) as denied, as_sentence(action, "bucket", endpoint, pays=pays):
        raise refusal
    assert ("--requester-pays" in str(denied.value)) == hinted


def test_a_refusal_that_is_cut_is_no_refusal(place: Storage, proxy: FaultProxy) -> None:
    proxy.inject("torn-body", "GET *", times=1)
    with pytest.raises(Unavailable, match="cut off"):
        place.read("nothing")
    with pytest.raises(NotFound):
        place.read("nothing")


def test_a_stream_waits_for_a_server_that_is_busy_for_a_moment(
    place: Storage, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anonlib.storage.s3.FIRST_PAUSE_S", 0.001)
    place.publish("x", data := os.urandom(3 << 20))
    proxy.inject("torn-body", "GET *")
    with place.open_read("x") as stream:
        begun = stream.read(10)
        proxy.inject("503", "GET *", times=4)
        assert begun + stream.read() == data
        proxy.inject("503", "GET *", times=-1)
    with pytest.raises(Unavailable, match="overloaded"):
        place.read("x")
