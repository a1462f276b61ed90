"""The contract that a folder and a bucket both keep, so that no other file asks which of the two it has.

Paths are '/'-separated and relative to the root, and can never leave it. Every failure is a `StorageError` whose text
is one sentence. It never repeats what a server said, because servers quote signatures and key ids, nor the path of a
file that anonlib did not name, because it may be a person's and the sentence goes to logs: that path is in `path`
alone.
"""

import hashlib
import io
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit
from uuid import uuid4

from anonlib.errors import AccessDenied, NotAFile, NotFound, StorageError, Unavailable

# Names that begin so are our own unfinished files: never listed, always removed by delete_tree.
OURS = ".anonlib-"
FILE_TRIES = 8
"""How often a file must be out of reach until it is the file; a place is tried once more (execution/retry.py)."""
OTHER_FILES = 8
"""How many other files are tried when one cannot be read."""
OUR_NAMES = frozenset(
    {
        *("audit", "commits", "data", "failures", "manifest", "plan", "render", "review", "scan"),
        *("withdrawn", "run.json", "inventory.json", "inventory.parquet", "purged.json", "secret", "secret-check"),
        *("certificate.json", "classes.parquet", "draws.parquet", "surrogates.parquet", "audit.json", "sheet.jpg"),
        *("report.json", "report.schema.json", "report.html", "report.pdf", "croissant.json", "README.md"),
        *("people", "plans"),
    }
)
"""The files and folders at the top of a workspace, a release and a ledger, whose names say nothing of a person."""


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """Where S3 answers, and how; None means AWS itself, or what boto3's environment says. Holds no credentials.

    `kms_key`: what encrypts each object that is written. `requester_pays`: requests say that their sender pays for
    them. `anonymous`: requests are not signed. Raises StorageError if the endpoint is not an http(s) URL or carries a
    password.
    """

    endpoint_url: str | None = None
    region: str | None = None
    kms_key: str | None = None
    requester_pays: bool = False
    anonymous: bool = False

    def __post_init__(self) -> None:
        if self.endpoint_url is None:
            return
        parts = urlsplit(self.endpoint_url)
        if parts.username is not None or parts.password is not None:
            raise StorageError(
                "The S3 endpoint URL contains a user name or password; give credentials by AWS_ACCESS_KEY_ID "
                "and AWS_SECRET_ACCESS_KEY instead."
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise StorageError(f"The S3 endpoint '{self.endpoint_url}' is not an address such as https://host:port.")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One file: path relative to the root, size in bytes, and an etag that changes when the content does.

    `cold`: its storage class is, or has, an archive, from which it may have to be restored first.
    """

    path: str
    size: int
    etag: str
    cold: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """What was really possible at a place; `details` has one sentence for each thing that was not.

    `writable`: files can be published and claimed; `conditional_put`: of two claims one wins.
    """

    readable: bool
    writable: bool
    conditional_put: bool
    details: tuple[str, ...]


def safe_path(path: str) -> str:
    """The path itself if it stays inside a root; raises StorageError for '', '..', '/x', 'a//b' and NUL."""
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise NotAFile("A path is not one inside the storage: write it as folder/name.", path=path)
    return path


def shown(root: str, path: str) -> str:
    """A file below `root` as a sentence may name it: in full only as far as anonlib itself gave the names."""
    top, slash, _ = path.partition("/")
    if top not in OUR_NAMES:
        return f"a file in {root}" if path else root
    return f"{root.rstrip('/')}/{top}{slash and '/...'}"


def is_ours(path: str) -> bool:
    """Whether a path is one of our unfinished temporary files."""
    return path.rsplit("/", 1)[-1].startswith(OURS)


def folder_prefix(prefix: str) -> str:
    """'a/b' or 'a/b/' -> 'a/b/', and '' -> ''; raises StorageError if it leaves the root."""
    trimmed = prefix.rstrip("/")
    return safe_path(trimmed) + "/" if trimmed else ""


class Storage(ABC):
    """A root folder or prefix. Picklable, holds no secret, and safe to use from several threads."""

    uri: str
    judges = False
    """Whether errors of reading say if only one file is at fault, as where others wrote the files: in an input."""
    _read_last: str | None = None

    def judged(self, error: StorageError, path: str) -> StorageError:
        """The error of reading `path`, which is of the file alone if another file can be read now.

        A place that is busy is busy for a file only after FILE_TRIES of it.
        """
        if not self.judges or error.of_the_file:
            return error
        if isinstance(error, Unavailable):
            self.__dict__.setdefault("_failed", Counter())[path] += 1
            if self.__dict__["_failed"][path] < FILE_TRIES:
                return error
        plain = copy(self)
        plain.judges = False
        others = [self._read_last]
        with suppress(StorageError):
            others += [entry.path for entry in islice(plain.list(), OTHER_FILES)]
        error.of_the_file = any(plain._can_read(other) for other in others if other not in (None, path))
        return error

    def _can_read(self, path: str) -> bool:
        try:
            with self.open_read(path) as stream:
                stream.read(1)
        except StorageError:
            return False
        return True

    def pinned(self) -> str:
        """The URI of what is here now, which means the same later; of a place without revisions its own."""
        return self.uri

    def archived(self, files: Sequence[StoredObject]) -> tuple[int, bool]:
        """How many of these files must be restored from an archive first, and whether all were looked at."""
        return 0, True

    @abstractmethod
    def open_read(self, path: str, etag: str | None = None, *, seekable: bool = False) -> BinaryIO:
        """A buffered stream of the file's bytes; with `seekable`, cheap to read at scattered offsets.

        Raises NotFound, Changed (the file is not the one with this etag) or StorageError; reading from it
        raises StorageError if the bytes stop coming.
        """

    @abstractmethod
    def stat(self, path: str) -> StoredObject:
        """Size and etag of a file (folders do not count); raises NotFound or StorageError."""

    @abstractmethod
    def publish(self, path: str, source: Path | bytes) -> None:
        """Put a finished local file, or bytes, at `path`: what was there is replaced whole or not at all."""

    @abstractmethod
    def claim(self, path: str, source: Path | bytes) -> bool:
        """Put a finished local file, or bytes, at `path` only if nothing is there; True for exactly one who tries."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove a file; nothing happens if it is not there."""

    @abstractmethod
    def delete_tree(self, prefix: str, *, keep: Collection[str] = ()) -> int:
        """Remove everything in the folder `prefix` ('' is the whole root), our unfinished files included.

        The paths in `keep` stay. Returns the number of files removed. Raises VersionsRemain if a bucket kept their old
        versions.
        """

    @abstractmethod
    def list(self, prefix: str = "", *, unfinished: bool = False, foreign: bool = False) -> Iterator[StoredObject]:
        """Every file whose path starts with this text, sorted by path, without loading all of them.

        With `unfinished` also what our own interrupted writes left behind, with `foreign` also what is no file of a
        storage: an object or an empty folder whose path ends in '/', a link to a folder, a pipe, a device, and a folder
        that may not be entered, which else raises AccessDenied.
        """

    def read(self, path: str, etag: str | None = None) -> bytes:
        """The whole file. Raises as open_read."""
        with self.open_read(path, etag) as stream:
            return stream.read()

    def create(self, path: str, source: Path | bytes) -> bool:
        """Claim `path`, or find the same bytes there: True if this call put them, False if they were there before.

        For files that are never replaced: a writer that was asleep while others went on cannot undo what they did.
        Raises StorageError, and changes nothing, if other bytes are there.
        """
        if self.claim(path, source):
            return True
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.seek(0, io.SEEK_END)  # of bytes in memory the digest moves nothing
        if self.stat(path).size != size or self.sha256(path) != digest:
            raise StorageError(
                f"{self.uri}/{path} holds other bytes than this run made for it, and stays as it is: another run wrote "
                "it, or one that was cut off on another kind of machine. If no other run is at work, delete it."
            )
        return False

    def sha256(self, path: str) -> str:
        """The digest of a file, in hex; its bytes are read but not held. Raises as open_read."""
        with self.open_read(path) as stream:
            return hashlib.file_digest(cast("io.BufferedReader", stream), "sha256").hexdigest()

    def exposed(self) -> str | None:
        """A sentence if the root is to be private and other users of this machine may look into it, else None."""
        return None

    def sweep(self) -> int:
        """Remove what our own interrupted writes left behind; returns how many files. For when no one writes here."""
        left = [entry.path for entry in self.list(unfinished=True) if is_ours(entry.path)]
        for path in left:
            self.delete(path)
        return len(left)

    def exists(self, path: str) -> bool:
        """Whether a file is there; raises StorageError where that cannot be known."""
        try:
            self.stat(path)
        except NotFound:
            return False
        return True

    def probe(self, *, leave_nothing: bool = False) -> Probe:
        """Try to list, write, read, claim twice and delete under a name of our own, and say what failed.

        Where they could not be deleted again, the files have the same names at every probe, and stay; with
        `leave_nothing` nothing is tried there, and all counts as possible. Raises StorageError where the place cannot
        be used at all (unreachable, wrong secret, no bucket).
        """
        name = f"{OURS}probe-{uuid4().hex}"
        try:
            return self._probe(name, leave_nothing)
        except StorageError:
            for path in (name, f"{name}-claim"):
                with suppress(StorageError):
                    self.delete(path)
            raise

    def _probe(self, name: str, leave_nothing: bool) -> Probe:
        """As probe, under this name; what is written may stay where it raises."""
        details: list[str] = []

        def allowed(action: Callable[[], object]) -> bool:
            try:
                action()
            except AccessDenied as error:
                details.append(str(error))
                return False
            return True

        def read_back() -> None:
            if self.read(name) != b"1":
                raise StorageError(f"{self.uri} gave back other bytes than were written; it cannot be used.")

        deletable = allowed(lambda: self.delete(name))
        if leave_nothing and not deletable:
            return Probe(True, True, True, ())
        name = name if deletable else f"{OURS}probe"
        details.clear()
        written = allowed(lambda: self.publish(name, b"1"))
        readable = allowed(lambda: next(iter(self.list()), None))
        if not written:
            return Probe(readable, False, False, tuple(details))
        readable = allowed(read_back) and readable
        claims: list[bool] = []
        tried = allowed(lambda: claims.extend(self.claim(f"{name}-claim", content) for content in (b"1", b"2")))
        there = claims == [False, False] and not deletable  # since another probe
        enforced = claims == [True, False] or there
        if tried and not enforced:
            details.append(
                f"{self.uri} does not enforce create-if-absent (If-None-Match), so two workers could "
                "both commit a shard: run one worker, or use a store that enforces it."
            )
        try:
            for path in (name, f"{name}-claim"):
                self.delete(path)
        except AccessDenied as error:
            files = f"the small files {name} and {name}-claim stay there"
            again = "" if deletable else ", and every check uses the same two"
            details.append(f"{error} So {files}{again}; everything else works.")
        return Probe(readable, tried, enforced, tuple(details))
