"""The workspace as a Storage that takes no more writes once it is purged.

A purge first writes its mark, then removes everything else and lists again. So every write looks for the mark before
and after: what was written before the mark is found by the purge, and what came after it is removed by its own writer.
One gap remains: a writer that is killed between its write and its second look leaves a file. The next `anonlib purge`
lists the workspace again and removes it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from anonlib.errors import NotFound, WorkspacePurged
from anonlib.storage import Storage, StoredObject

PURGED = "purged.json"


class Workspace(Storage):
    """Another storage, until it holds the mark of a purge; then a write, and a read in vain, raise WorkspacePurged.

    A write asks twice whether the mark is there, which on S3 is two HEAD requests.
    """

    def __init__(self, inner: Storage) -> None:
        self.inner, self.uri = inner, inner.uri

    def refuse_if_purged(self) -> None:
        """Raise WorkspacePurged if the mark is there."""
        if self.inner.exists(PURGED):
            raise WorkspacePurged(f"The workspace {self.uri} was purged; give this job a new one.")

    def publish(self, path: str, source: Path | bytes) -> None:
        """See Storage."""
        self.refuse_if_purged()
        self.inner.publish(path, source)
        self._take_back_if_purged(path)

    def claim(self, path: str, source: Path | bytes, *, private: bool = False) -> bool:
        """See Storage."""
        self.refuse_if_purged()
        claimed = self.inner.claim(path, source, private=private)
        self._take_back_if_purged(path)
        return claimed

    def _take_back_if_purged(self, path: str) -> None:
        try:
            self.refuse_if_purged()
        except WorkspacePurged:
            self.inner.delete(path)
            raise

    def open_read(self, path: str, etag: str | None = None, *, seekable: bool = False) -> BinaryIO:
        """See Storage."""
        try:
            return self.inner.open_read(path, etag, seekable=seekable)
        except NotFound:
            self.refuse_if_purged()
            raise

    def fetch(self, path: str, to: Path) -> None:
        """See Storage."""
        self.inner.fetch(path, to)

    def stat(self, path: str) -> StoredObject:
        """See Storage."""
        return self.inner.stat(path)

    def delete(self, path: str) -> None:
        """See Storage."""
        self.inner.delete(path)

    def delete_tree(self, prefix: str, *, keep: Collection[str] = ()) -> int:
        """See Storage."""
        return self.inner.delete_tree(prefix, keep=keep)

    def list(self, prefix: str = "", *, unfinished: bool = False, foreign: bool = False) -> Iterator[StoredObject]:
        """See Storage."""
        return self.inner.list(prefix, unfinished=unfinished, foreign=foreign)

    def exposed(self) -> str | None:
        """See Storage."""
        return self.inner.exposed()
