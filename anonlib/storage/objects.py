"""What all buckets have in common: keys below a prefix, streams that are read in blocks, claims, and listings.

A service of objects is a subclass with five verbs of its own (`_get`, `_head`, `_put`, `_remove`, `_entries`) and its
own errors (`_translated`). Clients are made where they are used and never pickled: credentials stay in the environment
of the process, or come from the role of its machine.
"""

from __future__ import annotations

import io
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal
from uuid import uuid4

from anonlib.errors import AccessDenied, Changed, NotFound, StorageError, Unavailable, VersionsRemain
from anonlib.storage.base import Storage, StorageOptions, StoredObject, folder_prefix, is_ours, safe_path, shown

# A dead endpoint is given up after about 3 x 4 s of connecting and 2 s of pauses.
CONNECT_TIMEOUT_S = 4
READ_TIMEOUT_S = 20
REQUEST_TRIES = 3
PAGE = 1000
DELETE_THREADS = 16
READ_BLOCK_BYTES = 32 << 20
SEEK_BLOCK_BYTES = 256 << 10
READ_TRIES = 5
FIRST_PAUSE_S = 0.1
BUFFER_BYTES = 1 << 20
CLAIM = "anonlib_claim"
"""The metadata in which an object names the claim that made it."""

Verb = Literal["read", "list", "write", "delete"]
_making_client = threading.Lock()


class ObjectStorage(Storage):
    """Objects below a prefix of a bucket; `root` is the bucket's URI."""

    bucket: str
    takes_kms_key = False

    def __init__(self, root: str, prefix: str, options: StorageOptions) -> None:
        self.uri = f"{root}/{prefix}".rstrip("/")
        self._options = options
        self._prefix = f"{prefix}/" if prefix else ""
        self._client: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_client": None}

    @property
    def client(self) -> Any:
        """The service's client, made where it is first used."""
        with _making_client:
            if self._client is None:
                self._client = self._new_client()
        return self._client

    @abstractmethod
    def _new_client(self) -> Any: ...

    @abstractmethod
    def _translated(self, verb: Verb, key: str = "") -> AbstractContextManager[None]:
        """Turns what the client raises in a block into a StorageError about this object, or about the bucket."""

    @abstractmethod
    def _get(self, key: str, start: int, stop: int, etag: str) -> bytes:
        """The bytes of the version with this etag from `start` to before `stop`; fewer if the answer was cut off."""

    def _first(self, key: str, size: int) -> tuple[StoredObject, bytes]:
        """The object, and its first `size` bytes, or all if it has fewer."""
        found, _ = self._head(key)
        return found, self._get(key, 0, min(size, found.size), found.etag) if size and found.size else b""

    @abstractmethod
    def _head(self, key: str) -> tuple[StoredObject, str | None]:
        """The object, its key as path, and the claim that made it."""

    @abstractmethod
    def _put(self, key: str, source: Path | bytes, claim: str | None = None) -> None:
        """Upload; with a `claim`, which the object then names, only if nothing is there: else raises Changed."""

    @abstractmethod
    def _remove(self, key: str) -> None: ...

    @abstractmethod
    def _entries(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key starts with this text, sorted, its key as path; raises StorageError."""

    def _after_purge(self, top: str) -> int:
        """End unfinished uploads below this prefix; returns how many deleted objects the bucket still keeps there."""
        return 0

    def _key(self, path: str) -> str:
        return self._prefix + safe_path(path)

    def _place(self, key: str) -> tuple[str, str | None]:
        """What a sentence says of an object, and its path; of the bucket for ''."""
        path = key.removeprefix(self._prefix)
        return (shown(self.uri, path), path or None) if key else (self.uri, None)

    def open_read(self, path: str, etag: str | None = None, *, seekable: bool = False) -> BinaryIO:
        """See Storage; it is read in blocks, pinned to one etag."""
        key, block = self._key(path), SEEK_BLOCK_BYTES if seekable else READ_BLOCK_BYTES
        at_once = 0 if seekable else block
        with self._reading(key):
            try:
                with self._translated("read", key):
                    found, first = self._first(key, at_once)
            except Unavailable:  # an answer that was cut off is asked for once more
                found, first = self._first(key, at_once)
            if etag not in (None, found.etag):
                raise changed(*self._place(key))
        if first:
            self._read_last = path

        def get(start: int, stop: int) -> bytes:
            with self._reading(key):
                data = self._get(key, start, stop, found.etag)
                if len(data) != stop - start:
                    raise Unavailable(f"{shown(self.uri, path)} was cut off; check the network and run again.")
            self._read_last = path
            return data

        return io.BufferedReader(_BlockReader(get, found.size, block, first), BUFFER_BYTES)

    def stat(self, path: str) -> StoredObject:
        key = self._key(path)
        with self._reading(key):
            found, _ = self._head(key)
        return StoredObject(path, found.size, found.etag, found.cold)

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            with self._translated("read", key):
                yield
        except StorageError as error:
            raise self.judged(error, key.removeprefix(self._prefix)) from error.__cause__

    def archived(self, files: Sequence[StoredObject]) -> tuple[int, bool]:
        """See Storage; a listing tells."""
        return sum(file.cold for file in files), True

    def publish(self, path: str, source: Path | bytes) -> None:
        with self._writing(path) as key:
            self._put(key, source)

    @contextmanager
    def _writing(self, path: str) -> Iterator[str]:
        """The key of a path that is written; raises StorageError."""
        key = self._key(path)
        if self._options.kms_key is not None and not self.takes_kms_key:
            raise StorageError(f"storage.kms_key is a key of AWS; set the default key of {self.uri} itself instead.")
        with self._translated("write", key):
            yield key

    def claim(self, path: str, source: Path | bytes) -> bool:
        """See Storage; needs a server that enforces it (probe says whether it does)."""
        if isinstance(source, Path) and self.exists(path):
            return False  # A large file is not sent to be refused.
        token = uuid4().hex
        try:
            with self._writing(path) as key:
                self._put(key, source, token)
        except Changed:
            # Our own first attempt may have won, although its answer was lost and the client tried again.
            with self._translated("read", key):
                return self._head(key)[1] == token
        return True

    def delete(self, path: str) -> None:
        key = self._key(path)
        try:
            with self._translated("delete", key):
                self._remove(key)
        except NotFound:
            pass

    def delete_tree(self, prefix: str, *, keep: Collection[str] = ()) -> int:
        """See Storage; unfinished uploads hold data too and are ended."""
        top, kept = self._prefix + folder_prefix(prefix), set(map(self._key, keep))
        removed, hidden = 0, 0
        keys = (entry.path for entry in self._entries(top) if entry.path not in kept)
        while batch := list(islice(keys, PAGE)):
            with self._translated("delete", top):
                hidden += self._remove_all(batch)
            removed += len(batch)
        hidden += self._after_purge(top)
        if hidden:
            raise VersionsRemain(
                f"The bucket '{self.bucket}' keeps old versions: {hidden} files below {self.uri}/{prefix} "
                "are hidden, not destroyed; delete their versions, or let a lifecycle rule do it."
            )
        return removed

    def _remove_all(self, keys: Sequence[str]) -> int:
        """Delete up to PAGE objects; returns how many of them are only hidden, as far as the answers say."""

        def remove(key: str) -> None:
            try:
                with self._translated("delete", key):
                    self._remove(key)
            except NotFound:
                pass

        with ThreadPoolExecutor(DELETE_THREADS) as pool:
            list(pool.map(remove, keys))
        return 0

    def list(self, prefix: str = "", *, unfinished: bool = False, foreign: bool = False) -> Iterator[StoredObject]:
        """See Storage. Keys that end in '/' are other tools' folder marks and no files, whatever they hold.

        The mark of the root itself, which a console makes, is foreign only if it holds something; its path is '/'.
        """
        for entry in self._entries(self._prefix + prefix):
            path = entry.path[len(self._prefix) :]
            marks = path.endswith("/") or not path
            if (foreign and (path or entry.size)) if marks else (unfinished or not is_ours(path)):
                yield StoredObject(path or "/", entry.size, entry.etag, entry.cold)


class _BlockReader(io.RawIOBase):
    """A raw stream over an object of `size` bytes, of which it holds a block; wrap it in io.BufferedReader.

    A shard is read for minutes while models work, and idle connections are cut: so no answer is kept open. `get` gives
    the bytes from one place to another; a block is asked for READ_TRIES times where the service fails for a moment.
    """

    def __init__(self, get: Callable[[int, int], bytes], size: int, block: int, first: bytes) -> None:
        super().__init__()
        self._get, self._size, self._block = get, size, block
        self._held, self._held_from, self._offset = first, 0, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._size}[whence]
        if place < 0:
            raise OSError("a seek to before the start of the file")
        self._offset = place
        return place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if not len(view) or self._offset >= self._size:
            return 0
        if not self._held_from <= self._offset < self._held_from + len(self._held):
            self._held = self._asked_for(min(self._offset + max(self._block, len(view)), self._size))
            self._held_from = self._offset
        at = self._offset - self._held_from
        part = self._held[at : at + len(view)]
        view[: len(part)] = part
        self._offset += len(part)
        return len(part)

    def _asked_for(self, stop: int) -> bytes:
        for attempt in range(READ_TRIES - 1):
            try:
                return self._get(self._offset, stop)
            except Unavailable:
                time.sleep(FIRST_PAUSE_S * 2**attempt)
        return self._get(self._offset, stop)


def changed(place: str, path: str | None) -> Changed:
    """The error of a file that is not the one with the etag asked for."""
    return Changed(f"{place} has changed since it was listed; start a new run for the new data.", path=path)


def refused(status: int, verb: Verb, where: tuple[str, str | None], service: str) -> StorageError:
    """What a status of HTTP means of an object or bucket (as a sentence says it, and its path), at this service."""
    place, path = where
    if status == 404 and path and verb != "write":
        return NotFound(f"There is no such file: {place}.", path=path)
    if status == 404:
        return StorageError(f"{service} does not know the bucket of {place}; check its name, or create it.", path=path)
    if status in (409, 412):
        return changed(place, path)
    if status == 401:
        return StorageError(f"{service} does not accept these credentials for {place}: they are wrong or have expired.")
    if status == 403:
        return AccessDenied(
            f"Access denied: these credentials may not {verb} {place}, or they are wrong for {service}.", path=path
        )
    if status == 507:
        return StorageError(f"The storage behind {service} is full; {place} was not written.", path=path)
    if status in (408, 429) or status >= 500:
        return Unavailable(f"{service} is overloaded or failing ({status}); try again later.", path=path)
    return StorageError(f"{service} refused to {verb} {place} ({status}).", path=path)
