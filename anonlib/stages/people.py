"""Who is in a dataset, as columns: subjects from labels and clusters, persons, and which faces may be averaged.

A labelled face belongs to its label: the labels are checked, not corrected. The others are clustered, and a cluster
that looks like a labelled subject joins that one, so that a person keeps one replacement in photos with and without a
label. Subjects that may be one person are tied into one `person`, and what a method promises, it promises for persons.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.faces.embed import SAME_PERSON
from anonlib.faces.mesh import MIN_PRESENCE
from anonlib.faces.regions import overlaps
from anonlib.faces.track import Track
from anonlib.methods.base import Persons
from anonlib.privacy import clustering
from anonlib.privacy.classes import stratum_of
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.privacy.knn import EXACT_BELOW, Rows, unit
from anonlib.workspace.schemas import EMBEDDING_DIM, SECOND_DIM
from anonlib.workspace.tables import column, halves, matrix

_FUSED_LOWER = 0.046
"""How far the bar of `fused` vectors lies below dlib's: there BCubed F is best on half of the 840 people, .980; on the
others it is .985 (jobs/evaluate_subjects.py)."""
APART = 0.88
"""dlib mean cosine below which faces are not one person's; a thousandth of pairs of one person's photos lie below."""
PORTRAITS_A_DONOR = 3

VECTORS = ("embedding", "second")
"""Columns of FACES that face_vectors reads."""
FEATURES = ("face_id", "label", "presence", "yaw", "pitch", "sharpness", "clarity", "bare", "glasses", "age", "female",
            "tone", "landmarks")  # fmt: skip
"""Columns of FACES from which a plan groups faces into people and chooses those that may be averaged."""
PLACES = ("box", "track")
"""Columns of FACES that seen_at_once reads beside."""

_CROWD, _LEAST_CROWD, _STRICTER_A_DECADE = 5000, 50, 0.01
LABEL_MARGIN = 0.01
"""Above `same_person`, where labels are doubted: of LFW's labels set wrong on purpose, 66 % of the faces, 76 % of the
people under two names and 84 % of the pairs under one name were found; of 840 right names 15 pairs were doubted."""
_SURE = 0.7
_DONOR_YAW, _DONOR_PITCH, _DONOR_EYES = 35.0, 30.0, 24.0
_DONOR_SHARPNESS, _DONOR_CLARITY = 9.0, 0.55


@dataclass(frozen=True)
class People:
    """Subjects as columns: `of_face` (n,) subject numbers; `labels`: None where a cluster was formed; the others (s,).

    `person`: of each subject. `doubts`: sentences about labels that do not fit their faces.
    """

    of_face: NDArray[np.int64]
    person: NDArray[np.int64]
    ids: list[str]
    labels: list[str | None]
    template: NDArray[np.float32]
    female: NDArray[np.float32]
    age: NDArray[np.float32]
    tone: NDArray[np.float32]
    doubts: list[str]


def same_person(faces: int) -> float:
    """dlib cosine from which two of `faces` faces are one person; a larger crowd has more strangers that look alike."""
    return SAME_PERSON + _STRICTER_A_DECADE * math.log10(max(faces, _LEAST_CROWD) / _CROWD)


def same_fused(faces: int) -> float:
    """Cosine of vectors of both recognizers (`fused`) from which two of `faces` faces are one person."""
    return same_person(faces) - _FUSED_LOWER


def face_vectors(
    read: Callable[[], Iterator[pa.Table]], count: int, folder: Path, *, exact_below: int = EXACT_BELOW
) -> tuple[Rows, Rows]:
    """Of `count` faces the first recognizer's vectors (n, d), and those of both fused; `read` gives VECTORS by shard.

    Up to `exact_below` faces they are float32 in memory; more are float16 in a file in `folder`, written in a second
    pass, so that memory never holds the second recognizer's long vectors together.
    """
    if count <= exact_below:
        faces = pa.concat_tables(read())
        embeddings = matrix(faces, "embedding")
        return embeddings, clustering.fused(embeddings, halves(faces, "second"))
    basis = clustering.directions((halves(faces, "second") for faces in read() if faces.num_rows), SECOND_DIM)
    both = np.memmap(folder / "vectors", np.float16, "w+", shape=(count, EMBEDDING_DIM + basis.shape[1]))
    start = 0
    for faces in read():
        if faces.num_rows:
            rows = clustering.fused(matrix(faces, "embedding"), halves(faces, "second"), basis)
            both[start : start + len(rows)] = rows
            start += len(rows)
    both.flush()
    # The first recognizer's vectors are the first columns, scaled; whoever compares float16 rows scales them anyway.
    return both[:, :EMBEDDING_DIM], both


def seen_at_once(faces: pa.Table) -> list[list[int]]:
    """Groups of rows of one shard's FACES, no two of which are one person: they are in different places of one photo,
    or of one frame of a clip. Ties do not ask for it: what a mirror or a screen shows must not count towards k."""
    photos = defaultdict[str, list[int]](list)
    for row, face in enumerate(faces.column("face_id").to_pylist()):
        photos[face.rpartition("#")[0]].append(row)
    boxes, tracks, groups = matrix(faces, "box"), faces.column("track"), list[list[int]]()
    for rows in (rows for rows in photos.values() if len(rows) > 1):
        if not tracks[rows[0]].is_valid:
            groups.append([row for n, row in enumerate(rows) if not overlaps(boxes[row], boxes[rows[:n]]).any()])
            continue
        found = {row: Track.of(tracks[row].as_py()) for row in rows}
        groups += [[one, other] for one, other in combinations(rows, 2) if found[one].is_beside(found[other])]
    return groups


def people_of(
    faces: pa.Table, vectors: tuple[Rows, Rows], keyring: Keyring, apart: Sequence[Sequence[int]] = ()
) -> People:
    """Labelled faces by label; the others by clustering, a cluster like a labelled subject joining it.

    `apart`: groups of faces, no two of which are one person.
    """
    count, (embeddings, both) = faces.num_rows, vectors
    labels, face_ids = faces.column("label").to_pylist(), faces.column("face_id").to_pylist()
    labelled = np.array([name is not None for name in labels], bool)
    of_face = np.full(count, -1, np.int64)
    of_face[labelled], names = clustering.by_label([name for name in labels if name is not None])
    threshold = same_fused(count)
    unnamed = both[~labelled] if names else both
    known_by_label = clustering.known_subjects(both[labelled], of_face[labelled], len(names))
    place = np.cumsum(~labelled) - 1  # of a face among those without a label
    groups = [place[[row for row in group if not labelled[row]]].tolist() for group in apart]
    others = [
        (int(place[row]), int(of_face[known]))
        for group in apart
        for row, known in permutations(group, 2)
        if labelled[known] and not labelled[row]
    ]
    of_face[~labelled] = clustering.join(known_by_label, unnamed, threshold=threshold, apart=groups, others=others)
    subjects = int(of_face.max(initial=-1)) + 1
    formed = clustering.known_subjects(both, of_face, subjects)
    first = np.unique(of_face, return_index=True)[1]
    ids = [keyring.pseudonym(Purpose.SUBJECT, Purpose.LABEL, name) for name in names]
    ids += [keyring.pseudonym(Purpose.SUBJECT, Purpose.CLUSTER, face_ids[row]) for row in first[len(names) :]]
    weight = np.maximum(np.bincount(of_face, minlength=subjects), 1)
    female, age, tone = (
        np.asarray(np.bincount(of_face, column(faces, name), subjects) / weight, np.float32)
        for name in ("female", "age", "tone")
    )
    rows = np.flatnonzero(labelled)
    return People(
        of_face,
        clustering.tied(formed, np.arange(subjects) < len(names), female, threshold=threshold),
        ids,
        [*names, *[None] * (subjects - len(names))],
        clustering.templates(embeddings, of_face, subjects),
        female,
        age,
        tone,
        clustering.label_doubts(
            unit(embeddings[labelled]),
            [labels[row] for row in rows],
            [face_ids[row] for row in rows],
            near=same_person(count) + LABEL_MARGIN,
            apart=APART,
        ),
    )


def persons_of(people: People, replaced: NDArray[np.bool_], names: Sequence[object] | None = None) -> Persons:
    """The persons behind subjects; `replaced` (n,): the faces to be replaced; those of one of `names` are one."""
    person = people.person
    if names is not None:
        number: dict[object, int] = {}
        person = np.array([number.setdefault(names[subject], len(number)) for subject in person], np.int64)
    count = int(person.max(initial=-1)) + 1
    faces = np.bincount(people.of_face, minlength=len(person)).astype(np.float64)
    weight = np.maximum(np.bincount(person, faces, count), 1)
    looks = [np.bincount(person, faces * of, count) / weight for of in (people.female, people.age, people.tone)]
    sums = np.zeros((count, people.template.shape[1]))
    np.add.at(sums, person, people.template * faces[:, None])
    first = np.unique(person, return_index=True)[1]
    labels: list[str | None] = [None] * count
    for subject, label in enumerate(people.labels):
        if label is not None:
            labels[person[subject]] = label
    of_face = person[people.of_face]
    return Persons(
        of_face,
        [people.ids[subject] for subject in first],
        labels,
        clustering.normalized(sums.astype(np.float32)),
        [stratum_of(*of) for of in np.stack(looks, axis=1).tolist()],
        np.bincount(of_face[replaced], minlength=count),
        np.abs(looks[0] - 0.5) >= _SURE - 0.5,
    )


def donor_faces_of(faces: pa.Table) -> NDArray[np.int64]:
    """Faces good enough to be averaged: nearly frontal, large, sharp, without glasses."""
    landmarks = matrix(faces, "landmarks").reshape(-1, 5, 2)
    good = (
        (column(faces, "presence") >= MIN_PRESENCE)
        & (column(faces, "glasses") <= 0)
        & (column(faces, "clarity") >= _DONOR_CLARITY)
        & (np.abs(column(faces, "yaw")) <= _DONOR_YAW)
        & (np.abs(column(faces, "pitch")) <= _DONOR_PITCH)
        & (np.linalg.norm(landmarks[:, 1] - landmarks[:, 0], axis=1).astype(np.float32) >= _DONOR_EYES)
        & (column(faces, "sharpness") >= _DONOR_SHARPNESS)
    )
    return np.flatnonzero(good)


def best_portraits(faces: pa.Table, of_face: NDArray[np.int64], donor_faces: NDArray[np.int64]) -> dict[int, list[int]]:
    """Each donor's best faces; against a face speak: turned, blurred, and a hat, glasses or hair before the skin."""
    badness = np.asarray(
        np.abs(column(faces, "yaw"))
        + 0.5 * np.abs(column(faces, "pitch"))
        - 0.3 * np.minimum(column(faces, "sharpness"), 40.0)
        - 60.0 * column(faces, "clarity"),
        np.float64,
    )
    best: dict[int, list[int]] = {}
    for face in donor_faces[np.argsort(badness[donor_faces], kind="stable")]:
        chosen = best.setdefault(int(of_face[face]), [])
        if len(chosen) < PORTRAITS_A_DONOR:
            chosen.append(int(face))
    return best
