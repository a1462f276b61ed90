"""Cells of about equal size into which templates can be cut, so that no machine has to hold them all.

k-means on a sample gives a few small regions a cell, and regions are put together by halving: the weighted main axis of
their centres is cut where the two sides hold what they should, again and again. k-means alone leaves cells as uneven as
the crowd is, and halving alone cuts more neighbours apart.

No cut keeps all neighbours together: of two photos of one person a quarter fall into different ones of 32 cells (LFW).
So there is never one cut: several, of other seeds, divide other neighbours, and what stands at the border of one
stands inside a cell of the next (`agglomerate` goes on from sums). Cells depend on sample, count and seed alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.neighbours import Numbers, Vectors

REGIONS = 4
"""Regions a cell."""
SAMPLED = 256
"""Rows of the sample for each cell."""
_ROUNDS = 8
_CHUNK = 16_384


@dataclass(frozen=True)
class Cut:
    """`centres` (r, d) of the regions and the `cell` (r,) that each belongs to, numbered from 0."""

    centres: Vectors
    cell: Numbers

    @property
    def cells(self) -> int:
        return int(self.cell.max()) + 1

    def of(self, vectors: Vectors) -> Numbers:
        """The cell (n,) of each vector (n, d): that of the nearest region."""
        found = np.empty(len(vectors), np.int64)
        for start, distance in self._distances(vectors):
            found[start : start + len(distance)] = self.cell[distance.argmin(axis=1)]
        return found

    def nearest(self, vectors: Vectors, count: int) -> Numbers:
        """The `count` nearest cells (n, count) of each vector (n, d), the nearest first; -1 where there are fewer."""
        found = np.full((len(vectors), count), -1, np.int64)
        for start, distance in self._distances(vectors):
            best = np.full((len(distance), self.cells), np.inf, np.float32)
            for region, cell in enumerate(self.cell):
                np.minimum(best[:, cell], distance[:, region], out=best[:, cell])
            order = np.argsort(best, axis=1, kind="stable")[:, :count]
            found[start : start + len(distance), : order.shape[1]] = order
        return found

    def means(self) -> Vectors:
        """The mean (cells, d) of each cell's regions."""
        return np.stack([self.centres[self.cell == one].mean(axis=0) for one in range(self.cells)])

    def _distances(self, vectors: Vectors) -> Iterator[tuple[int, Vectors]]:
        """Chunk by chunk (its first row, the squared distances to all regions but for what a row shares)."""
        norm = (self.centres**2).sum(axis=1)
        for start in range(0, len(vectors), _CHUNK):
            yield start, norm - 2 * (vectors[start : start + _CHUNK] @ self.centres.T)


def cut(sample: Vectors, cells: int, *, seed: int) -> Cut:
    """A cut of at most `cells` cells, as equal as the sample (n, d) shows; ValueError for an empty sample."""
    import faiss

    if len(sample) == 0 or cells < 1:
        raise ValueError(f"{len(sample)} vectors cannot be cut into {cells} cells")
    regions = min(REGIONS * cells, len(np.unique(sample, axis=0)))
    rows = np.ascontiguousarray(sample, np.float32)
    kmeans = faiss.Kmeans(
        rows.shape[1],
        regions,
        niter=_ROUNDS,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=2 * SAMPLED,
    )
    kmeans.train(rows)
    centres = np.asarray(kmeans.centroids, np.float32)
    weight = np.bincount(Cut(centres, np.arange(regions)).of(rows), minlength=regions).astype(np.float64)
    cell = np.zeros(regions, np.int64)
    waiting = [(np.arange(regions), 0, min(cells, regions))]
    while waiting:
        some, first, parts = waiting.pop()
        if parts == 1:
            cell[some] = first
            continue
        left = parts // 2
        order = some[_along_main_axis(centres[some], weight[some])]
        share = np.cumsum(weight[order]) / max(weight[order].sum(), 1.0)
        border = int(np.clip(np.searchsorted(share, left / parts) + 1, left, len(order) - (parts - left)))
        waiting += [(order[:border], first, left), (order[border:], first + left, parts - left)]
    return Cut(centres, cell)


def _along_main_axis(points: Vectors, weight: NDArray[np.float64]) -> Numbers:
    """The order (n,) of points (n, d) along the axis in which they, weighted, vary most."""
    total = max(float(weight.sum()), 1.0)
    here = points.astype(np.float64) - (weight[:, None] * points).sum(axis=0) / total
    axis = np.linalg.eigh((here * weight[:, None]).T @ here)[1][:, -1]
    return np.argsort(here @ axis, kind="stable")
