"""Tar shards in the WebDataset convention: consecutive members with one base name are one sample.

A tar is read as a stream and never extracted to disk. Every way to end but the proper one is a sample with a problem,
where Python's tarfile ends quietly. tarfile also reads an extended header whole, whatever size it says, follows chains
of them by recursion and believes negative sizes, and a gzip stream may unpack to a thousand times its size: beyond the
bounds here an archive counts as damaged (tarfile.ReadError). What is written depends on the samples alone.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

from anonlib.codes import Problem, Reason
from anonlib.datasets import base
from anonlib.datasets.base import MAX_SAMPLE_BYTES, Dataset, Item, Sample, Shard, ShardWriter
from anonlib.datasets.names import (
    MAX_NAME,
    converted,
    is_apple_double,
    is_image,
    kept_members,
    key_spellings,
    printable,
    shortened,
    split_member,
    suffix_of,
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
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_MAX_CHAIN = 4
_MAX_GLOBAL = 16


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

    def _proc_member(self, archive: "Archive") -> Self:
        """Where tarfile chooses by type how to go on; nothing but the header's own block has been read."""
        if self.type in _EXTENDED:
            archive.chained += 1
            archive.globals += self.type == tarfile.XGLTYPE
            if not 0 <= self.size <= MAX_HEADER_BYTES or archive.chained > _MAX_CHAIN or archive.globals > _MAX_GLOBAL:
                raise tarfile.ReadError("extended headers are larger or more than an archive of samples needs")
        else:
            archive.chained = 0
        return cast("Self", super()._proc_member(archive))  # type: ignore[misc]

    def _refuse_sparse(self, *_: Any) -> Any:
        """A sparse member's map is read whole, however long it is."""
        raise tarfile.ReadError("a member is sparse, which no sample is")

    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


class Archive(tarfile.TarFile):
    """An archive whose headers are bounded: it counts extended ones before the next member, and global ones in all."""

    tarinfo = StrictHeader
    chained = globals = 0


class _Unpacked(gzip.GzipFile):
    """A gzip stream, of one part or several, as far as its growth is allowed."""

    _given = 0

    def read(self, size: int | None = -1) -> bytes:
        block = super().read(size)
        self._given += len(block)
        check_growth(self._given, cast("BinaryIO", self.fileobj).tell())
        return block


def check_growth(unpacked: int, packed: int) -> None:
    """Raises tarfile.ReadError where a stream has unpacked to too much for so many packed bytes."""
    if unpacked > max(MAX_SAMPLE_BYTES, packed * MAX_RATIO):
        raise tarfile.ReadError(f"it unpacks to more than {MAX_RATIO} times its size")


def open_tar(stream: BinaryIO) -> Archive:
    """The archive in a stream, gzipped or not, to be read once from its beginning. Raises tarfile.TarError."""
    if not isinstance(stream, io.BufferedReader):
        stream = io.BufferedReader(cast("io.RawIOBase", stream))
    if stream.peek(2)[:2] == GZIP_MAGIC:
        stream = cast("BinaryIO", _Unpacked(fileobj=stream, mode="rb"))
    return open_plain_tar(stream)


def open_plain_tar(stream: BinaryIO) -> Archive:
    """The same of a stream that is not compressed."""
    return Archive.open(fileobj=stream, mode="r|", encoding="utf-8")


class WebDataset(Dataset):
    """Tar files, plain or gzipped (.tar, .tar.gz, .tgz); one file is one shard."""

    format, noun, media_type = "webdataset", "tar file", "application/x-tar"
    suffixes = (".tar.gz", ".tgz", ".tar")
    damage = (*_BROKEN, OSError, ValueError)

    def read(self, shard: Shard) -> Iterator[Sample]:
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

    def writer(
        self, shard: Shard, local_path: Path, keep_fields: frozenset[str], name: str | None = None
    ) -> ShardWriter:
        image_fields = frozenset((self.image_field or "").lower().split(";")) - {""}
        return TarShardWriter(local_path, self.output_path(shard, name), keep_fields, image_fields)


def read_tar(stream: BinaryIO, name: str, image_field: str | None = None) -> Iterator[Sample]:
    """The samples of a tar stream, gzipped or not; `name` is the shard's, for the key NAME#truncated.

    image_field: the extension of the image, or alternatives as 'jpg;png'; None takes the only image member.
    A damaged archive gives its whole samples, then one with a problem: the last sample is only whole once
    the next begins. Members that belong to no sample (folders, no extension, macOS's ._NAME) are skipped.
    """
    seen: dict[str, int] = {}
    for position, sample in enumerate(_grouped(stream, name)):
        key = unique_key(sample.key, seen)
        if key != sample.key and sample.problem is None:
            sample.problem = Problem(Reason.DUPLICATE_KEY, f"the key {sample.key!r} is in this shard already")
        sample.key, sample.position = key, position
        _choose_image(sample, image_field)
        yield sample


def _grouped(stream: BinaryIO, name: str) -> Iterator[Sample]:
    """Samples with all their members in `fields`."""
    sample: Sample | None = None
    number, last, size, members, extra = 0, "", 0, 0, False
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
                if sample is None or key != sample.key or extension in sample.fields:
                    if sample is not None:
                        yield sample
                    sample, size, members = Sample(key, None, ""), 0, 0
                size, members = size + info.size, members + 1
                if problem is None and size > base.MAX_SAMPLE_BYTES:
                    over = f"the sample is larger than {base.MAX_SAMPLE_BYTES >> 20} MiB"
                    problem = Problem(Reason.TOO_LARGE, over)
                if problem is None and members > MAX_MEMBERS:
                    problem = Problem(Reason.TOO_LARGE, f"the sample has more than {MAX_MEMBERS:,} members")
                sample.problem = sample.problem or problem
                if problem is None:
                    sample.fields[extension] = cast("BinaryIO", archive.extractfile(info)).read()
                else:
                    sample.fields = {}
            while not extra and (block := cast("BinaryIO", archive.fileobj).read(_BLOCK_BYTES)):
                extra = any(block)
    except _BROKEN as error:
        where = f"after member {number} ({printable(last)[:200]!r})" if number else "at its start"
        lost = f"{sample.key!r} and everything after it is" if sample else "everything is"
        message = f"the archive is truncated or damaged {where}: {lost} lost ({error})"
        yield Sample(f"{name}#truncated", None, "", problem=Problem(Reason.TRUNCATED, message))
        return
    if sample is not None:
        yield sample
    if extra:
        yield Sample(f"{name}#after-end", None, "", problem=Problem(Reason.AFTER_END))


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


def _choose_image(sample: Sample, image_field: str | None) -> None:
    if sample.problem is not None:
        return
    if image_field is None:
        images = [extension for extension in sample.fields if is_image(f"x.{extension}")]
    else:
        images = [extension for extension in image_field.lower().split(";") if extension in sample.fields][:1]
    if len(images) == 1:
        sample.image_field = images[0]
        sample.image = sample.fields.pop(images[0])
    elif images:
        message = f"there are several images ({', '.join(images)}); name one with image_field"
        sample.problem = Problem(Reason.SEVERAL_IMAGES, message)
    else:
        sample.problem = Problem(Reason.NO_IMAGE, "there is no image")


class TarShardWriter(ShardWriter):
    """A tar at `local_path`, gzipped if the release path says so: the image first, then the kept members.

    `image_fields`: the names that the job itself gives to members of images; the release's readers will ask for them.
    """

    def __init__(
        self,
        local_path: Path,
        release_path: str,
        keep_fields: frozenset[str],
        image_fields: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(local_path, release_path)
        self._keep, self._image_fields = keep_fields, image_fields
        stream: Any = self._files.enter_context(self._temporary.open("wb"))
        if not release_path.lower().endswith(".tar"):
            packed = gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=stream, mtime=0)
            stream = self._files.enter_context(packed)
        # PAX_FORMAT writes plain ustar headers wherever the name fits one.
        self._tar = tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8")  # noqa: SIM115
        self._files.callback(self._tar.close)

    def _entry(self, sample: Sample, image: bytes, key: str | None) -> dict[str, bytes]:
        extension, renamed = sample.image_field, None
        if converted(extension, image) and extension not in self._image_fields:
            head, dot, _ = extension.rpartition(".")
            extension = f"{head}{dot}png"
        if key is not None:
            if extension not in self._image_fields:
                extension = suffix_of(f"x.{extension}")
            renamed = key_spellings(sample.key, sample.image_field, key, extension)
        members = {extension: image} | kept_members(sample.fields, self._keep, renamed)
        return {f"{key or sample.key}.{name}": content for name, content in members.items()}

    def _add(self, position: int, entry: dict[str, bytes]) -> None:
        for name, content in entry.items():
            header = tarfile.TarInfo(name)
            header.size, header.mode = len(content), 0o644
            self._tar.addfile(header, io.BytesIO(content))
