"""Kills a job with SIGKILL at a chosen gap of its writes, in a process of its own, as often as it is told to.

A gap is before a write, in the middle of it (half of its bytes are in the unfinished file, or at the server) or after
the last one; "before" the next write is after this one. This process imports what a job needs and then forks for every
run, so a run costs its work and no imports; nothing is loaded before a fork that would not survive it.

    python gaps.py JOB.yaml GAP...      one run a gap, and a last one that is left alone; prints a line of JSON for each
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from anonlib.config import JobConfig, load_config
from anonlib.pipeline.job import Job
from anonlib.storage import local
from anonlib.storage.local import LocalStorage
from anonlib.storage.s3 import S3Storage

WRITES = ("publish", "claim", "delete")
END = "before the end"


def gaps_of(writes: list[str]) -> list[str]:
    """Every gap of a run that made these writes."""
    return [*(f"{when} {write}" for write in writes for when in ("before", "middle")), END]


def run(config: JobConfig, gap: str | None) -> tuple[int, list[str]]:
    """Run the job in a child that is killed at `gap`; returns how it ended (0, or -9) and the writes it began."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _work(config, gap, writer)
    os.close(writer)
    with os.fdopen(reader) as told:
        writes = told.read().splitlines()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), writes


def _work(config: JobConfig, gap: str | None, told: int) -> NoReturn:
    # The secret of a job that has none is drawn; here every job draws the same.
    secrets.token_hex = lambda size: "5e" * size

    def watched(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, path: str, *rest: Any, **named: Any) -> Any:
            write = f"{name} {self.uri.rpartition('/')[2]}/{path}"
            if gap == f"before {write}":
                _die()
            os.write(told, f"{write}\n".encode())
            if gap == f"middle {write}":
                _die_in_the_middle()
            return method(self, path, *rest, **named)

        return call

    for kind in (LocalStorage, S3Storage):
        for name in WRITES:
            setattr(kind, name, watched(name, getattr(kind, name)))
    code = 1
    try:
        code = Job(config).run().code
        if gap == END:
            _die()
    finally:
        os._exit(code)


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nothing survives this")


def _die_in_the_middle() -> None:
    """The next file that is flushed keeps half of its bytes; the next body that is sent, half of what is sent."""

    def half_a_file(handle: int) -> None:
        os.truncate(f"/proc/self/fd/{handle}", os.fstat(handle).st_size // 2)
        _die()

    def half_a_body(self: socket.socket, data: Any, *flags: int) -> None:
        if bytes(data[:4]) == b"PUT ":
            send(self, data, *flags)
            return
        send(self, data[: len(data) // 2], *flags)
        _die()

    send = socket.socket.sendall
    socket.socket.sendall = half_a_body  # type: ignore[assignment, method-assign]
    local.os.fsync = half_a_file  # type: ignore[assignment]


def main() -> None:
    config = load_config(Path(sys.argv[1]))
    for gap in (*sys.argv[2:], None):
        print(json.dumps(run(config, gap)), flush=True)


if __name__ == "__main__":
    main()
