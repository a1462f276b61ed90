"""A container of Azure's blob storage, or a prefix in one, as a Storage.

A claim is an upload with If-None-Match, at the end of its blocks if it has several. An account comes from the URI
(`abfs://container@account.dfs.core.windows.net/prefix`) or from `AZURE_STORAGE_ACCOUNT`. `AZURE_STORAGE_KEY` or
`AZURE_STORAGE_SAS_TOKEN` are of the account in `AZURE_STORAGE_ACCOUNT`, and sent to no other; elsewhere, and without
them, the identity of the process or of the machine counts. `AZURE_STORAGE_CONNECTION_STRING` holds all of it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import finalize

from azure.core import MatchConditions
from azure.core.exceptions import AzureError, HttpResponseError
from azure.identity import DefaultAzureCredential
from azure.storage.blob import ContainerClient

from anonlib.errors import AccessDenied, StorageError, Unavailable
from anonlib.storage.base import StorageOptions, StoredObject
from anonlib.storage.objects import (
    CLAIM,
    CONNECT_TIMEOUT_S,
    PAGE,
    READ_TIMEOUT_S,
    REQUEST_TRIES,
    ObjectStorage,
    Verb,
    refused,
)

_SERVICE = "Azure's blob storage"
_FOLDER = "hdi_isfolder"
_HOW = {
    "connection_timeout": CONNECT_TIMEOUT_S,
    "read_timeout": READ_TIMEOUT_S,
    "retry_total": REQUEST_TRIES - 1,
    "initial_backoff": 0,
    "increment_base": 1,
    "random_jitter_range": 0,
    "max_block_size": 16 << 20,
}


class AzureStorage(ObjectStorage):
    """Blobs below abfs://container/prefix. Needs the role Storage Blob Data Contributor; to read, Reader."""

    def __init__(self, container: str, prefix: str, options: StorageOptions) -> None:
        super().__init__(f"abfs://{container}", prefix, options)
        self.bucket, _, self._host = container.partition("@")

    def _new_client(self) -> Any:
        given, anonymous = os.environ.get, self._options.anonymous
        whole, account = given("AZURE_STORAGE_CONNECTION_STRING"), given("AZURE_STORAGE_ACCOUNT", "")
        host = self._host.replace(".dfs.", ".blob.") or (account and f"{account}.blob.core.windows.net")
        key = given("AZURE_STORAGE_KEY") or given("AZURE_STORAGE_SAS_TOKEN")
        try:
            if whole and not self._host and not anonymous:
                client = ContainerClient.from_connection_string(whole, self.bucket, **_HOW)
            elif host and (account or anonymous or not key):
                is_its_key = host.partition(".")[0] == account
                credential = None if anonymous else (is_its_key and key) or DefaultAzureCredential()
                client = ContainerClient(f"https://{host}", self.bucket, credential, **_HOW)
            else:
                raise ValueError("no account")
        except ValueError as error:
            raise StorageError(
                f"No usable Azure account for {self.uri}: write abfs://container@account.dfs.core.windows.net/prefix, "
                "or set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT, which a key or signature needs, too."
            ) from error
        finalize(self, client.close)
        return client

    @contextmanager
    def _translated(self, verb: Verb, key: str = "") -> Iterator[None]:
        where = self._place(key)
        try:
            yield
        except HttpResponseError as error:
            code = error.error_code
            if code == "ContainerNotFound":
                where = (self.bucket, None)
            if code == "BlobArchived":
                raise AccessDenied(f"{where[0]} is archived; rehydrate it, and run again.", path=where[1]) from error
            if code == "InvalidBlockList":
                # Another writer of the same blob has ended its upload, which drops our blocks.
                raise Unavailable(f"Another upload of {where[0]} came between; run again.", path=where[1]) from error
            # Without a status no credential could be had at all.
            raise refused(error.status_code or 401, verb, where, _SERVICE) from error
        except AzureError as error:
            raise Unavailable(f"{_SERVICE} cannot be reached, or was cut off; check the network.") from error

    def _get(self, key: str, start: int, stop: int, etag: str) -> bytes:
        only = {"etag": f'"{etag}"', "match_condition": MatchConditions.IfNotModified}
        return bytes(self.client.download_blob(key, start, stop - start, decompress=False, **only).readall())

    def _head(self, key: str) -> tuple[StoredObject, str | None]:
        found = self.client.get_blob_client(key).get_blob_properties()
        return _entry(found), found.metadata.get(CLAIM)

    def _put(self, key: str, source: Path | bytes, claim: str | None = None) -> None:
        metadata = {CLAIM: claim} if claim else None
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
            size = len(source) if isinstance(source, bytes) else source.stat().st_size
            self.client.upload_blob(key, stream, length=size, overwrite=not claim, metadata=metadata)

    def _remove(self, key: str) -> None:
        self.client.delete_blob(key, delete_snapshots="include")

    def _entries(self, prefix: str) -> Iterator[StoredObject]:
        """See ObjectStorage. Accounts with a hierarchical namespace sort otherwise, so all are held, and sorted; their
        folders are no objects, and stay when a tree is deleted.
        """
        found = (_entry(blob) for blob in self._listed(prefix, "metadata") if not (blob.metadata or {}).get(_FOLDER))
        yield from sorted(found, key=lambda entry: entry.path)

    def _listed(self, prefix: str, *include: str) -> list[Any]:
        with self._translated("list"):
            return [*self.client.list_blobs(prefix, include=[*include], results_per_page=PAGE)]

    def _after_purge(self, top: str) -> int:
        """What soft deletion and versions keep; blocks of uploads that were cut off are replaced and deleted."""
        whole = {blob.name for blob in self._listed(top)}
        for key in {blob.name for blob in self._listed(top, "uncommittedblobs")} - whole:
            with self._translated("delete", key):
                self.client.upload_blob(key, b"", overwrite=True)
                self._remove(key)
        kept = self._listed(top, "deleted", "versions", "snapshots")
        return sum(bool(blob.deleted or blob.snapshot or blob.is_current_version is False) for blob in kept)


def _entry(found: Any) -> StoredObject:
    return StoredObject(found.name, int(found.size or 0), str(found.etag).strip('"'), found.blob_tier == "Archive")
