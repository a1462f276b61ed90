"""A released data file against its manifest, member by member: nothing missing, nothing changed, nothing beside it.

The files are read here without the datasets' own readers, which skip what belongs to no sample: what they skip is
where something could hide. Every image must be the one that its row names by sha256, in the row's place, and any other
member, sidecar or column must be one that the job keeps by name.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.datasets.base import MAX_SAMPLE_BYTES
from anonlib.datasets.fields import kept_members
from anonlib.datasets.names import is_image, printable, split_member
from anonlib.pipeline.places import sha256
from anonlib.privacy.certificate import Untrue
from anonlib.records import RESTRICTED_COLUMNS
from anonlib.storage import Storage

BROKEN = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, pa.ArrowException, OSError, ValueError)
"""What a damaged file raises while it is read; a storage's own failure is a StorageError and none of these."""

_BLOCK = 1 << 20
_ROWS_AT_ONCE = 16
_GZIP_MAGIC = b"\x1f\x8b"


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


def check_tar(storage: Storage, path: str, digest: str, expected: Expected) -> None:
    """A tar, gzipped or not, in one pass; raises Untrue, a changed file before what it changed to."""
    found: Untrue | None = None
    with storage.open_read(path) as stream:
        hashing = Hashing(stream)
        try:
            _check_members(io.BufferedReader(hashing, _BLOCK), path, expected)
        except Untrue as error:
            found = error
        except BROKEN as error:
            found = Untrue(f"{path} cannot be read to its end ({type(error).__name__})")
        _same(path, hashing.finish(), digest)
    if found is not None:
        raise found


def check_parquet(storage: Storage, path: str, digest: str, expected: Expected) -> None:
    """A Parquet file: hashed as a stream, then read a few rows at a time; raises Untrue."""
    with storage.open_read(path) as stream:
        _same(path, Hashing(stream).finish(), digest)
    try:
        with (
            storage.open_read(path, seekable=True) as stream,
            pq.ParquetFile(stream, buffer_size=_BLOCK, pre_buffer=False) as file,
        ):
            _check_rows(file, path, expected)
    except BROKEN as error:
        raise Untrue(f"{path} cannot be read to its end ({type(error).__name__})") from None


def check_folder(storage: Storage, files: Mapping[str, str], expected: Expected) -> None:
    """The files of a folder's slice, path -> sha256; raises Untrue."""
    left: dict[str, dict[str, str]] = {}
    for path in files:
        stem, _, extension = path.rpartition(".")
        left.setdefault(stem, {})[extension] = path
    stems = set()
    for key, digest in expected.images:
        stem, _, ending = (f"data/{key}", "", "") if expected.rekeyed else f"data/{key}".rpartition(".")
        group = left.get(stem, {})
        extension = ending or next(filter(lambda one: is_image(f"x.{one}"), group), "")
        if extension not in group:
            raise Untrue(f"data lacks the image {key!r}, which its manifest says is released")
        path = group.pop(extension)
        content = storage.read(path)
        _same(path, sha256(content), files[path])
        if sha256(content) != digest:
            raise Untrue(f"the image {path} is not the one in its manifest")
        stems.add(stem)
    for stem, group in left.items():
        members = {extension: storage.read(path) for extension, path in group.items()}
        for extension, content in members.items():
            _same(group[extension], sha256(content), files[group[extension]])
        if members and stem not in stems:
            raise Untrue(f"{next(iter(group.values()))} belongs to no row of the manifest")
        _check_kept(members, expected.keep, stem)


def _same(path: str, found: str, expected: str) -> None:
    if found != expected:
        raise Untrue(f"{path} is not the file that its marker names: its sha256 is {found[:16]}..., not as signed")


def _check_members(raw: io.BufferedReader, path: str, expected: Expected) -> None:
    stream = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == _GZIP_MAGIC else raw
    with tarfile.open(fileobj=cast("BinaryIO", stream), mode="r|", encoding="utf-8") as archive:
        samples = _samples(archive, path)
        for key, digest in expected.images:
            name, members = next(samples, (None, {}))
            if name != key:
                raise Untrue(f"{path} holds {name!r} where its manifest has {key!r}")
            image = next((one for one, content in members.items() if sha256(content) == digest), None)
            if image is None:
                raise Untrue(f"the image {key!r} in {path} is not the one in its manifest")
            del members[image]
            _check_kept(members, expected.keep, f"{path}, {key!r}")
        for name, _ in samples:
            raise Untrue(f"{path} holds {name!r}, which no row of its manifest vouches for")
        rest = cast("BinaryIO", archive.fileobj)
        while block := rest.read(_BLOCK):
            if any(block):
                raise Untrue(f"{path} holds something after the end of the archive")


def _samples(archive: tarfile.TarFile, path: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, members) of a tar that holds samples alone, as our writer leaves it; raises Untrue for anything else."""
    key: str | None = None
    members: dict[str, bytes] = {}
    for info in archive:
        # tarfile remembers every header it has seen, which a long shard cannot afford.
        archive.members = []  # type: ignore[attr-defined]
        split = split_member(info.name)
        if not info.isreg() or split is None or split[0].rpartition("/")[2].startswith("._"):
            raise Untrue(f"{path} holds {printable(info.name)!r}, which belongs to no sample")
        if info.pax_headers.keys() - {"path"} or info.uname or info.gname or info.mtime or info.uid or info.gid:
            raise Untrue(f"{path} holds {printable(info.name)!r} with an owner, a time or a note of its own")
        if info.size > MAX_SAMPLE_BYTES:
            raise Untrue(f"{path} holds {printable(info.name)!r} of more than {MAX_SAMPLE_BYTES >> 20} MiB")
        if split[0] != key or split[1] in members:
            if key is not None:
                yield key, members
            key, members = split[0], {}
        members[split[1]] = cast("BinaryIO", archive.extractfile(info)).read()
    if key is not None:
        yield key, members


def _check_kept(members: Mapping[str, bytes], keep: frozenset[str], where: str) -> None:
    """Whether these are what the allow-list leaves of them."""
    kept = kept_members(members, keep)
    for extension, content in members.items():
        if extension not in kept:
            raise Untrue(f"{where} comes with .{extension}, which keep_fields does not allow")
        if kept[extension] != content:
            raise Untrue(f"{where} comes with a .{extension} that holds more than keep_fields allows")


def _check_rows(file: pq.ParquetFile, path: str, expected: Expected) -> None:
    schema = file.schema_arrow
    if set(schema.metadata or {}) - {b"huggingface"}:
        raise Untrue(f"{path} carries metadata beside its columns")
    images = iter(expected.images)
    image, key = "", None
    for batch in file.iter_batches(_ROWS_AT_ONCE, use_threads=False):
        for row in batch.to_pylist():
            expected_key, digest = next(images, (None, ""))
            if expected_key is None:
                raise Untrue(f"{path} holds more rows than its manifest says are released")
            if not image:
                image, key = _columns(schema.names, row, expected_key, digest, expected.keep, path)
            content = _bytes_of(row[image])
            if content is None or sha256(content) != digest:
                raise Untrue(f"the image {expected_key!r} in {path} is not the one in its manifest")
            if isinstance(row[image], dict) and any(
                row[image][one] is not None for one in row[image].keys() - {"bytes"}
            ):
                raise Untrue(f"{path} keeps beside the image {expected_key!r} where it came from")
            if key is not None and str(row[key]) != expected_key:
                raise Untrue(f"{path} holds {row[key]!r} in {key!r} where its manifest has {expected_key!r}")
    missing = next(images, None)
    if missing is not None:
        raise Untrue(f"{path} lacks the image {missing[0]!r}, which its manifest says is released")


def _columns(
    names: Sequence[str], first: Mapping[str, Any], key: str, digest: str, keep: frozenset[str], path: str
) -> tuple[str, str | None]:
    """The image's column and the key's, if there is one, told by the first row; raises Untrue if there is another."""
    image = next((one for one in names if sha256(_bytes_of(first[one]) or b"") == digest), None)
    if image is None:
        raise Untrue(f"the image {key!r} in {path} is not the one in its manifest")
    extra = [name for name in names if name not in keep and name != image]
    keys = [name for name in extra if str(first[name]) == key][:1]
    for name in extra:
        if name not in keys:
            kind = "restricted column" if name in RESTRICTED_COLUMNS else "column"
            raise Untrue(f"{path} has the {kind} {name!r}, which keep_fields does not allow")
    return image, keys[0] if keys else None


def _bytes_of(cell: Any) -> bytes | None:
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    return content if isinstance(content, bytes) else None
