"""How long a face takes, to decode and to render: medians in a process of its own for each number of threads.

How many threads the libraries use is settled when they are loaded, so a process cannot compare numbers of threads
within itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.audit.cast import Asked, Cast
from anonlib.audit.opened import texture_decoder
from anonlib.audit.scanned import Photo
from anonlib.audit.sources import worn
from anonlib.config import ConfigError

THREADS = (1, 2)
FACES = 40

_WARM_UP = 3
_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Speed:
    """Median ms a face over `faces` faces, one after another, with so many threads."""

    threads: int
    faces: int
    decode: float
    render: float


@dataclass(frozen=True)
class Work:
    """What is timed: these templates (n, d), asked to look so, in these photos."""

    templates: NDArray[np.float32]
    looks: list[Asked]
    photos: list[Photo]


def speeds(cast: Cast, spec: str, k: int) -> list[Speed]:
    """A decoder's, with each of THREADS, on the first FACES people of the cast."""
    work = Work(cast.templates[:FACES], cast.looks[:FACES], [cast.scenes[host] for host in cast.first[:FACES]])
    return [_apart(spec, k, threads, work) for threads in THREADS]


def timed(spec: str, k: int, threads: int, work: Work) -> Speed:
    """Decode and render in this process; raises ConfigError for a source that decodes nothing."""
    cv2.setNumThreads(threads)
    decoder = texture_decoder(spec, k)
    if decoder is None:
        raise ConfigError(f"{spec} decodes nothing that could be timed")
    points = decoder.identity(work.templates)
    textures = [decoder.decode(points[row], look.female, look.age) for row, look in enumerate(work.looks)]
    decode = _median(
        [partial(decoder.decode, z, one.female, one.age) for z, one in zip(points, work.looks, strict=True)]
    )
    render = _median([partial(worn, photo, texture) for photo, texture in zip(work.photos, textures, strict=True)])
    return Speed(threads, len(points), decode, render)


def _median(calls: Sequence[Callable[[], object]]) -> float:
    """Of the times of single calls in ms, after a warm-up."""
    taken = []
    for call in (*calls[:_WARM_UP], *calls):
        began = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - began))
    return float(np.median(taken[_WARM_UP:]))


def _apart(spec: str, k: int, threads: int, work: Work) -> Speed:
    with _allowed(threads), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(timed, spec, k, threads, work).result()


@contextmanager
def _allowed(threads: int) -> Iterator[None]:
    """What is started meanwhile may use so many threads."""
    before = {name: os.environ.get(name) for name in _LIMITS}
    os.environ.update(dict.fromkeys(_LIMITS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
