"""The decoder processes of this process: as many as its threads decode at once, started when first needed.

Only a fresh process's death is held against a photo, since one that was used before may die of an earlier file,
and a SIGKILL comes from outside. So what becomes of a photo does not depend on which others came before it.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TypeVar

from anonlib.errors import ImageProblem, SandboxDied
from anonlib.media.codec import Picture
from anonlib.media.sandbox.process import DecoderProcess

_Found = TypeVar("_Found")
_HEADER_BYTES = 1 << 16
_MOST_IDLE = max(4, os.cpu_count() or 1)


class Decoders:
    """Lends a process to each caller; `program` is another one than `apart.child`, for a test."""

    def __init__(self, program: Sequence[str] | None = None) -> None:
        self.program = program
        self._idle: list[DecoderProcess] = []
        self._lock = Lock()

    def decode(self, data: bytes, *, max_mpx: float, seconds: float, least_side: int | None = None) -> Picture:
        """As `decode_apart`; threads may call it at once."""
        return self._asked(lambda process: process.decode(data, least_side), max_mpx, seconds)

    def header_bytes(self, data: bytes, *, max_mpx: float, seconds: float, least_side: int | None = None) -> int:
        """As `header_bytes_apart`; threads may call it at once."""
        # Nearly every header is at the beginning, and sending the rest would cost more than reading it.
        beginning = data[:_HEADER_BYTES]
        count = self._asked(lambda process: process.header_bytes(beginning, least_side), max_mpx, seconds)
        if count or len(data) <= _HEADER_BYTES:
            return count
        return self._asked(lambda process: process.header_bytes(data, least_side), max_mpx, seconds)

    def layers(self) -> tuple[str, ...]:
        """The layers of the sandbox that this kernel grants; raises SandboxUnavailable where too few."""
        process = DecoderProcess(1.0, 60.0, self.program)
        process.close()
        return process.layers

    def _asked(self, ask: Callable[[DecoderProcess], _Found], max_mpx: float, seconds: float) -> _Found:
        process = self._idle_one(max_mpx, seconds) or DecoderProcess(max_mpx, seconds, self.program)
        fresh = not process.used
        try:
            return self._lent(process, ask)
        except SandboxDied as death:
            if fresh and not death.from_outside:
                raise ImageProblem(death.reason, str(death)) from None
        try:
            return self._lent(DecoderProcess(max_mpx, seconds, self.program), ask)
        except SandboxDied as death:
            raise ImageProblem(death.reason, str(death)) from None

    def close(self) -> None:
        """End the processes that nobody uses now; a later photo starts new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.close()

    def forget(self) -> None:
        """In a forked copy of this process: the processes belong to the one that started them."""
        self._idle, self._lock = [], Lock()

    def _lent(self, process: DecoderProcess, ask: Callable[[DecoderProcess], _Found]) -> _Found:
        try:
            return ask(process)
        finally:
            self._take_back(process)

    def _idle_one(self, max_mpx: float, seconds: float) -> DecoderProcess | None:
        with self._lock:
            for process in self._idle:
                if (process.max_mpx, process.seconds) == (max_mpx, seconds):
                    self._idle.remove(process)
                    break
            else:
                return None
        if process.ready:
            return process
        process.close()
        return None

    def _take_back(self, process: DecoderProcess) -> None:
        surplus: DecoderProcess | None = process
        if process.ready:
            with self._lock:
                self._idle.append(process)
                surplus = self._idle.pop(0) if len(self._idle) > _MOST_IDLE else None
        if surplus:
            surplus.close()


_OURS = Decoders()
atexit.register(_OURS.close)
os.register_at_fork(after_in_child=_OURS.forget)


def decode_apart(data: bytes, *, max_mpx: float, seconds: float, least_side: int | None = None) -> Picture:
    """`image.decode` in another process, which has `seconds` for it and no more memory than `max_mpx` calls for.

    Raises ImageProblem, also where decoding crashed, and SandboxUnavailable where no process can be started.
    """
    return _OURS.decode(data, max_mpx=max_mpx, seconds=seconds, least_side=least_side)


def header_bytes_apart(data: bytes, *, max_mpx: float, seconds: float, least_side: int | None = None) -> int:
    """`image.decoded_bytes` in another process, without memory for pixels; raises as decode_apart."""
    return _OURS.header_bytes(data, max_mpx=max_mpx, seconds=seconds, least_side=least_side)


def sandbox_layers() -> tuple[str, ...]:
    """The layers of sandbox.LAYERS that confine decoder processes here; raises SandboxUnavailable where too few."""
    return _OURS.layers()
