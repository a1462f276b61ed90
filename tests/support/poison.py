"""A program that stands in for `sandbox.worker`: a file that begins with POISON does what its next word says.

No file is known that crashes the decoders as they are installed; here they die all the same. Below are such files, and
files that ask a real decoder for memory or time without end.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
import zlib
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


# ---- files --------------------------------------------------------------------------------------------------

PROGRAM = (sys.executable, str(Path(__file__).resolve()))


def poison(what: str) -> bytes:
    """A file on which the program here does what one of _DEEDS is named."""
    return MARK + what.encode()


def thirsty_tiff(gigabytes: float) -> bytes:
    """A TIFF of 16 x 16 px in one tile (TIFF 6.0, section 15) of so many gigabytes, deflated to a thousandth."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    side = int((gigabytes * 1e9 / 3) ** 0.5) // 16 * 16
    body = b"\x78\xda" + block * (side * side * 3 // (1 << 24) + 1)
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 2, 277: 3, 284: 1, 322: side, 323: side, 324: 0, 325: len(body)}
    tags[324] = 8 + 2 + 12 * len(tags) + 4
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + rows + struct.pack("<I", 0) + body


def endless_jpeg(scans: int, side: int = 4096) -> bytes:
    """A valid progressive JPEG (ITU-T T.81, annex G) of a few bytes a scan, each of which visits every block."""
    blocks = (side // 8) ** 2
    whole, rest = divmod(blocks, 32767)
    assert whole and not rest & 1 << 14
    tables = _segment(0xDB, bytes([0] + [1] * 64)) + _segment(0xC2, struct.pack(">BHHBBBB", 8, side, side, 1, 1, 17, 0))
    for kind, symbol in ((0x00, 0), (0x10, 0xE0)):
        tables += _segment(0xC4, bytes([kind, 1] + [0] * 15 + [symbol]))
    flat = _segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + _bits("0" * blocks)
    # Runs of 32,767 blocks without a coefficient, as long as they fit.
    empty = _segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + _bits(("0" + "1" * 14) * (whole + 1))
    return b"\xff\xd8" + tables + flat + empty * scans + b"\xff\xd9"


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def _bits(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")


if __name__ == "__main__":
    main(_read)
