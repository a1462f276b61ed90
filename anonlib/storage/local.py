"""A folder as a Storage. Atomicity comes from rename and hard links inside one file system.

A file is written under a name of ours beside its final name, flushed to the disk, and only then renamed
(publish) or linked (claim); then the folder itself is flushed, or a power cut could forget the name.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar
from uuid import uuid4

from anonlib.storage.base import (
    OURS,
    AccessDenied,
    Changed,
    Entry,
    LinkRefused,
    NotFound,
    Storage,
    StorageError,
    folder_prefix,
    is_ours,
    safe_path,
    shown,
)

REFUSED_LINK = "link"
WRITE_TRIES = 3
_FIND = "it is not followed (`find -type l` lists links)."
_T = TypeVar("_T")
_NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


@contextmanager
def as_sentence(verb: str, where: str, path: str | None = None) -> Iterator[None]:
    """Turn an OSError inside the block into a StorageError: 'Cannot {verb} {where}: ...', of the file at `path`."""
    try:
        yield
    except _NO_FILE as error:
        if verb == "write":
            raise StorageError(f"Cannot write {where}: {error.strerror}.", path=path) from error
        raise NotFound(f"Cannot {verb} {where}: there is no such file.", path=path) from error
    except PermissionError as error:
        said = f"Cannot {verb} {where}: this user may not; check the owner and mode."
        raise AccessDenied(said, path=path) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            said = f"Cannot {verb} {where}: the disk or quota is full; free some space."
            raise StorageError(said, path=path) from error
        if error.errno == errno.EROFS:
            raise AccessDenied(f"Cannot {verb} {where}: the file system is mounted read-only.", path=path) from error
        raise StorageError(f"Cannot {verb} {where}: {error.strerror or type(error).__name__}.", path=path) from error


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


class LocalStorage(Storage):
    """Files below a folder, which need not exist yet. Links that lead out of it are never followed.

    An etag is the modification time in nanoseconds and the size: it costs no reading.
    """

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.realpath(root))
        self.uri = str(root)

    def _place(self, path: str) -> Path:
        return self._root / safe_path(path)

    def _inside(self, place: Path) -> Path:
        target = Path(os.path.realpath(place))
        path = str(place.relative_to(self._root)) if place != self._root else ""
        if not target.is_relative_to(self._root):
            raise LinkRefused(f"{shown(self.uri, path)} is a link that leads out of {self.uri}; {_FIND}", path=path)
        if place.is_symlink() and not target.exists():
            raise LinkRefused(f"{shown(self.uri, path)} is a link that leads nowhere; {_FIND}", path=path)
        return place

    def _doing(self, verb: str, path: str) -> AbstractContextManager[None]:
        return as_sentence(verb, shown(self.uri, path), path)

    def open_read(self, path: str, etag: str | None = None, *, seekable: bool = False) -> BinaryIO:
        """See Storage; local files are always seekable."""
        place = self._inside(self._place(path))
        with self._doing("read", path):
            stream = place.open("rb")
        if etag is not None and _etag(os.fstat(stream.fileno())) != etag:
            stream.close()
            said = f"{shown(self.uri, path)} has changed since it was listed; start a new run for the new data."
            raise Changed(said, path=path)
        return stream

    def fetch(self, path: str, to: Path) -> None:
        """See Storage."""
        place = self._inside(self._place(path))
        with self._doing("copy", path), self._beside(to, "fetch") as temporary:
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place, temporary)
            temporary.replace(to)

    def stat(self, path: str) -> Entry:
        """See Storage."""
        place = self._inside(self._place(path))
        with self._doing("read", path):
            status = place.stat()
            if place.is_dir():
                raise IsADirectoryError(place)
        return Entry(path, status.st_size, _etag(status))

    def publish(self, path: str, source: Path | bytes) -> None:
        """See Storage."""
        place = self._place(path)
        with self._doing("write", path):
            _unless_swept(lambda: self._publish(place, source))

    def _publish(self, place: Path, source: Path | bytes) -> None:
        with self._written(place, source) as temporary:
            temporary.replace(place)

    def claim(self, path: str, data: bytes, *, private: bool = False) -> bool:
        """See Storage; needs a file system with hard links."""
        place = self._place(path)
        with self._doing("write", path):
            return _unless_swept(lambda: self._claim(place, data, private))

    def _claim(self, place: Path, data: bytes, private: bool) -> bool:
        with self._written(place, data) as temporary:
            if private:
                temporary.chmod(0o600)
            try:
                os.link(temporary, place)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP):
                    raise AccessDenied(
                        f"{self._root} is on a file system without hard links, so a shard cannot be claimed "
                        "by exactly one worker there; use another disk or S3."
                    ) from error
                raise
        return True

    @contextmanager
    def _beside(self, place: Path, purpose: str) -> Iterator[Path]:
        temporary = place.with_name(f"{OURS}{purpose}-{uuid4().hex}")
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _written(self, place: Path, source: Path | bytes) -> Iterator[Path]:
        """A flushed copy of the source beside `place`; after the body, the folder is flushed too."""
        missing = [folder for folder in place.parents if not folder.exists()]
        self._inside(place.parent).mkdir(parents=True, exist_ok=True)
        for folder in missing:
            _flush_folder(folder.parent)
        with self._beside(place, "write") as temporary:
            if isinstance(source, bytes):
                temporary.write_bytes(source)
            else:
                shutil.copyfile(source, temporary)
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            yield temporary
            _flush_folder(place.parent)

    def delete(self, path: str) -> None:
        """See Storage."""
        place = self._place(path)
        self._inside(place.parent)
        with self._doing("delete", path):
            place.unlink(missing_ok=True)

    def delete_tree(self, prefix: str) -> int:
        """See Storage; links are removed, what they point to is not."""
        top = self._root / folder_prefix(prefix)
        self._inside(top)
        removed = 0
        with self._doing("delete", prefix):
            for folder, folders, files in os.walk(top, topdown=False, onerror=_raise_unless_missing):
                for name in files:
                    Path(folder, name).unlink(missing_ok=True)
                    removed += 1
                for name in folders:
                    below = Path(folder, name)
                    if below.is_symlink():
                        below.unlink()
                    else:
                        below.rmdir()
            if prefix and top.is_dir():
                top.rmdir()
        return removed

    def list(self, prefix: str = "", *, unfinished: bool = False) -> Iterator[Entry]:
        """See Storage. A link out of the root is listed with the etag REFUSED_LINK, and refused when read.

        A link to a folder out of the root raises LinkRefused.
        """
        folder, _, start = prefix.rpartition("/")
        top = self._root / safe_path(folder) if folder else self._root
        self._inside(top)
        with self._doing("list", folder):
            for entry in self._walk(top, f"{folder}/" if folder else "", start):
                if unfinished or not is_ours(entry.path):
                    yield entry

    def _walk(self, folder: Path, prefix: str, start: str = "") -> Iterator[Entry]:
        try:
            with os.scandir(folder) as found:
                inside = [one for one in found if one.name.startswith(start)]
        except FileNotFoundError:
            return
        # A folder sorts as "name/", so that the whole paths come out in order: a-b before a/b.
        for one in sorted(inside, key=lambda one: one.name + "/" * one.is_dir()):
            path = prefix + one.name
            if one.is_dir(follow_symlinks=False):
                yield from self._walk(Path(one.path), path + "/")
            elif one.is_dir():
                # Inside the root its files are listed at their real place already.
                self._inside(Path(one.path))
            else:
                try:
                    status = self._inside(Path(one.path)).stat() if one.is_symlink() else one.stat()
                    yield Entry(path, status.st_size, _etag(status))
                except LinkRefused:
                    yield Entry(path, 0, REFUSED_LINK)
                except FileNotFoundError:
                    continue


def _unless_swept(write: Callable[[], _T]) -> _T:
    """`write` again if its own unfinished file was gone: another job on this place had ended, and swept it."""
    for _ in range(WRITE_TRIES - 1):
        try:
            return write()
        except FileNotFoundError as error:
            if not is_ours(str(error.filename)):
                raise
    return write()


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
