"""What a stage says of a unit of work, and the stopwatch and the chunks that all stages share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

Part = Literal["start", "read", "decode", "wait", "detect", "describe", "replace", "check", "encode", "publish"]
PARTS: tuple[Part, ...] = get_args(Part)
"""`start` is the making of the stage, models and all: told with a worker's first unit, not in its seconds. `read` and
`decode` run in a thread beside the others, so parts can add up to more than the unit took; `wait` is without data."""
_CHUNK_PIXELS = 64_000_000
_T = TypeVar("_T", bound=Any)


@dataclass(frozen=True)
class UnitResult:
    """One unit done (`error` None) or failed with a sentence, which names no photo, as `details` for the workspace may.

    `halts`: the place failed and not the unit, so the job stops. `parts`: seconds by PARTS; `read`, `written`: bytes.
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
    parts: Mapping[str, float] = field(default_factory=dict)
    read: int = 0
    written: int = 0

    @property
    def busy(self) -> float:
        """Seconds of the worker, the making of its stage included."""
        return float(self.seconds) + float(self.parts.get("start", 0.0))


class Stopwatch:
    """Seconds by part, and bytes that a unit `read` and has `written`."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self.read = self.written = 0

    @contextmanager
    def timed(self, part: Part) -> Iterator[None]:
        """Add the seconds of a with block to `part`, also if it raises."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.parts[part] += time.perf_counter() - began


_current: ContextVar[Stopwatch | None] = ContextVar("stopwatch", default=None)


def current() -> Stopwatch:
    """The stopwatch of the current unit, a context variable so that no signature carries it; else an unread one."""
    return _current.get() or Stopwatch()


@contextmanager
def watching() -> Iterator[Stopwatch]:
    """A fresh stopwatch for the unit that runs in the with block."""
    watch = Stopwatch()
    token = _current.set(watch)
    try:
        yield watch
    finally:
        _current.reset(token)


def in_chunks(items: Iterable[_T], most: int) -> Iterator[list[_T]]:
    """Lists of at most `most` items, which begin with their px (h, w, 3), about 64 megapixels, to bound memory."""
    chunk: list[_T] = []
    pixels = 0
    for item in items:
        chunk.append(item)
        pixels += item[0].shape[0] * item[0].shape[1]
        if len(chunk) >= most or pixels >= _CHUNK_PIXELS:
            yield chunk
            chunk, pixels = [], 0
    if chunk:
        yield chunk
