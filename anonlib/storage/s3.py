"""An S3 bucket, or a prefix in one, as a Storage.

A write is one PutObject or one multipart upload from a finished local file, so what is published is whole or absent; a
claim is PutObject with If-None-Match.
"""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from anonlib.errors import StorageError, Unavailable
from anonlib.storage.base import StorageOptions, StoredObject
from anonlib.storage.objects import (
    CONNECT_TIMEOUT_S,
    DELETE_THREADS,
    PAGE,
    READ_TIMEOUT_S,
    REQUEST_TRIES,
    ObjectStorage,
    Verb,
)
from anonlib.storage.s3_errors import as_sentence, code_of, is_aws, is_busy

# Smaller files go up in one request; S3 allows 10,000 parts of at least 5 MiB.
MULTIPART_FROM_BYTES = 64 << 20
PART_BYTES = 16 << 20
PART_THREADS = 4
LOOK_THREADS = 16
ARCHIVE_LOOKS = 10_000
"""Of how many objects, evenly spread, it is asked whether they are archived."""
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
_COLD = (*_ARCHIVES, "INTELLIGENT_TIERING")
CLAIM_TRIES = 6
_CLAIM = "anonlib-claim"
_CONFLICTS = ("ConditionalRequestConflict", "OperationAborted", "409")
_ACTIONS: dict[Verb, str] = {
    "read": "s3:GetObject",
    "list": "s3:ListBucket",
    "write": "s3:PutObject",
    "delete": "s3:DeleteObject",
}

_CHECKSUMS = "AWS_REQUEST_CHECKSUM_CALCULATION"
_ONLY_REQUIRED_CHECKSUMS = Config(
    request_checksum_calculation="when_required", response_checksum_validation="when_required"
)
"""For servers that are not AWS: many refuse the checksums that boto3 sends by itself since 1.36."""


def _described(key: str, answer: dict[str, Any]) -> StoredObject:
    """The object that an answer to HEAD, or to GET of all of it, is about."""
    return StoredObject(key, int(answer["ContentLength"]), answer["ETag"].strip('"'), _is_archived(answer))


def _content(answer: dict[str, Any], most: int) -> bytes:
    """The bytes of an answer to GET, `most` at most; its checksum is tried where all are read."""
    with closing(answer["Body"]) as body:
        return bytes(body.read(most if most < answer["ContentLength"] else None))


def _is_archived(answer: dict[str, Any]) -> bool:
    """Whether an answer to HEAD or GET says that the object has to be restored before it can be read."""
    restored = 'ongoing-request="false"' in answer.get("Restore", "")
    return not restored and (answer.get("StorageClass") in _ARCHIVES or "ArchiveStatus" in answer)


def _pay(params: dict[str, Any], **_: Any) -> None:
    """The sender of this request pays for it."""
    params["headers"]["x-amz-request-payer"] = "requester"


class S3Storage(ObjectStorage):
    """Objects below s3://bucket/prefix. Needs s3:GetObject, PutObject, ListBucket; deleting: DeleteObject."""

    takes_kms_key = True

    def __init__(self, bucket: str, prefix: str, options: StorageOptions) -> None:
        super().__init__(f"s3://{bucket}", prefix, options)
        self.bucket = bucket

    def _new_client(self) -> Any:
        retries = {"mode": "standard", "total_max_attempts": REQUEST_TRIES}
        times = {"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": READ_TIMEOUT_S}
        signature = UNSIGNED if self._options.anonymous else None
        config = Config(**times, retries=retries, max_pool_connections=32, signature_version=signature)
        endpoint, region = self._options.endpoint_url, self._options.region
        try:
            # A session of our own: boto3's default one may not be shared by threads.
            with as_sentence("s3:ListBucket", self.bucket, endpoint or "AWS"):
                make = partial(boto3.session.Session().client, "s3", endpoint_url=endpoint, region_name=region)
                # The environment may name the endpoint, too.
                answers = endpoint or make(config=config).meta.endpoint_url
                if not is_aws(answers) and _CHECKSUMS not in os.environ:
                    config = config.merge(_ONLY_REQUIRED_CHECKSUMS)
                client = make(config=config)
        except ValueError as error:
            raise StorageError(
                "The S3 endpoint or region in the environment is not valid; check AWS_ENDPOINT_URL and AWS_REGION."
            ) from error
        if self._options.requester_pays:
            client.meta.events.register("before-call.s3", _pay)
        return client

    def _translated(self, verb: Verb, key: str = "") -> AbstractContextManager[None]:
        return self._acting(_ACTIONS[verb], key)

    def _acting(self, action: str, key: str) -> AbstractContextManager[None]:
        parts = urlsplit(self.client.meta.endpoint_url)
        endpoint = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        where, path = self._place(key) if key else (None, None)
        return as_sentence(action, self.bucket, endpoint, where, path, pays=self._options.requester_pays)

    def _get(self, key: str, start: int, stop: int, etag: str) -> bytes:
        part = {"Range": f"bytes={start}-{stop - 1}", "IfMatch": f'"{etag}"'}
        # One byte more than was asked for shows a server that answers with the whole object.
        return _content(self.client.get_object(Bucket=self.bucket, Key=key, **part), stop - start + 1)

    def _first(self, key: str, size: int) -> tuple[StoredObject, bytes]:
        """See ObjectStorage; one request, which may be broken off behind these bytes."""
        if not size:
            return super()._first(key, size)
        answer = self.client.get_object(Bucket=self.bucket, Key=key)
        return _described(key, answer), _content(answer, size)

    def _head(self, key: str) -> tuple[StoredObject, str | None]:
        try:
            answer = self.client.head_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if code_of(error) not in ("400", "403", "404"):
                raise
            # The answer to HEAD has no body, so it cannot tell a wrong secret from a forbidden object,
            # nor a missing bucket from a missing object; the answer to GET can.
            answer = self.client.get_object(Bucket=self.bucket, Key=key)
            answer["Body"].close()
        return _described(key, answer), answer.get("Metadata", {}).get(_CLAIM)

    def archived(self, files: Sequence[StoredObject]) -> tuple[int, bool]:
        """See Storage. A listing tells neither what was restored nor what Intelligent-Tiering has moved, HEAD does."""
        cold = [file.path for file in files if file.cold]
        asked = cold[:: -(-len(cold) // ARCHIVE_LOOKS) or 1]

        def look(path: str) -> bool:
            try:
                return self.stat(path).cold
            except StorageError:
                return False  # Reading it will say why.

        with ThreadPoolExecutor(LOOK_THREADS) as pool:
            return sum(pool.map(look, asked)), len(asked) == len(cold)

    def _put(self, key: str, source: Path | bytes, claim: str | None = None) -> None:
        for attempt in range(CLAIM_TRIES):
            try:
                return self._upload({"Bucket": self.bucket, "Key": key}, source, claim)
            except ClientError as error:
                if claim is None or code_of(error) not in _CONFLICTS:
                    raise
                time.sleep(0.1 * 2**attempt)
        place, path = self._place(key)
        raise Unavailable(f"{place} stayed locked by other writers; run again.", path=path)

    def _upload(self, where: dict[str, Any], source: Path | bytes, claim: str | None) -> None:
        client = self.client
        named: dict[str, Any] = {"Metadata": {_CLAIM: claim}} if claim else {}
        if self._options.kms_key is not None:
            named |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self._options.kms_key}
        once = {"IfNoneMatch": "*"} if claim else {}
        if isinstance(source, bytes):
            client.put_object(**where, Body=source, **named, **once)
        elif source.stat().st_size < MULTIPART_FROM_BYTES:
            with source.open("rb") as stream:
                client.put_object(**where, Body=stream, **named, **once)
        else:
            where["UploadId"] = client.create_multipart_upload(**where, **named)["UploadId"]
            try:
                parts = self._put_parts(where, source)
                client.complete_multipart_upload(**where, **once, MultipartUpload={"Parts": parts})
            except BaseException:
                # This error says more than the next would; a lifecycle rule or delete_tree clears what stays.
                with suppress(ClientError, BotoCoreError):
                    client.abort_multipart_upload(**where)
                raise

    def _put_parts(self, where: dict[str, Any], source: Path) -> list[dict[str, Any]]:
        size = source.stat().st_size
        part_bytes = max(PART_BYTES, -(-size // 10_000))

        def put(number: int) -> dict[str, Any]:
            with source.open("rb") as stream:
                stream.seek((number - 1) * part_bytes)
                answer = self.client.upload_part(**where, PartNumber=number, Body=stream.read(part_bytes))
            return {"PartNumber": number, "ETag": answer["ETag"]}

        pool = ThreadPoolExecutor(PART_THREADS)
        try:
            return [*pool.map(put, range(1, -(-size // part_bytes) + 1))]
        finally:
            pool.shutdown(cancel_futures=True)

    def _remove(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=key)

    def _remove_all(self, keys: Sequence[str]) -> int:
        """See ObjectStorage.

        DeleteObjects must carry a checksum, and servers differ in which they know; some have no such request. What is
        refused as a whole is deleted one by one, and then a refusal says what is really wrong.
        """
        client, batch = self.client, [{"Key": key} for key in keys]
        try:
            answer = client.delete_objects(Bucket=self.bucket, Delete={"Objects": batch})
        except ClientError as error:
            if is_busy(error):
                raise
            with ThreadPoolExecutor(DELETE_THREADS) as pool:
                answers = pool.map(lambda entry: client.delete_object(Bucket=self.bucket, **entry), batch)
                return sum(bool(answer.get("DeleteMarker")) for answer in answers)
        if failed := answer.get("Errors"):
            raise ClientError({"Error": {"Code": failed[0].get("Code")}}, "DeleteObjects")
        return sum("DeleteMarkerVersionId" in entry for entry in answer.get("Deleted", ()))

    def _after_purge(self, top: str) -> int:
        uploads: list[tuple[str, str]] = []
        with self._acting("s3:ListBucketMultipartUploads", top):
            pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=top)
            try:
                uploads = [(upload["Key"], upload["UploadId"]) for page in pages for upload in page.get("Uploads", ())]
            except ClientError as error:
                if code_of(error) not in ("NotImplemented", "501", "MethodNotAllowed", "405"):
                    raise
        for key, number in uploads:
            with suppress(Unavailable), self._acting("s3:AbortMultipartUpload", key):
                self.client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=number)
        return 0

    def _entries(self, prefix: str) -> Iterator[StoredObject]:
        paginator = self.client.get_paginator("list_objects_v2")
        request = {"Bucket": self.bucket, "Prefix": prefix, "PaginationConfig": {"PageSize": PAGE}}
        pages = iter(paginator.paginate(**request))
        while True:
            with self._translated("list"):
                page = next(pages, None)
            if page is None:
                return
            for entry in page.get("Contents", ()):
                cold = entry.get("StorageClass") in _COLD
                yield StoredObject(str(entry["Key"]), int(entry["Size"]), entry["ETag"].strip('"'), cold)
