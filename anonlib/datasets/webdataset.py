"""Tar shards in the WebDataset convention: consecutive members with one base name are one sample.

A tar is read as a stream and nothing is ever extracted to disk. Python's tarfile ends quietly at a damaged
header or where a file was cut between two members; here every way to end but the proper one is a sample
with a problem, since the rest of a shard must not vanish without a row. What is written depends only on the
samples: no times, owners or modes of the input survive, and equal input gives equal bytes.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from anonlib.codes import Problem, Reason
from anonlib.datasets import base
from anonlib.datasets.base import Dataset, Sample, Shard, ShardWriter
from anonlib.datasets.fields import kept_members, key_spellings, under_new_key
from anonlib.datasets.names import (
    MAX_NAME,
    TAR_SUFFIXES,
    is_apple_double,
    is_image,
    new_extension,
    printable,
    shard_id,
    shortened,
    split_member,
    suffix_in,
    unique_key,
    why_unsafe,
    without_suffix,
)
from anonlib.datasets.tar_stream import MAX_MEMBERS, open_tar

_GZIP_LEVEL = 6
_BROKEN = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)


class WebDataset(Dataset):
    """Tar files, plain or gzipped (.tar, .tar.gz, .tgz); one file is one shard."""

    format = "webdataset"

    def shards(self) -> list[Shard]:
        """See Dataset."""
        return self._distinct(
            [
                Shard(shard_id(one.name, TAR_SUFFIXES, ".tar"), one.uri, one.etag, one.size, self.format)
                for one in self.sources()
            ]
        )

    def read(self, shard: Shard) -> Iterator[Sample]:
        """See Dataset."""
        name = self.name_of(shard)
        stem = without_suffix(name.rpartition("/")[2], TAR_SUFFIXES)
        with self.storage.open_read(name, shard.etag) as stream:
            yield from read_tar(stream, stem, self.image_field)

    def output_path(self, shard: Shard, name: str | None = None) -> str:
        """See Dataset."""
        own = self.name_of(shard)
        return f"data/{own}" if name is None else f"data/{name}{suffix_in(own, TAR_SUFFIXES)}"

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
        said = f"the archive is truncated or damaged {where}: {lost} lost ({error})"
        yield _SampleFiles(f"{name}#truncated", problem=Problem(Reason.TRUNCATED, said))
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
        said = f"the member {info.name!r} is an image with nothing before its first dot, so it has no key"
        return Problem(Reason.NO_KEY, said)
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
            said = f"there are several images ({', '.join(images)}); name one with image_field"
            problem = Problem(Reason.SEVERAL_IMAGES, said)
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
        if key is None:
            members = {sample.image_field: image} | kept_members(sample.fields, self._keep)
        else:
            new = new_extension(sample.image_field, self._image_fields)
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
