"""Follow the tables: from what a face shows, over the rows of every released table, to what other faces show.

A table that names two surrogates in a row leads from each to the other; so do two tables that share pseudonyms, sizes
or the order of their rows. The average of all faces that show what is found there is looked up among clear photos:
where a table pairs the surrogate that a class shows with its members' average, this undoes the method.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.audit.attacks.base import Attacker, Material
from anonlib.audit.attacks.similarity import Score, Scores, Vectors, dot, found_within
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

Table = Mapping[str, list[tuple[int, Any]]]
"""Column -> (row, value) of each value in it, of which a list has several; _ROW has the number of each row."""


@dataclass(frozen=True)
class Trail:
    """Links between m surrogates by v shared values: `out` (m, v) and `back` (v, m) count rows."""

    name: str
    out: csr_matrix
    back: csr_matrix

    def averages(self, shown: Numbers, vectors: Vectors) -> tuple[Vectors, NDArray[np.bool_]]:
        """(m, d) The mean direction of the faces (n, d) that it leads to from each surrogate but itself, else 0; (m,)
        if any. `shown` (n,) numbers what each face shows, -1 for nothing."""
        showing = shown >= 0
        # The last column counts faces.
        sums = np.zeros((self.out.shape[0], vectors.shape[1] + 1))
        np.add.at(sums, shown[showing], np.pad(vectors[showing], ((0, 0), (0, 1)), constant_values=1))
        itself = np.asarray(self.out.multiply(self.back.T).sum(axis=1)).reshape(-1, 1)
        led = self.out @ (self.back @ sums) - itself * sums
        means = led[:, :-1] / np.maximum(np.linalg.norm(led[:, :-1], axis=1, keepdims=True), 1e-9)
        reached = led[:, -1] > 0.5
        return np.where(reached[:, None], means, 0).astype(np.float32), reached


def trails_of(published: Published) -> list[Trail]:
    """Every trail from one surrogate that is shown to another."""
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
    trails = []
    for ((path, name), first), ((other, target), last) in product(naming.items(), naming.items()):
        if path == other == _MANIFEST:
            continue
        if path == other:
            trails.append(Trail(f"{path}: {name} -> {target}", first.T.tocsr(), last))
        for column, other_column, values in _shared(tables, (path, name), (other, target)):
            order = {value: position for position, value in enumerate(sorted(values - number.keys(), key=str))}
            if order:
                out, back = _matrix(tables[path], column, order), _matrix(tables[other], other_column, order)
                step = f"{path}: {name}, {column} -> {other}: {other_column}, {target}"
                trails.append(Trail(step, (first.T @ out).tocsr(), (back.T @ last).tocsr()))
    shown = published.shown
    return [trail for trail in trails if trail.averages(shown, np.ones((len(shown), 1), np.float32))[1].any()]


def walks(attacker: Attacker) -> dict[str, Score]:
    """A score for each trail: the average that it leads to from the probe's surrogate, beside each candidate; or 0."""
    if attacker.walks is None:
        published, attacker.walks = attacker.material.records, {}
        worn = np.where(attacker.rows >= 0, published.shown[attacker.rows], -1)
        probes = worn[attacker.probe]
        for trail in trails_of(published):
            means, _ = trail.averages(worn, attacker.vectors[RELEASED])
            reached = np.where(probes[:, None] >= 0, means[probes], 0).astype(np.float32)
            attacker.walks[trail.name] = dot(reached, attacker.clear)
    return attacker.walks


def best(attacker: Attacker, scores: Mapping[str, Score], rows: Numbers, most: int = 1) -> list[str]:
    """The scores that put the right person nearest to the front for these rows: least mean logarithm of the rank."""
    ranks = {name: attacker.ranks(score, attacker.sample(rows)) for name, score in scores.items()}
    depth = {name: float(np.log(better + (tied + 1) / 2).mean()) for name, (better, tied) in ranks.items()}
    return sorted(scores, key=depth.__getitem__)[:most]


def certificate(material: Material) -> Iterator[Disclosure]:
    """Rank-1 and rank-10 of the best trail, chosen on the other half of the people, beside the picture's."""
    for attacker in material.held_out:
        trails, chosen, alone = walks(attacker), set[str](), attacker.ranks(attacker.picture)
        if not trails:
            yield attacker.disclosure("certificate", "rank-1, picture alone", found_within(1, *alone), note=NOTHING)
            continue
        followed = attacker.both_ways(partial(_follow, attacker, trails, chosen))
        note = f"{len(trails)} trails; followed {' and '.join(sorted(chosen))}"
        for rank in (1, 10):
            hits, beside = found_within(rank, *followed), found_within(rank, *alone)
            yield attacker.disclosure("certificate", f"rank-{rank}", hits, beside, ranks=rank, note=note)


def _follow(attacker: Attacker, trails: Mapping[str, Score], chosen: set[str], rows: Numbers) -> Score:
    """The score of the trail that is best for these rows, whose name is added to `chosen`."""
    (name,) = best(attacker, trails, rows)
    chosen.add(name)

    def score(probes: Numbers) -> Scores:
        fits = trails[name](probes)
        lost = ~fits.any(axis=1)
        fits[lost] = attacker.picture(probes[lost])  # where no trail begins there is the picture
        return fits

    return score


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
