"""Where a dataset's labels and its faces disagree, for a person to look at: nothing here changes who is who.

Three ways to be wrong, each with a consequence for privacy: a face under another person's name wears that person's
surrogate; one person under two names counts twice in an equivalence class; two people under one name share a template
that is neither's. Similarity is the mean cosine over pairs of faces, as in `subjects`, and a face is never compared
with itself. Two bars decide: `near`, from which two groups look like one person, and `apart`, below which they do not.
In between nothing is said.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.clustering import bar, normalized
from anonlib.privacy.knn import Numbers, Vectors, close_pairs, nearest

_CANDIDATES = 4
_NEIGHBOURS = 16
_COMPARED = 512
"""Faces of one label that are compared with each other; of more, evenly spaced ones."""


@dataclass(frozen=True)
class Misplaced:
    """A face whose own label is far and another is near; `own` and `other`: mean cosines to their other faces."""

    face: int
    label: int
    like: int
    own: float
    other: float


@dataclass(frozen=True)
class OnePerson:
    """Two labels, the lower number first, whose faces look like one person's; `cosine`: the mean over their pairs."""

    first: int
    second: int
    cosine: float


@dataclass(frozen=True)
class TwoPeople:
    """A label whose faces fall in two groups of two or more; `faces`: the smaller; `cosine`: mean between them."""

    label: int
    faces: tuple[int, ...]
    cosine: float


@dataclass(frozen=True)
class Disagreements:
    """What was found, in the order of faces and labels."""

    misplaced: tuple[Misplaced, ...]
    one_person: tuple[OnePerson, ...]
    two_people: tuple[TwoPeople, ...]

    def __len__(self) -> int:
        return len(self.misplaced) + len(self.one_person) + len(self.two_people)


def disagreements(embeddings: Vectors, label: Numbers, *, near: float, apart: float) -> Disagreements:
    """Findings on unit embeddings (n, d) under labels (n,) numbered from 0; `near` and `apart` are mean cosines."""
    if apart > near:
        raise ValueError(f"faces cannot be both like and unlike each other: apart {apart} is above near {near}")
    if len(label) == 0:
        return Disagreements((), (), ())
    faces = np.bincount(label)
    sums = np.zeros((len(faces), embeddings.shape[1]), np.float64)
    np.add.at(sums, label, embeddings)
    means = (sums / np.maximum(faces, 1)[:, None]).astype(np.float32)
    divided = _two_people(embeddings, label, means, faces, apart)
    explained = {face for one in divided for face in one.faces}
    misplaced = _misplaced(embeddings, label, sums, faces, near, apart)
    return Disagreements(
        tuple(one for one in misplaced if one.face not in explained), _one_person(means, faces, near), tuple(divided)
    )


def _misplaced(
    embeddings: Vectors, label: Numbers, sums: NDArray[np.float64], faces: Numbers, near: float, apart: float
) -> list[Misplaced]:
    own = (np.einsum("ij,ij->i", embeddings, sums[label]) - 1.0) / np.maximum(faces[label] - 1, 1)
    suspects = np.flatnonzero((own < apart) & (faces[label] > 1))
    means = sums / np.maximum(faces, 1)[:, None]
    found = nearest(
        embeddings[suspects], normalized(means.astype(np.float32)), count=min(_CANDIDATES, len(faces)), floor=near
    )
    misplaced = []
    for face, others in zip(suspects.tolist(), found.tolist(), strict=True):
        known = [other for other in others if other >= 0 and other != label[face]]
        ranked = sorted((-float(embeddings[face] @ means[other]), other) for other in known)
        if ranked and -ranked[0][0] >= near:
            misplaced.append(Misplaced(face, int(label[face]), ranked[0][1], float(own[face]), -ranked[0][0]))
    return misplaced


def _one_person(means: Vectors, faces: Numbers, near: float) -> tuple[OnePerson, ...]:
    first, second = close_pairs(normalized(means), count=min(_NEIGHBOURS, max(len(means) - 1, 1)), floor=near)
    cosine = np.einsum("ij,ij->i", means[first], means[second])
    like = np.flatnonzero(cosine >= bar(near, faces[first], faces[second]))
    return tuple(OnePerson(int(first[pair]), int(second[pair]), float(cosine[pair])) for pair in like)


def _two_people(embeddings: Vectors, label: Numbers, means: Vectors, faces: Numbers, apart: float) -> list[TwoPeople]:
    """Labels whose average-linkage tree ends in two groups below `apart`."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    order = np.argsort(label, kind="stable")
    bounds = np.searchsorted(label[order], np.arange(len(faces) + 1))
    scatter = 1.0 - np.einsum("ij,ij->i", means, means)
    found = []
    for one in np.flatnonzero((faces >= 4) & (scatter > 0)):
        rows = order[bounds[one] : bounds[one + 1]]
        rows = rows[:: -(-len(rows) // _COMPARED)]
        distance = 1.0 - embeddings[rows] @ embeddings[rows].T
        np.fill_diagonal(distance, 0.0)
        if distance.max() < 1.0 - apart:
            continue
        tree = linkage(squareform(np.maximum(distance, 0.0), checks=False), "average")
        side = fcluster(tree, 2, "maxclust")
        small = min(rows[side == 1], rows[side == 2], key=len)
        if len(small) > 1 and 1.0 - tree[-1, 2] < apart:
            found.append(TwoPeople(int(one), tuple(small.tolist()), float(1.0 - tree[-1, 2])))
    return found
