"""A released data file against its manifest, member by member: nothing missing, nothing changed, nothing beside it.

A file is hashed first: what is not the file that was signed is never opened. The files are read here without the
datasets' own readers, which skip what belongs to no sample: what they skip is where something could hide.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa

from anonlib.datasets import items_of
from anonlib.datasets.base import MAX_SAMPLE_BYTES
from anonlib.datasets.folder import FILE_NAME, image_of, is_metadata, metadata_bytes, metadata_rows, sidecars_of
from anonlib.datasets.names import (
    MAX_NAME,
    belongs_to,
    holds_image,
    is_clip,
    is_media,
    kept_members,
    printable,
    split_member,
)
from anonlib.datasets.parquet_columns import image_column
from anonlib.datasets.parquet_footer import Table, bounded_batches, open_table
from anonlib.datasets.webdataset import GZIP_MAGIC, MAX_MEMBERS, check_growth, open_plain_tar
from anonlib.errors import DatasetError, NotFound, VerificationError, require
from anonlib.storage import Storage
from anonlib.verification.certificate import sha256
from anonlib.workspace.schemas import RESTRICTED_COLUMNS

# What a damaged file raises while it is read; a storage's own failure is a StorageError and none of these.
_BROKEN = (
    *(tarfile.TarError, EOFError, zlib.error, pa.ArrowException, OSError),
    *(ValueError, OverflowError, RecursionError),
)
_BLOCK = 1 << 20
_ROWS_AT_ONCE = 16
_MAX_SAMPLE = 2 * MAX_SAMPLE_BYTES  # what is written may be larger than what was read
_WRITER = re.compile(r"parquet-cpp-arrow version \d+(\.\d+)*")


class Expected(NamedTuple):
    """What a shard's data must hold: (key, sha256) of its images in order, and the fields that the job keeps."""

    images: Sequence[tuple[str, str]]
    keep: frozenset[str]
    rekeyed: bool


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Raise VerificationError where a file is missing or damaged while it is read."""
    try:
        yield
    except NotFound:
        raise VerificationError(f"{what} is missing") from None
    except DatasetError as error:
        raise VerificationError(f"{what} is not read: {error}") from None
    except _BROKEN as error:
        raise VerificationError(f"{what} cannot be read to its end ({type(error).__name__})") from None


def whole(storage: Storage, path: str, most: int, digest: str | None = None) -> bytes:
    """A file of at most `most` bytes, with this sha256 if one is given; raises VerificationError, and reads no more."""
    with readable(path), storage.open_read(path) as stream:
        data = stream.read(most + 1)
    require(len(data) <= most, f"{path} is larger than {most >> 20} MiB, which no such file of a release is")
    _check_signed(path, sha256(data), digest)
    return data


def check_hash(storage: Storage, path: str, digest: str) -> None:
    """Raise VerificationError unless a file has this sha256; nothing of it is looked at."""
    with readable(path):
        _check_signed(path, storage.sha256(path), digest)


def _check_signed(path: str, found: str, digest: str | None) -> None:
    same = digest is None or found == digest
    require(same, f"{path} is not the one that was signed: its sha256 is {found[:16]}...")


def check_tar(storage: Storage, path: str, digest: str, expected: Expected) -> None:
    """A tar, gzipped or not: hashed as a stream, and only then opened; raises VerificationError."""
    check_hash(storage, path, digest)
    with readable(path), storage.open_read(path) as stream:
        hashing = _Hashing(stream)
        _check_archive(io.BufferedReader(hashing, _BLOCK), path, expected)
        _check_signed(path, hashing.finish(), digest)


def check_parquet(storage: Storage, path: str, digest: str, expected: Expected) -> None:
    """A Parquet file: hashed as a stream, and only then opened, a few rows at a time; raises VerificationError."""
    check_hash(storage, path, digest)
    with readable(path), storage.open_read(path, seekable=True) as stream, open_table(stream) as table:
        _check_rows(table, path, expected)


def check_folder(storage: Storage, files: Mapping[str, str], expected: Expected) -> None:
    """The files of a folder's slice, path -> sha256; raises VerificationError."""
    left: dict[str, dict[str, str]] = {}
    for path in files:
        stem, _, extension = path.rpartition(".")
        left.setdefault(stem, {})[extension] = path
    stems, released = set(), set[str]()
    for key, digest in expected.images:
        stem, _, ending = (f"data/{key}", "", "") if expected.rekeyed else f"data/{key}".rpartition(".")
        group = left.get(stem, {})
        extension = ending or next((each for each in group if is_media(f"x.{each}")), "")
        if extension not in group:  # converted to PNG, whose ending stands behind the whole old name
            stem, extension = f"data/{key}", "png"
            group = left.get(stem, {})
        require(extension in group, f"data lacks the image {key!r}, which its manifest says is released")
        path = group.pop(extension)
        check_hash(storage, path, files[path])
        require(files[path] == digest, f"the image {path} is not the one in its manifest")
        stems |= {stem} if expected.rekeyed else {name.rpartition(".")[0] for name in sidecars_of(f"data/{key}")}
        released.add(path)
    for stem, group in left.items():
        members = {extension: whole(storage, path, _MAX_SAMPLE, files[path]) for extension, path in group.items()}
        for extension, path in group.items():
            if is_metadata(path) and not expected.rekeyed:
                _check_metadata(members.pop(extension), path, released, expected.keep)
        if members and stem not in stems:
            raise VerificationError(f"{next(iter(group.values()))} belongs to no row of the manifest")
        _check_kept(members, expected.keep, stem)


def _check_metadata(content: bytes, path: str, released: set[str], keep: frozenset[str]) -> None:
    """A metadata file of a folder: rows of released images, kept fields, and nothing between them."""
    rows = metadata_rows(content, path)
    if metadata_bytes(rows, path) != content:
        raise VerificationError(f"{path} holds something beside its rows")
    for row in rows:
        if image_of(path, row) not in released:
            raise VerificationError(f"{path} has a row that belongs to no image of its shard")
        fields = {name: value for name, value in row.items() if name != FILE_NAME}
        _check_kept({"json": json.dumps(fields).encode("ascii")} if fields else {}, keep, path)


def check_items(storage: Storage, path: str, digest: str, expected: Expected) -> None:
    """A file of any other format, by what its items() say is in it; raises VerificationError."""
    check_hash(storage, path, digest)
    images = iter(expected.images)
    key, image = next(images, (None, ""))
    for item in items_of(storage, path):
        if item.odd or item.key is None:
            raise VerificationError(f"{path} holds something that belongs to no sample ({item.where})")
        if item.key == key and sha256(item.content) == image:
            key, image = next(images, (None, ""))
        else:
            _check_kept({item.name: item.content}, expected.keep, item.where)
    if key is not None:
        raise _another(key, path)


CHECKS: dict[str, Callable[[Storage, str, str, Expected], None]] = {"webdataset": check_tar, "parquet": check_parquet}
"""How a data file is checked, by format: closer than check_items, down to the bytes between its items."""


class _Hashing(io.RawIOBase):
    """A stream that hashes what is read from it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._digest = stream, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._stream.read(len(buffer))
        buffer[: len(block)] = block
        self._digest.update(block)
        return len(block)

    def finish(self) -> str:
        """Hex sha256 of the whole stream, whose rest is read now."""
        while block := self._stream.read(_BLOCK):
            self._digest.update(block)
        return self._digest.hexdigest()


class _Gunzipped(io.RawIOBase):
    """A gzip stream as our writer makes it: one part, no name or time in its header, and nothing behind it."""

    _HEADER = GZIP_MAGIC + b"\x08\x00" + bytes(4) + b"\x00\xff"  # RFC 1952: deflate, no flags, no time, no system

    def __init__(self, packed: io.BufferedReader, path: str) -> None:
        self._packed, self._path, self._count = packed, path, 0
        self._unpacking, self._given = zlib.decompressobj(31), 0
        plain_header = packed.peek(len(self._HEADER))[: len(self._HEADER)] == self._HEADER
        require(plain_header, f"{path} has something in its gzip header")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = b""
        while not block and not self._unpacking.eof:
            packed = self._unpacking.unconsumed_tail or self._packed.read(_BLOCK)
            if not packed:
                raise EOFError("the gzip stream is cut off")
            block = self._unpacking.decompress(packed, len(buffer))
            self._count += len(packed) - len(self._unpacking.unconsumed_tail)
        if self._unpacking.eof and (self._unpacking.unused_data or self._packed.read(1)):
            raise VerificationError(f"{self._path} holds something after the end of its gzip stream")
        self._given += len(block)
        check_growth(self._given, self._count)
        buffer[: len(block)] = block
        return len(block)


def _check_archive(raw: io.BufferedReader, path: str, expected: Expected) -> None:
    """Every member, and that there is nothing but members: the tar that our writer makes of them has the same bytes."""
    gzipped = raw.peek(2)[:2] == GZIP_MAGIC
    plain = _Hashing(cast("BinaryIO", _Gunzipped(raw, path) if gzipped else raw))
    rebuilt = hashlib.sha256()
    sink = cast("BinaryIO", SimpleNamespace(write=rebuilt.update))
    with (
        open_plain_tar(io.BufferedReader(plain, _BLOCK)) as archive,
        tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8") as again,
    ):
        samples = _samples(archive, path, again)
        rows = _Rows(expected.images)
        for name, members, digests in samples:
            key, digest = rows.take(f"{path} holds {name!r}, which no row of its manifest vouches for")
            require(belongs_to(key, name), f"{path} holds {name!r} where its manifest has {key!r}")
            if digest not in digests.values():
                raise _another(key, path)
            while digest in digests.values():
                image = next(extension for extension, found in digests.items() if found == digest)
                members.pop(image, None)
                del digests[image]
                digest = rows.take()[1] if rows.is_next(name, digests.values()) else ""
            require(digests.keys() == members.keys(), f"{path}, {name!r} comes with a clip that no row vouches for")
            _check_kept(members, expected.keep, f"{path}, {name!r}")
        rows.finish(path)
    same = plain.finish() == rebuilt.hexdigest()
    require(same, f"{path} holds bytes beside its members, in a header, a padding or after its end")


class _Rows:
    """The rows of a manifest in order: a tar sample or a table's row takes one, or one an image."""

    def __init__(self, images: Sequence[tuple[str, str]]) -> None:
        self._images, self._at = images, 0

    def take(self, beyond: str = "") -> tuple[str, str]:
        """The next row's key and digest; raises VerificationError with this sentence if there is none."""
        require(self._at < len(self._images), beyond)
        self._at += 1
        return self._images[self._at - 1]

    def is_next(self, name: str, digests: Collection[str]) -> bool:
        """Whether the next row is a further image of the sample, one of these."""
        key, digest = self._images[self._at] if self._at < len(self._images) else ("", "")
        return digest in digests and belongs_to(key, name)

    def finish(self, path: str) -> None:
        for key, _ in self._images[self._at :]:
            raise VerificationError(f"{path} lacks the image {key!r}, which its manifest says is released")


def _samples(
    archive: tarfile.TarFile, path: str, again: tarfile.TarFile
) -> Iterator[tuple[str, dict[str, bytes], dict[str, str]]]:
    """(key, members, sha256 of each) of a tar, written into `again`; a clip is hashed as it passes and is no member.

    Raises VerificationError if the tar holds anything but samples.
    """
    key: str | None = None
    members: dict[str, bytes] = {}
    digests: dict[str, str] = {}
    size = 0
    for info in archive:
        # tarfile remembers every header it has seen, which a long shard cannot afford.
        archive.members, again.members = [], []  # type: ignore[attr-defined]
        split = split_member(info.name)
        if not info.isreg() or split is None or split[0].rpartition("/")[2].startswith("._"):
            raise VerificationError(f"{path} holds {printable(info.name)!r}, which belongs to no sample")
        if split[0] != key or split[1] in digests:
            if key is not None:
                yield key, members, digests
            key, members, digests, size = split[0], {}, {}, 0
        size += 0 if is_clip(info.name) else info.size
        bounded = size <= _MAX_SAMPLE and len(digests) < MAX_MEMBERS and len(info.name) <= MAX_NAME
        require(bounded, f"{path} holds {printable(key)[:100]!r}, which is larger than a sample of a release")
        hashing = _Hashing(cast("BinaryIO", archive.extractfile(info)))
        file: Any = hashing
        if not is_clip(info.name):
            content = members[split[1]] = hashing.readall()
            file = io.BytesIO(content)
        header = tarfile.TarInfo(info.name)
        header.size = info.size
        again.addfile(header, file)
        digests[split[1]] = hashing.finish()
    if key is not None:
        yield key, members, digests


def _check_kept(members: Mapping[str, bytes], keep: frozenset[str], where: str) -> None:
    """Whether these are what the allow-list leaves of them."""
    kept = kept_members(members, keep)
    for extension, content in members.items():
        require(extension in kept, f"{where} comes with .{extension}, which keep_fields does not allow")
        same = kept[extension] == content
        require(same, f"{where} comes with a .{extension} that holds more than keep_fields allows")


def _check_rows(table: Table, path: str, expected: Expected) -> None:
    schema = table.file.schema_arrow
    ours = _WRITER.fullmatch(table.writer) is not None
    require(ours, f"{path} says that something else than Arrow wrote it")
    require(set(schema.metadata or {}) <= {b"huggingface"}, f"{path} carries metadata beside its columns")
    rows = _Rows(expected.images)
    columns: tuple[list[str], str | None, list[str]] | None = None
    for batch in bounded_batches(table, _ROWS_AT_ONCE):
        for row in batch.to_pylist():
            key, digest = rows.take(f"{path} holds more rows than its manifest says are released")
            columns = columns or _columns(schema, row, key, digest, expected.keep, path)
            images, key_column, kept = columns
            for column in images:
                require(not _says_where(row[column]), f"{path} keeps beside the image {key!r} where it came from")
            digests = [sha256(image) for column in images for image in _images_of(row[column])]
            if not digests or digests.pop(0) != digest:
                raise _another(key, path)
            own = key if key_column is None else str(row[key_column])
            require(belongs_to(key, own), f"{path} holds {own!r} in {key_column!r} where its manifest has {key!r}")
            own = own if key_column is not None else re.sub(r"#\d+$", "", key)
            for other in digests:
                if not rows.is_next(own, [other]):
                    raise _another(own, path)
                rows.take()
            for column in kept:
                require(not holds_image(row[column]), f"{path} has an image in the kept column {column!r}")
    rows.finish(path)


def _columns(
    schema: pa.Schema, first: Mapping[str, Any], key: str, digest: str, keep: frozenset[str], path: str
) -> tuple[list[str], str | None, list[str]]:
    """A released table's columns of images, that of the key (None: it is the row's number) and the kept ones.

    By the types and by the first row; raises VerificationError for any column beside them.
    """
    images = [
        name
        for name in schema.names
        if image_column(schema, name) and (name not in keep or digest in map(sha256, _images_of(first[name])))
    ]
    if not images:
        raise _another(key, path)
    extra = [name for name in schema.names if name not in keep and name not in images]
    keys = [name for name in extra if belongs_to(key, str(first[name]))][:1]
    for name in extra:
        if name not in keys:
            kind = "restricted column" if name in RESTRICTED_COLUMNS else "column"
            raise VerificationError(f"{path} has the {kind} {name!r}, which keep_fields does not allow")
    return images, keys[0] if keys else None, [name for name in schema.names if name in keep and name not in images]


def _images_of(cell: Any) -> list[bytes]:
    """The images of a cell, which is one, a list of them, or empty."""
    parts = cell if isinstance(cell, list) else [cell]
    contents = [part.get("bytes") if isinstance(part, dict) else part for part in parts]
    return [content for content in contents if isinstance(content, bytes)]


def _says_where(cell: Any) -> bool:
    parts = [part for part in (cell if isinstance(cell, list) else [cell]) if isinstance(part, dict)]
    return any(part[name] is not None for part in parts for name in part.keys() - {"bytes"})


def _another(key: str, path: str) -> VerificationError:
    return VerificationError(f"the image {key!r} in {path} is not the one in its manifest")
