"""A file changed at random: bits, lengths, parts repeated, cut and spliced with another's, and checksums made right."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from random import Random

EXTREMES = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def mutated(random: Random, kind: str, file: bytes, other: bytes) -> bytes:
    """One to four changes; `other` is a file of the same kind."""
    if kind == "tar" and file[:2] == b"\x1f\x8b" and random.random() < 0.5:
        file = gzip.decompress(file)
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        file = _changed(random, file, other)
    return _summed(kind, file) if random.random() < 0.8 else file


def _changed(random: Random, file: bytes, other: bytes) -> bytes:
    if not file:
        return other[: random.randrange(1, len(other) + 1)]
    data, at = bytearray(file), random.randrange(len(file))
    size = min(random.choice((1, 2, 4, 16, 64, 512, 4096)), len(file) - at)
    what = random.randrange(9)
    if what == 0:
        for _ in range(random.choice((1, 1, 2, 8))):
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    elif what == 1:
        del data[at:]
    elif what == 2:
        data[at:] = other[random.randrange(len(other)) :]
    elif what == 3:
        width, order = random.choice("BHIQ"), random.choice("<>")
        number = random.choice(EXTREMES) & (256 ** struct.calcsize(width) - 1)
        data[at : at + struct.calcsize(width)] = struct.pack(order + width, number)
    elif what == 4:
        del data[at : at + size]
    elif what == 5:
        data[at:at] = data[at : at + size] * random.choice((1, 1, 2, 100))
    elif what == 6:
        data[at : at + size] = random.randbytes(size)
    elif what == 7:
        start = random.randrange(len(other))
        data[at:at] = other[start : start + size]
    else:
        data[at:at] = random.choice((b"\xff", b"\0", b"\xff\xd0", random.randbytes(size)))
    return bytes(data)


def _summed(kind: str, file: bytes) -> bytes:
    """The file with right checksums in PNG's chunks and tar's headers, so that readers go on behind them."""
    data = bytearray(file)
    if kind == "png":
        for found in re.finditer(rb"[A-Za-z]{4}", file):
            (length,) = struct.unpack(">I", file[found.start() - 4 : found.start()].rjust(4, b"\0"))
            end = found.end() + length
            if end + 4 <= len(file):
                data[end : end + 4] = struct.pack(">I", zlib.crc32(data[found.start() : end]))
    if kind == "tar":
        for at in range(0, len(file) - 511, 512):
            if file[at + 257 : at + 262] == b"ustar":
                data[at + 148 : at + 156] = b" " * 8
                data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return bytes(data)
