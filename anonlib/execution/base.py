"""What a stage says of a unit of work, and the few things that all stages share."""

from __future__ import annotations

import struct
import time
import traceback
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    cv2.error,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What one image may raise without ending its shard: everything but an interrupt, an exit and a storage's sentence."""

_CHUNK_PIXELS = 64_000_000
_PACKAGE = Path(__file__).resolve().parents[1]
_TRACE = 8000
"""Characters of a traceback that are kept, its end."""


@dataclass(frozen=True)
class UnitResult:
    """One unit done (`error` None) or failed with a sentence; `seconds` spent by the worker.

    `error` goes to logs and names no photo; `details` may, and go to the workspace alone.

    `parts`, `read` and `written` say where the seconds went and how many bytes came and went (see stopwatch.py).
    `halts`: the place failed and not the unit, so the job stops and leaves the unit undone.
    """

    unit: str
    images: int = 0
    faces: int = 0
    released: int = 0
    no_face: int = 0
    quarantined: int = 0
    fallbacks: int = 0
    seconds: float = 0.0
    error: str | None = None
    details: str | None = None
    halts: bool = False
    began: float = field(default_factory=time.time)
    parts: Mapping[str, float] = field(default_factory=dict)
    read: int = 0
    written: int = 0

    @property
    def busy(self) -> float:
        """Seconds of the worker, the making of its stage included."""
        return float(self.seconds) + float(self.parts.get("start", 0.0))


class HasPixels(Protocol):
    """Anything that holds a photo."""

    @property
    def rgb(self) -> NDArray[np.uint8]: ...


_T = TypeVar("_T", bound=HasPixels)


def in_chunks(items: Iterable[_T], most: int) -> Iterator[list[_T]]:
    """Lists of at most `most` items and about 64 megapixels, so that memory is bounded by both."""
    chunk: list[_T] = []
    pixels = 0
    for item in items:
        chunk.append(item)
        pixels += item.rgb.shape[0] * item.rgb.shape[1]
        if len(chunk) >= most or pixels >= _CHUNK_PIXELS:
            yield chunk
            chunk, pixels = [], 0
    if chunk:
        yield chunk


def sentence(error: BaseException) -> str:
    """An exception as its kind and its place in the code, for logs: what it says may quote a photo or its name."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if _PACKAGE in Path(one.filename).parents] or frames
    return f"{type(error).__name__} at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else type(error).__name__


def in_full(error: BaseException) -> str:
    """An exception as one short line with what it says, for the workspace alone."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def traced(error: BaseException) -> str:
    """Everything that is known of an exception, for the workspace alone."""
    path = getattr(error, "path", None)
    return "".join(traceback.format_exception(error))[-_TRACE:] + (f"path: {path}\n" if path else "")
