"""A Google Cloud Storage bucket, or a prefix in one, as a Storage.

An object's etag is its generation. A claim is an upload that asks for generation 0, which only an absent object has.
Credentials are Google's application default credentials. `STORAGE_EMULATOR_HOST` names another server.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import finalize

from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY
from requests import RequestException

from anonlib.errors import StorageError, Unavailable
from anonlib.storage.base import StorageOptions, StoredObject
from anonlib.storage.objects import (
    CLAIM,
    CONNECT_TIMEOUT_S,
    PAGE,
    READ_TIMEOUT_S,
    ObjectStorage,
    Verb,
    changed,
    refused,
)

_SERVICE = "Google Cloud Storage"
_HOW: dict[str, Any] = {
    "timeout": (CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
    "retry": DEFAULT_RETRY.with_delay(initial=0.2, maximum=2, multiplier=2).with_timeout(5),
}


class GoogleStorage(ObjectStorage):
    """Objects below gs://bucket/prefix. Needs storage.objects.get, create and list; delete to replace or to purge."""

    def __init__(self, bucket: str, prefix: str, options: StorageOptions) -> None:
        super().__init__(f"gs://{bucket}", prefix, options)
        self.bucket = bucket

    def _new_client(self) -> Any:
        if self._options.requester_pays:
            raise StorageError(f"storage.requester_pays is for S3 alone; leave it out for {self.uri}.")
        try:
            credentials = AnonymousCredentials() if self._options.anonymous else None
            client = storage.Client(project="anonlib", credentials=credentials)
        except (GoogleAuthError, OSError) as error:
            raise StorageError(
                f"No usable Google credentials for {self.uri}: set GOOGLE_APPLICATION_CREDENTIALS, run `gcloud auth "
                "application-default login`, or use the account of this machine."
            ) from error
        finalize(self, client.close)
        return client

    @contextmanager
    def _translated(self, verb: Verb, key: str = "") -> Iterator[None]:
        where = self._place(key)
        try:
            yield
        except (GoogleAPICallError, InvalidResponse, RetryError) as error:
            cause: Any = error.cause if isinstance(error, RetryError) else error
            status = cause.response.status_code if isinstance(cause, InvalidResponse) else getattr(cause, "code", None)
            if status is None:
                raise Unavailable(f"{_SERVICE} cannot be reached; check the network and any proxy.") from error
            raise refused(int(status), verb, where, _SERVICE) from error
        except GoogleAuthError as error:
            raise StorageError(f"The Google credentials for {where[0]} are wrong or have expired.") from error
        except (RequestException, DataCorruption) as error:
            raise Unavailable(f"{_SERVICE} cannot be reached, or was cut off; check the network.") from error

    def _blob(self, key: str, generation: str | None = None) -> Any:
        return self.client.bucket(self.bucket).blob(key, generation=int(generation) if generation else None)

    def _get(self, key: str, start: int, stop: int, etag: str) -> bytes:
        try:
            return bytes(self._blob(key, etag).download_as_bytes(start=start, end=stop - 1, raw_download=True, **_HOW))
        except GoogleAPICallError as error:
            if error.code != 404 or not self._blob(key).exists(**_HOW):
                raise
            raise changed(*self._place(key)) from error

    def _head(self, key: str) -> tuple[StoredObject, str | None]:
        blob = self._blob(key)
        try:
            blob.reload(**_HOW)
        except GoogleAPICallError as error:
            if error.code == 404:
                next(self._entries(key), None)  # which tells a missing bucket from a missing object
            raise
        return StoredObject(key, int(blob.size), str(blob.generation)), (blob.metadata or {}).get(CLAIM)

    def _put(self, key: str, source: Path | bytes, claim: str | None = None) -> None:
        blob = self._blob(key)
        blob.metadata = {CLAIM: claim} if claim else None
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
            size = len(source) if isinstance(source, bytes) else source.stat().st_size
            blob.upload_from_file(stream, size=size, if_generation_match=0 if claim else None, **_HOW)

    def _remove(self, key: str) -> None:
        self._blob(key).delete(**_HOW)

    def _entries(self, prefix: str, **which: bool) -> Iterator[StoredObject]:
        blobs = iter(self.client.list_blobs(self.bucket, prefix=prefix, page_size=PAGE, **which, **_HOW))
        while True:
            with self._translated("list"):
                blob = next(blobs, None)
            if blob is None:
                return
            if not which or blob.time_deleted or blob.soft_delete_time:
                yield StoredObject(blob.name, int(blob.size), str(blob.generation))

    def _after_purge(self, top: str) -> int:
        """What versions and soft deletion keep; uploads that were cut off cannot be read, and expire."""
        return max(sum(1 for _ in self._entries(top, **{way: True})) for way in ("versions", "soft_deleted"))
