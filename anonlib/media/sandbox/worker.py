"""The program of a decoder process: it decodes untrusted photos and may die of one.

It sits at one end of a socket, its stdin: a request is a file, an answer is JSON; pixels go through shared memory. Once
its libraries are loaded it gives up all rights that a decoder does not need (confinement.py, setrlimit(2)). It ends
with the socket when the process that started it is gone; while it decodes, a timer (setitimer(2)) ends it.
"""

from __future__ import annotations

import io
import json
import math
import mmap
import os
import pickle
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    Image,
    ImageCms,
    ImageFilter,
    ImagePalette,
    Jpeg2KImagePlugin,
    MpoImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from anonlib.codes import Reason
from anonlib.errors import ImageProblem, NotExact, OutOfMemory
from anonlib.media import exact
from anonlib.media.codec import Picture, decode, decoded_bytes
from anonlib.media.colour import profile_of
from anonlib.media.sandbox.confinement import LAYERS, bound_heap, confine

READY = struct.Struct("<5sB")
"""The word READY_WORD, and a bit for each of LAYERS that the kernel granted."""
READY_WORD = b"ready"
REQUEST = struct.Struct("<BQQi")
"""The kind of request, bytes of the file and of the extra data behind it, and the least side, -1 for none."""
DECODE, HEADER, REPLACE, COMPARE = range(4)
"""Pixels of a photo, how many bytes they would be, a JPEG with new pixels in some MCUs, blocks in which two differ.

The last two come with a pickle of what `exact` needs beside the file. It is made by the process that started this one,
so it may be read; what this one answers is never unpickled there.
"""
ANSWER = struct.Struct("<I")
"""Bytes of JSON that follow."""
OUT_OF_MEMORY = 3
"""The exit code of a child that could not get the memory which a photo asked for."""

_PX_BYTES = 48  # 32-bit pixels pass through three arrays of float64 on their way to 8 bits
_SPARE_BYTES = 128 << 20
_LIMITS = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_NPROC: 0, resource.RLIMIT_NOFILE: 16}
_GRACE = 2.0  # the caller says that it takes too long; the alarm is for a process without a caller
# Pillow imports these when a photo first needs them, which is too late once no file can be opened.
_PLUGINS = (
    *(ImageCms, ImageFilter, ImagePalette),
    *(AvifImagePlugin, Jpeg2KImagePlugin, MpoImagePlugin, TiffImagePlugin, WebPImagePlugin),
)


def shared_bytes(max_mpx: float) -> int:
    """Bytes of three channels and an alpha of the largest photo."""
    return 4 * math.ceil(max_mpx * 1e6)


def main(read: Callable[..., Picture] = decode) -> None:
    """Serve photo after photo until the socket ends; the last three arguments are its `DecoderProcess`'s."""
    max_mpx, seconds = float(sys.argv[-2]), float(sys.argv[-1])
    channel, shared = channel_and_memory(shared_bytes(max_mpx))
    bound_heap()
    Image.preinit()
    _load_what_comes_late()
    in_use = confined(channel)

    def answer(wanted: int, size: int, more: int, side: int) -> Any:
        least_side = None if side < 0 else side
        pixels = 0 if wanted == HEADER else round(max_mpx * 1e6 * _PX_BYTES)
        limit_memory(in_use + (size + more) * 2 + pixels + _SPARE_BYTES)
        file, extra = received(channel, size), received(channel, more)
        if wanted == HEADER:
            return decoded_bytes(file, least_side=least_side)
        if wanted == REPLACE:
            return _replace(file, pickle.loads(extra), shared)
        if wanted == COMPARE:
            return exact.changed_blocks(file, *pickle.loads(extra))
        return _described(read(file, max_mpx=max_mpx, least_side=least_side, into=shared), shared)

    serve(channel, REQUEST, seconds, answer)


def serve(channel: socket.socket, request: struct.Struct, seconds: float, answer: Callable[..., Any]) -> None:
    """Send `answer` of each request's numbers as JSON until the socket ends; a problem is its reason and its words.

    An answer that takes longer than `seconds`, or more memory than there is, ends the process.
    """
    while packed := received(channel, request.size):
        signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE)
        told: Any
        try:
            try:
                told = answer(*request.unpack(packed))
            except OutOfMemory:
                raise
            except NotExact as problem:
                told = (Reason.ENCODE_FAILED, str(problem))
            except ImageProblem as problem:
                told = (problem.reason, str(problem))
            body = json.dumps(told).encode()
        except (MemoryError, OutOfMemory):
            os._exit(OUT_OF_MEMORY)
        signal.setitimer(signal.ITIMER_REAL, 0)
        channel.sendall(ANSWER.pack(len(body)) + body)


def channel_and_memory(size: int) -> tuple[socket.socket, NDArray[np.uint8]]:
    """The socket, and the (size,) bytes that are shared with the caller."""
    shared_fd = int(sys.argv[-3])
    channel = socket.socket(fileno=os.dup(0))
    shared = np.frombuffer(mmap.mmap(shared_fd, size), np.uint8)
    os.close(shared_fd)
    return channel, shared


def confined(channel: socket.socket) -> int:
    """Give up all rights and say so to the caller; returns the bytes of address space in use."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 2)  # libraries complain there of damaged files
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for what, most in _LIMITS.items():
        resource.setrlimit(what, (most, most))
    granted = confine()
    channel.sendall(READY.pack(READY_WORD, sum(1 << LAYERS.index(layer) for layer in granted)))
    return in_use


def limit_memory(size: int) -> None:
    """Bound the address space to `size` bytes."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


def _load_what_comes_late() -> None:
    """Decode a px of every kind with a colour profile: Python imports codecs when they are first used."""
    profile = profile_of("Display P3")
    for mode, kind, options in (
        ("CMYK", "JPEG", {}),
        *(("RGB", kind, {"icc_profile": profile}) for kind in ("PNG", "WEBP", "TIFF", "AVIF", "JPEG2000", "JPEG")),
    ):
        file = io.BytesIO()
        Image.new(mode, (1, 1)).save(file, kind, **options)
        decode(file.getvalue(), max_mpx=1)
    with suppress(NotExact):  # each REPLACE request says so, too
        changed = np.ones((1, 1), bool), np.zeros((1, 16, 16, 3), np.uint8), exact.Stored("JPEG", 1, None)
        exact.replace(file.getvalue(), *pickle.loads(pickle.dumps(changed)))


def _described(picture: Picture, shared: NDArray[np.uint8]) -> tuple[Any, ...]:
    """All of a picture but its pixels, which are put into the shared memory: colours, then alpha."""
    pixels = picture.rgb.size
    if not np.may_share_memory(picture.rgb, shared):
        shared[:pixels].reshape(picture.rgb.shape)[:] = picture.rgb
    if picture.alpha is not None:
        shared[pixels : pixels + picture.alpha.size].reshape(picture.alpha.shape)[:] = picture.alpha
    described = (picture.format, picture.space, picture.stripped, picture.notes)
    kept = (picture.orientation, picture.is_exact, picture.tables, picture.sampling, picture.lossless)
    return *picture.rgb.shape[:2], picture.alpha is not None, *described, *picture.size, *kept


def _replace(file: bytes, extra: Any, shared: NDArray[np.uint8]) -> int:
    """Put the new file into `shared`; its bytes."""
    written = exact.replace(file, *extra)
    if len(written) > len(shared):
        raise NotExact("it would be larger than its pixels")
    shared[: len(written)] = np.frombuffer(written, np.uint8)
    return len(written)


def received(channel: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes; none if the other end is gone."""
    buffer = bytearray(size)
    rest = memoryview(buffer)
    while rest:
        count = channel.recv_into(rest)
        if count == 0:
            return b""
        rest = rest[count:]
    return bytes(buffer)
