"""A file changed at random: bits, lengths, parts repeated, swapped, cut, and spliced with another's."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from random import Random

EXTREMES = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)

Parts = list[bytes]


def mutated(random: Random, kind: str, file: bytes, other: bytes) -> bytes:
    """One to four changes; `other` is a file of the same kind."""
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        structured = kind in _SPLIT and random.random() < 0.6
        file = (_of_parts if structured else _of_bytes)(random, kind, file, other)
    return file


def _of_bytes(random: Random, kind: str, file: bytes, other: bytes) -> bytes:
    if not file:
        return other[: random.randrange(1, len(other) + 1)]
    data, at = bytearray(file), random.randrange(len(file))
    size = min(random.choice((1, 2, 4, 16, 64, 512, 4096)), len(file) - at)
    what = random.randrange(8)
    if what == 0:
        for _ in range(random.choice((1, 1, 2, 8))):
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    elif what == 1:
        del data[at:]
    elif what == 2:
        start = random.randrange(len(other))
        data[at:] = other[start:]
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
    else:
        data[at:at] = random.choice((b"\xff", b"\0", b"\xff\xd0", random.randbytes(size)))
    return bytes(data)


def _of_parts(random: Random, kind: str, file: bytes, other: bytes) -> bytes:
    """Changes parts (segments, chunks, blocks) and makes checksums right again."""
    split, join = _SPLIT[kind]
    parts, donor = split(file), split(other)
    if len(parts) < 2:
        return _of_bytes(random, kind, file, other)
    at, to = random.randrange(len(parts)), random.randrange(len(parts))
    what = random.randrange(7)
    if what == 0:
        parts.insert(to, parts[at])
    elif what == 1:
        parts[at], parts[to] = parts[to], parts[at]
    elif what == 2:
        del parts[at]
    elif what == 3 and donor:
        parts.insert(at, random.choice(donor))
    elif what == 4:
        parts[at : at + 1] = parts[at : at + 1] * random.choice((3, 50, 300))
    elif what == 5:
        parts = parts[:at] + donor[random.randrange(len(donor) + 1) :]
    else:
        parts[at] = _of_bytes(random, kind, parts[at], other)
    return join(parts) if parts else b""


def _segments(file: bytes) -> Parts:
    """A JPEG's SOI, segments, and entropy-coded data."""
    parts, at = [file[:2]], 2
    while at + 4 <= len(file) and file[at] == 0xFF:
        end = at + 2 + int.from_bytes(file[at + 2 : at + 4], "big")
        if file[at + 1] == 0xD9:
            break
        parts.append(file[at:end])
        if file[at + 1] == 0xDA:
            stop = end
            while stop < len(file) and not (file[stop] == 0xFF and file[stop + 1 : stop + 2] not in _IN_SCAN):
                stop += 1
            parts.append(file[end:stop])
            end = stop
        at = max(end, at + 2)
    return [*parts, file[at:]]


_IN_SCAN = {b"\0", b"\xff", *(bytes([marker]) for marker in range(0xD0, 0xD8))}


def _chunks(file: bytes) -> Parts:
    """A PNG's signature and chunks, without lengths and sums."""
    parts, at = [file[:8]], 8
    while at + 12 <= len(file):
        (length,) = struct.unpack_from(">I", file, at)
        parts.append(file[at + 4 : at + 8 + length])
        at += 12 + length
    return parts


def _from_chunks(parts: Parts) -> bytes:
    heads = [struct.pack(">I", max(len(part) - 4, 0)) for part in parts]
    sums = [struct.pack(">I", zlib.crc32(part)) for part in parts]
    return parts[0] + b"".join(map(b"".join, zip(heads[1:], parts[1:], sums[1:], strict=True)))


def _riff(file: bytes) -> Parts:
    parts, at = [file[:12]], 12
    while at + 8 <= len(file):
        (length,) = struct.unpack_from("<I", file, at + 4)
        parts.append(file[at : at + 4] + file[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    return parts


def _from_riff(parts: Parts) -> bytes:
    heads = [part[:4].ljust(4) + struct.pack("<I", max(len(part) - 4, 0)) for part in parts]
    body = b"".join(head + part[4:] + bytes(len(part) % 2) for head, part in zip(heads[1:], parts[1:], strict=True))
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _blocks(file: bytes) -> Parts:
    if file[:2] == b"\x1f\x8b":
        try:
            file = gzip.decompress(file)
        except (OSError, EOFError, zlib.error):
            return [file]
    return [file[at : at + 512] for at in range(0, len(file), 512)]


def _from_blocks(parts: Parts) -> bytes:
    """Blocks that look like headers get a right checksum."""
    return b"".join(_summed(part) if part[257:262] == b"ustar" else part for part in parts)


def _summed(header: bytes) -> bytes:
    total = sum(header[:148]) + 256 + sum(header[156:])
    return header[:148] + b"%06o\0 " % (total & 0o777777) + header[156:]


_SPLIT: dict[str, tuple[Callable[[bytes], Parts], Callable[[Parts], bytes]]] = {
    "jpeg": (_segments, b"".join),
    "png": (_chunks, _from_chunks),
    "webp": (_riff, _from_riff),
    "tar": (_blocks, _from_blocks),
}
