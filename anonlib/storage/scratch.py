"""Temporary folders of a run: for their owner alone, and removed by the next run where a killed one could not.

In each lies a file that its process keeps locked. The kernel unlocks it when the process ends, however it ends, so a
folder whose file can be locked is unused, also where several containers share the temporary folder.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, cached_property
from pathlib import Path
from typing import BinaryIO, cast
from weakref import finalize

_PREFIX = "anonlib-"
_LOCK = ".lock"
_BLOCK = 1 << 20
A_CLIP = "a clip in the temporary folder of this machine"
"""What a disk that fails fails to write, in the words of an error."""


class SpooledFile:
    """A copy of a stream on local disk, at `path` and of `size` bytes; gone with the last reference to this object.

    `head` is what was read of the stream before. Raises StorageError where the disk fails.
    """

    def __init__(self, stream: BinaryIO, head: bytes = b"") -> None:
        from anonlib.storage.local import as_sentence

        number, name = tempfile.mkstemp(dir=_of_this_process(os.getpid()))
        self.path, self.size = Path(name), 0
        finalize(self, self.path.unlink, missing_ok=True)
        with open(number, "wb") as file:  # noqa: PTH123
            block = head or stream.read(_BLOCK)
            while block:
                with as_sentence("write", A_CLIP):
                    file.write(block)
                self.size += len(block)
                block = stream.read(_BLOCK)
            with as_sentence("write", A_CLIP):
                file.flush()

    @property
    def content(self) -> bytes:
        """Its bytes, mapped and not read: memory holds what is looked at, and the file lasts as long as they do."""
        if not self.size:
            return b""
        with self.path.open("rb") as file:
            return cast("bytes", mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    @cached_property
    def sha256(self) -> str:
        """Hex, read once however often it is asked for."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _of_this_process(pid: int) -> Path:
    """A folder that this process has until it ends."""
    kept = ExitStack()
    atexit.register(kept.close)
    return kept.enter_context(scratch())


@contextmanager
def scratch() -> Iterator[Path]:
    """A new folder of mode 0700 in the system's temporary folder, gone after the block.

    The first call of a process also removes those that killed processes of this user have left there.
    """
    _sweep(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    # It gets its name once it is locked, or a sweep could come in between.
    lock = os.open(folder / f"{_LOCK}-new", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / f"{_LOCK}-new").rename(folder / _LOCK)
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


@cache
def _sweep(place: str) -> None:
    """Remove the folders in `place` whose process has ended; others' folders and what cannot be removed stay."""
    for folder in Path(place).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if folder.lstat().st_uid != os.geteuid() or folder.is_symlink():
                continue
            lock = os.open(folder / _LOCK, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(folder)
            finally:
                os.close(lock)


def _remove(folder: Path) -> None:
    """Everything in it, its lock last: what cannot be removed now is swept by a later run."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != _LOCK:
            entry.unlink(missing_ok=True)
    if {entry.name for entry in folder.iterdir()} <= {_LOCK}:
        (folder / _LOCK).unlink(missing_ok=True)
        folder.rmdir()
