"""JPEG without decoding: a file's own scans under our own headers, and new pixels put into single blocks.

Most photos of a release have no face. They are released with their own entropy-coded data: no second loss, no
growth, no decoding. Every header is written here, from numbers, so nothing else of the file passes; what may hide data
(unused tables, a scan that a later one overwrites, bytes after the end) is left out or makes the file unfit. Where
faces were replaced, only the MCUs (ITU-T T.81, A.2.3) with changed pixels get new coefficients, quantized by the file's
own tables; libjpeg-turbo's lossless transform carries all others over.
"""

from __future__ import annotations

import ctypes
import importlib.util
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from ctypes.util import find_library
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anonlib.errors import NotExact

_JFIF = b"JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
ADOBE = b"Adobe\x00\x64\x00\x00\x00\x00"
"""Adobe's segment, but for its last byte, the colour transform (ITU-T T.872, 6.5.3)."""
_MOST_SEGMENTS, _MOST_SCANS = 4096, 128
_SOI, _EOI, _SOS, _DQT, _DHT, _DRI = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xDD
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_UNFIT = frozenset({*range(0xC0), *range(0xC3, 0xD8), 0xDC, 0xDE, 0xDF, _SOI} - {_DHT})
_NATURAL = sorted(range(64), key=lambda at: (at // 8 + at % 8, at // 8 if (at // 8 + at % 8) % 2 else at % 8))
"""Where each coefficient of the zigzag order lies in a block of 8 x 8 (ITU-T T.81, figure A.6)."""


class Component(NamedTuple):
    """One channel of a frame: its name, its blocks across and down an MCU, and its quantization table."""

    name: int
    across: int
    down: int
    table: int


@dataclass(frozen=True)
class Scan:
    """One scan with the tables it needs, as they were when it came."""

    header: bytes
    tables: tuple[bytes, ...]
    restart: bytes
    data: slice


@dataclass(frozen=True)
class JpegFrame:
    """The parts of a JPEG file that make its picture; `file` is all its bytes."""

    file: bytes
    marker: int
    header: bytes
    size: tuple[int, int]
    components: tuple[Component, ...]
    quantization: dict[int, bytes]
    scans: tuple[Scan, ...]
    jfif: bool
    adobe: int | None

    @property
    def is_rgb(self) -> bool:
        """Whether its three channels are red, green and blue, by libjpeg's rules; else luma and chroma."""
        names = bytes(part.name for part in self.components)
        return self.adobe == 0 if self.adobe is not None and not self.jfif else not self.jfif and names == b"RGB"

    @property
    def mcu(self) -> tuple[int, int]:
        """Rows and columns of pixels of an MCU."""
        return 8 * max(part.down for part in self.components), 8 * max(part.across for part in self.components)

    def rewritten(self, orientation: int, profile: bytes) -> bytes:
        """The same scans under headers of ours: Exif's orientation, 1 for none, and a colour `profile` or none."""
        parts = [b"\xff\xd8"]
        if self.jfif:
            parts.append(segment(0xE0, _JFIF))
        if orientation != 1:
            parts.append(segment(0xE1, exif(orientation)))
        if profile:
            parts.append(segment(0xE2, b"ICC_PROFILE\x00\x01\x01" + profile))
        if self.adobe is not None:
            parts.append(segment(0xEE, ADOBE + bytes([self.adobe])))
        parts += [segment(_DQT, self.quantization[number]) for number in sorted({c.table for c in self.components})]
        parts.append(segment(self.marker, self.header))
        written: dict[int, bytes] = {}
        restart = b"\x00\x00"
        for scan in self.scans:
            if scan.restart != restart:
                parts.append(segment(_DRI, restart := scan.restart))
            for table in scan.tables:
                if written.get(table[0]) != table:
                    parts.append(segment(_DHT, table))
                    written[table[0]] = table
            parts += [segment(_SOS, scan.header), self.file[scan.data]]
        return b"".join([*parts, b"\xff\xd9"])


def rewrite(file: bytes, orientation: int, profile: bytes) -> bytes:
    """`JpegFrame.rewritten` of a file; raises NotExact."""
    return parse(file).rewritten(orientation, profile)


def check_data(file: bytes) -> None:
    """Raises NotExact if a strictly decoded JPEG may hold more than its picture: see `parse`, and beyond its edges."""
    frame = parse(file)
    (rows, columns), (height, width) = frame.mcu, frame.size
    if len(frame.components) == 1:
        rows = columns = 8
    check_frame(height, width, rows, columns)


def check_range(file: bytes) -> None:
    """Raises NotExact if a JPEG has coefficients that no picture has: brightness beyond white hides other coefficients.

    An encoder's are at most 1,024 times 8 bits' steps (ITU-T T.81, A.3.3). This reads them all.
    """
    frame = parse(file)
    greatest: dict[int, NDArray[np.int16]] = {}  # of every column of blocks (across, 64)
    least: dict[int, NDArray[np.int16]] = {}

    def measure(number: int, top: int, held: NDArray[np.int16]) -> None:
        for row in held:
            np.maximum(row, greatest.setdefault(number, row.copy()), out=greatest[number])
            np.minimum(row, least.setdefault(number, row.copy()), out=least[number])

    _transformed(frame.rewritten(1, b""), _COPY_NONE | _NO_OUTPUT, measure)
    parts = [(greatest[number].max(axis=0), -least[number].min(axis=0).astype(np.int64)) for number in sorted(least)]
    most = np.array([np.maximum(*part) for part in parts])
    steps = np.array([_in_rows(_steps(frame.quantization[part.table])) for part in frame.components])
    if (most * steps > 1024 + steps).any() or (most[:, 1:] > 1023).any():
        raise NotExact("its coefficients are beyond those of a picture")


def check_frame(height: int, width: int, rows: int, columns: int) -> None:
    """Raises NotExact if a picture in blocks of `rows` x `columns` px has more px beyond its edges than within."""
    if -(-height // rows) * rows * -(-width // columns) * columns > 2 * height * width:
        raise NotExact("it has more pixels beyond its edges than within")


def exif(orientation: int) -> bytes:
    """An Exif body of the orientation tag alone (JEITA CP-3451, 4.6.4)."""
    return b"Exif\x00\x00" + b"MM\x00\x2a\x00\x00\x00\x08" + struct.pack(">HHHIHHI", 1, 0x112, 3, 1, orientation, 0, 0)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def parse(file: bytes) -> JpegFrame:
    """The parts of a JPEG file that can leave as they are.

    Raises NotExact for a damaged file, for one that is not 8-bit Huffman-coded DCT of one or three components, and for
    one with room for more than its picture. Data after the last MCU of a scan is left to a strict decoder, which warns.
    """
    try:
        return _parse(file)
    except (IndexError, struct.error, KeyError, ValueError) as error:
        raise NotExact(f"its headers cannot be read ({type(error).__name__})") from None


def _parse(file: bytes) -> JpegFrame:
    if file[:2] != b"\xff\xd8":
        raise NotExact("it does not begin as a JPEG")
    position, (restarts, ends) = 2, _markers(file)
    quantization: dict[int, bytes] = {}
    huffman: dict[int, bytes] = {}
    restart = b"\x00\x00"
    frame: tuple[int, bytes] | None = None
    components: tuple[Component, ...] = ()
    scans: list[Scan] = []
    jfif, adobe = False, None
    for _ in range(_MOST_SEGMENTS):
        if file[position] != 0xFF:
            raise NotExact("it has bytes between its segments")
        while file[position + 1] == 0xFF:
            position += 1
        marker = file[position + 1]
        if marker == _EOI:
            break
        if marker in _UNFIT:
            raise NotExact(f"it has a segment FF{marker:02X}")
        (length,) = struct.unpack_from(">H", file, position + 2)
        body = file[position + 4 : position + 2 + length]
        position += 2 + length
        if length < 2 or position > len(file):
            raise NotExact("a segment ends beyond the file")
        if marker == _DQT:
            if scans:
                raise NotExact("its quantization changes between scans")
            while body:
                size = {0: 65, 1: 129}[body[0] >> 4]
                quantization[body[0] & 15], body = body[:size], _rest(body, size)
        elif marker == _DHT:
            while body:
                size = 17 + sum(body[1:17])
                huffman[body[0]], body = body[:size], _rest(body, size)
        elif marker == _DRI:
            restart = body[:2]
        elif marker in (*_SEQUENTIAL, _PROGRESSIVE):
            if frame:
                raise NotExact("it has two frames")
            frame, components = (marker, body), _components(body)
        elif marker == 0xE0 and body[:5] == b"JFIF\x00" and len(body) >= len(_JFIF) and not scans:
            jfif = True  # by libjpeg's rules, as Adobe's
        elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= len(ADOBE) + 1 and not scans:
            adobe = body[11]
        elif marker == _SOS:
            if frame is None or len(scans) == _MOST_SCANS:
                raise NotExact("it has a scan too many")
            start, position = position, int(ends[np.searchsorted(ends, position)])
            within = restarts[slice(*np.searchsorted(restarts, (start, position)))]
            _check_restarts(file, within, _mcus(frame[1], components, body), int.from_bytes(restart))
            scans.append(Scan(body, _tables(frame[0], body, huffman), restart, slice(start, position)))
    else:
        raise NotExact("it has too many segments")
    if frame is None or not scans:
        raise NotExact("it has no picture")
    _check_scans(frame[0], components, scans)
    header = frame[1]
    quantization = {c.table: quantization[c.table] for c in components}
    if any(not _steps(table).all() for table in quantization.values()):
        raise NotExact("its quantization makes coefficients invisible")
    height, width = struct.unpack_from(">HH", header, 1)
    return JpegFrame(file, frame[0], header, (height, width), components, quantization, tuple(scans), jfif, adobe)


def _markers(file: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where restarts and other ends of a scan stand: FF without a stuffed zero behind it."""
    values = np.frombuffer(file, np.uint8)
    stops = np.flatnonzero(values[:-1] == 0xFF)
    stops = stops[values[stops + 1] != 0]
    restarts = values[stops + 1] & 0xF8 == 0xD0
    return stops[restarts], stops[~restarts]


def _mcus(header: bytes, components: tuple[Component, ...], scan: bytes) -> int:
    """How many MCUs a scan has (ITU-T T.81, A.2)."""
    size = struct.unpack_from(">HH", header, 1)
    most = [max(part.down for part in components), max(part.across for part in components)]
    if scan[0] > 1:
        down, across = (-(-side // (8 * factor)) for side, factor in zip(size, most, strict=True))
    else:
        part = {part.name: part for part in components}[scan[1]]
        sides = [-(-side * own // f) for side, own, f in zip(size, (part.down, part.across), most, strict=True)]
        down, across = (-(-side // 8) for side in sides)
    return int(down * across)


def _check_restarts(file: bytes, restarts: NDArray[np.int64], mcus: int, interval: int) -> None:
    """Raises NotExact unless restarts come as often as they must and in turn: their numbers could carry a message."""
    numbers = np.frombuffer(file, np.uint8)[restarts + 1] & 7
    if len(numbers) != ((mcus - 1) // interval if interval else 0) or (numbers != np.arange(len(numbers)) % 8).any():
        raise NotExact("a scan has restarts that are not in turn")


def _rest(body: bytes, size: int) -> bytes:
    if len(body) < size:
        raise NotExact("a table is cut off")
    return body[size:]


def _components(header: bytes) -> tuple[Component, ...]:
    precision, height, width, count = struct.unpack_from(">BHHB", header)
    if precision != 8 or count not in (1, 3) or not height or not width or len(header) != 6 + 3 * count:
        raise NotExact("it is not of one or three channels of 8 bits")
    parts = [header[6 + 3 * number : 9 + 3 * number] for number in range(count)]
    found = tuple(Component(name, factors >> 4, factors & 15, table) for name, factors, table in parts)
    if len({part.name for part in found}) < count or any(not (0 < p.across <= 4 and 0 < p.down <= 4) for p in found):
        raise NotExact("its channels are named or sampled in no valid way")
    return found


def _steps(table: bytes) -> NDArray[np.float64]:
    """The 64 steps of a quantization table, in zigzag order."""
    return np.frombuffer(table[1:], ">u2" if table[0] >> 4 else np.uint8).astype(np.float64)


def _in_rows(zigzag: NDArray[np.float64]) -> NDArray[np.float64]:
    """64 values of the zigzag order in that of rows, which coefficients have here."""
    rows = np.empty(64)
    rows[_NATURAL] = zigzag
    return rows


def _tables(marker: int, header: bytes, huffman: dict[int, bytes]) -> tuple[bytes, ...]:
    """The Huffman tables that a scan uses."""
    count = header[0]
    selectors = header[2 : 2 + 2 * count : 2]
    first, _, approximation = header[1 + 2 * count : 4 + 2 * count]
    direct = not first and (marker != _PROGRESSIVE or approximation < 16)
    alternating = bool(first) or marker != _PROGRESSIVE
    names = {s >> 4 for s in selectors if direct} | {16 | (s & 15) for s in selectors if alternating}
    return tuple(huffman[name] for name in sorted(names))


def _check_scans(marker: int, components: tuple[Component, ...], scans: list[Scan]) -> None:
    """Raises NotExact unless each bit of each coefficient comes once: a later scan hides bits that it overwrites."""
    levels = {part.name: np.full(64, -1) for part in components}  # bits that are still to come, -1 for all
    for scan in scans:
        header, count = scan.header, scan.header[0]
        if len(header) != 4 + 2 * count or not 0 < count <= 4:
            raise NotExact("a scan has no valid header")
        first, last, bits = header[1 + 2 * count :]
        if marker != _PROGRESSIVE:
            first, last, bits = 0, 63, 0
        elif last > 63 or first > last or (first == 0) != (last == 0):
            raise NotExact("a scan has no valid band")
        for name in header[1 : 1 + 2 * count : 2]:
            if name not in levels:
                raise NotExact("a scan is of an unknown channel")
            band = levels[name][first : last + 1]
            if (np.maximum(band, 0) != bits >> 4).any() or (band == 0).any():
                raise NotExact("a scan repeats another")
            band[:] = bits & 15
    if any(level.any() for level in levels.values()):
        raise NotExact("a channel has no scan, or a scan is missing")  # which viewers make up for in ways of their own


# ---- new pixels -----------------------------------------------------------------------------------------------


def touched_mcus(frame: JpegFrame, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which MCUs (down, across) differ between two pictures (H, W, 3) as the file stores them."""
    differs, mask = before != after, np.zeros(before.shape[:2], bool)
    rows = np.flatnonzero(differs.reshape(len(differs), -1).any(axis=1))
    within = slice(rows[0], rows[-1] + 1) if len(rows) else slice(0)
    mask[within] = differs[within, :, 0] | differs[within, :, 1] | differs[within, :, 2]
    return reached_mcus(frame, mask)


def reached_mcus(frame: JpegFrame, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which MCUs (down, across) a mask (H, W) of pixels reaches."""
    (rows, columns), (height, width) = frame.mcu, frame.size
    whole = np.zeros((-(-height // rows) * rows, -(-width // columns) * columns), bool)
    whole[:height, :width] = mask
    down = whole.shape[0] // rows
    bands = np.asarray(whole.reshape(down, rows, -1).any(axis=1))  # along whole rows first, which is fast
    return np.asarray(bands.reshape(down, -1, columns).any(axis=2))


def pixels_of(rgb: NDArray[np.uint8], frame: JpegFrame, touched: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The pixels (n, rows, columns, 3) of the touched MCUs of a picture; beyond its edge its last pixels repeat."""
    (rows, columns), across, held = frame.mcu, touched.shape[1], np.flatnonzero(touched.any(axis=1))
    first, end = (held[0], held[-1] + 1) if len(held) else (0, 0)
    part, touched = rgb[first * rows : end * rows], touched[first:end]
    beyond = (len(touched) * rows - len(part), across * columns - rgb.shape[1])
    whole = np.pad(part, ((0, beyond[0]), (0, beyond[1]), (0, 0)), "edge") if any(beyond) else part
    return whole.reshape(len(touched), rows, across, columns, 3).swapaxes(1, 2)[touched]


def replace_mcus(frame: JpegFrame, touched: NDArray[np.bool_], pixels: NDArray[np.uint8]) -> bytes:
    """The file with new pixels (n, rows, columns, 3) in its touched MCUs (down, across), every other coefficient kept.

    Progressive stays progressive. Raises NotExact where sampling is uneven or libjpeg-turbo refuses the file.
    """
    rows, columns = np.nonzero(touched)
    starts = np.flatnonzero(np.diff(rows, prepend=-1)).tolist()
    new: list[dict[int, tuple[NDArray[np.int64], NDArray[np.int16]]]] = []
    for part, plane in zip(frame.components, _blocks(frame, pixels), strict=True):  # (n, down, across, 64)
        x = columns[:, None] * part.across + np.arange(part.across)
        new.append({})
        for of_row in map(slice, starts, [*starts[1:], len(rows)]):
            for down in range(part.down):
                place = int(rows[of_row.start]) * part.down + down
                new[-1][place] = x[of_row].ravel(), plane[of_row, down].reshape(-1, 64)

    def put(number: int, top: int, held: NDArray[np.int16]) -> None:
        for y in range(len(held)):
            if (row := new[number].get(top + y)) is not None:
                x, blocks = row
                within = np.searchsorted(x, held.shape[1])  # an MCU may reach beyond the picture
                held[y, x[:within]] = blocks[:within]

    options = _COPY_NONE | (_AS_PROGRESSIVE if frame.marker == _PROGRESSIVE else 0)
    return _transformed(frame.rewritten(1, b""), options, put, new)


def coefficients(frame: JpegFrame) -> list[NDArray[np.int16]]:
    """The quantized coefficients (down, across, 64) of each channel's blocks. Raises NotExact as replace_mcus."""
    rows: list[dict[int, NDArray[np.int16]]] = [{} for _ in frame.components]

    def copy(number: int, top: int, held: NDArray[np.int16]) -> None:
        rows[number][top] = held.copy()

    _transformed(frame.rewritten(1, b""), _COPY_NONE | _NO_OUTPUT, copy)
    return [np.concatenate([part[top] for top in sorted(part)]) for part in rows]


def _blocks(frame: JpegFrame, pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.int16]]:
    """Quantized coefficients (n, down, across, 64) of each channel of MCUs (n, rows, columns, 3)."""
    (rows, columns), shrunk = frame.mcu, dict[tuple[int, int], NDArray[np.float64]]()
    for number, part in enumerate(frame.components):
        if rows % (8 * part.down) or columns % (8 * part.across):
            raise NotExact("its channels are sampled unevenly")
        size = high, wide = rows // (8 * part.down), columns // (8 * part.across)
        if size not in shrunk:
            shrunk[size] = _shrunk(pixels, high, wide)
        if len(frame.components) == 1 or not frame.is_rgb:
            values = shrunk[size] @ _TO_YCC[number] + (128.0 if number else 0.0)
        else:
            values = shrunk[size][:, number]
        shape = len(pixels), part.down, 8, part.across, 8
        levels = values.reshape(shape).transpose(0, 1, 3, 2, 4) - 128.0
        coefficients = levels.reshape(-1, 64) @ _DCT2
        coefficients /= _in_rows(_steps(frame.quantization[part.table]))
        np.clip(coefficients, -1023, 1023, out=coefficients)
        yield np.rint(coefficients).astype(np.int16).reshape(*levels.shape[:3], 64)


def _shrunk(pixels: NDArray[np.uint8], high: int, wide: int) -> NDArray[np.float64]:
    """The means (m, 3) of boxes of `high` x `wide` px of MCUs (n, rows, columns, 3), row by row."""
    if high * wide == 1:
        return pixels.reshape(-1, 3).astype(np.float64)
    count, rows, columns, _ = pixels.shape
    lines = pixels.reshape(count, rows, columns * 3).astype(np.uint16)
    sums = np.add.reduce([lines[:, y::high] for y in range(high)])
    boxes = sums.reshape(count, rows // high, columns // wide, 3 * wide)
    whole = np.add.reduce([boxes[..., 3 * x : 3 * x + 3] for x in range(wide)])
    return np.asarray(whole.reshape(-1, 3) / (wide * high))


_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]])
"""JFIF's luma and chroma of red, green and blue (ITU-T T.871, 7)."""
_DCT = np.array([[np.cos((2 * x + 1) * u * np.pi / 16) / (2 if u else 8**0.5) for x in range(8)] for u in range(8)])
_DCT2 = np.kron(_DCT, _DCT).T
"""The DCT of 8 values, and of 8 x 8 in rows (64, 64) (ITU-T T.81, A.3.3)."""


class _Region(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_int), ("w", ctypes.c_int), ("h", ctypes.c_int)]


_FILTER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, _Region, _Region, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)


class _Transform(ctypes.Structure):
    _fields_ = [
        ("r", _Region), ("op", ctypes.c_int), ("options", ctypes.c_int), ("data", ctypes.c_void_p), ("filter", _FILTER)
    ]  # fmt: skip


_TRANSFORM, _NO_OUTPUT, _AS_PROGRESSIVE, _COPY_NONE = 2, 16, 32, 64


@cache
def _library() -> ctypes.CDLL:
    """libjpeg-turbo 3 from the wheel of `turbojpeg`, or the system's; raises NotExact where there is neither."""
    wheel = importlib.util.find_spec("turbojpeg")
    home = Path(wheel.origin).parent if wheel and wheel.origin else Path()
    files = [str(path) for path in sorted(home.glob("turbojpeg.libs/libturbojpeg*"))] or [
        find_library("turbojpeg") or ""
    ]
    try:
        library = ctypes.CDLL(files[0])
        library.tj3Init.restype = ctypes.c_void_p
        library.tj3GetErrorStr.restype = ctypes.c_char_p
    except (OSError, AttributeError):
        raise NotExact("libjpeg-turbo 3 is not installed (pip install turbojpeg)") from None
    return library


def _transformed(
    file: bytes,
    options: int,
    see: Callable[[int, int, NDArray[np.int16]], None],
    wanted: Sequence[Mapping[int, object]] | None = None,
) -> bytes:
    """The file as libjpeg-turbo writes it again, after `see` had each part of its coefficients.

    `see` gets a channel's number, the first block row of the part, and its blocks (rows, across, 64), which it may
    change in place. `wanted`: block rows of each channel, without which `see` is not asked.
    """
    failures: list[Exception] = []

    def customized(values: Any, part: _Region, plane: _Region, number: int, transform: int, data: Any) -> int:
        top, down, across = part.y // 8, part.h // 8, part.w // 8
        if wanted is not None and wanted[number].keys().isdisjoint(range(top, top + down)):
            return 0
        try:
            held = (ctypes.c_short * (down * across * 64)).from_address(values)
            see(number, top, np.frombuffer(held, np.int16).reshape(down, across, 64))
        except Exception as error:  # noqa: BLE001  it cannot pass through C, so it is raised below
            failures.append(error)
        return -bool(failures)

    library = _library()
    handle = ctypes.c_void_p(library.tj3Init(_TRANSFORM))
    out, size = ctypes.c_void_p(), ctypes.c_size_t()
    task = _Transform(options=options, filter=_FILTER(customized))
    try:
        refused = library.tj3Transform(
            handle, file, ctypes.c_size_t(len(file)), 1, ctypes.byref(out), ctypes.byref(size), ctypes.byref(task)
        )
        if failures:
            raise failures[0]
        if refused:
            raise NotExact(f"libjpeg-turbo: {library.tj3GetErrorStr(handle).decode(errors='replace')[:100]}")
        return ctypes.string_at(out.value or 0, size.value)
    finally:
        library.tj3Free(out)
        library.tj3Destroy(handle)
