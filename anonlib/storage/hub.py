"""A dataset of Hugging Face's hub as a Storage that can only be read.

An etag is what the hub itself calls the content by. `expand` pins the revision: a list of work names one commit, so a
job reads one state of the dataset however often its branch moves. The token is that of `huggingface_hub` (HF_TOKEN).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.errors import HfHubHTTPError

from anonlib.errors import StorageError, Unavailable
from anonlib.storage.base import StorageOptions, StoredObject
from anonlib.storage.objects import ObjectStorage, Verb, changed, refused

_SERVICE = "the hub"
_HTTP_ERROR: type[BaseException] = HfHubHTTPError.__bases__[0]
"""Of the library that the hub's client speaks HTTP by, which differs from version to version."""


class HubStorage(ObjectStorage):
    """Files below hf://datasets/owner/name@revision/prefix."""

    def __init__(self, dataset: str, prefix: str, options: StorageOptions) -> None:
        super().__init__(f"hf://{dataset}", prefix, options)
        self.bucket = dataset

    def _new_client(self) -> Any:
        token = False if self._options.anonymous else None
        return HfFileSystem(token=token, use_listings_cache=False, skip_instance_cache=True)

    @contextmanager
    def _translated(self, verb: Verb, key: str = "") -> Iterator[None]:
        try:
            yield
        except HfHubHTTPError as error:
            where = self._place("" if "repo" in type(error).__name__.lower() else key)
            raise refused(error.response.status_code, verb, where, _SERVICE) from error
        except FileNotFoundError as error:
            raise refused(404, verb, self._place(key), _SERVICE) from error
        except (_HTTP_ERROR, OSError) as error:
            raise Unavailable(f"{_SERVICE} cannot be reached, or was cut off; check the network.") from error

    def pinned(self) -> str:
        """The dataset with the commit that its revision is now."""
        kind, _, rest = self.bucket.partition("/")
        name, _, revision = rest.partition("@")
        with self._translated("read"):
            token = False if self._options.anonymous else None
            commit = HfApi(token=token).dataset_info(name, revision=revision or None).sha
        return f"hf://{kind}/{name}@{commit}"

    def _get(self, key: str, start: int, stop: int, etag: str) -> bytes:
        with self.client.open(f"{self.bucket}/{key}", "rb", block_size=stop - start) as file:
            if _entry(key, file.details).etag != etag:
                raise changed(*self._place(key))
            file.seek(start)
            return bytes(file.read(stop - start))

    def _head(self, key: str) -> tuple[StoredObject, str | None]:
        found = self.client.info(f"{self.bucket}/{key}")
        if found["type"] != "file":
            raise FileNotFoundError(key)
        return _entry(key, found), None

    def _entries(self, prefix: str) -> Iterator[StoredObject]:
        top = f"{self.bucket}/{prefix.rpartition('/')[0]}".rstrip("/")
        with self._translated("list"):
            found = self.client.find(top, detail=True)
        start = f"{self.bucket}/"
        entries = (_entry(name.removeprefix(start), what) for name, what in sorted(found.items()))
        yield from (entry for entry in entries if entry.path.startswith(prefix))

    def _put(self, key: str, source: Path | bytes, claim: str | None = None) -> None:
        raise StorageError(f"{self.uri} can only be read: give the job another output and workspace.")

    def _remove(self, key: str) -> None:
        self._put(key, b"")


def _entry(key: str, found: Any) -> StoredObject:
    return StoredObject(key, int(found["size"]), str((found.get("lfs") or found).get("sha256") or found["blob_id"]))
