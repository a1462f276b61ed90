"""A released data file against its manifest, member by member: nothing missing, nothing changed, nothing beside it.

A file is hashed first: what is not the file that was signed is never opened. The files are read here without the
datasets' own readers, which skip what belongs to no sample: what they skip is where something could hide. Every image
must be the one that its row names by sha256, in the row's place, and any other member, sidecar or column must be one
that the job keeps by name.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.datasets import items_of
from anonlib.datasets.base import MAX_SAMPLE_BYTES
from anonlib.datasets.names import MAX_NAME, is_image, kept_members, printable, split_member
from anonlib.datasets.parquet_pages import BUDGET, rows_at_once
from anonlib.datasets.webdataset import GZIP_MAGIC, MAX_MEMBERS, check_growth, open_plain_tar
from anonlib.errors import DatasetError, VerificationError
from anonlib.storage import Storage
from anonlib.verification.certificate import sha256
from anonlib.workspace.schemas import RESTRICTED_COLUMNS

BROKEN = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, pa.ArrowException, OSError, ValueError)
"""What a damaged file raises while it is read; a storage's own failure is a StorageError and none of these."""

_BLOCK = 1 << 20
_ROWS_AT_ONCE = 16
_MAX_SAMPLE = 2 * MAX_SAMPLE_BYTES  # what is written may be larger than what was read
_WRITER = re.compile(r"parquet-cpp-arrow version \d+(\.\d+)*")


@dataclass(frozen=True)
class Expected:
    """What a shard's data must hold: (key, sha256) of its images in order, and the fields that the job keeps."""

    images: Sequence[tuple[str, str]]
    keep: frozenset[str]
    rekeyed: bool


class Hashing(io.RawIOBase):
    """A stream that hashes what is read from it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()

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


def whole(storage: Storage, path: str, most: int) -> bytes:
    """A file of at most `most` bytes; raises VerificationError for a larger one, without reading more, and NotFound."""
    with storage.open_read(path) as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise VerificationError(f"{path} is larger than {most >> 20} MiB, which no such file of a release is")
    return data


def check_hash(storage: Storage, path: str, digest: str) -> None:
    """Raise VerificationError unless a file has this sha256; nothing of it is looked at."""
    with storage.open_read(path) as stream:
        _same(path, Hashing(stream).finish(), digest)


def check_tar(storage: Storage, path: str, digest: str, expected: Expected) -> None:
    """A tar, gzipped or not: hashed as a stream, and only then opened; raises VerificationError."""
    check_hash(storage, path, digest)
    with storage.open_read(path) as stream:
        hashing = Hashing(stream)
        try:
            _check_archive(io.BufferedReader(hashing, _BLOCK), path, expected)
        except BROKEN as error:
            raise VerificationError(f"{path} cannot be read to its end ({type(error).__name__})") from None
        _same(path, hashing.finish(), digest)


def check_parquet(storage: Storage, path: str, digest: str, expected: Expected) -> None:
    """A Parquet file: hashed as a stream, and only then opened, a few rows at a time; raises VerificationError."""
    check_hash(storage, path, digest)
    try:
        with (
            storage.open_read(path, seekable=True) as stream,
            pq.ParquetFile(stream, buffer_size=_BLOCK, pre_buffer=False) as file,
        ):
            _check_rows(file, stream, path, expected)
    except DatasetError as error:
        raise VerificationError(f"{path} is not read: {error}") from None
    except BROKEN as error:
        raise VerificationError(f"{path} cannot be read to its end ({type(error).__name__})") from None


def check_folder(storage: Storage, files: Mapping[str, str], expected: Expected) -> None:
    """The files of a folder's slice, path -> sha256; raises VerificationError."""
    left: dict[str, dict[str, str]] = {}
    for path in files:
        stem, _, extension = path.rpartition(".")
        left.setdefault(stem, {})[extension] = path
    stems = set()
    for key, digest in expected.images:
        stem, _, ending = (f"data/{key}", "", "") if expected.rekeyed else f"data/{key}".rpartition(".")
        group = left.get(stem, {})
        extension = ending or next(filter(lambda one: is_image(f"x.{one}"), group), "")
        if extension not in group:  # converted to PNG, whose ending stands behind the whole old name
            stem, extension = f"data/{key}", "png"
            group = left.get(stem, {})
        if extension not in group:
            raise VerificationError(f"data lacks the image {key!r}, which its manifest says is released")
        path = group.pop(extension)
        content = whole(storage, path, _MAX_SAMPLE)
        _same(path, sha256(content), files[path])
        if sha256(content) != digest:
            raise VerificationError(f"the image {path} is not the one in its manifest")
        stems |= {stem, f"data/{key}".rpartition(".")[0]} if not expected.rekeyed else {stem}
    for stem, group in left.items():
        members = {extension: whole(storage, path, _MAX_SAMPLE) for extension, path in group.items()}
        for extension, content in members.items():
            _same(group[extension], sha256(content), files[group[extension]])
        if members and stem not in stems:
            raise VerificationError(f"{next(iter(group.values()))} belongs to no row of the manifest")
        _check_kept(members, expected.keep, stem)


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
        raise VerificationError(f"the image {key!r} in {path} is not the one in its manifest")


CHECKS: dict[str, Callable[[Storage, str, str, Expected], None]] = {"webdataset": check_tar, "parquet": check_parquet}
"""How a data file is checked, by format: closer than check_items, down to the bytes between its items."""


def _same(path: str, found: str, expected: str) -> None:
    if found != expected:
        raise VerificationError(
            f"{path} is not the file that its marker names: its sha256 is {found[:16]}..., not as signed"
        )


class _Gunzipped(io.RawIOBase):
    """A gzip stream as our writer makes it: one part, no name or time in its header, and nothing behind it."""

    _HEADER = GZIP_MAGIC + b"\x08\x00" + bytes(4) + b"\x00\xff"  # RFC 1952: deflate, no flags, no time, no system

    def __init__(self, packed: io.BufferedReader, path: str) -> None:
        self._packed, self._path, self._count = packed, path, 0
        self._unpacking, self._given = zlib.decompressobj(31), 0
        if packed.peek(len(self._HEADER))[: len(self._HEADER)] != self._HEADER:
            raise VerificationError(f"{path} has something in its gzip header")

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


class _Rebuilt:
    """The hash of the tar that our writer makes of members: any other has a byte that belongs to none of them."""

    def __init__(self) -> None:
        self._digest, self._length = hashlib.sha256(), 0

    def add(self, name: str, content: bytes) -> None:
        header = tarfile.TarInfo(name)
        header.size, header.mode = len(content), 0o644
        self._update(header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        self._update(content)
        self._update(bytes(-len(content) % tarfile.BLOCKSIZE))

    def finish(self) -> str:
        self._update(bytes(2 * tarfile.BLOCKSIZE))
        self._update(bytes(-self._length % tarfile.RECORDSIZE))
        return self._digest.hexdigest()

    def _update(self, data: bytes) -> None:
        self._digest.update(data)
        self._length += len(data)


def _check_archive(raw: io.BufferedReader, path: str, expected: Expected) -> None:
    """Every member, and that there is nothing but members: no owner, time, link's name or filled padding."""
    gzipped = raw.peek(2)[:2] == GZIP_MAGIC
    plain = Hashing(cast("BinaryIO", _Gunzipped(raw, path) if gzipped else raw))
    rebuilt = _Rebuilt()
    with open_plain_tar(io.BufferedReader(plain, _BLOCK)) as archive:
        samples = _samples(archive, path, rebuilt)
        for key, digest in expected.images:
            name, members = next(samples, (None, {}))
            if name != key:
                raise VerificationError(f"{path} holds {name!r} where its manifest has {key!r}")
            image = next((name for name, content in members.items() if sha256(content) == digest), None)
            if image is None:
                raise VerificationError(f"the image {key!r} in {path} is not the one in its manifest")
            del members[image]
            _check_kept(members, expected.keep, f"{path}, {key!r}")
        for name, _ in samples:
            raise VerificationError(f"{path} holds {name!r}, which no row of its manifest vouches for")
        rest = cast("BinaryIO", archive.fileobj)
        while block := rest.read(_BLOCK):
            if any(block):
                raise VerificationError(f"{path} holds something after the end of the archive")
    if plain.finish() != rebuilt.finish():
        raise VerificationError(f"{path} holds bytes beside its members, in a header or a padding")


def _samples(archive: tarfile.TarFile, path: str, rebuilt: _Rebuilt) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, members) of a tar as our writer leaves it; raises VerificationError if it holds anything but samples."""
    key: str | None = None
    members: dict[str, bytes] = {}
    size = 0
    for info in archive:
        # tarfile remembers every header it has seen, which a long shard cannot afford.
        archive.members = []  # type: ignore[attr-defined]
        split = split_member(info.name)
        if not info.isreg() or split is None or split[0].rpartition("/")[2].startswith("._"):
            raise VerificationError(f"{path} holds {printable(info.name)!r}, which belongs to no sample")
        if info.pax_headers.keys() - {"path"} or info.uname or info.gname or info.mtime or info.uid or info.gid:
            raise VerificationError(f"{path} holds {printable(info.name)!r} with an owner, a time or a note of its own")
        if split[0] != key or split[1] in members:
            if key is not None:
                yield key, members
            key, members, size = split[0], {}, 0
        size += info.size
        if size > _MAX_SAMPLE or len(members) == MAX_MEMBERS or len(info.name) > MAX_NAME:
            raise VerificationError(
                f"{path} holds {printable(key)[:100]!r}, which is larger than a sample of a release"
            )
        members[split[1]] = cast("BinaryIO", archive.extractfile(info)).read()
        rebuilt.add(info.name, members[split[1]])
    if key is not None:
        yield key, members


def _check_kept(members: Mapping[str, bytes], keep: frozenset[str], where: str) -> None:
    """Whether these are what the allow-list leaves of them."""
    kept = kept_members(members, keep)
    for extension, content in members.items():
        if extension not in kept:
            raise VerificationError(f"{where} comes with .{extension}, which keep_fields does not allow")
        if kept[extension] != content:
            raise VerificationError(f"{where} comes with a .{extension} that holds more than keep_fields allows")


def _check_rows(file: pq.ParquetFile, stream: BinaryIO, path: str, expected: Expected) -> None:
    schema = file.schema_arrow
    if not _WRITER.fullmatch(file.metadata.created_by or ""):
        raise VerificationError(f"{path} says that something else than Arrow wrote it")
    if set(schema.metadata or {}) - {b"huggingface"}:
        raise VerificationError(f"{path} carries metadata beside its columns")
    images = iter(expected.images)
    image, key = "", None
    for batch in bounded_batches(file, stream, _ROWS_AT_ONCE):
        for row in batch.to_pylist():
            expected_key, digest = next(images, (None, ""))
            if expected_key is None:
                raise VerificationError(f"{path} holds more rows than its manifest says are released")
            if not image:
                image, key = _columns(schema.names, row, expected_key, digest, expected.keep, path)
            content = _bytes_of(row[image])
            if content is None or sha256(content) != digest:
                raise VerificationError(f"the image {expected_key!r} in {path} is not the one in its manifest")
            if isinstance(row[image], dict) and any(
                row[image][part] is not None for part in row[image].keys() - {"bytes"}
            ):
                raise VerificationError(f"{path} keeps beside the image {expected_key!r} where it came from")
            if key is not None and str(row[key]) != expected_key:
                raise VerificationError(f"{path} holds {row[key]!r} in {key!r} where its manifest has {expected_key!r}")
    missing = next(images, None)
    if missing is not None:
        raise VerificationError(f"{path} lacks the image {missing[0]!r}, which its manifest says is released")


def bounded_batches(
    file: pq.ParquetFile, stream: BinaryIO, most: int, budget: int = BUDGET
) -> Iterator[pa.RecordBatch]:
    """Batches of up to `most` rows, of fewer where they would take too much; raises DatasetError where one does."""
    for group in range(file.num_row_groups):
        rows = rows_at_once(file, stream, group, most, budget)
        yield from file.iter_batches(rows, row_groups=[group], use_threads=False)


def _columns(
    names: Sequence[str], first: Mapping[str, Any], key: str, digest: str, keep: frozenset[str], path: str
) -> tuple[str, str | None]:
    """The columns of image and key (or None), found by the first row; raises VerificationError for any other column."""
    image = next((name for name in names if sha256(_bytes_of(first[name]) or b"") == digest), None)
    if image is None:
        raise VerificationError(f"the image {key!r} in {path} is not the one in its manifest")
    extra = [name for name in names if name not in keep and name != image]
    keys = [name for name in extra if str(first[name]) == key][:1]
    for name in extra:
        if name not in keys:
            kind = "restricted column" if name in RESTRICTED_COLUMNS else "column"
            raise VerificationError(f"{path} has the {kind} {name!r}, which keep_fields does not allow")
    return image, keys[0] if keys else None


def _bytes_of(cell: Any) -> bytes | None:
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    return content if isinstance(content, bytes) else None
