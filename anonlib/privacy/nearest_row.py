"""The most similar row of a bank: exact up to a few billion pairs, from an inverted file beyond."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_EXACT_PAIRS = 2_000_000_000
_BLOCK = 1 << 24
_PROBES = 16


def nearest(
    queries: NDArray[np.float32], bank: NDArray[np.float32], own: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """For each query (q, d) the row (q,) of `bank` (b, d) with the greatest inner product, among equals the first.

    `own` (q,): a row of the bank that a query may not have, being that row itself; the bank must then have another.
    """
    if len(bank) < (1 if own is None else 2):
        raise ValueError(f"a bank of {len(bank)} has nothing to choose from")
    if len(queries) * len(bank) > _EXACT_PAIRS:
        return _from_inverted_file(queries, bank, own)
    found = np.empty(len(queries), np.int64)
    step = max(1, _BLOCK // len(bank))
    for start in range(0, len(queries), step):
        similarity = queries[start : start + step] @ bank.T
        if own is not None:
            similarity[np.arange(len(similarity)), own[start : start + step]] = -np.inf
        found[start : start + step] = similarity.argmax(axis=1)
    return found


def _from_inverted_file(
    queries: NDArray[np.float32], bank: NDArray[np.float32], own: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    import faiss

    lists = int(len(bank) ** 0.5)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(bank.shape[1]), bank.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = 1
    index.train(np.ascontiguousarray(bank, np.float32))
    index.add(np.ascontiguousarray(bank, np.float32))
    index.nprobe = min(_PROBES, lists)
    rows = np.asarray(index.search(np.ascontiguousarray(queries, np.float32), 2)[1], np.int64)
    found = rows[:, 0] if own is None else np.where(rows[:, 0] == own, rows[:, 1], rows[:, 0])
    missing = np.flatnonzero(found < 0)
    for row in missing:
        found[row] = nearest(queries[row : row + 1], bank, None if own is None else own[row : row + 1])[0]
    return found
