"""Who is in a dataset, as columns: subjects from labels and clusters, and which of their faces may be averaged.

A labelled face belongs to its label. The others are clustered, and a cluster that looks like a labelled subject joins
that one, so that a person keeps one replacement in photos with and without a label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.faces.mesh import MIN_PRESENCE
from anonlib.privacy.classes import Stratum
from anonlib.privacy.keys import Keyring
from anonlib.privacy.subjects import by_label, cluster, normalized, templates

SAME_PERSON = 0.945
"""dlib cosine of two photos of one person: stricter than FAR 1e-3 (0.927), since merging two people is worse."""
PORTRAITS_A_DONOR = 3

_SURE = 0.7
_AGE_BANDS = (35.0, 50.0)
_DONOR_YAW, _DONOR_PITCH, _DONOR_EYES = 35.0, 30.0, 24.0
_DONOR_SHARPNESS = 9.0
_DONOR_CLARITY = 0.55


@dataclass(frozen=True)
class People:
    """Subjects as columns: `of_face` (n,) subject numbers, `ids`, `labels`, `template` (s, d), attributes (s,).

    `labels`: the dataset's name for the person, None if a cluster was formed.
    """

    of_face: NDArray[np.int64]
    ids: list[str]
    labels: list[str | None]
    template: NDArray[np.float32]
    female: NDArray[np.float32]
    age: NDArray[np.float32]


def people_of(faces: pa.Table, keyring: Keyring) -> People:
    """Labelled faces by label; the others by clustering, a cluster like a labelled subject joining it."""
    count = faces.num_rows
    embeddings = matrix(faces, "embedding")
    labels = faces.column("label").to_pylist()
    face_ids = faces.column("face_id").to_pylist()
    labelled = np.array([name is not None for name in labels], bool)
    of_face = np.full(count, -1, np.int64)
    named, names = by_label([name for name in labels if name is not None])
    of_face[labelled] = named
    ids = [keyring.pseudonym("subject", "label", name) for name in names]
    known = (
        templates(embeddings[labelled], named, len(names)) if names else np.zeros((0, embeddings.shape[1]), np.float32)
    )
    groups = cluster(embeddings[~labelled], threshold=SAME_PERSON)
    rest = np.flatnonzero(~labelled)
    joined = 0
    for group in range(int(groups.max(initial=-1)) + 1):
        rows = rest[groups == group]
        mean = normalized(embeddings[rows].mean(axis=0, keepdims=True))[0]
        similarity = known @ mean if len(known) else np.zeros(1)
        if len(known) and similarity.max() >= SAME_PERSON:
            of_face[rows] = int(similarity.argmax())
        else:
            of_face[rows] = len(names) + joined
            ids.append(keyring.pseudonym("subject", "cluster", face_ids[rows[0]]))
            joined += 1
    subjects = len(ids)
    weight = np.bincount(of_face, minlength=subjects)

    def mean_of(name: str) -> NDArray[np.float32]:
        return np.asarray(np.bincount(of_face, column(faces, name), subjects) / np.maximum(weight, 1), np.float32)

    return People(
        of_face,
        ids,
        [*names, *[None] * joined],
        templates(embeddings, of_face, subjects),
        mean_of("female"),
        mean_of("age"),
    )


def stratum_of(female: float, age: float) -> Stratum:
    """Gender and age band; an estimate of gender that is not sure is a band of its own."""
    gender = "female" if female >= _SURE else "male" if female <= 1 - _SURE else "unsure"
    return gender, f"age-{sum(age >= limit for limit in _AGE_BANDS)}"


def donor_faces_of(faces: pa.Table) -> NDArray[np.int64]:
    """Faces good enough to be averaged: nearly frontal, large, sharp, without glasses."""
    landmarks = matrix(faces, "landmarks").reshape(-1, 5, 2)
    eyes = np.linalg.norm(landmarks[:, 1] - landmarks[:, 0], axis=1)
    good = (
        (column(faces, "presence") >= MIN_PRESENCE)
        & (column(faces, "glasses") <= 0)
        & (column(faces, "clarity") >= _DONOR_CLARITY)
        & (np.abs(column(faces, "yaw")) <= _DONOR_YAW)
        & (np.abs(column(faces, "pitch")) <= _DONOR_PITCH)
        & (eyes >= _DONOR_EYES)
        & (column(faces, "sharpness") >= _DONOR_SHARPNESS)
    )
    return np.flatnonzero(good)


def best_portraits(faces: pa.Table, of_face: NDArray[np.int64], donor_faces: NDArray[np.int64]) -> dict[int, list[int]]:
    """Each donor's best faces: frontal, sharp, and with nothing (a hat, glasses, hair) between skin and camera."""
    badness = (
        np.abs(column(faces, "yaw"))
        + 0.5 * np.abs(column(faces, "pitch"))
        - 0.3 * np.minimum(column(faces, "sharpness"), 40.0)
        - 60.0 * column(faces, "clarity")
    )
    order = donor_faces[np.argsort(badness[donor_faces], kind="stable")]
    best: dict[int, list[int]] = {}
    for face in order:
        chosen = best.setdefault(int(of_face[face]), [])
        if len(chosen) < PORTRAITS_A_DONOR:
            chosen.append(int(face))
    return best


def column(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A number a row (n,)."""
    return np.asarray(table.column(name).to_numpy(), np.float64)


def matrix(table: pa.Table, name: str) -> NDArray[np.float32]:
    """A fixed-size list a row (n, d)."""
    column = table.column(name).combine_chunks()
    if table.num_rows == 0:
        return np.zeros((0, 1), np.float32)
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(table.num_rows, -1)
