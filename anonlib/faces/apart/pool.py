"""The decoder processes of this process: as many as its threads decode at once, started when first needed.

Only a fresh process's death is held against a photo, since one that was used before may die of an earlier file,
and a SIGKILL comes from outside. So what becomes of a photo does not depend on which others came before it.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from threading import Lock

from anonlib.faces.apart.process import DecoderProcess, Died
from anonlib.faces.image import ImageProblem, Picture

_MOST_IDLE = max(4, os.cpu_count() or 1)


class Decoders:
    """Lends a process to each caller; `program` is another one than `apart.child`, for a test."""

    def __init__(self, program: Sequence[str] | None = None) -> None:
        self.program = program
        self._idle: list[DecoderProcess] = []
        self._lock = Lock()

    def decode(self, data: bytes, *, max_mpx: float, seconds: float, least_side: int | None = None) -> Picture:
        """As `decode_apart`; threads may call it at once."""
        process = self._idle_one(max_mpx, seconds) or DecoderProcess(max_mpx, seconds, self.program)
        fresh = not process.used
        try:
            return self._lent(process, data, least_side)
        except Died as death:
            if fresh and not death.from_outside:
                raise ImageProblem(death.reason, str(death)) from None
        try:
            return self._lent(DecoderProcess(max_mpx, seconds, self.program), data, least_side)
        except Died as death:
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

    def _lent(self, process: DecoderProcess, data: bytes, least_side: int | None) -> Picture:
        try:
            return process.decode(data, least_side)
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

    Raises ImageProblem, also where decoding crashed, and NoDecoder where no process can be started.
    """
    return _OURS.decode(data, max_mpx=max_mpx, seconds=seconds, least_side=least_side)
