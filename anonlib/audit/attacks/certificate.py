"""Follow the tables: from what a face shows, over the rows of every released table, to what other faces show.

A table that names two surrogates in a row leads from each to the other; so do two tables that share pseudonyms, sizes
or the order of their rows. The attacker averages all faces that show what is found there and looks that average up
among clear photos: where a table pairs the surrogate that a class shows with the average of its members, this undoes
the method.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.audit.attacks.base import Attacker, Material, Score, Scores
from anonlib.audit.attacks.similarity import Vectors
from anonlib.audit.evidence.evidence import RELEASED
from anonlib.audit.evidence.published import Published
from anonlib.audit.findings import Disclosure
from anonlib.audit.statistics import Numbers

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MOST = 3
"""Trails that are followed at once, the best on the half of the people that chooses them."""
NOTHING = "no table leads from what a face shows to what another shows: nothing to follow"
_MANIFEST, _ROW = "manifest", "row"

Column = list[tuple[int, Any]]
"""(row, value) of every value in a column; a list has several in a row."""


@dataclass(frozen=True)
class Trail:
    """Where each of m surrogates leads: `out` (m, v) to what is shared, `back` (v, m) from there; counts of rows."""

    name: str
    out: csr_matrix
    back: csr_matrix

    def averages(self, shown: Numbers, vectors: Vectors) -> tuple[Vectors, NDArray[np.bool_]]:
        """(m, d) The mean direction of the faces (n, d) that it leads to from each surrogate, else 0; (m,) if any.

        `shown` (n,) numbers what each face shows, -1 for nothing. The surrogate that it starts from is left out.
        """
        showing = shown >= 0
        # The last column counts faces.
        sums = np.zeros((self.out.shape[0], vectors.shape[1] + 1))
        np.add.at(sums, shown[showing], np.pad(vectors[showing], ((0, 0), (0, 1)), constant_values=1))
        itself = np.asarray(self.out.multiply(self.back.T).sum(axis=1)).reshape(-1, 1)
        found = self.out @ (self.back @ sums) - itself * sums
        means = found[:, :-1] / np.maximum(np.linalg.norm(found[:, :-1], axis=1, keepdims=True), 1e-9)
        reached = found[:, -1] > 0.5
        return np.where(reached[:, None], means, 0).astype(np.float32), reached


class ColumnIndex:
    """Texts and numbers of a table by column; what is nested has a dotted name, a list's length has a column."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = len(rows)
        self.columns: dict[str, Column] = defaultdict(list)
        for number, row in enumerate(rows):
            for name, value in row.items():
                for column, cell in _cells(name, value):
                    self.columns[column].append((number, cell))
        self.columns[_ROW] = [(number, number) for number in range(self.rows)]

    def matrix(self, column: str, order: Mapping[Any, int]) -> csr_matrix:
        """(rows, values) 1 where a row has a value of `order`."""
        from scipy.sparse import csr_matrix

        cells = {(row, order[value]) for row, value in self.columns[column] if value in order}
        rows, values = (np.array([cell[axis] for cell in cells], np.int64) for axis in (0, 1))
        return csr_matrix((np.ones(len(cells)), (rows, values)), shape=(self.rows, len(order)))

    def telling(self, column: str) -> set[Any]:
        """The values of a column but those that more than half of its rows have."""
        counts = Counter(value for _, value in set(self.columns[column]))
        return {value for value, count in counts.items() if self.rows < 3 or count <= self.rows / 2}


def trails_of(published: Published) -> tuple[list[Trail], Numbers]:
    """Every trail from one surrogate that is shown to another, and (n,) what each face shows, -1 for nothing."""
    number: dict[Any, int] = {}
    shown = np.array(
        [-1 if digest is None else number.setdefault(digest, len(number)) for digest in published.digests], np.int64
    )
    tables = {path: ColumnIndex(rows) for path, rows in [*published.tables.items(), (_MANIFEST, _plain(published))]}
    naming = {
        (path, name): table.matrix(name, number)
        for path, table in tables.items()
        for name, column in table.columns.items()
        if any(value in number for _, value in column)
    }
    trails = []
    for ((path, name), first), ((other, target), last) in product(naming.items(), naming.items()):
        if path == other == _MANIFEST:
            continue
        if path == other:
            trails.append(Trail(f"{path}: {name} -> {target}", first.T.tocsr(), last))
        for column, other_column, values in _shared(tables, (path, name), (other, target), number):
            order = {value: position for position, value in enumerate(sorted(values, key=str))}
            out, back = tables[path].matrix(column, order), tables[other].matrix(other_column, order)
            step = f"{path}: {name}, {column} -> {other}: {other_column}, {target}"
            trails.append(Trail(step, (first.T @ out).tocsr(), (back.T @ last).tocsr()))
    ones = np.ones((len(shown), 1), np.float32)
    return [trail for trail in trails if trail.averages(shown, ones)[1].any()], shown


def walks(attacker: Attacker) -> dict[str, Score]:
    """A score for each trail: the average that it leads to from the probe's surrogate, beside each candidate."""
    if attacker.walks is None:
        assert attacker.published is not None
        trails, shown = trails_of(attacker.published)
        row = {face: number for number, face in enumerate(attacker.published.faces)}
        worn = np.array([shown[row[face]] if face in row else -1 for face in attacker.evidence.faces], np.int64)
        released, probes = attacker.vectors[RELEASED], worn[attacker.probe]
        attacker.walks = {trail.name: _walk(attacker, trail.averages(worn, released)[0], probes) for trail in trails}
    return attacker.walks


def best(attacker: Attacker, scores: Mapping[str, Score], rows: Numbers, most: int = 1) -> list[str]:
    """The scores that put the right person nearest to the front for these rows: least mean logarithm of the rank."""
    chosen = attacker.sample(rows)

    def depth(name: str) -> float:
        better, tied = attacker.ranks(scores[name], chosen)
        return float(np.log(better + (tied + 1) / 2).mean())

    return sorted(scores, key=depth)[:most]


def certificate(material: Material) -> Iterator[Disclosure]:
    """Rank-1 and rank-10 of the best trail, chosen on the other half of the people, beside the picture's."""
    for attacker in material.held_out:
        yield from _certificate(attacker, walks(attacker))


def _certificate(attacker: Attacker, scores: Mapping[str, Score]) -> Iterator[Disclosure]:
    ranks = (1, 10)
    alone = {rank: attacker.hits(attacker.picture, rank) for rank in ranks}
    if not scores:
        yield attacker.disclosure("certificate", "rank-1, picture alone", alone[1], note=NOTHING)
        return
    chosen: set[str] = set()

    def follow(rows: Numbers) -> Score:
        (name,) = best(attacker, scores, rows)
        chosen.add(name)

        def score(probes: Numbers) -> Scores:
            found = scores[name](probes)
            lost = ~found.any(axis=1)
            found[lost] = attacker.picture(probes[lost])  # where no trail begins there is the picture
            return found

        return score

    found = attacker.both_ways(follow, ranks)
    note = f"{len(scores)} trails; followed {' and '.join(sorted(chosen))}"
    for rank, values in zip(ranks, found, strict=True):
        yield attacker.disclosure(
            "certificate", f"rank-{rank}", values, beside=alone[rank], ranks=rank, judged=rank == 1, note=note
        )


def _walk(attacker: Attacker, means: Vectors, worn: Numbers) -> Score:
    """`worn` (n,) numbers what each probe shows; without a surrogate, and where no trail begins, all scores are 0."""
    reached = np.where(worn[:, None] >= 0, means[worn], 0).astype(np.float32)
    return lambda rows: reached[rows] @ attacker.clear.T


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


def _plain(published: Published) -> list[dict[str, Any]]:
    """What faces say that a table may say too: every combination of texts and whole numbers in the manifest."""
    manifest = published.manifest
    plain = [
        field.name for field in manifest.schema if pa.types.is_string(field.type) or pa.types.is_integer(field.type)
    ]
    return list(manifest.select(plain).group_by(plain).aggregate([]).to_pylist())


def _shared(
    tables: Mapping[str, ColumnIndex], start: tuple[str, str], end: tuple[str, str], digests: Mapping[Any, int]
) -> Iterator[tuple[str, str, set[Any]]]:
    """Columns, one in the table of each of two that name surrogates, and the values that they share.

    Within one table only texts are shared: that two of its rows count as many people says nothing; and a column is
    shared with itself where several rows have one value. The order of rows is shared where two tables have as many.
    """
    (path, name), (other, target) = start, end
    first, second = tables[path], tables[other]
    for column, other_column in product(first.columns, second.columns):
        if column == name or other_column == target or (column == _ROW) != (other_column == _ROW):
            continue
        if column == _ROW and (path == other or _MANIFEST in (path, other) or first.rows != second.rows):
            continue
        values = (first.telling(column) & second.telling(other_column)) - set(digests)
        if path == other:
            rows = Counter(value for _, value in set(first.columns[column]))
            values = {
                value for value in values if isinstance(value, str) and (column != other_column or rows[value] > 1)
            }
        if values:
            yield column, other_column, values
