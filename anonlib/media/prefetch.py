"""A shard's photos in chunks: a thread reads and decodes the next chunk while the caller works on this one.

Memory is bounded by bytes. What a photo will cost is read from its header before it is decoded, so the bound holds
beforehand, however large photos are. A header is a stranger's too, so a decoder process reads it, not this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from anonlib.codes import Problem
from anonlib.config import JobConfig
from anonlib.datasets import Sample
from anonlib.errors import ImageProblem
from anonlib.execution.stopwatch import current
from anonlib.media.sandbox import header_bytes_apart

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


@dataclass
class _Chunk(Generic[_Item, _Made]):
    """Items that share a chunk and what they cost; `chunk` once everything is made."""

    items: list[_Item]
    cost: int
    chunk: list[tuple[_Item, _Made]] | None = None


def chunks_ahead(
    make: Callable[[_Item], _Made],
    items: Iterable[_Item],
    cost: Callable[[_Item], int],
    *,
    most: int,
    budget: int,
) -> Iterator[list[tuple[_Item, _Made]]]:
    """Lists of at most `most` items, each with what `make` makes of it, in order.

    The chunk that the caller has and the one that is being made cost at most `budget` bytes together; an item that
    costs more than half of it has a chunk of its own, and waits until there is room. A chunk is emptied when the next
    is asked for. Which items share one depends on them, `most` and `budget` alone. What `items` and `make` raise is
    raised where their chunk's turn comes.
    """
    # Taken here, because the thread has no unit at hand.
    watch = current()
    groups: Iterator[_Chunk[_Item, _Made]] = _groups(watch.each("read", items), cost, most, budget // 2)

    def fill(group: _Chunk[_Item, _Made]) -> list[tuple[_Item, _Made]]:
        with watch.timed("decode"):
            return [(item, make(item)) for item in group.items]

    def fetch(held: int) -> _Chunk[_Item, _Made] | None:
        group = next(groups, None)
        if group is not None and held + group.cost <= budget:
            group.chunk = fill(group)
        return group

    def waited(coming: Future[_Chunk[_Item, _Made] | None]) -> _Chunk[_Item, _Made] | None:
        with watch.timed("wait"):
            return coming.result()

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(fetch, 0)
        while (group := waited(coming)) is not None:
            chunk = fill(group) if group.chunk is None else group.chunk
            coming = pool.submit(fetch, group.cost)
            del group
            yield chunk
            chunk.clear()


def _groups(
    items: Iterable[_Item], cost: Callable[[_Item], int], most: int, share: int
) -> Iterator[_Chunk[_Item, _Made]]:
    group: _Chunk[_Item, _Made] = _Chunk([], 0)
    for item in items:
        extra = cost(item)
        if group.items and group.cost + extra > share:
            yield group
            group = _Chunk([], 0)
        group.items.append(item)
        group.cost += extra
        if len(group.items) == most:
            yield group
            group = _Chunk([], 0)
    if group.items:
        yield group


def sample_bytes(sample: Sample, job: JobConfig, *, copies: int = 1, least_side: int | None = None) -> int:
    """What a sample costs while it is worked on: its file, its other members, and its pixels `copies` times.

    A photo whose header kills or stalls the process that reads it gets that as its problem, so that it is not decoded.
    """
    others = sum(len(value) for value in sample.fields.values() if isinstance(value, bytes))
    if sample.image is None:
        return others
    held = others + len(sample.image)
    if sample.problem is not None or len(sample.image) > job.limits.image_mib * (1 << 20):
        return held
    limits = {"max_mpx": job.limits.image_mpx, "seconds": job.limits.image_seconds}
    try:
        return held + copies * header_bytes_apart(sample.image, least_side=least_side, **limits)
    except ImageProblem as problem:
        sample.problem = Problem(problem.reason, str(problem))
        return held
