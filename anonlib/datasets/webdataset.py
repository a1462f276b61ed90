"""Tar shards in the WebDataset convention: consecutive members with one base name are one sample.

A tar is read as a stream and never extracted to disk. Sidecars that lie behind other samples rejoin their image while
it is held back in memory. Every way to end but the proper one is a sample with a problem, where Python's tarfile ends
quietly; only blocks of zeros that are missing behind a whole member are none. tarfile also reads an extended header
whole, whatever size it says, follows chains of them by recursion and believes negative sizes, and a gzip stream may
unpack to a thousand times its size: beyond the bounds here an archive counts as damaged (tarfile.ReadError). The
written bytes depend on the samples alone.
"""

import gzip
import io
import re
import tarfile
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

from anonlib.codes import Note, Problem, Reason
from anonlib.datasets import base, names
from anonlib.datasets.base import Content, Dataset, Item, Sample, Shard, ShardWriter
from anonlib.storage import Storage
from anonlib.storage.scratch import SpooledFile

GZIP_MAGIC = b"\x1f\x8b"
MAX_HEADER_BYTES = 64 << 10
"""Of one extended header: a path of 4,096 bytes and a few records fit many times."""
MAX_MEMBERS = 1024
"""Of one sample."""
MAX_RATIO = 100
"""Unpacked to packed bytes of a gzip stream, once it has given MAX_SAMPLE_BYTES; photos are near 1."""

JOIN_BYTES = 64 << 20
"""Of samples that are held back, since their sidecars may come later in the tar."""

_HELD_BYTES = 1 << 10  # of a sample beside its members
_NO_EXTENSION = Problem(Reason.NO_KEY, "the name of an image has no extension, so WebDataset readers skip it")
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
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        if len(buf) < tarfile.BLOCKSIZE and not any(buf):
            raise tarfile.EmptyHeaderError("empty header")  # type: ignore[attr-defined]
        return super().frombuf(buf, encoding, errors)

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            found = super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
                raise
            if isinstance(error, tarfile.EmptyHeaderError) and archive.offset:  # type: ignore[attr-defined]
                cast("Archive", archive).no_end = True
                raise
            raise tarfile.ReadError(f"{error}") from error
        except ValueError as error:  # a number of more digits than Python reads
            raise tarfile.ReadError("a header is not valid") from error
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
    no_end = False
    """Whether it ends behind a whole member, where blocks of zeros should be."""
    _data_end = 0

    def next(self) -> tarfile.TarInfo | None:
        try:
            found = super().next()
        except tarfile.ReadError:
            # Some writers leave out even the zeros that fill the last member's block.
            if not 0 < self._data_end <= cast("BinaryIO", self.fileobj).tell() < self.offset:
                raise
            self.no_end = True
            return None
        if found is not None:
            self._data_end = found.offset_data + found.size
        return found


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
    if unpacked > max(base.MAX_SAMPLE_BYTES, packed * MAX_RATIO):
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

    def read(self, shard: Shard, left_out: Counter[str] | None = None) -> Iterator[Sample]:
        name = self._readable_name(shard)
        stem = names.without_suffix(name.rpartition("/")[2], self.suffixes)
        with self.storage.open_read(name, shard.etag) as stream:
            yield from read_tar(stream, stem, self.image_field, self.fields or frozenset(), left_out)

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
                    split = names.split_member(info.name)
                    key, name = split or (info.name, "")
                    notes = {*info.pax_headers.values(), info.uname, info.gname, info.linkname} - {"", info.name}
                    notes |= info.pax_headers.keys() - {"path"}
                    numbers = (info.mtime, info.uid, info.gid, info.mode) != (0, 0, 0, 0o644)
                    where = f"{path}: {names.printable(info.name)}"
                    most = base.MAX_CLIP_BYTES if names.is_clip(info.name) else base.MAX_SAMPLE_BYTES
                    if not info.isreg() or info.size > most or notes or numbers:
                        yield Item(where, key, name, " ".join(sorted(notes)), odd=True)
                    if info.isreg() and info.size <= most:
                        content = base.content_of(cast("BinaryIO", archive.extractfile(info)), info.name)
                        content = content.content if isinstance(content, SpooledFile) else content
                        yield Item(where, key, name, content, odd=split is None)
                while block := cast("BinaryIO", archive.fileobj).read(_BLOCK_BYTES):
                    if any(block):
                        yield Item(f"{path}: after its end", None, "", block.strip(b"\0"), odd=True)

    def writer(
        self, shard: Shard, local_path: Path, keep_fields: frozenset[str], name: str | None = None
    ) -> ShardWriter:
        image_fields = frozenset(image_names(self.image_field))
        return TarShardWriter(local_path, self.output_path(shard, name), keep_fields, image_fields)


def image_names(image_field: str | None) -> list[str]:
    """The names that the job itself gives to members of images."""
    return [name for name in re.split("[,;]", (image_field or "").lower()) if name.strip() not in ("", "*")]


def read_tar(
    stream: BinaryIO,
    name: str,
    image_field: str | None = None,
    fields: frozenset[str] = frozenset(),
    left_out: Counter[str] | None = None,
) -> Iterator[Sample]:
    """The photos of a tar stream, gzipped or not; `name` is the shard's, for the key NAME#truncated.

    image_field: extensions of images, with commas; alternatives as 'jpg;png'; None or '*' takes every image. fields:
    those that the job keeps. A damaged archive gives its whole samples, then one with a problem: the last sample is
    only whole once the next begins. Members that belong to no sample (system folders, hidden names, no extension) are
    counted by kind in `left_out`.
    """
    left_out = Counter() if left_out is None else left_out
    seen: dict[str, int] = {}
    position = 0
    for sample in _joined(_grouped(stream, name, left_out), name):
        key = names.unique_key(sample.key, seen)
        if key != sample.key and sample.problem is None:
            sample.problem = Problem(Reason.DUPLICATE_KEY, f"the key {sample.key!r} is in this shard already")
        sample.key = key
        for photo in _photos(sample, image_field, fields, position, seen):
            photo.position = position
            position += 1
            yield photo


def _joined(samples: Iterable[Sample], name: str) -> Iterator[Sample]:
    """The samples in the order in which they begin, with members that lie behind other samples, up to JOIN_BYTES."""
    held: deque[tuple[Sample, int]] = deque()
    latest: dict[str, Sample] = {}
    given: set[str] = set()
    size = stray = 0
    for sample in samples:
        first = latest.get(sample.key)
        bytes_of = sum(map(_size, sample.fields.values())) + _HELD_BYTES
        both = () if first is None else first.fields.keys() | sample.fields.keys()
        fits = first is not None and len(both) == len(first.fields) + len(sample.fields) <= MAX_MEMBERS
        if first is not None and fits and first.problem == sample.problem:
            first.fields |= sample.fields
            first.spelling |= sample.spelling
            first.notes += sample.notes
        elif (first is not None or sample.key in given) and sample.problem is None and not _images(sample.fields):
            stray += len(sample.fields)
            continue
        else:
            latest.setdefault(sample.key, sample)
            held.append((sample, 0))
        size += bytes_of
        held[-1] = (held[-1][0], held[-1][1] + bytes_of)
        while size > JOIN_BYTES and len(held) > 1:
            ready, taken = held.popleft()
            size -= taken
            given.add(ready.key)
            if latest.get(ready.key) is ready:
                del latest[ready.key]
            yield ready
    yield from (sample for sample, _ in held)
    if stray:
        problem = Problem(Reason.STRAY_SIDECARS, f"{stray:,} members: {Reason.STRAY_SIDECARS.meaning}")
        yield Sample(f"{name}#sidecars", None, "", problem=problem)


def _grouped(stream: BinaryIO, name: str, left_out: Counter[str]) -> Iterator[Sample]:
    """Samples with all their members in `fields`, as consecutive members have one key."""
    sample: Sample | None = None
    number, last, size, members, extra, no_end = 0, "", 0, 0, False, False
    try:
        with open_tar(stream) as archive:
            for info in archive:
                # tarfile remembers every header it has seen, which a long shard cannot afford.
                archive.members = []  # type: ignore[attr-defined]
                number, last = number + 1, info.name
                split = names.split_member(info.name)
                problem = _member_problem(info)
                kind = None if info.isdir() else names.why_left_out(info.name)
                kind = None if kind == "underscore name" else kind  # a key may begin with anything
                content = None
                if kind is None and problem is None and split is None and not info.isdir():
                    if info.size <= base.MAX_SAMPLE_BYTES:
                        content = cast("BinaryIO", archive.extractfile(info)).read()
                        problem = _NO_EXTENSION if names.begins_as_media(content) else None
                    kind = names.no_data("image", info.name) if problem is None else None
                if kind is not None or info.isdir():
                    left_out.update([kind] if kind else [])
                    continue
                key, extension = split or (info.name, "")
                written = info.name[len(key) + 1 :]
                key = names.shortened(names.printable(key))
                if sample is None or key != sample.key or extension in sample.fields:
                    if sample is not None:
                        yield sample
                    sample, size, members = Sample(key, None, ""), 0, 0
                clip = names.is_clip(info.name)
                size, members = size + (0 if clip else info.size), members + 1
                if problem is None and clip and info.size > base.MAX_CLIP_BYTES:
                    over = f"the clip is larger than {base.MAX_CLIP_BYTES >> 20} MiB"
                    problem = Problem(Reason.TOO_LARGE, over)
                if problem is None and size > base.MAX_SAMPLE_BYTES:
                    over = f"the sample is larger than {base.MAX_SAMPLE_BYTES >> 20} MiB"
                    problem = Problem(Reason.TOO_LARGE, over)
                if problem is None and members > MAX_MEMBERS:
                    problem = Problem(Reason.TOO_LARGE, f"the sample has more than {MAX_MEMBERS:,} members")
                sample.problem = sample.problem or problem
                if problem is None:
                    sample.fields[extension] = base.content_of(cast("BinaryIO", archive.extractfile(info)), info.name)
                    sample.spelling |= {extension: written} if written != extension else {}
                else:
                    sample.fields = {}
            no_end = archive.no_end
            while not extra and (block := cast("BinaryIO", archive.fileobj).read(_BLOCK_BYTES)):
                extra = any(block)
    except _BROKEN as error:
        where = f"after member {number} ({names.printable(last)[:200]!r})" if number else "at its start"
        lost = f"{sample.key!r} and everything after it is" if sample else "everything is"
        message = f"the archive is truncated or damaged {where}: {lost} lost ({error})"
        yield Sample(f"{name}#truncated", None, "", problem=Problem(Reason.TRUNCATED, message))
        return
    if sample is not None:
        sample.notes += (Note.NO_END,) if no_end else ()
        yield sample
    if extra:
        yield Sample(f"{name}#after-end", None, "", problem=Problem(Reason.AFTER_END))


def _member_problem(info: tarfile.TarInfo) -> Problem | None:
    if len(info.name) > names.MAX_NAME:
        return Problem(Reason.UNSAFE_NAME, f"the name of a member has more than {names.MAX_NAME:,} characters")
    if unsafe := names.why_unsafe(info.name):
        return Problem(Reason.UNSAFE_NAME, f"the member {names.printable(info.name)!r} {unsafe}")
    if not info.isreg() and not info.isdir():
        return Problem(Reason.NOT_A_FILE, f"the member {info.name!r} is a link or a device, not a file")
    if names.split_member(info.name) is None and names.is_media(info.name):
        message = f"the member {info.name!r} is an image or clip with nothing before its first dot, so it has no key"
        return Problem(Reason.NO_KEY, message)
    return None


def _size(content: Content) -> int:
    return content.size if isinstance(content, SpooledFile) else len(content)


def _images(fields: Mapping[str, Content]) -> list[str]:
    """The extensions of members that are images or clips, by their names or by their content."""
    return [
        name
        for name, content in fields.items()
        if isinstance(content, SpooledFile)
        or names.is_media(f"x.{name}")
        or names.begins_as_media(content[: names.MEDIA_HEAD])
    ]


def _photos(
    sample: Sample, image_field: str | None, kept: frozenset[str], position: int, seen: dict[str, int]
) -> Iterator[Sample]:
    """A sample with its image, or one an image; images that the job does not name are no fields either."""
    if sample.problem is not None:
        yield sample
        return
    images = _images(sample.fields)
    chosen = images if image_field in (None, "*") else _named(sample.fields, image_field.lower())
    contents = {name: sample.fields.pop(name) for name in dict.fromkeys(chosen + images)}
    if not chosen:
        endings = ", ".join(f".{name}" for name in (*contents, *sample.fields))
        wanted = f"no image that image_field names ({image_field})" if contents else "no image"
        sample.problem = Problem(Reason.NO_IMAGE, f"there is {wanted}; its extensions by WebDataset's rule: {endings}")
        yield sample
        return
    sample.notes += (Note.FIRST_DOT,) if any("." in name for name in chosen) else ()
    sample.notes += (Note.NOT_KEPT,) if kept & (contents.keys() - set(chosen)) else ()
    if len(chosen) == 1:
        sample.image_field = chosen[0]
        sample.hold(contents[chosen[0]])
        yield sample
    else:
        yield from sample.parts([(name, contents[name], 0, 1) for name in chosen], position, seen)


def _named(fields: Mapping[str, Content], image_field: str) -> list[str]:
    """The members that a job names: of alternatives the first, as it is written or as the last of several endings."""
    found: dict[str, None] = {}
    for wanted in filter(None, image_field.split(",")):
        choices = wanted.strip().split(";")
        exact = [name for name in choices if name in fields][:1]
        found |= dict.fromkeys(exact or (each for each in fields if names.suffix_of(f"x.{each}") in choices))
    return list(found)


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

    def _entry(self, sample: Sample, image: bytes | Path, key: str | None) -> dict[str, bytes | Path]:
        extension, renamed, begin = sample.image_field, None, base.head_of(image)
        if names.converted(extension, begin) and extension not in self._image_fields:
            head, dot, _ = extension.rpartition(".")
            extension = f"{head}{dot}png"
        if key is not None:
            if extension not in self._image_fields:
                extension = names.suffix_of(f"x.{extension}")
                extension = extension if names.is_media(f"x.{extension}") else names.media_ending(begin)
            renamed = names.key_spellings(sample.own_key, sample.image_field, key, extension)
        members: dict[str, bytes | Path] = {extension: image, **names.kept_members(sample.fields, self._keep, renamed)}
        spelling = sample.spelling if key is None else {}
        return {f"{key or sample.own_key}.{spelling.get(name, name)}": content for name, content in members.items()}

    def _add(self, position: int, entry: dict[str, bytes | Path]) -> None:
        for name, content in entry.items():
            header = tarfile.TarInfo(name)
            header.mode = 0o644
            with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
                header.size = file.seek(0, io.SEEK_END)
                file.seek(0)
                self._tar.addfile(header, file)
            if isinstance(content, Path):
                content.unlink()
