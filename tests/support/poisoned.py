"""A program that stands in for `sandbox.worker`: a file that begins with POISON does what its next word says.

No file is known that crashes the decoders as they are installed; here they die all the same.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from anonlib.codes import Reason
from anonlib.errors import ImageProblem
from anonlib.media.codec import Picture, decode
from anonlib.media.sandbox.worker import ANSWER, main
from tests.support.probe import attempts

MARK = b"POISON "

_FOLDER = str(Path.cwd())

_one_more_kills = False


def _hoard() -> None:
    hoard = [np.ones(1 << 22) for _ in itertools.count()]
    raise AssertionError(f"{len(hoard)} is not without end")


def _kill_the_next() -> None:
    global _one_more_kills
    _one_more_kills = True


def _stdin() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=0)


def _open_files() -> int:
    """How many, by poll(2), which says of a number that is no open file that it is invalid: /proc is out of reach."""
    found = 0
    for start in range(0, 64, 8):
        asked = select.poll()
        for number in range(start, start + 8):
            asked.register(number)
        found += 8 - sum(event == select.POLLNVAL for _, event in asked.poll(0))
    return found


def _probe(where: str) -> None:
    """Raises the names of what a decoder that was taken over could do."""
    raise ImageProblem(Reason.DAMAGED, json.dumps(attempts(**json.loads(where))))


def _tell_all() -> None:
    limits = [getattr(resource, f"RLIMIT_{name}") for name in ("CORE", "FSIZE", "NPROC", "NOFILE", "AS")]
    told = {
        "environment": sorted(os.environ),
        "folder": _FOLDER,
        "files": _open_files(),
        "limits": [resource.getrlimit(limit)[0] for limit in limits],
    }
    raise ImageProblem(Reason.DAMAGED, json.dumps(told))


def _say(answer: bytes) -> None:
    os.write(0, answer)
    time.sleep(600)


def _answer(body: bytes, more: bytes = b"") -> None:
    _say(ANSWER.pack(len(body)) + body + more)


def _lie(more: bytes = b"", **wrong: object) -> None:
    told = {"rows": 8, "columns": 8, "alpha": False, "format": "JPEG", "space": None}
    told |= {"stripped": [], "notes": [], "height": 8, "width": 8} | wrong
    _answer(json.dumps(list(told.values())).encode(), more)


_DEEDS: dict[str, Callable[..., object]] = {
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "abort": os.abort,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(1),
    "sleep": lambda: time.sleep(600),
    "hoard": _hoard,
    "rubbish": lambda: _say(b"rubbish!" * 100),
    "half": lambda: (os.write(0, b"\1"), os._exit(0)),
    "a profile": lambda: _lie(space="Ada Quill's iMac"),
    "hang up": lambda: (_stdin().shutdown(socket.SHUT_RDWR), time.sleep(600)),
    "huge json": lambda: _say(ANSWER.pack(1 << 31) + b"{"),
    "no json": lambda: _answer(b"{'rows': __import__('os')}"),
    "beyond": lambda: _lie(rows=1 << 20, height=1 << 20),
    "larger": lambda: _lie(rows=16),
    "negative": lambda: _lie(rows=-8),
    "format": lambda: _lie(format="EXE"),
    "more": lambda: _lie(b"x"),
    "escapes": lambda: _lie(notes=["\x1b[2J"]),
    "the next": _kill_the_next,
    "tell": _tell_all,
    "probe": _probe,
}


def _read(data: bytes, **options: Any) -> Picture:
    if _one_more_kills:
        _DEEDS["segfault"]()
    if data.startswith(MARK):
        deed, _, rest = data.removeprefix(MARK).decode().partition(": ")
        _DEEDS[deed](*filter(None, [rest]))
        raise ImageProblem(Reason.DAMAGED, "nothing happened")
    return decode(data, **options)


if __name__ == "__main__":
    main(_read)
