"""Tar archives of strangers, read as a stream in bounded memory: what an archive asks for is checked before it is read.

Python's tarfile reads an extended header (a PAX record, a GNU long name) whole, whatever size it says, follows chains
of them by recursion, and believes a size that is negative. A gzip stream may be a thousandth of what it unpacks to. All
of this is bounded here, and beyond the bounds an archive counts as damaged (tarfile.ReadError).
"""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import Any, BinaryIO, Self, cast

from anonlib.datasets.base import MAX_SAMPLE_BYTES

GZIP_MAGIC = b"\x1f\x8b"
MAX_HEADER_BYTES = 64 << 10
"""Of one extended header: a path of 4,096 bytes and a few records fit many times."""
MAX_MEMBERS = 1024
"""Of one sample."""
MAX_RATIO = 100
"""Unpacked to packed bytes of a gzip stream, once it has given MAX_SAMPLE_BYTES; photos are near 1."""

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


class _Counted(io.RawIOBase):
    """A stream that knows how many bytes were read from it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.count = stream, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._stream.read(len(buffer))
        buffer[: len(block)] = block
        self.count += len(block)
        return len(block)


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
        self._packed = _Counted(stream)
        self._stream = gzip.GzipFile(fileobj=cast("BinaryIO", self._packed), mode="rb")
        self._growth = Growth()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._stream.read(len(buffer))
        buffer[: len(block)] = block
        self._growth.add(len(block), self._packed.count)
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
