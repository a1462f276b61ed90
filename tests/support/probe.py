"""What a file that has taken a decoder over would try: each attempt is made, and those that succeed are named."""

from __future__ import annotations

import ctypes
import encodings.idna  # noqa: F401 - else connecting would import it, where nothing can be imported any more
import os
import socket
from collections.abc import Callable
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_PTRACE_SEIZE = 0x4206
_PIDFD_OPEN = 434


def attempts(secret: str, port: int, folder: str) -> list[str]:
    """Names of what worked: on a `secret` file, a listening `port` of 127.0.0.1 and a `folder` that can be written."""
    parent, here = os.getppid(), Path(folder)
    tries: dict[str, Callable[[], object]] = {
        "environment of the parent": lambda: _first(f"/proc/{parent}/environ"),
        "memory of the parent": lambda: os.close(os.open(f"/proc/{parent}/mem", os.O_RDONLY)),
        "own files in /proc": lambda: list(Path("/proc/self/fd").iterdir()),
        "the secret": lambda: _first(secret),
        "a list of files": lambda: list(here.iterdir()),
        "a new folder": lambda: (here / "folder").mkdir(),
        "a new file": lambda: (here / "file").write_bytes(b""),
        "a new link": lambda: (here / "link").symlink_to(secret),
        "a new name": lambda: Path(secret).rename(secret),
        "a file in memory": lambda: os.close(os.memfd_create("more")),
        "a connection": lambda: socket.create_connection(("127.0.0.1", port), 5).close(),
        "a socket": lambda: socket.socket(socket.AF_UNIX).close(),
        "a trace of the parent": lambda: _zero(_LIBC.ptrace(_PTRACE_SEIZE, parent, 0, 0)),
        "a handle of the parent": lambda: os.close(_positive(_LIBC.syscall(_PIDFD_OPEN, parent, 0))),
        "a signal to the parent": lambda: os.kill(parent, 0),
        "a program": _execute,
    }
    return [name for name, attempt in tries.items() if _works(attempt)]


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


def _first(path: str) -> bytes:
    with open(path, "rb") as stream:  # noqa: PTH123 - no more calls than opening takes
        return stream.read(1)


def _zero(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "refused")


def _positive(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def _execute() -> None:
    """In a copy of this process if there can be one, else in its place: then there is no answer."""
    try:
        copy = os.fork()
    except OSError:
        os.execv("/bin/true", ["true"])
    if copy == 0:
        try:
            os.execv("/bin/true", ["true"])
        finally:
            os._exit(1)
    _zero(os.waitpid(copy, 0)[1])
