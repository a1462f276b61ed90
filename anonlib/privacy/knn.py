"""The most similar rows of a table of vectors: unit float32, or float16 (a `np.memmap` too), scaled block by block.

Above EXACT_BELOW rows (two minutes of one core) k-means sorts them into lists, and a query meets the nearest lists (an
inverted file, Sivic and Zisserman 2003): a list meets all its queries in one product, several times faster than faiss'
own, which answers one at a time. A fixed seed: the answer depends on the vectors alone, not on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXACT_BELOW = 200_000  # rows up to which every pair is compared

_ROWS_A_LIST, _LISTS_ASKED = 1000, 24
_TRAINED_ON, _ROUNDS, _SEED = 48, 8, 20
_CHUNK, _BLOCK = 4_096, 1_000_000

Vectors = NDArray[np.float32]
Rows = NDArray[Any]
Numbers = NDArray[np.int64]


def unit(rows: Rows) -> Vectors:
    """Rows as they are compared: float32 ones are unit already, float16 ones are scaled; a zero row stays zero."""
    if rows.dtype == np.float32:
        return rows
    rows = rows.astype(np.float32)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


def require_unit(rows: NDArray[np.floating], whose: str) -> None:
    """ValueError unless the rows (n, d) have length 1 to a thousandth; `whose` they are begins the sentence."""
    lengths = np.linalg.norm(np.asarray(rows, np.float64), axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) < 1e-3))
    if len(wrong):
        raise ValueError(
            f"{whose} must have length 1; {len(wrong):,} of {len(lengths):,} have not, one has {lengths[wrong[0]]:.6g}"
        )


def cosine_beyond(angle: float) -> float:
    """The largest 32-bit cosine of two vectors that are surely `angle` degrees apart."""
    return math.cos(math.radians(angle)) - 1e-5  # more than a cosine of some hundred dimensions is off


def nearest(
    queries: Rows, base: Rows, *, count: int, floor: float, exact_below: int = EXACT_BELOW
) -> NDArray[np.int32]:
    """Rows of `base` (n, d) most similar to each of `queries` (q, d), in no order: (q, count), -1 where none is left.

    Only cosines of `floor` or more count. Exact up to `exact_below` rows.
    """
    everything = np.arange(len(queries))
    parts = [found for _, found in _neighbours(queries, everything, base, count, floor, exact_below)]
    return np.concatenate(parts) if parts else np.full((0, count), -1, np.int32)


def close_pairs(
    vectors: Rows, asking: Numbers | None = None, *, count: int, floor: float, exact_below: int = EXACT_BELOW
) -> tuple[Numbers, Numbers]:
    """Pairs of rows of `vectors` (n, d), first < second, one among the other's `count` nearest, from cosine `floor` on.

    With `asking`, only these rows look for neighbours. Sorted, each pair once.
    """
    total = max(len(vectors), 1)
    asking = np.arange(len(vectors)) if asking is None else asking
    kept: list[Numbers] = []
    for rows, found in _neighbours(vectors, asking, vectors, count + 1, floor, exact_below):
        for start in range(0, len(rows), _CHUNK):
            other = found[start : start + _CHUNK].astype(np.int64)
            query = np.broadcast_to(rows[start : start + _CHUNK, None], other.shape)
            real = (other >= 0) & (other != query)
            kept.append(np.minimum(query, other)[real] * total + np.maximum(query, other)[real])
    pairs = np.unique(np.concatenate(kept)) if kept else np.zeros(0, np.int64)
    return np.divmod(pairs, total)


def _neighbours(
    queries: Rows, asking: Numbers, base: Rows, count: int, floor: float, exact_below: int
) -> Iterator[tuple[Numbers, NDArray[np.int32]]]:
    """Blocks of the rows `asking` of `queries`, and their neighbours in `base` (block, count), -1 beyond the last."""
    if len(base) <= exact_below or len(base) == 0:
        whole = unit(base)
        for start in range(0, len(asking), _CHUNK):
            rows = asking[start : start + _CHUNK]
            found = np.full((len(rows), count), -1, np.int32)
            if len(base):
                cosine, row = _compare(unit(queries[rows]), whole, count)
                found[:, : row.shape[1]] = np.where(cosine >= floor, row, -1)
            yield rows, found
        return
    centres = _centres(base)
    lists_of = _assigned(queries, asking, centres, min(_LISTS_ASKED, len(centres)))
    home, rest = np.empty(len(base), np.int32), np.ones(len(base), np.bool_)
    if queries is base:  # the nearest list of a row that asks is known
        home[asking], rest[asking] = lists_of[:, 0], False
    others = np.flatnonzero(rest)
    home[others] = _assigned(base, others, centres, 1)[:, 0]
    listed = np.argsort(home, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(home, minlength=len(centres)))])
    for start in range(0, len(asking), _BLOCK):
        rows, asked = asking[start : start + _BLOCK], lists_of[start : start + _BLOCK]
        found = np.full((len(rows), count), -1, np.int32)
        best = np.full((len(rows), count), floor, np.float32)
        order = np.argsort(asked.ravel(), kind="stable")
        limits = np.concatenate([[0], np.cumsum(np.bincount(asked.ravel(), minlength=len(centres)))])
        for number in range(len(centres)):
            members = listed[bounds[number] : bounds[number + 1]]
            visitors = order[limits[number] : limits[number + 1]] // asked.shape[1]
            if not len(members) or not len(visitors):
                continue
            table = unit(base[members])
            for first in range(0, len(visitors), _CHUNK):
                chunk = visitors[first : first + _CHUNK]
                reached, cosine, column = _reaching(unit(queries[rows[chunk]]), table, count, floor)
                # The best of the old and the new neighbours stay.
                into = chunk[reached]
                values = np.concatenate([best[into], cosine], axis=1)
                names = np.concatenate([found[into], np.where(column >= 0, members[column], -1)], axis=1)
                keep = np.argpartition(-values, count - 1, axis=1)[:, :count]
                best[into] = np.take_along_axis(values, keep, axis=1)
                found[into] = np.take_along_axis(names, keep, axis=1)
        yield rows, found


def _centres(base: Rows) -> Vectors:
    """The centres (lists, d) of k-means over evenly spaced rows of `base`."""
    import faiss

    lists = max(1, len(base) // _ROWS_A_LIST)
    sample = unit(base[:: max(1, len(base) // (lists * _TRAINED_ON))])
    trained = faiss.Kmeans(base.shape[1], lists, niter=_ROUNDS, seed=_SEED, max_points_per_centroid=2 * _TRAINED_ON)
    trained.train(np.ascontiguousarray(sample, np.float32))
    return np.asarray(trained.centroids, np.float32)


def _assigned(vectors: Rows, rows: Numbers, centres: Vectors, count: int) -> NDArray[np.int32]:
    """The nearest centres (len(rows), count) of some rows, by Euclidean distance as k-means has it."""
    import faiss

    assigned = np.empty((len(rows), count), np.int32)
    for start in range(0, len(rows), _CHUNK):
        chunk = np.ascontiguousarray(unit(vectors[rows[start : start + _CHUNK]]))
        assigned[start : start + _CHUNK] = faiss.knn(chunk, centres, count)[1]
    return assigned


def _reaching(queries: Vectors, base: Vectors, count: int, floor: float) -> tuple[Numbers, Vectors, Numbers]:
    """The queries (r,) that reach `floor` in `base` at all, and for these up to `count` cosines and rows, -1 beyond.

    Most reach nothing in most lists, so a product and a comparison are cheaper than a heap for each query.
    """
    if _has_gpu():
        cosine, row = _compare(queries, base, count)
        rows = np.flatnonzero(cosine[:, 0] >= floor)
        return rows, cosine[rows], np.where(cosine[rows] >= floor, row[rows], -1)
    product = queries @ base.T
    hits = np.count_nonzero(product >= floor, axis=1)
    rows = np.flatnonzero(hits)
    hits, product = hits[rows], product[rows]
    cosine = np.full((len(rows), min(count, int(hits.max(initial=0)))), floor, np.float32)
    row = np.full(cosine.shape, -1, np.int64)
    few = np.flatnonzero(hits <= count)
    at, column = np.nonzero(product[few] >= floor)
    into, place = few[at], np.arange(len(at)) - np.searchsorted(at, at)
    cosine[into, place], row[into, place] = product[into, column], column
    many = np.flatnonzero(hits > count)
    if len(many):
        row[many] = np.argpartition(-product[many], count - 1, axis=1)[:, :count]
        cosine[many] = np.take_along_axis(product[many], row[many], axis=1)
    return rows, cosine, row


def _compare(queries: Vectors, base: Vectors, count: int) -> tuple[Vectors, Numbers]:
    """Cosines and rows (q, min(count, n)) of the nearest, best first."""
    import faiss

    queries, base = np.ascontiguousarray(queries, np.float32), np.ascontiguousarray(base, np.float32)
    count, metric = min(count, len(base)), faiss.METRIC_INNER_PRODUCT
    found: tuple[Vectors, Numbers]
    if _has_gpu():
        found = faiss.knn_gpu(faiss.StandardGpuResources(), queries, base, count, metric=metric)
    else:
        found = faiss.knn(queries, base, count, metric=metric)
    return found


def _has_gpu() -> bool:
    import faiss

    return bool(faiss.get_num_gpus())
