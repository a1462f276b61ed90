"""A shard's photos in chunks: a thread reads and decodes the next chunk while the caller works on this one.

Memory is bounded by bytes. The memory that a photo will take is read from its header before it is decoded, so the bound
holds beforehand, however large photos are. A header is untrusted, too, so a decoder process reads it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar, cast

from anonlib.codes import Problem, Reason
from anonlib.config import JobConfig
from anonlib.datasets import Sample
from anonlib.datasets.names import MEDIA_HEAD, animation_kind
from anonlib.errors import ImageProblem
from anonlib.media.clip import ClipInfo, clip_info
from anonlib.media.codec import Picture
from anonlib.media.sandbox.process import decode_apart, header_bytes_apart
from anonlib.storage.scratch import SpooledFile

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
Timer = Callable[[Literal["read", "decode", "wait"]], AbstractContextManager[object]]
"""A context in which one of these steps runs, for a caller who measures them."""


def chunks_ahead(
    decode: Callable[[_Item], _Result],
    items: Iterable[_Item],
    cost: Callable[[_Item], int],
    *,
    most: int,
    budget: int,
    timed: Timer = nullcontext,
) -> Iterator[list[tuple[_Item, _Result]]]:
    """Lists of at most `most` items, each with what `decode` makes of it, in order.

    The chunk that the caller has and the one that is being decoded cost at most `budget` bytes together; an item that
    costs more than half of it has a chunk of its own, and waits until there is room. A chunk is emptied when the next
    is asked for. Which items share one depends on them, `most` and `budget` alone. What `items` and `decode` raise is
    raised where their chunk's turn comes. `read` and `decode` are timed in the thread, `wait` in the caller's.
    """
    chunks = _chunks(items, cost, most, budget // 2, timed)

    def fill(chunk: list[_Item]) -> list[tuple[_Item, _Result]]:
        with timed("decode"):
            return [(item, decode(item)) for item in chunk]

    def fetch(held: int) -> tuple[list[_Item], int, list[tuple[_Item, _Result]] | None]:
        """The next chunk, its cost in bytes, and its results if there is room for them beside the current chunk."""
        chunk, size = next(chunks, ([], 0))
        return chunk, size, fill(chunk) if held + size <= budget else None

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(fetch, 0)
        while True:
            with timed("wait"):
                chunk, size, results = coming.result()
            if not chunk:
                return
            if results is None:
                results = fill(chunk)
            coming = pool.submit(fetch, size)
            del chunk
            yield results
            results.clear()


def one_ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """The same items; a thread makes the next one while the caller works on this one."""
    context = copy_context()  # with the caller's stopwatch
    with ThreadPoolExecutor(1) as pool:
        following = partial(context.run, next, items, None)
        coming = pool.submit(following)
        while (item := coming.result()) is not None:
            coming = pool.submit(following)
            yield item


def on_threads(count: int) -> Callable[[Callable[[_Item], _Result], Iterable[_Item]], Iterator[_Result]]:
    """A `map` of which `count` calls run at once, each with its caller's stopwatch; results come in order."""
    if count == 1:
        return map
    pool = ThreadPoolExecutor(count)

    def spread(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
        contexts = [(copy_context(), item) for item in items]
        return pool.map(lambda pair: pair[0].run(work, pair[1]), contexts)

    return spread


def _chunks(
    items: Iterable[_Item], cost: Callable[[_Item], int], most: int, share: int, timed: Timer
) -> Iterator[tuple[list[_Item], int]]:
    """Consecutive items and what they cost together: at most `share`, or one item."""
    chunk: list[_Item] = []
    size = 0
    coming = iter(items)
    while True:
        with timed("read"):
            try:
                item = next(coming)
            except StopIteration:
                break
        extra = cost(item)
        if chunk and size + extra > share:
            yield chunk, size
            chunk, size = [], 0
        chunk.append(item)
        size += extra
        if len(chunk) == most:
            yield chunk, size
            chunk, size = [], 0
    if chunk:
        yield chunk, size


def sample_bytes(sample: Sample, job: JobConfig, *, copies: int = 1, least_side: int | None = None) -> int:
    """Bytes that a sample takes while it is worked on: its file, its other members, and its pixels `copies` times.

    A clip takes all there is. A photo whose header kills or stalls the process that reads it gets that as its problem,
    so that it is not decoded.
    """
    if sample.clip is not None:
        return job.shard_bytes  # a chunk of its own, so that the local disk holds few clips
    others = sum(len(value) for value in sample.fields.values() if isinstance(value, bytes))
    if sample.image is None:
        return others
    held = others + len(sample.image)
    if sample.problem is not None or len(sample.image) > job.limits.image_mib * (1 << 20):
        return held
    try:
        return held + copies * header_bytes_apart(sample.image, job.limits, least_side=least_side)
    except ImageProblem as problem:
        sample.problem = Problem(problem.reason, str(problem))
        return held


def read_image(sample: Sample, job: JobConfig, least_side: int | None = None) -> Picture:
    """The decoded Picture of a sample (see `decode`); raises ImageProblem."""
    if sample.problem is not None:
        raise ImageProblem(sample.problem.reason, str(sample.problem))
    if sample.image is None:
        reason = Reason.NOT_AN_IMAGE if sample.clip is not None else Reason.NO_IMAGE
        raise ImageProblem(reason)
    if len(sample.image) > job.limits.image_mib * (1 << 20):
        over = f"the file is over the limit of {job.limits.image_mib:g} MiB (limits.image_mib)"
        raise ImageProblem(Reason.TOO_LARGE, over)
    return decode_apart(sample.image, job.limits, least_side=least_side)


def try_to_read(sample: Sample, job: JobConfig, least_side: int | None = None) -> Picture | ImageProblem:
    """`read_image`, its problem as an answer."""
    try:
        return read_image(sample, job, least_side)
    except ImageProblem as problem:
        return problem


def read_or_open(sample: Sample, job: JobConfig, least_side: int | None = None) -> Picture | ClipInfo | ImageProblem:
    """`try_to_read`, or of a clip what it is; an animated image becomes a clip here."""
    if sample.clip is None or sample.problem is not None:
        found, image = try_to_read(sample, job, least_side), sample.image or b""
        animated = isinstance(found, ImageProblem) and found.reason is Reason.ANIMATED
        if not animated or animation_kind(image[:MEDIA_HEAD]) is None:
            return found
        sample.hold(SpooledFile(io.BytesIO(image)))
    try:
        keep_audio, segment = job.clip.audio == "keep", job.clip.segment
        return clip_info(cast("Path", sample.clip), job.limits, keep_audio=keep_audio, segment=segment)
    except ImageProblem as problem:
        return problem
