"""Tar shards in the WebDataset convention: consecutive members with one base name are one sample.

A tar is read as a stream and nothing is ever extracted to disk. Python's tarfile ends quietly at a damaged header or
where a file was cut between two members; here every way to end but the proper one is a sample with a problem, since the
rest of a shard must not vanish without a row. What is written depends only on the samples: no times, owners or modes of
the input survive, and equal input gives equal bytes.

What an archive asks for is checked before it is read. Python's tarfile reads an extended header (a PAX record, a GNU
long name) whole, whatever size it says, follows chains of them by recursion, and believes a size that is negative. A
gzip stream may be a thousandth of what it unpacks to. Beyond the bounds an archive counts as damaged
(tarfile.ReadError).
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

from anonlib.codes import Problem, Reason
from anonlib.datasets import base
from anonlib.datasets.base import MAX_SAMPLE_BYTES, Dataset, Item, Sample, Shard, ShardWriter
from anonlib.datasets.names import (
    MAX_NAME,
    as_png,
    converted,
    is_apple_double,
    is_image,
    kept_members,
    key_spellings,
    new_extension,
    printable,
    shard_id,
    shortened,
    split_member,
    suffix_in,
    under_new_key,
    unique_key,
    why_unsafe,
    without_suffix,
)
from anonlib.storage import Storage

GZIP_MAGIC = b"\x1f\x8b"
MAX_HEADER_BYTES = 64 << 10
"""Of one extended header: a path of 4,096 bytes and a few records fit many times."""
MAX_MEMBERS = 1024
"""Of one sample."""
MAX_RATIO = 100
"""Unpacked to packed bytes of a gzip stream, once it has given MAX_SAMPLE_BYTES; photos are near 1."""

_GZIP_LEVEL = 6
_GZIP_HEADER_BYTES = 512
_BLOCK_BYTES = 1 << 20
_BROKEN = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_MAX_CHAIN = 4
_MAX_GLOBAL = 16


class _Archive(tarfile.TarFile):
    """A TarFile that counts the extended headers before the next member, and the global ones in all."""

    chained = 0
    globals = 0


class StrictHeader(tarfile.TarInfo):
    """Refuses headers beyond the bounds, and lets only a block of zeros end an archive.

    To tarfile a damaged or missing header is the end too.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            found = super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
                raise
            raise tarfile.ReadError(f"{error}") from error
        if found.size < 0:
            raise tarfile.ReadError("a member has a negative size")
        return found

    def _proc_member(self, archive: _Archive) -> Self:
        """Where tarfile chooses by type how to go on; nothing but the header's own block has been read."""
        if self.size < 0:
            raise tarfile.ReadError("a member has a negative size")
        if self.type in _EXTENDED:
            archive.chained += 1
            archive.globals += self.type == tarfile.XGLTYPE
            if self.size > MAX_HEADER_BYTES or archive.chained > _MAX_CHAIN or archive.globals > _MAX_GLOBAL:
                raise tarfile.ReadError("extended headers are larger or more than an archive of samples needs")
        else:
            archive.chained = 0
        return cast("Self", super()._proc_member(archive))  # type: ignore[misc]

    def _refuse_sparse(self, *_: Any) -> Any:
        """A sparse member's map is read whole, however long it is."""
        raise tarfile.ReadError("a member is sparse, which no sample is")

    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


class Growth:
    """Compares what a stream has unpacked to with what was packed."""

    def __init__(self) -> None:
        self.unpacked = 0

    def add(self, unpacked: int, packed: int) -> None:
        """Raises tarfile.ReadError once there is too much for `packed` bytes in all."""
        self.unpacked += unpacked
        if self.unpacked > max(MAX_SAMPLE_BYTES, packed * MAX_RATIO):
            raise tarfile.ReadError(f"it unpacks to more than {MAX_RATIO} times its size")


class _Unpacked(io.RawIOBase):
    """A gzip stream, of one part or several, as far as its growth is allowed."""

    def __init__(self, stream: BinaryIO) -> None:
        self._packed, self._growth = stream, Growth()
        self._stream = gzip.GzipFile(fileobj=stream, mode="rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._stream.read(len(buffer))
        buffer[: len(block)] = block
        self._growth.add(len(block), self._packed.tell())
        return len(block)


def open_tar(stream: BinaryIO) -> tarfile.TarFile:
    """The archive in a stream, gzipped or not, to be read once from its beginning. Raises tarfile.TarError."""
    if not isinstance(stream, io.BufferedReader):
        stream = io.BufferedReader(cast("io.RawIOBase", stream))
    if stream.peek(2)[:2] == GZIP_MAGIC:
        stream = cast("BinaryIO", _Unpacked(stream))
    return open_plain_tar(stream)


def open_plain_tar(stream: BinaryIO) -> tarfile.TarFile:
    """The same of a stream that is not compressed."""
    return _Archive.open(fileobj=stream, mode="r|", tarinfo=StrictHeader, encoding="utf-8")


class WebDataset(Dataset):
    """Tar files, plain or gzipped (.tar, .tar.gz, .tgz); one file is one shard."""

    format, noun, media_type = "webdataset", "tar file", "application/x-tar"
    suffixes = (".tar.gz", ".tgz", ".tar")
    damage = (*_BROKEN, OSError, ValueError)

    def shards(self) -> list[Shard]:
        """See Dataset."""
        return self._distinct(
            [
                Shard(shard_id(tar.name, self.suffixes, ".tar"), tar.uri, tar.etag, tar.size, self.format)
                for tar in self.sources()
            ]
        )

    def read(self, shard: Shard) -> Iterator[Sample]:
        """See Dataset."""
        name = self.name_of(shard)
        stem = without_suffix(name.rpartition("/")[2], self.suffixes)
        with self.storage.open_read(name, shard.etag) as stream:
            yield from read_tar(stream, stem, self.image_field)

    @classmethod
    def _items(cls, storage: Storage, path: str) -> Iterator[Item]:
        """Every member, header that says more than a member needs, and byte behind the end."""
        with storage.open_read(path) as raw:
            stream: Any = io.BufferedReader(cast("io.RawIOBase", raw), _BLOCK_BYTES)
            if stream.peek(2)[:2] == GZIP_MAGIC:
                # A name, a comment or a time (RFC 1952, 2.3).
                header = stream.peek(_GZIP_HEADER_BYTES)[:_GZIP_HEADER_BYTES]
                yield Item(f"{path}: its gzip header", None, "", header[10:], odd=any(header[3:8]))
                stream = gzip.GzipFile(fileobj=stream)
            with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8") as archive:
                for info in archive:
                    archive.members = []  # type: ignore[attr-defined]
                    split = split_member(info.name)
                    key, name = split or (info.name, "")
                    notes = {*info.pax_headers.values(), info.uname, info.gname, info.linkname} - {"", info.name}
                    notes |= info.pax_headers.keys() - {"path"}
                    numbers = (info.mtime, info.uid, info.gid, info.mode) != (0, 0, 0, 0o644)
                    where = f"{path}: {printable(info.name)}"
                    if not info.isreg() or info.size > MAX_SAMPLE_BYTES or notes or numbers:
                        yield Item(where, key, name, " ".join(sorted(notes)), odd=True)
                    if info.isreg() and info.size <= MAX_SAMPLE_BYTES:
                        content = cast("BinaryIO", archive.extractfile(info)).read()
                        yield Item(where, key, name, content, odd=split is None)
                while block := cast("BinaryIO", archive.fileobj).read(_BLOCK_BYTES):
                    if any(block):
                        yield Item(f"{path}: after its end", None, "", block.strip(b"\0"), odd=True)

    def output_path(self, shard: Shard, name: str | None = None) -> str:
        """See Dataset."""
        old = self.name_of(shard)
        return f"data/{old}" if name is None else f"data/{name}{suffix_in(old, self.suffixes)}"

    def writer(
        self, shard: Shard, local_path: Path, keep_fields: frozenset[str], name: str | None = None
    ) -> "TarShardWriter":
        """See Dataset."""
        return TarShardWriter(local_path, self.output_path(shard, name), keep_fields, self._image_fields())


@dataclass
class _SampleFiles:
    key: str
    members: dict[str, bytes] = field(default_factory=dict)
    size: int = 0
    count: int = 0
    problem: Problem | None = None


def read_tar(stream: BinaryIO, name: str, image_field: str | None = None) -> Iterator[Sample]:
    """The samples of a tar stream, gzipped or not; `name` is the shard's, for the key NAME#truncated.

    image_field: the extension of the image, or alternatives as 'jpg;png'; None takes the only image member.
    A damaged archive gives its whole samples, then one with a problem: the last sample is only whole once
    the next begins. Members that belong to no sample (folders, no extension, macOS's ._NAME) are skipped.
    """
    seen: dict[str, int] = {}
    for position, group in enumerate(_groups(stream, name)):
        key = unique_key(group.key, seen)
        if key != group.key and group.problem is None:
            group.problem = Problem(Reason.DUPLICATE_KEY, f"the key {group.key!r} is in this shard already")
        yield _as_sample(group, key, position, image_field)


def _groups(stream: BinaryIO, name: str) -> Iterator[_SampleFiles]:
    group: _SampleFiles | None = None
    number, last = 0, ""
    try:
        with open_tar(stream) as archive:
            for info in archive:
                # tarfile remembers every header it has seen, which a long shard cannot afford.
                archive.members = []  # type: ignore[attr-defined]
                number, last = number + 1, info.name
                split = split_member(info.name)
                problem = _member_problem(info)
                if info.isdir() or is_apple_double(info.name) or (problem is None and split is None):
                    continue
                key, extension = split or (info.name, "")
                key = shortened(printable(key))
                if group is None or key != group.key or extension in group.members:
                    if group is not None:
                        yield group
                    group = _SampleFiles(key)
                group.size, group.count = group.size + info.size, group.count + 1
                if problem is None and group.size > base.MAX_SAMPLE_BYTES:
                    over = f"the sample is larger than {base.MAX_SAMPLE_BYTES >> 20} MiB"
                    problem = Problem(Reason.TOO_LARGE, over)
                if problem is None and group.count > MAX_MEMBERS:
                    problem = Problem(Reason.TOO_LARGE, f"the sample has more than {MAX_MEMBERS:,} members")
                group.problem = group.problem or problem
                if problem is None:
                    group.members[extension] = cast("BinaryIO", archive.extractfile(info)).read()
                else:
                    group.members = {}
            extra = _after_end(cast("BinaryIO", archive.fileobj))
    except _BROKEN as error:
        where = f"after member {number} ({printable(last)[:200]!r})" if number else "at its start"
        lost = f"{group.key!r} and everything after it is" if group else "everything is"
        message = f"the archive is truncated or damaged {where}: {lost} lost ({error})"
        yield _SampleFiles(f"{name}#truncated", problem=Problem(Reason.TRUNCATED, message))
        return
    if group is not None:
        yield group
    if extra:
        yield _SampleFiles(f"{name}#after-end", problem=Problem(Reason.AFTER_END))


def _member_problem(info: tarfile.TarInfo) -> Problem | None:
    if len(info.name) > MAX_NAME:
        return Problem(Reason.UNSAFE_NAME, f"the name of a member has more than {MAX_NAME:,} characters")
    if unsafe := why_unsafe(info.name):
        return Problem(Reason.UNSAFE_NAME, f"the member {printable(info.name)!r} {unsafe}")
    if not info.isreg() and not info.isdir():
        return Problem(Reason.NOT_A_FILE, f"the member {info.name!r} is a link or a device, not a file")
    if split_member(info.name) is None and is_image(info.name):
        message = f"the member {info.name!r} is an image with nothing before its first dot, so it has no key"
        return Problem(Reason.NO_KEY, message)
    return None


def _after_end(stream: BinaryIO) -> bool:
    while block := stream.read(1 << 16):
        if any(block):
            return True
    return False


def _as_sample(group: _SampleFiles, key: str, position: int, image_field: str | None) -> Sample:
    problem, image_name = group.problem, ""
    if problem is None:
        if image_field is None:
            images = [extension for extension in group.members if is_image(f"x.{extension}")]
        else:
            images = [extension for extension in image_field.lower().split(";") if extension in group.members][:1]
        if len(images) == 1:
            image_name = images[0]
        elif images:
            message = f"there are several images ({', '.join(images)}); name one with image_field"
            problem = Problem(Reason.SEVERAL_IMAGES, message)
        else:
            problem = Problem(Reason.NO_IMAGE, "there is no image")
    fields = {extension: content for extension, content in group.members.items() if extension != image_name}
    image = group.members[image_name] if problem is None else None
    return Sample(key, image, image_name, fields, problem, position)


class TarShardWriter(ShardWriter):
    """A tar at `local_path`, gzipped if the release path says so: the image first, then the kept members."""

    def __init__(
        self,
        local_path: Path,
        release_path: str,
        keep_fields: frozenset[str],
        image_fields: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(local_path, release_path)
        self._keep, self._image_fields = keep_fields, image_fields
        self._raw = self._temporary.open("wb")
        self._gzip: gzip.GzipFile | None = None
        if not release_path.lower().endswith(".tar"):
            self._gzip = gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=self._raw, mtime=0)
        # PAX_FORMAT writes plain ustar headers wherever the name fits one.
        self._tar = tarfile.open(  # noqa: SIM115
            fileobj=self._gzip or self._raw, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8"
        )

    def _entry(self, sample: Sample, image: bytes, key: str | None) -> dict[str, bytes]:
        extension = sample.image_field
        # A name that the job itself gives to the image stays, since the release's readers will ask for it.
        if converted(extension, image) and extension not in self._image_fields:
            extension = as_png(extension)
        if key is None:
            members = {extension: image} | kept_members(sample.fields, self._keep)
        else:
            new = new_extension(extension, self._image_fields)
            kept = kept_members(sample.fields, self._keep, key_spellings(sample.key, sample.image_field, key, new))
            members = {new: image} | under_new_key(kept, self._keep)
        return {f"{sample.key if key is None else key}.{extension}": data for extension, data in members.items()}

    def _add(self, position: int, entry: dict[str, bytes]) -> None:
        for name, content in entry.items():
            header = tarfile.TarInfo(name)
            header.size, header.mode = len(content), 0o644
            self._tar.addfile(header, io.BytesIO(content))

    def _finish(self) -> None:
        self._tar.close()
        if self._gzip is not None:
            self._gzip.close()
        self._raw.close()
        self._temporary.replace(self._path)

    def _abandon(self) -> None:
        for part in (self._tar, self._gzip, self._raw):
            # On a full disk closing fails as well, and what is closed here is thrown away.
            with suppress(OSError):
                if part is not None:
                    part.close()
        self._temporary.unlink(missing_ok=True)
        if self._closed:
            self._path.unlink()
