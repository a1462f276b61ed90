"""Fragments, tables of FRAGMENTS: faces that are one person's as far as is known, as sums that can go on growing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from anonlib.pipeline.people import PORTRAITS_A_DONOR, badness, column, donor_faces_of, matrix
from anonlib.privacy.subjects import normalized
from anonlib.records import EMBEDDING_DIM, FRAGMENTS


def of_faces(faces: pa.Table) -> pa.Table:
    """A fragment of each face (rows with the plan's features)."""
    count = faces.num_rows
    ids = faces.column("face_id").combine_chunks()
    donors = np.zeros(count, bool)
    donors[donor_faces_of(faces)] = True
    portraits = np.concatenate([[0], np.cumsum(donors)])
    return _table(
        faces.column("label"),
        pa.ListArray.from_arrays(pa.array(np.arange(count + 1), pa.int32()), ids),
        matrix(faces, "embedding").reshape(count, EMBEDDING_DIM),
        column(faces, "female"),
        column(faces, "age"),
        pa.ListArray.from_arrays(pa.array(portraits, pa.int32()), ids.filter(pa.array(donors))),
        badness(faces)[donors],
    )


def merged(fragments: pa.Table, group: NDArray[np.int64]) -> pa.Table:
    """One fragment of each group (n,), numbered from 0 without gaps; of portraits the best stay."""
    if fragments.num_rows == 0:
        return fragments
    order = np.argsort(group, kind="stable")
    rows, group = fragments.take(pa.array(order)).combine_chunks(), group[order]
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    first = pa.array(starts)
    portraits, bad = _flat(rows, "portraits"), _flat(rows, "badness").to_numpy(zero_copy_only=False)
    owner = np.repeat(group, _lengths(rows, "portraits"))
    best = np.lexsort((bad, owner))
    rank = np.arange(len(owner)) - np.searchsorted(owner[best], owner[best])
    best = best[rank < PORTRAITS_A_DONOR]
    kept = np.bincount(owner[best], minlength=len(starts))
    return _table(
        rows.column("label").take(first),
        pa.ListArray.from_arrays(_offsets(np.add.reduceat(_lengths(rows, "faces"), starts)), _flat(rows, "faces")),
        np.add.reduceat(matrix(rows, "sum"), starts, axis=0, dtype=np.float64),
        np.add.reduceat(column(rows, "female"), starts),
        np.add.reduceat(column(rows, "age"), starts),
        pa.ListArray.from_arrays(_offsets(kept), portraits.take(pa.array(best))),
        bad[best],
    )


def sizes(fragments: pa.Table) -> NDArray[np.int64]:
    """Faces (n,) of each fragment."""
    return _lengths(fragments, "faces")


def sums(fragments: pa.Table) -> NDArray[np.float32]:
    """Sums (n, d) of unit embeddings."""
    return matrix(fragments, "sum").reshape(fragments.num_rows, EMBEDDING_DIM)


def template(fragments: pa.Table) -> NDArray[np.float32]:
    """Unit means (n, d)."""
    return normalized(sums(fragments))


def can_lend(fragments: pa.Table) -> NDArray[np.bool_]:
    """Which (n,) have a portrait worth averaging."""
    return _lengths(fragments, "portraits") > 0


def _table(
    label: pa.ChunkedArray | pa.Array,
    faces: pa.ListArray,
    total: NDArray[np.floating],
    female: NDArray[np.float64],
    age: NDArray[np.float64],
    portraits: pa.ListArray,
    bad: NDArray[np.float64],
) -> pa.Table:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(total.astype(np.float32).ravel()), EMBEDDING_DIM)
    against = pa.ListArray.from_arrays(portraits.offsets, pa.array(bad, pa.float64()))
    columns = [label, faces, vectors, pa.array(female), pa.array(age), portraits, against]
    return pa.table(columns, names=FRAGMENTS.names).cast(FRAGMENTS)


def _lengths(table: pa.Table, name: str) -> NDArray[np.int64]:
    return np.asarray(pc.list_value_length(table.column(name)).to_numpy(), np.int64)


def _flat(table: pa.Table, name: str) -> pa.Array:
    return table.column(name).combine_chunks().flatten()


def _offsets(lengths: NDArray[np.int64]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
