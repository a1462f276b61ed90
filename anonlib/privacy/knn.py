"""The most similar rows of a table of unit vectors: by comparing all, or where that takes too long, nearby lists.

Comparing all pairs is quadratic: 200,000 rows take about two minutes of one core, a million an hour. Above that the
rows are sorted into lists by k-means and a query is compared with the lists whose centres are nearest (an inverted
file, Sivic and Zisserman 2003). Each list meets all of its queries in one matrix product, which is several times
faster than faiss' own inverted file, which asks one query at a time. Training takes evenly spaced rows and a fixed
seed, so the answer depends on the vectors alone: not on a clock, nor on the number of threads. A GPU is used if faiss
has one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

EXACT_BELOW = 200_000
"""Rows up to which every pair is compared."""

_ROWS_A_LIST = 1000
_LISTS_ASKED = 24
_TRAINED_ON = 48
_ROUNDS = 8
_SEED = 20
_CHUNK = 4_096

Vectors = NDArray[np.float32]
Numbers = NDArray[np.int64]


def nearest(
    queries: Vectors, base: Vectors, *, count: int, floor: float, exact_below: int = EXACT_BELOW
) -> NDArray[np.int32]:
    """Rows of unit `base` (n, d) most similar to each of unit `queries` (q, d): (q, count), -1 where none is left.

    Only cosines of `floor` or more count. No order within a row; a query that is itself in `base` finds itself. Exact
    up to `exact_below` rows.
    """
    found = np.full((len(queries), count), -1, np.int32)
    if len(queries) == 0 or len(base) == 0:
        return found
    if len(base) <= exact_below:
        for start in range(0, len(queries), _CHUNK):
            cosine, row = _compare(queries[start : start + _CHUNK], base, count)
            found[start : start + _CHUNK, : row.shape[1]] = np.where(cosine >= floor, row, -1)
        return found
    best = np.full((len(queries), count), floor, np.float32)
    for asking, listed in _lists(queries, base):
        rows, cosine, row = _reaching(queries[asking], base[listed], count, floor)
        rows = asking[rows]
        values = np.concatenate([best[rows], cosine], axis=1)
        names = np.concatenate([found[rows], np.where(row >= 0, listed[row], -1)], axis=1)
        keep = np.argpartition(-values, count - 1, axis=1)[:, :count]
        best[rows] = np.take_along_axis(values, keep, axis=1)
        found[rows] = np.take_along_axis(names, keep, axis=1)
    return found


def close_pairs(
    vectors: Vectors, asking: Numbers | None = None, *, count: int, floor: float, exact_below: int = EXACT_BELOW
) -> tuple[Numbers, Numbers]:
    """Pairs of unit rows (n, d), first < second, of which one is among the other's `count` nearest, from `floor` on.

    With `asking`, only these rows look for neighbours. Sorted, each pair once.
    """
    total = len(vectors)
    rows = np.arange(total) if asking is None else asking
    queries = vectors if asking is None else vectors[asking]
    found = nearest(queries, vectors, count=count + 1, floor=floor, exact_below=exact_below)
    kept: list[Numbers] = []
    for start in range(0, len(rows), _CHUNK):
        other = found[start : start + _CHUNK].astype(np.int64)
        own = np.broadcast_to(rows[start : start + _CHUNK, None], other.shape)
        real = (other >= 0) & (other != own)
        kept.append(np.minimum(own, other)[real] * total + np.maximum(own, other)[real])
    pairs = np.unique(np.concatenate(kept)) if kept else np.zeros(0, np.int64)
    return pairs // max(total, 1), pairs % max(total, 1)


def _lists(queries: Vectors, base: Vectors) -> Iterator[tuple[Numbers, Numbers]]:
    """Each list as (queries that ask it, rows of base in it)."""
    import faiss

    lists = max(1, len(base) // _ROWS_A_LIST)
    sample = base[:: max(1, len(base) // (lists * _TRAINED_ON))]
    trained = faiss.Kmeans(base.shape[1], lists, niter=_ROUNDS, seed=_SEED, max_points_per_centroid=2 * _TRAINED_ON)
    trained.train(np.ascontiguousarray(sample, np.float32))
    centres = np.asarray(trained.centroids, np.float32)
    home = _assigned(base, centres, 1).ravel()
    asked = _assigned(queries, centres, min(_LISTS_ASKED, lists))
    listed, bounds = np.argsort(home, kind="stable"), np.searchsorted(np.sort(home), np.arange(lists + 1))
    order = np.argsort(asked.ravel(), kind="stable")
    limits = np.concatenate([[0], np.cumsum(np.bincount(asked.ravel(), minlength=lists))])
    for one in range(lists):
        rows, askers = listed[bounds[one] : bounds[one + 1]], order[limits[one] : limits[one + 1]] // asked.shape[1]
        if len(rows):
            for start in range(0, len(askers), _CHUNK):
                yield askers[start : start + _CHUNK], rows


def _assigned(vectors: Vectors, centres: Vectors, count: int) -> NDArray[np.int32]:
    """(n, count) The nearest centres of each row, by Euclidean distance as k-means has it."""
    import faiss

    parts = [
        faiss.knn(np.ascontiguousarray(vectors[start : start + _CHUNK]), centres, count)[1].astype(np.int32)
        for start in range(0, len(vectors), _CHUNK)
    ]
    return np.concatenate(parts)


def _reaching(queries: Vectors, base: Vectors, count: int, floor: float) -> tuple[Numbers, Vectors, Numbers]:
    """The queries (r,) that reach `floor` in `base` at all, and for these up to `count` cosines and rows, -1 beyond.

    Most queries reach nothing in most lists, so a product and a comparison come cheaper than a heap for each.
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
