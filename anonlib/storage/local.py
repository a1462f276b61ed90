"""A folder as a Storage. Atomicity comes from rename and hard links inside one file system.

A file is written under a name of ours beside its final name, flushed to the disk, and only then renamed (publish) or
linked (claim); then the folder is flushed, or a power cut could forget the name. A private folder is for its owner
alone, whatever the umask: folders of mode 0700, files of 0600, unfinished ones too.
"""

import errno
import io
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from uuid import uuid4

from anonlib.errors import AccessDenied, Changed, LinkRefused, NotAFile, NotFound, StorageError
from anonlib.storage.base import OURS, Storage, StoredObject, folder_prefix, is_ours, safe_path, shown

REFUSED_LINK, LINKED_FOLDER, IRREGULAR, UNREADABLE = "link", "linked folder", "irregular", "unreadable"
"""Etags of what is listed and never opened: a link to a file or to a folder; a pipe, socket, device or empty folder; a
folder that may not be entered."""
WRITE_TRIES = 3
_NOT_OF_LINKS = (errno.ENOENT, errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of a hard link that any other write there would meet, too."""
_COPY_BYTES = 1 << 20
_BUFFER_BYTES = 64 << 10
_T = TypeVar("_T")


@contextmanager
def as_sentence(verb: str, where: str, path: str | None = None) -> Iterator[None]:
    """Turn an OSError inside the block into a StorageError: 'Cannot {verb} {where}: ...', of the file at `path`."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        if verb == "write":
            raise StorageError(f"Cannot write {where}: {error.strerror}.", path=path) from error
        raise NotFound(f"Cannot {verb} {where}: there is no such file.", path=path) from error
    except OSError as error:
        kind, why = StorageError, error.strerror or type(error).__name__
        if isinstance(error, PermissionError):
            kind, why = AccessDenied, "this user may not; check the owner and mode"
        elif error.errno == errno.EROFS:
            kind, why = AccessDenied, "the file system is mounted read-only"
        elif error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = "the disk or quota is full; free some space"
        raise kind(f"Cannot {verb} {where}: {why}.", path=path) from error


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

    But a link in a snapshot of Hugging Face's cache may lead to a blob of the same dataset, which is what the cache is
    made of. An etag is the modification time in nanoseconds and the size: it costs no reading. `private`: no other user
    of this machine may look into it; a root that others may look into is closed to them by the first write.
    """

    def __init__(self, root: Path, *, private: bool = False) -> None:
        self._root = Path(os.path.realpath(root))
        self._blobs = _blobs_of(self._root)
        self._private = private
        self.uri = str(root)

    def _place(self, path: str) -> Path:
        return self._root / safe_path(path)

    def _inside(self, place: Path) -> Path:
        target = Path(os.path.realpath(place))
        leads = "nowhere" if place.is_symlink() and not target.exists() else None
        if not (target.is_relative_to(self._root) or (target.parent == self._blobs and target.is_file())):
            leads = f"out of {self.uri}"
        if leads is not None:
            path = str(place.relative_to(self._root)) if place != self._root else ""
            find = "it is not followed (`find -type l` lists links)."
            raise LinkRefused(f"{shown(self.uri, path)} is a link that leads {leads}; {find}", path=path)
        return place

    def _doing(self, verb: str, path: str) -> AbstractContextManager[None]:
        return as_sentence(verb, shown(self.uri, path), path)

    def open_read(self, path: str, etag: str | None = None, *, seekable: bool = False) -> BinaryIO:
        """See Storage; local files are always seekable."""
        place = self._inside(self._place(path))
        with self._reading(path):
            stream = _open_regular(place, self, path)
            self._read_last = path
        if etag is not None and _etag(os.fstat(stream.fileno())) != etag:
            stream.close()
            message = f"{shown(self.uri, path)} has changed since it was listed; start a new run for the new data."
            raise Changed(message, path=path)
        return stream

    def stat(self, path: str) -> StoredObject:
        place = self._inside(self._place(path))
        with self._reading(path):
            status = place.stat()
            if place.is_dir():
                raise IsADirectoryError(place)
        return StoredObject(path, status.st_size, _etag(status))

    @contextmanager
    def _reading(self, path: str) -> Iterator[None]:
        try:
            with self._doing("read", path):
                yield
        except StorageError as error:
            raise self.judged(error, path) from error.__cause__

    def publish(self, path: str, source: Path | bytes) -> None:
        place = self._place(path)
        with self._doing("write", path):
            self._write(place, source, lambda temporary: temporary.replace(place))

    def claim(self, path: str, source: Path | bytes) -> bool:
        """See Storage; needs a file system with hard links."""
        place = self._place(path)

        def link(temporary: Path) -> bool:
            try:
                os.link(temporary, place)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno in _NOT_OF_LINKS:
                    raise
                # The file itself was written a moment ago, in the same folder. Which error a file system gives that
                # has no hard links is its own affair: EPERM, EOPNOTSUPP, ENOSYS, EIO, EMLINK, EACCES, EINVAL.
                raise AccessDenied(
                    f"{self._root} is on a file system without hard links, so a shard cannot be claimed "
                    "by exactly one worker there; use another disk or S3."
                ) from error
            return True

        with self._doing("write", path):
            return not place.is_file() and self._write(place, source, link)

    def _write(self, place: Path, source: Path | bytes, name: Callable[[Path], _T]) -> _T:
        """Copy the source beside `place`, flushed, and give it its name.

        Once more where its own unfinished file was gone: another job on this place had ended, and swept it.
        """
        for _ in range(WRITE_TRIES - 1):
            try:
                return self._write_once(place, source, name)
            except FileNotFoundError as error:
                if not is_ours(str(error.filename)):
                    raise
        return self._write_once(place, source, name)

    def _write_once(self, place: Path, source: Path | bytes, name: Callable[[Path], _T]) -> _T:
        self._make_folder(self._inside(place.parent))
        mode = 0o600 if self._private else 0o666
        temporary = place.with_name(f"{OURS}write-{uuid4().hex}")
        try:
            with open(temporary, "xb", opener=lambda path, flags: os.open(path, flags, mode)) as copy:
                if self._private:
                    os.fchmod(copy.fileno(), mode)  # a umask can take even the owner's own rights
                if isinstance(source, bytes):
                    copy.write(source)
                else:
                    with source.open("rb") as stream:
                        shutil.copyfileobj(stream, copy, _COPY_BYTES)
                copy.flush()
                os.fsync(copy.fileno())
            named = name(temporary)
            _flush_folder(place.parent)
            return named
        finally:
            temporary.unlink(missing_ok=True)

    def _make_folder(self, folder: Path) -> None:
        """Make the folder and what is missing above it, flushed; those of a private root are its owner's alone.

        A root that others may look into is closed to them; raises AccessDenied where that is not ours to do.
        """
        if (message := self.exposed()) is not None:
            status = self._root.stat()
            if os.geteuid() not in (0, status.st_uid) or status.st_mode & stat.S_ISVTX:
                raise AccessDenied(f"{message} It belongs to others, too: name a folder of its own.")
            self._root.chmod(0o700)
        for missing in reversed([above for above in (folder, *folder.parents) if not above.exists()]):
            mode = 0o700 if self._private and missing.is_relative_to(self._root) else 0o777
            missing.mkdir(mode=mode, exist_ok=True)
            if mode == 0o700:
                missing.chmod(mode)
            _flush_folder(missing.parent)

    def exposed(self) -> str | None:
        if not (self._private and self._root.is_dir()):
            return None
        mode = stat.S_IMODE(self._root.stat().st_mode)
        if mode & 0o077 == 0:
            return None
        return f"{self._root} is to hold personal data, and its mode {mode:o} lets other users of this machine in."

    def delete(self, path: str) -> None:
        place = self._place(path)
        self._inside(place.parent)
        with self._doing("delete", path), suppress(FileNotFoundError, NotADirectoryError):
            place.unlink()

    def delete_tree(self, prefix: str, *, keep: Collection[str] = ()) -> int:
        """See Storage; links are removed, what they point to is not. A folder that still holds something stays."""
        top, kept = self._inside(self._root / folder_prefix(prefix)), {self._place(path) for path in keep}
        removed = 0

        def refuse(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                raise error

        with self._doing("delete", prefix):
            for folder, folders, files in os.walk(top, topdown=False, onerror=refuse):
                for below in (Path(folder, name) for name in files):
                    if below not in kept:
                        below.unlink(missing_ok=True)
                        removed += 1
                for below in (Path(folder, name) for name in folders):
                    if below.is_symlink():
                        below.unlink()
                try:
                    if prefix or Path(folder) != top:
                        Path(folder).rmdir()
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                        raise
        return removed

    def sweep(self) -> int:
        """See Storage; folders go too that are empty then."""
        removed = super().sweep()
        for folder, _, _ in os.walk(self._root, topdown=False):
            if Path(folder) != self._root:
                with suppress(OSError):  # it is not empty, or another job writes into it now
                    Path(folder).rmdir()
        return removed

    def list(self, prefix: str = "", *, unfinished: bool = False, foreign: bool = False) -> Iterator[StoredObject]:
        """See Storage. A link out of the root is listed with the etag REFUSED_LINK, and refused when read.

        A link to a folder out of the root raises LinkRefused, unless what is foreign is asked for.
        """
        folder, _, start = prefix.rpartition("/")
        top = self._inside(self._root / safe_path(folder) if folder else self._root)
        with self._doing("list", folder):
            for entry in self._walk(top, f"{folder}/" if folder else "", start, foreign):
                if unfinished or not is_ours(entry.path):
                    yield entry

    def _walk(self, folder: Path, prefix: str, start: str, foreign: bool) -> Iterator[StoredObject]:
        try:
            with os.scandir(folder) as found:
                inside = [entry for entry in found if entry.name.startswith(start)]
            for entry in inside[:1]:  # of a folder whose names alone may be read, nothing else may be known
                entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        except PermissionError as error:
            if not (foreign and prefix):
                raise closed_folder(folder, prefix) from error
            yield StoredObject(prefix, 0, UNREADABLE)
            return
        if foreign and prefix and not start and not inside:
            yield StoredObject(prefix, 0, IRREGULAR)
        # A folder sorts as "name/", so that the whole paths come out in order: a-b before a/b.
        for entry in sorted(inside, key=lambda entry: entry.name + "/" * entry.is_dir()):
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(Path(entry.path), path + "/", "", foreign)
            elif entry.is_dir() and foreign:
                yield StoredObject(path, 0, LINKED_FOLDER)
            elif entry.is_dir():
                # Inside the root its files are listed at their real place already.
                self._inside(Path(entry.path))
            else:
                try:
                    status = self._inside(Path(entry.path)).stat() if entry.is_symlink() else entry.stat()
                    regular = stat.S_ISREG(status.st_mode)
                    yield (
                        StoredObject(path, status.st_size, _etag(status))
                        if regular
                        else StoredObject(path, 0, IRREGULAR)
                    )
                except LinkRefused:
                    yield StoredObject(path, 0, REFUSED_LINK)
                except FileNotFoundError:
                    continue


class _File(io.FileIO):
    """A file of a storage, which raises StorageError where the disk gives no bytes."""

    def __init__(self, handle: int, storage: LocalStorage, path: str) -> None:
        super().__init__(handle, "rb")
        self._reading = partial(storage._reading, path)

    def readinto(self, buffer: Any) -> int | None:
        with self._reading():
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with self._reading():
            return super().readall()


def _blobs_of(root: Path) -> Path | None:
    """The blobs of Hugging Face's cache whose snapshot, or a folder of it, is `root`: NAME/snapshots/REVISION."""
    for folder in (root, *root.parents):
        if folder.name == "snapshots" and folder.parent.name.startswith(("datasets--", "models--", "spaces--")):
            return folder.parent / "blobs"
    return None


def closed_folder(folder: Path | str, path: str) -> AccessDenied:
    """Why a folder cannot be listed. It is named, since nobody could find it otherwise."""
    return AccessDenied(
        f"Cannot list the folder {folder}: this user may not enter it; change its owner or mode, move it away, or give "
        "a pattern that leaves it out.",
        path=path,
    )


def _open_regular(place: Path, storage: LocalStorage, path: str) -> BinaryIO:
    """A file to read; raises NotAFile for a pipe or a device: opening one may block, or set something off."""
    irregular = NotAFile(f"{place} is a pipe, a socket or a device and no file; it is not opened.")
    mode = place.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(place))
    if not stat.S_ISREG(mode):
        raise irregular
    # Without waiting, should it have become one meanwhile.
    handle = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    stream = io.BufferedReader(_File(handle, storage, path), _BUFFER_BYTES)
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise irregular
    return stream
