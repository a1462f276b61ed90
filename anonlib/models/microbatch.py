"""Lets several threads ask one network, and answers those who wait together by one call.

An actor with a GPU works on several shards, so that the GPU computes for one while others decode, crop and paste.
There is no thread between them and nothing to shut down: whoever finds the network free leads, takes along
everybody who waits with rows of the same shape, and hands out the answers. So nobody waits for company, and the
busier the network is, the fuller are its calls ("flat combining", Hendler et al., SPAA 2010).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

Batch = NDArray[np.float32]
Answer = tuple[Batch, ...]

MOST_BYTES = 64 << 20
"""Of input that is joined; one request may be larger."""

_T = TypeVar("_T")


@dataclass(eq=False)
class _Request:
    """One thread's rows."""

    batch: Batch
    answer: Answer | None = None


class MicroBatcher:
    """Calls `run`, which need not be thread-safe, with the rows of all threads that wait, and gives each its own.

    If a joined call fails, everybody in it asks again alone: an error reaches the one whose rows cause it, in its own
    thread, and nobody else. So does a leader's interrupt.
    """

    def __init__(self, run: Callable[[Batch], Answer], most_bytes: int = MOST_BYTES) -> None:
        self._run, self._most_bytes = run, most_bytes
        self._turn = threading.Condition()
        self._busy = False
        self._waiting: list[_Request] = []

    def __call__(self, batch: Batch) -> Answer:
        """`run` of rows (N, ...), N > 0: its outputs, each (N, ...)."""
        mine = _Request(batch)
        with self._turn:
            self._waiting.append(mine)
        while True:
            with self._turn:
                self._turn.wait_for(lambda: not self._busy or mine.answer is not None)
                if mine.answer is not None:
                    return mine.answer
                led, self._busy = self._take(mine), True
            try:
                self._lead(led)
            finally:
                with self._turn:
                    self._busy = False
                    self._turn.notify_all()

    def _take(self, mine: _Request) -> list[_Request]:
        """`mine`, and in the order they came the others that may join it; they wait no longer."""
        if mine not in self._waiting:
            return [mine]  # somebody has led it, and got no answer
        led, held = [mine], mine.batch.nbytes
        for one in self._waiting:
            fits = one.batch.shape[1:] == mine.batch.shape[1:] and held + one.batch.nbytes <= self._most_bytes
            if one is not mine and fits:
                led.append(one)
                held += one.batch.nbytes
        self._waiting = [one for one in self._waiting if one not in led]
        return led

    def _lead(self, led: list[_Request]) -> None:
        if len(led) == 1:
            led[0].answer = self._run(led[0].batch)
            return
        with suppress(Exception):
            outputs = self._run(np.concatenate([one.batch for one in led]))
            start = 0
            for one in led:
                stop = start + len(one.batch)
                one.answer = tuple(output[start:stop] for output in outputs)
                start = stop


class locked_cached_property(cached_property[_T]):
    """functools.cached_property for what several threads share: a network is not loaded by two of them at once."""

    _loading = threading.RLock()

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> _T: ...
    def __get__(self, instance: object | None, owner: type[Any] | None = None) -> Self | _T:
        with self._loading:
            return super().__get__(instance, owner)
