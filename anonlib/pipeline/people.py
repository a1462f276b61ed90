"""Who is in a dataset, as columns: subjects from labels and clusters, and which of their faces may be averaged.

A labelled face belongs to its label, even where it looks like someone else: the labels are checked, not corrected. The
others are clustered, and a cluster that looks like a labelled subject joins that one, so that a person keeps one
replacement in photos with and without a label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.faces.mesh import MIN_PRESENCE
from anonlib.pipeline.label_check import LabelCheck, check_labels
from anonlib.privacy.classes import Stratum
from anonlib.privacy.joining import bank_of, join
from anonlib.privacy.keys import Keyring
from anonlib.privacy.subjects import by_label, templates

SAME_PERSON = 0.925
"""dlib cosine from which two faces among `_CROWD` are one person: fewer than half as many pairs are merged as split.

From half of 840 people of LFW (jobs/evaluate_subjects.py); how the bar rises was chosen on all of them.
"""
APART = 0.88
"""dlib mean cosine below which faces are not one person's; a thousandth of pairs of one person's photos lie below."""
PORTRAITS_A_DONOR = 3

FEATURES = (
    "face_id", "label", "embedding", "presence", "yaw", "pitch", "sharpness", "clarity", "glasses", "age", "female",
    "landmarks",
)  # fmt: skip
"""Columns of FACES from which a plan decides who is who and who may be averaged."""

_CROWD, _LEAST_CROWD, _STRICTER_A_DECADE = 5000, 50, 0.01
LABEL_MARGIN = 0.01
"""Above `same_person`, where labels are doubted: of LFW's labels set wrong on purpose, 66 % of the faces, 76 % of the
people under two names and 84 % of the pairs under one name were found; of 840 right names 15 pairs were doubted."""
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
    label_check: LabelCheck


def same_person(faces: int) -> float:
    """dlib cosine from which two of `faces` faces are one person.

    In a larger crowd more strangers look alike, and two faces are less likely one person to begin with. Measured on
    40 to 5,000 faces, the same precision of clusters takes .008 to .012 more for ten times the faces.
    """
    return SAME_PERSON + _STRICTER_A_DECADE * math.log10(max(faces, _LEAST_CROWD) / _CROWD)


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
    threshold = same_person(count)
    of_face[~labelled] = join(
        bank_of(embeddings[labelled], named, len(names)), embeddings[~labelled], threshold=threshold
    )
    subjects = int(of_face.max(initial=-1)) + 1
    first = np.unique(of_face, return_index=True)[1]
    ids = [keyring.pseudonym("subject", "label", name) for name in names]
    ids += [keyring.pseudonym("subject", "cluster", face_ids[row]) for row in first[len(names) :]]
    weight = np.bincount(of_face, minlength=subjects)

    def mean_of(name: str) -> NDArray[np.float32]:
        return np.asarray(np.bincount(of_face, column(faces, name), subjects) / np.maximum(weight, 1), np.float32)

    return People(
        of_face,
        ids,
        [*names, *[None] * (subjects - len(names))],
        templates(embeddings, of_face, subjects),
        mean_of("female"),
        mean_of("age"),
        check_labels(
            embeddings[labelled],
            [name for name in labels if name is not None],
            [face for face, known in zip(face_ids, labelled, strict=True) if known],
            near=threshold + LABEL_MARGIN,
            apart=APART,
        ),
    )


def stratum_of(female: float, age: float) -> Stratum:
    """Gender and age band; an estimate of gender that is not sure is a band of its own."""
    gender = "female" if female >= _SURE else "male" if female <= 1 - _SURE else "unsure"
    return gender, f"age-{sum(age >= limit for limit in _AGE_BANDS)}"


def donor_faces_of(faces: pa.Table) -> NDArray[np.int64]:
    """Faces good enough to be averaged: nearly frontal, large, sharp, without glasses."""
    good = (
        (column(faces, "presence") >= MIN_PRESENCE)
        & (column(faces, "glasses") <= 0)
        & (column(faces, "clarity") >= _DONOR_CLARITY)
        & (np.abs(column(faces, "yaw")) <= _DONOR_YAW)
        & (np.abs(column(faces, "pitch")) <= _DONOR_PITCH)
        & (eye_distance(faces) >= _DONOR_EYES)
        & (column(faces, "sharpness") >= _DONOR_SHARPNESS)
    )
    return np.flatnonzero(good)


def eye_distance(faces: pa.Table) -> NDArray[np.float32]:
    """Px between the eyes of each face (n,), as the detector saw them."""
    landmarks = matrix(faces, "landmarks").reshape(-1, 5, 2)
    return np.asarray(np.linalg.norm(landmarks[:, 1] - landmarks[:, 0], axis=1), np.float32)


def best_portraits(faces: pa.Table, of_face: NDArray[np.int64], donor_faces: NDArray[np.int64]) -> dict[int, list[int]]:
    """Each donor's best faces."""
    order = donor_faces[np.argsort(badness(faces)[donor_faces], kind="stable")]
    best: dict[int, list[int]] = {}
    for face in order:
        chosen = best.setdefault(int(of_face[face]), [])
        if len(chosen) < PORTRAITS_A_DONOR:
            chosen.append(int(face))
    return best


def badness(faces: pa.Table) -> NDArray[np.float64]:
    """What speaks against each face (n,) as a portrait: turned, blurred, a hat, glasses or hair before the skin."""
    return np.asarray(
        np.abs(column(faces, "yaw"))
        + 0.5 * np.abs(column(faces, "pitch"))
        - 0.3 * np.minimum(column(faces, "sharpness"), 40.0)
        - 60.0 * column(faces, "clarity"),
        np.float64,
    )


def column(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A number a row (n,)."""
    return np.asarray(table.column(name).to_numpy(), np.float64)


def matrix(table: pa.Table, name: str) -> NDArray[np.float32]:
    """A fixed-size list a row (n, d)."""
    column = table.column(name).combine_chunks()
    if table.num_rows == 0:
        return np.zeros((0, 1), np.float32)
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(table.num_rows, -1)
