"""The proxy is transparent where it injects nothing, and each of its faults is what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, ResponseStreamingError

from anonlib.storage import StorageOptions, open_storage
from anonlib.storage import s3 as s3_module
from tests.faults import proxy as proxy_module
from tests.faults.proxy import ANSWERS, FaultProxy
from tests.support.s3server import REGION, S3Server, policy

DATA = os.urandom(3 << 20)


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> str:
    return s3.bucket()


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3.endpoint, slow_s=0.01) as one:
        yield one


@cache
def session(key_id: str, secret: str) -> Any:
    """Reads boto3's description of S3 once."""
    return boto3.session.Session(key_id, secret, region_name=REGION)


def client_at(endpoint: str, s3: S3Server) -> Any:
    """A client that tries once."""
    once = Config(retries={"total_max_attempts": 1})
    return session(s3.root.key_id, s3.root.secret).client("s3", endpoint_url=endpoint, config=once)


def test_without_a_fault_nothing_changes_and_a_users_signature_stays_valid(
    s3: S3Server, proxy: FaultProxy, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "MULTIPART_FROM_BYTES", 6 << 20)
    monkeypatch.setattr(s3_module, "PART_BYTES", 5 << 20)
    (tmp_path / "large").write_bytes(DATA * 4)
    user = s3.user(policy(bucket, "s3:GetObject", "s3:PutObject", "s3:ListBucket"))
    with s3.acting_as(user):
        place = open_storage(f"s3://{bucket}/a b", StorageOptions(proxy.endpoint, REGION))
        place.publish("large", tmp_path / "large")
        place.publish("ü x", DATA)
        assert place.read("large") == DATA * 4 and place.read("ü x") == DATA
        assert place.claim("c", b"1") and not place.claim("c", b"2")
        assert [one.path for one in place.list()] == ["c", "large", "ü x"]
    assert proxy.log == [] and proxy.asked["PUT"] > 5


@pytest.mark.parametrize("fault", ANSWERS)
def test_an_answer_comes_instead_of_what_was_asked(s3: S3Server, proxy: FaultProxy, bucket: str, fault: str) -> None:
    proxy.inject(fault, f"PUT {bucket}/answered")
    with pytest.raises(ClientError) as caught:
        client_at(proxy.endpoint, s3).put_object(Bucket=bucket, Key="answered", Body=DATA)
    status, code = ANSWERS[fault]
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert there(s3, bucket, "answered") is None
    client_at(proxy.endpoint, s3).put_object(Bucket=bucket, Key="answered-2", Body=DATA)
    assert [(one.fault, one.method, one.key) for one in proxy.log] == [(fault, "PUT", f"{bucket}/answered")]


@pytest.mark.parametrize(("fault", "done"), [("reset-before", False), ("reset-after", True), ("torn-upload", False)])
def test_only_after_one_kind_of_reset_was_the_write_done(
    s3: S3Server, proxy: FaultProxy, bucket: str, fault: str, done: bool
) -> None:
    proxy.inject(fault, "PUT *")
    with pytest.raises(HTTPClientError):
        client_at(proxy.endpoint, s3).put_object(Bucket=bucket, Key=fault, Body=DATA)
    assert there(s3, bucket, fault) == (DATA if done else None)


def test_a_torn_body_ends_before_its_length_and_a_slow_one_does_not(
    s3: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    s3.client().put_object(Bucket=bucket, Key="read", Body=DATA)
    proxy.inject("torn-body", "GET *")
    with pytest.raises(ResponseStreamingError, match=f"{len(DATA) // 2} bytes read"):
        client_at(proxy.endpoint, s3).get_object(Bucket=bucket, Key="read")["Body"].read()
    proxy.inject("slow", "GET *")
    assert client_at(proxy.endpoint, s3).get_object(Bucket=bucket, Key="read")["Body"].read() == DATA
    assert [one.fault for one in proxy.log] == ["torn-body", "slow"]


def test_a_schedule_is_drawn_by_key_and_not_by_order() -> None:
    def faults(keys: list[str], bucket: str) -> dict[str, str | None]:
        one = FaultProxy("http://127.0.0.1:1")
        one.schedule(7, 0.3, most=1000)
        found = {key: one.decide("GET", f"{bucket}/{key}") for key in keys}
        one._server.server_close()
        return found

    keys = [f"data/{number}" for number in range(200)]
    drawn = faults(keys, "a")
    assert drawn == faults(keys[::-1], "b")
    hit = [fault for fault in drawn.values() if fault]
    assert 30 < len(hit) < 90 and len(set(hit)) > 3 and "torn-upload" not in hit


def test_by_itself_it_says_where_it_is_and_what_it_did(s3: S3Server, bucket: str) -> None:
    command = [sys.executable, proxy_module.__file__, "--target", s3.endpoint, "--rate", "1", "--fault", "denied"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        with pytest.raises(ClientError, match="AccessDenied"):
            client_at(endpoint, s3).list_objects_v2(Bucket=bucket)
        assert json.loads(process.stdout.readline())["fault"] == "denied"
        process.terminate()
        assert process.wait(10) == 0


def there(s3: S3Server, bucket: str, key: str) -> bytes | None:
    try:
        return bytes(s3.client().get_object(Bucket=bucket, Key=key)["Body"].read())
    except ClientError:
        return None
