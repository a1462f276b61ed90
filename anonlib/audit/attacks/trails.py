"""Trails: from a surrogate that a face shows, over the rows of the released tables, to surrogates that others show.

A table that names two surrogates in a row leads from each to the other; so do two tables that share pseudonyms, sizes
or the order of their rows. Where a table pairs the surrogate that a class shows with its members' average, looking that
average up undoes the method.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.audit.attacks.similarity import Vectors
from anonlib.audit.evidence.published import Published
from anonlib.audit.statistics import Numbers

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_MANIFEST, _ROW = "manifest", "row"

Trail = tuple["csr_matrix", "csr_matrix"]
"""Links between m surrogates by v shared values, counts of rows: from the first (m, v), and back to others (v, m)."""
Table = Mapping[str, list[tuple[int, Any]]]
"""Column -> (row, value) of each value in it, of which a list has several; _ROW has the number of each row."""


def trails_of(published: Published) -> dict[str, Trail]:
    """Every trail from one surrogate that is shown to another, by the columns that it leads over."""
    number = {digest: position for position, digest in enumerate(published.surrogates)}
    # Of the manifest what a table may say too: every combination of texts and whole numbers.
    fields = published.manifest.schema
    plain = [field.name for field in fields if pa.types.is_string(field.type) or pa.types.is_integer(field.type)]
    combinations = published.manifest.select(plain).group_by(plain).aggregate([]).to_pylist()
    tables = {path: _table(rows) for path, rows in [*published.tables.items(), (_MANIFEST, combinations)]}
    naming = {
        (path, name): _matrix(table, name, number)
        for path, table in tables.items()
        for name, column in table.items()
        if any(value in number for _, value in column)
    }
    trails: dict[str, Trail] = {}
    for ((path, name), first), ((other, target), last) in product(naming.items(), naming.items()):
        if path == other == _MANIFEST:
            continue
        if path == other:
            trails[f"{path}: {name} -> {target}"] = (first.T.tocsr(), last)
        for column, other_column, values in _shared(tables, (path, name), (other, target)):
            order = {value: position for position, value in enumerate(sorted(values - number.keys(), key=str))}
            if order:
                out, back = _matrix(tables[path], column, order), _matrix(tables[other], other_column, order)
                step = f"{path}: {name}, {column} -> {other}: {other_column}, {target}"
                trails[step] = ((first.T @ out).tocsr(), (back.T @ last).tocsr())
    faces = np.ones((len(published.shown), 1), np.float32)
    return {name: trail for name, trail in trails.items() if walked(trail, published.shown, faces).any()}


def walked(trail: Trail, shown: Numbers, vectors: Vectors) -> Vectors:
    """(n, d) The mean direction of the faces (n, d) to which a trail leads from what each face shows, which `shown`
    (n,) numbers, and never to that itself; 0 where it leads nowhere, or nothing is shown (-1)."""
    out, back = trail
    showing = shown >= 0
    # The last column counts faces.
    sums = np.zeros((out.shape[0], vectors.shape[1] + 1))
    np.add.at(sums, shown[showing], np.pad(vectors[showing], ((0, 0), (0, 1)), constant_values=1))
    itself = np.asarray(out.multiply(back.T).sum(axis=1)).reshape(-1, 1)
    led = out @ (back @ sums) - itself * sums
    means = led[:, :-1] / np.maximum(np.linalg.norm(led[:, :-1], axis=1, keepdims=True), 1e-9)
    means[led[:, -1] <= 0.5] = 0
    found: NDArray[np.float32] = np.where(showing[:, None], means[shown], 0).astype(np.float32)
    return found


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Texts and numbers by column; nested columns have dotted names, and the length of a list is a column, too."""
    columns: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    for number, row in enumerate(rows):
        for name, value in row.items():
            for column, cell in _cells(name, value):
                columns[column].append((number, cell))
    columns[_ROW] = [(number, number) for number in range(len(rows))]
    return columns


def _cells(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _cells(f"{name}.{key}", inner)
    elif isinstance(value, list):
        yield f"{name}, length", len(value)
        for inner in value:
            yield from _cells(name, inner)
    elif isinstance(value, str | int | float) and not isinstance(value, bool) and value == value:
        yield name, value


def _matrix(table: Table, column: str, order: Mapping[Any, int]) -> csr_matrix:
    """(rows, values) 1 where a row has a value of `order`."""
    from scipy.sparse import csr_matrix

    cells = {(row, order[value]) for row, value in table[column] if value in order}
    rows, values = (np.array([cell[axis] for cell in cells], np.int64) for axis in (0, 1))
    return csr_matrix((np.ones(len(cells)), (rows, values)), shape=(len(table[_ROW]), len(order)))


def _telling(table: Table, column: str) -> dict[Any, int]:
    """Value -> rows that have it, of the values in a column but those that more than half of the rows have."""
    counts, rows = Counter(value for _, value in set(table[column])), len(table[_ROW])
    return {value: count for value, count in counts.items() if rows < 3 or count <= rows / 2}


def _shared(
    tables: Mapping[str, Table], start: tuple[str, str], end: tuple[str, str]
) -> Iterator[tuple[str, str, set[Any]]]:
    """Columns, one in the table of each of two that name surrogates, and the values that they share.

    Within one table only texts are shared, and a column with itself where several rows have one value; of two tables
    with as many rows their order.
    """
    (path, name), (other, target) = start, end
    first, second = tables[path], tables[other]
    for column, other_column in product(first, second):
        if column == name or other_column == target or (column == _ROW) != (other_column == _ROW):
            continue
        if column == _ROW and (path == other or _MANIFEST in (path, other) or len(first[_ROW]) != len(second[_ROW])):
            continue
        counts = _telling(first, column)
        values = counts.keys() & _telling(second, other_column).keys()
        if path == other:
            values = {v for v in values if isinstance(v, str) and (column != other_column or counts[v] > 1)}
        yield column, other_column, values
