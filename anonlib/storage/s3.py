"""An S3 bucket, or a prefix in one, as a Storage.

A write is one PutObject or one multipart upload from a finished local file, so what is published is whole or absent; a
claim is PutObject with If-None-Match. Clients are made where they are used and never pickled: credentials stay in the
environment of the process (or the role of its machine).
"""

import io
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit
from uuid import uuid4

import boto3
from botocore import UNSIGNED
from botocore import exceptions as boto
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from anonlib.errors import StorageError, Unavailable, VersionsRemain
from anonlib.storage.base import Storage, StorageOptions, StoredObject, folder_prefix, is_ours, safe_path, shown
from anonlib.storage.s3_errors import as_sentence, code_of, is_aws, is_busy

# A dead endpoint is given up after about 3 x 4 s of connecting and 2 s of pauses.
CONNECT_TIMEOUT_S = 4
READ_TIMEOUT_S = 20
REQUEST_TRIES = 3
# Smaller files go up in one request; S3 allows 10,000 parts of at least 5 MiB.
MULTIPART_FROM_BYTES = 64 << 20
PART_BYTES = 16 << 20
PART_THREADS = 4
DELETE_THREADS = LOOK_THREADS = 16
ARCHIVE_LOOKS = 10_000
"""Of how many objects, evenly spread, it is asked whether they are archived."""
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
_COLD = (*_ARCHIVES, "INTELLIGENT_TIERING")
CLAIM_TRIES = 6
PAGE = 1000
_CLAIM = "anonlib-claim"
SEEK_BLOCK_BYTES = 256 << 10
READ_TRIES = 5
FIRST_PAUSE_S = 0.1
BUFFER_BYTES = 1 << 20

# HTTPClientError: a connection that is cut, or silent for too long.
_CUT = (boto.HTTPClientError, boto.IncompleteReadError, OSError, Unavailable)

# (first byte, byte after the last or None for the end, etag or None) -> the answer of GetObject.
Get = Callable[[int, int | None, str | None], dict[str, Any]]

_making_client = threading.Lock()

_CHECKSUMS = "AWS_REQUEST_CHECKSUM_CALCULATION"
_ONLY_REQUIRED_CHECKSUMS = Config(
    request_checksum_calculation="when_required", response_checksum_validation="when_required"
)
"""For servers that are not AWS: many refuse the checksums that boto3 sends by itself since 1.36."""


def _is_archived(answer: dict[str, Any]) -> bool:
    """Whether an answer to HEAD or GET says that the object has to be restored before it can be read."""
    restored = 'ongoing-request="false"' in answer.get("Restore", "")
    return not restored and (answer.get("StorageClass") in _ARCHIVES or "ArchiveStatus" in answer)


def _pay(params: dict[str, Any], **_: Any) -> None:
    """The sender of this request pays for it."""
    params["headers"]["x-amz-request-payer"] = "requester"


class S3Storage(Storage):
    """Objects below s3://bucket/prefix. Needs s3:GetObject, PutObject, ListBucket; deleting: DeleteObject."""

    def __init__(self, bucket: str, prefix: str, options: StorageOptions) -> None:
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket, self._options = bucket, options
        self._prefix = f"{prefix}/" if prefix else ""
        self._client: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_client": None}

    def _s3(self) -> Any:
        with _making_client:
            if self._client is None:
                self._client = self._new_client()
        return self._client

    def _new_client(self) -> Any:
        retries = {"mode": "standard", "total_max_attempts": REQUEST_TRIES}
        times = {"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": READ_TIMEOUT_S}
        signature = UNSIGNED if self._options.anonymous else None
        config = Config(**times, retries=retries, max_pool_connections=32, signature_version=signature)
        endpoint, region = self._options.endpoint_url, self._options.region
        try:
            # A session of our own: boto3's default one may not be shared by threads.
            with as_sentence("s3:ListBucket", self._bucket, endpoint or "AWS"):
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

    def _key(self, path: str) -> str:
        return self._prefix + safe_path(path)

    def _translated(self, action: str, key: str = "") -> AbstractContextManager[None]:
        parts = urlsplit(self._s3().meta.endpoint_url)
        endpoint = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        path = key.removeprefix(self._prefix)
        where, pays = shown(self.uri, path) if key else None, self._options.requester_pays
        return as_sentence(action, self._bucket, endpoint, where, path or None, pays=pays)

    def open_read(self, path: str, etag: str | None = None, *, seekable: bool = False) -> BinaryIO:
        """See Storage; resumes by Range after a cut, pinned to one etag."""
        key, client = self._key(path), self._s3()

        def get(start: int, stop: int | None, pinned: str | None) -> dict[str, Any]:
            request: dict[str, Any] = {"Bucket": self._bucket, "Key": key}
            if stop is not None:
                request["Range"] = f"bytes={start}-{stop - 1}"
            if pinned is not None:
                request["IfMatch"] = f'"{pinned}"'
            with self._reading(key):
                answer = cast("dict[str, Any]", client.get_object(**request))
            self._read_last = path
            return answer

        if not seekable:
            return io.BufferedReader(S3Reader(get, shown(self.uri, path), etag), BUFFER_BYTES)
        found = self.stat(path)
        raw = S3Reader(get, shown(self.uri, path), etag or found.etag, found.size, SEEK_BLOCK_BYTES)
        return io.BufferedReader(raw, BUFFER_BYTES)

    def stat(self, path: str) -> StoredObject:
        key, client = self._key(path), self._s3()
        with self._reading(key):
            try:
                answer = client.head_object(Bucket=self._bucket, Key=key)
            except ClientError as error:
                if code_of(error) not in ("400", "403", "404"):
                    raise
                # The answer to HEAD has no body, so it cannot tell a wrong secret from a forbidden object,
                # nor a missing bucket from a missing object; the answer to GET can.
                answer = client.get_object(Bucket=self._bucket, Key=key)
                answer["Body"].close()
        return StoredObject(path, int(answer["ContentLength"]), answer["ETag"].strip('"'), _is_archived(answer))

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            with self._translated("s3:GetObject", key):
                yield
        except StorageError as error:
            raise self.judged(error, key.removeprefix(self._prefix)) from error.__cause__

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

    def publish(self, path: str, source: Path | bytes) -> None:
        key = self._key(path)
        with self._translated("s3:PutObject", key):
            self._put(self._s3(), key, source)

    def _put(self, client: Any, key: str, source: Path | bytes, claim: str | None = None) -> None:
        """Upload; with a `claim`, which the object then names, only if nothing is there."""
        where = {"Bucket": self._bucket, "Key": key}
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
                parts = self._put_parts(client, where, source)
                client.complete_multipart_upload(**where, **once, MultipartUpload={"Parts": parts})
            except BaseException:
                # This error says more than the next would; a lifecycle rule or delete_tree clears what stays.
                with suppress(ClientError, BotoCoreError):
                    client.abort_multipart_upload(**where)
                raise

    def _put_parts(self, client: Any, where: dict[str, str], source: Path) -> list[dict[str, Any]]:
        size = source.stat().st_size
        part_bytes = max(PART_BYTES, -(-size // 10_000))

        def put(number: int) -> dict[str, Any]:
            with source.open("rb") as stream:
                stream.seek((number - 1) * part_bytes)
                answer = client.upload_part(**where, PartNumber=number, Body=stream.read(part_bytes))
            return {"PartNumber": number, "ETag": answer["ETag"]}

        pool = ThreadPoolExecutor(PART_THREADS)
        try:
            return list(pool.map(put, range(1, -(-size // part_bytes) + 1)))
        finally:
            pool.shutdown(cancel_futures=True)

    def claim(self, path: str, source: Path | bytes) -> bool:
        """See Storage; needs a server that enforces If-None-Match (probe says whether it does)."""
        if isinstance(source, Path) and self.exists(path):
            return False  # A large file is not sent to be refused.
        key, client, token = self._key(path), self._s3(), uuid4().hex
        with self._translated("s3:PutObject", key):
            for attempt in range(CLAIM_TRIES):
                try:
                    self._put(client, key, source, token)
                except ClientError as error:
                    code = code_of(error)
                    if code in ("PreconditionFailed", "412"):
                        if not (attempt or error.response["ResponseMetadata"].get("RetryAttempts", 0)):
                            return False
                        # Our own first attempt may have won, although its answer was lost and boto3 tried again.
                        there = client.head_object(Bucket=self._bucket, Key=key).get("Metadata", {})
                        return bool(there.get(_CLAIM) == token)
                    if code not in ("ConditionalRequestConflict", "OperationAborted", "409"):
                        raise
                    time.sleep(0.1 * 2**attempt)
                else:
                    return True
        raise Unavailable(f"{shown(self.uri, path)} stayed locked by other writers; run again.", path=path)

    def delete(self, path: str) -> None:
        key, client = self._key(path), self._s3()
        with self._translated("s3:DeleteObject", key):
            client.delete_object(Bucket=self._bucket, Key=key)

    def delete_tree(self, prefix: str, *, keep: Collection[str] = ()) -> int:
        """See Storage; unfinished multipart uploads hold data too and are aborted."""
        top, kept = self._prefix + folder_prefix(prefix), set(map(self._key, keep))
        removed, hidden = 0, 0
        keys = (key for entry in self._objects(top) if (key := str(entry["Key"])) not in kept)
        while batch := [{"Key": key} for key in islice(keys, PAGE)]:
            with self._translated("s3:DeleteObject", top):
                hidden += self._delete_all(batch)
            removed += len(batch)
        uploads: list[tuple[str, str]] = []
        with self._translated("s3:ListBucketMultipartUploads", top):
            pages = self._s3().get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=top)
            try:
                uploads = [(upload["Key"], upload["UploadId"]) for page in pages for upload in page.get("Uploads", ())]
            except ClientError as error:
                if code_of(error) not in ("NotImplemented", "501", "MethodNotAllowed", "405"):
                    raise
        for key, number in uploads:
            with suppress(Unavailable), self._translated("s3:AbortMultipartUpload", key):
                self._s3().abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=number)
        if hidden:
            raise VersionsRemain(
                f"The bucket '{self._bucket}' keeps old versions: {hidden} files below {self.uri}/{prefix} "
                "are hidden, not destroyed; delete their versions, or let a lifecycle rule do it."
            )
        return removed

    def _delete_all(self, batch: Sequence[dict[str, str]]) -> int:
        """Delete up to 1,000 objects; returns how many of them are only hidden, since the bucket keeps versions.

        DeleteObjects must carry a checksum, and servers differ in which they know; some have no such request. What is
        refused as a whole is deleted one by one, and then a refusal says what is really wrong.
        """
        client = self._s3()
        try:
            answer = client.delete_objects(Bucket=self._bucket, Delete={"Objects": batch})
        except ClientError as error:
            if is_busy(error):
                raise
            with ThreadPoolExecutor(DELETE_THREADS) as pool:
                answers = pool.map(lambda entry: client.delete_object(Bucket=self._bucket, **entry), batch)
                return sum(bool(answer.get("DeleteMarker")) for answer in answers)
        if failed := answer.get("Errors"):
            raise ClientError({"Error": {"Code": failed[0].get("Code")}}, "DeleteObjects")
        return sum("DeleteMarkerVersionId" in entry for entry in answer.get("Deleted", ()))

    def _objects(self, prefix: str) -> Iterator[dict[str, Any]]:
        paginator = self._s3().get_paginator("list_objects_v2")
        request = {"Bucket": self._bucket, "Prefix": prefix, "PaginationConfig": {"PageSize": PAGE}}
        pages = iter(paginator.paginate(**request))
        while True:
            with self._translated("s3:ListBucket"):
                page = next(pages, None)
            if page is None:
                return
            yield from page.get("Contents", ())

    def list(self, prefix: str = "", *, unfinished: bool = False, foreign: bool = False) -> Iterator[StoredObject]:
        """See Storage. Keys that end in '/' are other tools' folder marks and no files, whatever they hold.

        The mark of the root itself, which a console makes, is foreign only if it holds something; its path is '/'.
        """
        for entry in self._objects(self._prefix + prefix):
            path, size = str(entry["Key"])[len(self._prefix) :], int(entry["Size"])
            marks = path.endswith("/") or not path
            if (foreign and (path or size)) if marks else (unfinished or not is_ours(path)):
                cold = entry.get("StorageClass") in _COLD
                yield StoredObject(path or "/", size, entry["ETag"].strip('"'), cold)


class S3Reader(io.RawIOBase):
    """Raw stream over GetObject; wrap it in io.BufferedReader.

    A shard is read for minutes while models work, and idle connections are cut. So it asks again from the byte that it
    reached, pinned to the etag of its first answer, and ends only at the length that the server announced.

    block: None reads on to the end in one answer; a number of bytes asks for ranges of at least that size, which suits
    scattered reads. size: the length in bytes if it is known already (needed with `block`).
    """

    def __init__(
        self, get: Get, name: str, etag: str | None, size: int | None = None, block: int | None = None
    ) -> None:
        super().__init__()
        self._get, self._name, self._etag, self._block = get, name, etag, block
        self._offset = self._body_end = 0
        self._body: Any = None
        if size is None:
            size = self._body_end = int(self._open(0, None)["ContentLength"])
        self._size = size

    def _open(self, start: int, stop: int | None) -> dict[str, Any]:
        answer = self._get(start, stop, self._etag)
        self._etag = answer["ETag"].strip('"')
        self._body = answer["Body"]
        return answer

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._block is not None

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if not self.seekable():
            raise io.UnsupportedOperation("this stream was not opened as seekable")
        place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._size}[whence]
        if place < 0:
            raise OSError("a seek to before the start of the file")
        if place != self._offset:
            self._drop()
            self._offset = place
        return self._offset

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if not len(view) or self._offset >= self._size:
            return 0
        cause: BaseException | None = None
        for attempt in range(READ_TRIES):
            if attempt:
                self._drop()
                time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
            try:
                count = self._read_part(view)
            except boto.FlexibleChecksumError as error:
                raise Unavailable(f"{self._name} does not match its checksum; try again.") from error
            except _CUT as error:
                cause = error
                continue
            if count:
                self._offset += count
                if self._offset >= self._body_end:
                    self._drop()
                return count
        self._drop()
        if isinstance(cause, Unavailable):
            raise cause
        raise Unavailable(
            f"{self._name} stopped after {self._offset} of {self._size} bytes, {READ_TRIES} times; "
            "check the network and run again."
        ) from cause

    def _read_part(self, view: memoryview) -> int:
        if self._body is None:
            wanted = self._size - self._offset if self._block is None else max(self._block, len(view))
            self._body_end = min(self._offset + wanted, self._size)
            self._open(self._offset, self._body_end)
        chunk = self._body.read(min(len(view), self._body_end - self._offset))
        view[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._drop()
        super().close()
