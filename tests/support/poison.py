"""Files that are poison to a decoder (memory or time without end, deeds of `poisoned`), and jobs that decode them."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

from tests.support import poisoned

PROGRAM = (sys.executable, str(Path(poisoned.__file__).resolve()))


def poison(what: str) -> bytes:
    """A file on which the program here does what one of `poisoned`'s deeds is named."""
    return poisoned.MARK + what.encode()


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
