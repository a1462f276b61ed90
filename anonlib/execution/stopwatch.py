"""Where the seconds and bytes of a unit of work go.

Like a tracing span, the stopwatch of the unit at hand is found through a context variable (PEP 567), so that no
signature has to carry it; where no unit runs, what is timed is forgotten. Parts do not nest. `read` and `decode` run in
a thread beside the others, so parts can add up to more than the unit took; `wait` is how long the networks stood still
for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

Part = Literal["start", "read", "decode", "wait", "detect", "describe", "replace", "check", "encode", "publish"]
PARTS: tuple[Part, ...] = get_args(Part)
"""`start` is the making of the stage, models and all: told with a worker's first unit, not in its seconds."""


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
    """The stopwatch of the unit at hand, or one that nobody reads."""
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
