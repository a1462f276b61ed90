"""How long a face takes, to decode and to render: medians in a process of its own for each number of threads.

How many threads the libraries use is settled when they are loaded, so a process cannot compare numbers of threads
within itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.audit.generators.cast import Participants, RequestedLook
from anonlib.audit.generators.opened import read_decoder, texture_decoder
from anonlib.audit.generators.scanned import ScannedPhoto
from anonlib.audit.generators.sources import worn
from anonlib.errors import BackendMissing, ConfigError
from anonlib.faces.mesh import mouth_opening
from anonlib.synthesis.base import FaceTexture
from anonlib.synthesis.describe import happiness
from anonlib.synthesis.textures.ksame_net import NetworkDecoder

THREADS = (1, 2)
FACES = 40

_WARM_UP, _BATCHES = 3, 10
_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Speed:
    """Median ms a face over `faces` faces, one after another, with so many threads.

    `decode`: from a vector to a texture ready to be worn; `render`: that into a photo, on the CPU. `batched`: ms a face
    of a network alone, all faces in one batch.
    """

    threads: int
    faces: int
    decode: float
    render: float
    device: str = "cpu"
    batched: float | None = None


@dataclass(frozen=True)
class TimedWork:
    """What is timed: these templates (n, d), asked to look so, in these photos."""

    templates: NDArray[np.float32]
    looks: list[RequestedLook]
    photos: list[ScannedPhoto]


def speeds(cast: Participants, spec: str, k: int) -> list[Speed]:
    """A decoder's, with each of THREADS, on the first FACES people of the cast; a network's on a GPU too, if any."""
    work = TimedWork(cast.templates[:FACES], cast.looks[:FACES], [cast.scenes[host] for host in cast.first[:FACES]])
    found = [_apart(spec, k, threads, work) for threads in THREADS]
    if isinstance(read_decoder(spec), NetworkDecoder):
        with suppress(BackendMissing):
            found.append(_apart(spec, k, 1, work, "cuda"))
    return found


def timed(spec: str, k: int, threads: int, work: TimedWork, device: str = "cpu") -> Speed:
    """Decode and render in this process; raises ConfigError for a source that decodes nothing, and BackendMissing."""
    cv2.setNumThreads(threads)
    decoder = texture_decoder(spec, k, threads=threads, device=device)
    if decoder is None:
        raise ConfigError(f"{spec} decodes nothing that could be timed")
    points = decoder.identity(work.templates)
    asked = list(zip(points, work.looks, work.photos, strict=True))

    def drawn(z: NDArray[np.float32], look: RequestedLook, photo: ScannedPhoto) -> FaceTexture:
        face = decoder.decode(z, look.female, look.age)
        face.dressed(happiness(photo.expression.tolist()), mouth_opening(photo.mesh))
        return face

    decode = _median([partial(drawn, *one) for one in asked])
    faces = [drawn(*one) for one in asked]
    wear = [partial(worn, photo, face) for photo, face in zip(work.photos, faces, strict=True)]
    # A network's face is drawn anew for each look; the first time is not the renderer's.
    _median(wear)
    render = _median(wear)
    batched = None
    if isinstance(decoder, NetworkDecoder):
        batch = np.stack([np.append(z, decoder.look(one.female, one.age, "neutral", 0.0)) for z, one, _ in asked])
        batched = _median([partial(decoder.engine, batch)] * _BATCHES) / len(batch)
    return Speed(threads, len(points), decode, render, device, batched)


def _median(calls: Sequence[Callable[[], object]]) -> float:
    """Of the times of single calls in ms, after a warm-up."""
    taken = []
    for call in (*calls[:_WARM_UP], *calls):
        began = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - began))
    return float(np.median(taken[_WARM_UP:]))


def _apart(spec: str, k: int, threads: int, work: TimedWork, device: str = "cpu") -> Speed:
    with _allowed(threads), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(timed, spec, k, threads, work, device).result()


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
