"""Who is who: faces into subjects, by the dataset's labels or by clustering their embeddings.

Clustering walks the edges of an exact kNN graph from the most similar down and joins two clusters only
if their mean embeddings are as similar as two photos of one person: single links cannot chain two people
together, since the means of two people stay apart. Ties are broken by face order, so the result is a function
of the embeddings alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_NEIGHBOURS = 32


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to unit length; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)


def cluster(embeddings: NDArray[np.float32], *, threshold: float, neighbours: int = _NEIGHBOURS) -> NDArray[np.int64]:
    """Cluster numbers (N,) for unit embeddings (N, d); `threshold`: cosine of two photos of one person."""
    import faiss

    count = len(embeddings)
    if count == 0:
        return np.zeros(0, np.int64)
    index = faiss.IndexFlatIP(embeddings.shape[1])
    index.add(np.ascontiguousarray(embeddings, np.float32))
    similarity, neighbour = index.search(np.ascontiguousarray(embeddings, np.float32), min(neighbours + 1, count))
    rows = np.repeat(np.arange(count), similarity.shape[1])
    columns, values = neighbour.ravel(), similarity.ravel()
    keep = (values >= threshold) & (columns > rows)
    keep |= (values >= threshold) & (columns >= 0) & (columns < rows) & ~_listed(neighbour, rows, columns)
    first, second, values = np.minimum(rows, columns)[keep], np.maximum(rows, columns)[keep], values[keep]
    order = np.lexsort((second, first, -values))
    parent = np.arange(count)
    sums = embeddings.astype(np.float64).copy()
    for edge in order:
        a, b = _root(parent, int(first[edge])), _root(parent, int(second[edge]))
        if a == b:
            continue
        cosine = sums[a] @ sums[b] / (np.linalg.norm(sums[a]) * np.linalg.norm(sums[b]))
        if cosine >= threshold:
            a, b = min(a, b), max(a, b)
            parent[b] = a
            sums[a] += sums[b]
    roots = np.array([_root(parent, face) for face in range(count)])
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def _listed(neighbour: NDArray[np.int64], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each edge (row, column) is also seen from its column, and would be walked twice."""
    seen: NDArray[np.bool_] = (neighbour[np.maximum(columns, 0)] == rows[:, None]).any(axis=1)
    return seen


def _root(parent: NDArray[np.int64], item: int) -> int:
    while parent[item] != item:
        parent[item] = parent[parent[item]]
        item = int(parent[item])
    return item


def templates(embeddings: NDArray[np.float32], subject: NDArray[np.int64], subjects: int) -> NDArray[np.float32]:
    """Unit mean embedding (subjects, d) of each subject's faces; `subject` (N,) numbers them from 0."""
    sums = np.zeros((subjects, embeddings.shape[1]), np.float64)
    np.add.at(sums, subject, embeddings)
    return normalized(sums.astype(np.float32))


def by_label(labels: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Subject numbers (N,) and the sorted labels they stand for."""
    names = sorted(set(labels))
    number = {name: index for index, name in enumerate(names)}
    return np.array([number[label] for label in labels], np.int64), names
