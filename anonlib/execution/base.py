"""What a stage says of a unit of work, and the few things that all stages share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

_CHUNK_PIXELS = 64_000_000


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
