"""Which runs are at work on a workspace: each keeps a small file there, and writes it again every few seconds.

A purge, and a run that takes back what a reviewer decided otherwise, must not begin beside another run. No clocks are
compared: a file that changes while it is watched belongs to a living run.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

from anonlib.errors import AccessDenied, StorageError, WorkspacePurged
from anonlib.storage import OURS, Storage

BEAT_S = 5.0
WATCH_S = 20.0
"""A run whose file did not change for so long is not at work."""

_PREFIX = f"{OURS}run-"
Write = Callable[[], None]


class Lease:
    """This run's file in a workspace, held while a verb of its job runs; a role that may not write keeps none."""

    def __init__(self, workspace: Storage, retried: Callable[[Write], None] = lambda write: write()) -> None:
        """`retried` runs the first write, and again where the storage is only busy."""
        self.workspace, self._retried = workspace, retried
        self._path = f"{_PREFIX}{_machine()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._is_held = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the file up while the block runs. Raises StorageError."""
        if self._is_held:
            yield
            return
        try:
            self._retried(lambda: self.workspace.publish(self._path, b"0\n"))
        except AccessDenied:
            yield
            return
        self._is_held, ended = True, threading.Event()
        beating = threading.Thread(target=self._beat, args=(ended,), daemon=True)
        beating.start()
        try:
            yield
        finally:
            self._is_held = False
            ended.set()
            beating.join()
            try:
                self.workspace.delete(self._path)
            except StorageError as error:
                # A file that does not change any more says the same.
                logging.getLogger(__name__).warning("%s", error)

    def _beat(self, ended: threading.Event) -> None:
        number = 0
        while not ended.wait(BEAT_S):
            number += 1
            try:
                self.workspace.publish(self._path, f"{number}\n".encode())
            except WorkspacePurged:
                return
            except StorageError as error:
                # The run's own writes stop it where the storage fails, not this one.
                logging.getLogger(__name__).warning("%s", error)

    def beside(self) -> str | None:
        """Another run that is at work on the workspace, as "process 12 on host"; None if there is none."""
        return at_work(self.workspace, but=self._path)


def at_work(workspace: Storage, *, but: str = "", wait: Callable[[float], None] = time.sleep) -> str | None:
    """A run that is at work on the workspace, None if there is none; watches files of unknown runs for WATCH_S."""
    first = {path: etag for path, etag in _files(workspace).items() if path != but and not _ended_here(path)}
    deadline = time.monotonic() + WATCH_S
    while first and time.monotonic() < deadline:
        wait(1.0)
        now = _files(workspace)
        first = {path: etag for path, etag in first.items() if path in now}
        for path, etag in first.items():
            if now[path] != etag:
                machine, process = path.removeprefix(_PREFIX).rsplit("-", 2)[:2]
                return f"process {process} on {machine}"
    return None


def _files(workspace: Storage) -> dict[str, str]:
    return {entry.path: entry.etag for entry in workspace.list(_PREFIX, unfinished=True)}


def _machine() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname()) or "_"


def _ended_here(path: str) -> bool:
    """Whether the file names a process of this machine that is no more."""
    machine, process, _ = path.removeprefix(_PREFIX).rsplit("-", 2)
    if machine != _machine():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
