"""Group faces into subjects and subjects into persons: by labels, by clustering, by joining known subjects.

Two clusters are as similar as the mean cosine over all pairs of their faces, so one lucky pair cannot chain two people
together: average linkage (Sokal and Michener 1958), the product of the unscaled means. Clusters that are each other's
best partner are joined at once until no pair reaches the bar, which gives the very tree of joining the best pair first
(Bruynooghe 1977; Murtagh 1983) in dozens of vectorized rounds. Only pairs of nearest neighbours are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.knn import EXACT_BELOW, Numbers, Rows, Vectors, close_pairs, nearest

RISE = 0.01
"""How much higher the bar is for two large clusters than for two faces: a mean over many pairs scatters less."""
SHARE = 0.85  # weight of the first recognizer's cosine in fused vectors, whose cosines scatter half as much
KEPT = 128  # directions of the second recognizer that fused vectors keep
MOST = 12
"""Subjects in one tie. At 8, most of the people that LFW still splits have a part in a tie that is full."""
_LENIENCE = 0.025  # how far the bar for a tie lies below the bar for one subject, in mean cosine
_OTHER_GENDER = 0.5  # subjects whose probabilities of female differ by more are different people
_COMPARED = 512  # faces of one label that are compared with each other; of more, evenly spaced ones
_FACES_NAMED, _NEIGHBOURS, _CANDIDATES, _SEED = 5, 32, 8, 20
_ROWS, _FUSED_ROWS = 32_768, 65_536
_PAIRS = 1_000_000  # pairs whose clusters are joined at once, unless more of them are connected


Groups = dict[int, frozenset[int]]


def normalized(vectors: Vectors) -> Vectors:
    """Rows scaled to unit length; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)


def bar(threshold: float, first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Mean cosine (n,) from which clusters of `first` and `second` faces (n,) are one person."""
    return np.asarray(threshold + RISE * (1.0 - 0.5 * (1.0 / first + 1.0 / second)), np.float64)


def cluster(
    embeddings: Rows,
    *,
    threshold: float,
    apart: Iterable[Sequence[int]] = (),
    neighbours: int = _NEIGHBOURS,
    exact_below: int = EXACT_BELOW,
) -> Numbers:
    """Cluster numbers (N,), in order of first face, for unit embeddings (N, d), float32 or float16.

    `threshold`: cosine from which two faces alone are one person; in a tie the lower number. `apart`: groups of faces,
    no two of which are one person unless they are copies (cannot-link, Wagstaff and Cardie 2000). `exact_below`: see
    knn.
    """
    first, number = np.unique(_first_copies(embeddings), return_inverse=True)
    groups: Groups = {}
    for group, rows in enumerate(apart):
        for row in rows:
            groups[number[row]] = groups.get(number[row], frozenset()) | {group}
    sizes = np.bincount(number).astype(np.float64)
    sums: Rows = embeddings
    if len(first) < len(embeddings):
        sums = embeddings[first] * sizes[:, None].astype(embeddings.dtype)
    means, asking = embeddings if len(first) == len(embeddings) else embeddings[first], None
    while True:
        pairs = close_pairs(means, asking, count=neighbours, floor=threshold, exact_below=exact_below)
        root, grown, grown_sums, grown_sizes = _joined_by_component(sums, sizes, *pairs, threshold, groups)
        if len(grown) == 0:
            return np.asarray(number, np.int64)
        alive, joined = np.unique(root, return_inverse=True)
        number = joined[number]
        moved: Groups = {}
        for row, of in groups.items():
            moved[joined[row]] = moved.get(joined[row], frozenset()) | of
        groups = moved
        # What was joined asks again: a mean finds neighbours that faces crowded by their own copies did not see.
        asking = np.searchsorted(alive, grown)
        sums, sizes = np.asarray(sums[alive]), sizes[alive]
        sums[asking], sizes[asking] = grown_sums, grown_sizes
        del grown_sums
        means = _comparable(sums)


def _comparable(means: Rows) -> Rows:
    """Rows as `knn` takes them: float16 ones of any length, float32 ones of length 1."""
    return means if means.dtype == np.float16 else normalized(means)


def _first_copies(rows: Rows) -> Numbers:
    """(n,) The first row equal to each: copies of a photo are one face many times, and would all tie."""
    own = np.arange(len(rows))
    words = rows.shape[1] * rows.itemsize // 4
    weights = np.random.default_rng(_SEED).integers(1 << 63, size=words, dtype=np.uint64) | np.uint64(1)
    hashed = np.zeros(len(rows), np.uint64)
    for start in range(0, len(rows), _ROWS):
        block = np.ascontiguousarray(rows[start : start + _ROWS])
        hashed[start : start + _ROWS] = block.view(np.uint32).astype(np.uint64) @ weights
    _, first, group = np.unique(hashed, return_index=True, return_inverse=True)
    candidate = first[group]
    repeated = np.flatnonzero(candidate != own)
    for start in range(0, len(repeated), _ROWS):
        block = repeated[start : start + _ROWS]
        equal = block[(rows[block] == rows[candidate[block]]).all(axis=1)]
        own[equal] = candidate[equal]
    return own


def _joined_by_component(
    sums: Rows, sizes: NDArray[np.float64], first: Numbers, second: Numbers, threshold: float, groups: Groups
) -> tuple[Numbers, Numbers, Rows, NDArray[np.float64]]:
    """(n,) The lowest member of the cluster each of n ends in; which rows have grown, their new sums and sizes.
    `groups`: by row, those of which it has members; two rows of one are never joined.

    What no pair connects never meets, so the parts that pairs connect are joined some at a time, each in a copy of its
    rows: a table on disk is only read.
    """
    root = np.arange(len(sums))
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(first), np.bool_), (first, second)), shape=(len(sums), len(sums)))
    component = connected_components(links, directed=False)[1]
    order = np.argsort(component[first], kind="stable")
    first, second, component = first[order], second[order], component[first[order]]
    edges = np.concatenate([[0], np.flatnonzero(np.diff(component)) + 1, [len(first)]]).astype(np.int64)
    grown: list[Numbers] = []
    grown_sums: list[Rows] = []
    grown_sizes: list[NDArray[np.float64]] = []
    start = 0
    while start < len(first):
        stop = int(edges[max(np.searchsorted(edges, start + _PAIRS, "right") - 1, np.searchsorted(edges, start) + 1)])
        rows, local = np.unique(np.concatenate([first[start:stop], second[start:stop]]), return_inverse=True)
        own_sums, own_sizes = np.array(sums[rows]), sizes[rows]
        held = {place: groups[row] for place, row in enumerate(rows.tolist()) if row in groups} if groups else {}
        of = _joined(own_sums, own_sizes, local[: stop - start], local[stop - start :], threshold, held)
        root[rows] = rows[of]
        larger = np.flatnonzero((of == np.arange(len(rows))) & (own_sizes > sizes[rows]))
        grown.append(rows[larger])
        grown_sums.append(own_sums[larger])
        grown_sizes.append(own_sizes[larger])
        start = stop
    if not grown:
        return root, np.zeros(0, np.int64), sums[:0], sizes[:0]
    every = np.concatenate(grown)
    place = np.argsort(every)
    return root, every[place], np.concatenate(grown_sums)[place], np.concatenate(grown_sizes)[place]


def _joined(
    sums: Rows, sizes: NDArray[np.float64], first: Numbers, second: Numbers, threshold: float, groups: Groups
) -> Numbers:
    """(n,) The lowest member of the cluster each of n ends in; `sums`, `sizes` and `groups` of these grow in place."""
    parent = np.arange(len(sums))
    best = np.empty(len(sums))
    partner, none = np.empty(len(sums), np.int64), frozenset[int]()
    margin = _margins(sums, sizes, first, second, threshold)
    while True:
        near = margin >= 0
        first, second, margin = first[near], second[near], margin[near]
        if len(first) == 0:
            break
        best[first] = best[second] = -1.0
        np.maximum.at(best, first, margin)
        np.maximum.at(best, second, margin)
        mutual = np.flatnonzero((margin == best[first]) & (margin == best[second]))
        one, two = first[mutual], second[mutual]
        partner[one] = partner[two] = len(sums)
        np.minimum.at(partner, one, two)
        np.minimum.at(partner, two, one)
        agreed = (partner[one] == two) & (partner[two] == one)
        mutual, one, two = mutual[agreed], one[agreed], two[agreed]
        if groups:
            pairs = zip(one.tolist(), two.tolist(), strict=True)
            may = np.array([groups.get(a, none).isdisjoint(groups.get(b, none)) for a, b in pairs], np.bool_)
            margin[mutual[~may]] = -1.0
            one, two = one[may], two[may]
            for a, b in zip(one.tolist(), two.tolist(), strict=True):
                if b in groups:
                    groups[a] = groups.get(a, none) | groups.pop(b)
        sums[one] += sums[two]
        sizes[one] += sizes[two]
        parent[two] = one
        partner[first] = partner[second] = -1
        partner[one] = partner[two] = 0
        touched = (partner[first] == 0) | (partner[second] == 0)
        moved = parent[first[touched]], parent[second[touched]]
        keys = np.minimum(*moved) * len(sums) + np.maximum(*moved)
        low, high = np.divmod(np.unique(keys[moved[0] != moved[1]]), len(sums))
        margin = np.concatenate([margin[~touched], _margins(sums, sizes, low, high, threshold)])
        first, second = np.concatenate([first[~touched], low]), np.concatenate([second[~touched], high])
    while (parent != parent[parent]).any():
        parent = parent[parent]
    return parent


def _margins(
    sums: Rows, sizes: NDArray[np.float64], first: Numbers, second: Numbers, threshold: float
) -> NDArray[np.float64]:
    """(m,) How far the mean cosine of each pair of clusters lies above its bar."""
    cosine = _products(sums, first, second) / (sizes[first] * sizes[second])
    return np.asarray(cosine - bar(threshold, sizes[first], sizes[second]), np.float64)


def _products(rows: Rows, first: Numbers, second: Numbers) -> Vectors:
    """(m,) Inner products of the rows of each pair."""
    products = np.empty(len(first), np.float32)
    for start in range(0, len(first), _ROWS):
        pair = slice(start, start + _ROWS)
        a, b = rows[first[pair]].astype(np.float32), rows[second[pair]].astype(np.float32)
        products[pair] = np.einsum("ij,ij->i", a, b)
    return products


def templates(embeddings: Rows, subject: Numbers, subjects: int) -> Vectors:
    """Unit mean embedding (subjects, d) of each subject's faces; `subject` (n,) numbers them from 0."""
    units = np.empty((subjects, embeddings.shape[1]), np.float32)
    for rows, sums in _sums_of(embeddings, subject, subjects):
        units[rows] = normalized(sums.astype(np.float32))
    return units


def _sums_of(embeddings: Rows, subject: Numbers, subjects: int) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Blocks of subjects and the sums (block, d) of their embeddings, added in the order of faces."""
    order = np.argsort(subject, kind="stable")
    bounds = np.searchsorted(subject[order], np.arange(subjects + 1))
    for start in range(0, subjects, _ROWS):
        stop = min(start + _ROWS, subjects)
        sums = np.zeros((stop - start, embeddings.shape[1]))
        held = np.flatnonzero(np.diff(bounds[start : stop + 1]))
        if len(held):
            rows = embeddings[order[bounds[start] : bounds[stop]]].astype(np.float64)
            sums[held] = np.add.reduceat(rows, bounds[start:stop][held] - bounds[start], axis=0)
        yield slice(start, stop), sums


def by_label(labels: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Subject numbers (N,) and the sorted labels they stand for."""
    names = sorted(set(labels))
    number = {name: index for index, name in enumerate(names)}
    return np.array([number[label] for label in labels], np.int64), names


class Subjects(NamedTuple):
    """`means` (m, d) of subjects' unit embeddings, not scaled to unit length, and the `faces` (m,) behind each."""

    means: Rows
    faces: Numbers


def known_subjects(embeddings: Rows, subject: Numbers, subjects: int) -> Subjects:
    """The subjects (n,), numbered from 0, of unit embeddings (n, d)."""
    faces = np.bincount(subject, minlength=subjects)
    means = np.empty((subjects, embeddings.shape[1]), embeddings.dtype)
    for rows, sums in _sums_of(embeddings, subject, subjects):
        means[rows] = sums / np.maximum(faces[rows, None], 1)
    return Subjects(means, faces)


def join(
    known: Subjects,
    embeddings: Rows,
    *,
    threshold: float,
    apart: Iterable[Sequence[int]] = (),
    others: Iterable[tuple[int, int]] = (),
) -> Numbers:
    """(n,) The subject of each unit embedding (n, d): a known one's number, or a new one's, numbered by first face.
    `apart`: see cluster; `others`: faces and the known subject that each is not.

    Known subjects never move, since two releases together would then narrow down the person behind a face. The faces
    are clustered among themselves, by `threshold`, and each group joins the one known subject that it is most like, as
    these stood before: a group like two of them does not unite them, and the order of faces does not matter.
    """
    group = cluster(embeddings, threshold=threshold, apart=apart)
    if len(known.faces) == 0:
        return group
    arrived = known_subjects(embeddings, group, int(group.max(initial=-1)) + 1)
    candidates = min(_CANDIDATES, len(known.faces))
    found = nearest(_comparable(arrived.means), _comparable(known.means), count=candidates, floor=threshold)
    found = np.sort(found.astype(np.int64), axis=1)  # in a tie the lower number
    cosine = np.einsum("ij,ikj->ik", arrived.means.astype(np.float32), known.means[found].astype(np.float32))
    margin = cosine - bar(threshold, arrived.faces[:, None], known.faces[found])
    margin[found < 0] = -1.0
    for face, subject in others:
        margin[group[face], found[group[face]] == subject] = -1.0
    best = margin.argmax(axis=1)[:, None]
    like = np.where(np.take_along_axis(margin, best, axis=1) >= 0, np.take_along_axis(found, best, axis=1), -1)[:, 0]
    fresh = like < 0
    like[fresh] = len(known.faces) + np.arange(np.count_nonzero(fresh))
    return like[group]


# ---- two recognizers as one: they err on different photos, so their weighted mean tells people apart better ------
# On 4,054 photos of 840 people of LFW, pairs of one person found at FAR 1e-4 rise from 82 % of either to 91 %.


def fused(first: Vectors, second: NDArray[np.float16], basis: Vectors | None = None) -> Vectors:
    """Unit vectors (n, d + KEPT at most) whose cosine is the mean of those of unit `first` (n, d) and `second` (n, e).

    `basis`: of `directions`, else of these rows. Rounded, so that copies stay equal.
    """
    starts = range(0, len(second), _FUSED_ROWS)
    if basis is None:
        basis = directions((second[start : start + _FUSED_ROWS] for start in starts), second.shape[1])
    both = np.empty((len(first), first.shape[1] + basis.shape[1]), np.float32)
    for start in starts:
        rows = slice(start, start + _FUSED_ROWS)
        short = normalized(normalized(second[rows].astype(np.float32) @ basis).round(4))
        both[rows] = np.concatenate([math.sqrt(SHARE) * first[rows], math.sqrt(1 - SHARE) * short], axis=1)
    return both


def directions(blocks: Iterable[NDArray[np.float16]], length: int) -> Vectors:
    """Principal components (length, KEPT at most), not centred, of the second recognizer's vectors (n, length)."""
    moment = np.zeros((length, length))
    for block in blocks:
        rows = block.astype(np.float32)
        moment += rows.T @ rows
    return np.linalg.eigh(moment)[1][:, -KEPT:].astype(np.float32)


# ---- ties: clustering splits a person whose photos differ much, so subjects that may be one person are tied ------


def tied(subjects: Subjects, labelled: NDArray[np.bool_], female: NDArray[np.float32], *, threshold: float) -> Numbers:
    """Person numbers (n,), in order of first subject: tied subjects share a class and a draw, and count as one for k.

    The bar is lower than `threshold`, since a wrong tie only makes classes a little larger. The most alike are tied
    first, and at most MOST together: at any useful bar links connect nearly everybody. `labelled` (n,) subjects are
    different people. `female` (n,): no person is of both genders.
    """
    means, faces = subjects
    lenient = threshold - _LENIENCE
    first, second = close_pairs(_comparable(means), count=_NEIGHBOURS, floor=lenient)
    margin = _products(means, first, second) - bar(lenient, faces[first], faces[second])
    margin[np.abs(female[first] - female[second]) > _OTHER_GENDER] = -1.0
    parent = np.arange(len(means))
    size, names = np.ones(len(means), np.int64), labelled.astype(np.int64)

    def root(subject: int) -> int:
        while parent[subject] != subject:
            parent[subject] = parent[parent[subject]]
            subject = int(parent[subject])
        return subject

    order = np.lexsort((second, first, -margin))
    for pair in order[margin[order] >= 0].tolist():
        one, two = sorted((root(int(first[pair])), root(int(second[pair]))))
        if one != two and size[one] + size[two] <= MOST and names[one] + names[two] <= 1:
            parent[two] = one
            size[one] += size[two]
            names[one] += names[two]
    roots = np.array([root(subject) for subject in range(len(means))], np.int64)
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


# ---- where labels and faces disagree, for a person to look at: nothing here changes who is who -------------------


def label_doubts(
    embeddings: Vectors, labels: Sequence[str], face_ids: Sequence[str], *, near: float, apart: float
) -> list[str]:
    """Sentences on unit embeddings (n, d), each with a label and an id; they name people, so never for the release.

    A wrong name wears another's surrogate, two names count twice for k, two people share a template of neither. Groups
    are alike from the mean cosine `near` on and unlike below `apart`; a face is never compared with itself.
    """
    if not labels:
        return []
    label, names = by_label(labels)
    means, faces = known_subjects(embeddings, label, len(names))
    second = dict(_second_people(embeddings, label, means, faces, apart))
    explained = {face for group in second.values() for face in group.tolist()}
    own = (np.einsum("ij,ij->i", embeddings, means[label]) * faces[label] - 1.0) / np.maximum(faces[label] - 1, 1)
    suspects = [face for face in np.flatnonzero((own < apart) & (faces[label] > 1)).tolist() if face not in explained]
    known = nearest(embeddings[suspects], normalized(means), count=min(_CANDIDATES, len(names)), floor=near)
    doubts = []
    for face, others in zip(suspects, known.tolist(), strict=True):
        cosine = {other: embeddings[face] @ means[other] for other in others if other not in (-1, label[face])}
        like = max(cosine, key=lambda other: cosine[other], default=-1)
        if like >= 0 and cosine[like] >= near:
            doubts.append(f"{face_ids[face]} is labelled {labels[face]} and looks like {names[like]}")
    one, two = close_pairs(normalized(means), count=_NEIGHBOURS // 2, floor=near)
    alike = np.einsum("ij,ij->i", means[one], means[two]) >= bar(near, faces[one], faces[two])
    pairs = zip(one[alike].tolist(), two[alike].tolist(), strict=True)
    doubts += [f"{names[low]} and {names[high]} look like one person" for low, high in pairs]
    for number, group in second.items():
        some = ", ".join(face_ids[face] for face in group[:_FACES_NAMED])
        more = f" and {len(group) - _FACES_NAMED} more" if len(group) > _FACES_NAMED else ""
        doubts.append(f"{names[number]} looks like two people, one of them in {some}{more}")
    return doubts


def _second_people(
    embeddings: Vectors, label: Numbers, means: Vectors, faces: Numbers, apart: float
) -> Iterator[tuple[int, Numbers]]:
    """Labels whose average-linkage tree ends in two groups of two or more below `apart`, with the smaller group."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    order = np.argsort(label, kind="stable")
    bounds = np.searchsorted(label[order], np.arange(len(faces) + 1))
    scatter = 1.0 - np.einsum("ij,ij->i", means, means)
    for number in np.flatnonzero((faces >= 4) & (scatter > 0)):
        rows: Numbers = order[bounds[number] : bounds[number + 1]]
        rows = rows[:: -(-len(rows) // _COMPARED)]
        distance = 1.0 - embeddings[rows] @ embeddings[rows].T
        np.fill_diagonal(distance, 0.0)
        if distance.max() < 1.0 - apart:
            continue
        tree = linkage(squareform(np.maximum(distance, 0.0), checks=False), "average")
        side = fcluster(tree, 2, "maxclust")
        small = min(rows[side == 1], rows[side == 2], key=len)
        if len(small) > 1 and 1.0 - tree[-1, 2] < apart:
            yield int(number), small
