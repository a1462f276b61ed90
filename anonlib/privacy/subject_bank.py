"""New photos join the subjects of earlier releases, none of which ever moves.

Clustering everything anew for each release would shift people between subjects, and two releases together would then
narrow down who is who. So a subject that was once formed is fixed: the new faces are clustered among themselves, and
each group joins the one old subject it is most like, or becomes a new one. A group that is like two old subjects does
not unite them. All groups of one batch meet the bank as it stood before the batch, so the order within a batch does not
matter; the order of batches does: what arrives first decides what there is to join.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anonlib.privacy.clustering import bar, cluster, normalized
from anonlib.privacy.knn import Numbers, Vectors, nearest

_CANDIDATES = 8


@dataclass(frozen=True)
class SubjectBank:
    """Known subjects: `means` (m, d) of unit embeddings, not scaled to unit length, and `faces` (m,) behind each."""

    means: Vectors
    faces: Numbers

    def __post_init__(self) -> None:
        if len(self.means) != len(self.faces) or (self.faces < 1).any():
            raise ValueError("a bank needs a mean and at least one face for every subject")

    def __len__(self) -> int:
        return len(self.faces)


def bank_of(embeddings: Vectors, subject: Numbers, subjects: int) -> SubjectBank:
    """The bank of unit embeddings (n, d) whose subjects (n,) are numbered from 0, each with a face at least."""
    faces = np.bincount(subject, minlength=subjects)
    sums = np.zeros((subjects, embeddings.shape[1]), np.float64)
    np.add.at(sums, subject, embeddings)
    return SubjectBank((sums / np.maximum(faces, 1)[:, None]).astype(np.float32), faces)


def join(bank: SubjectBank, embeddings: Vectors, *, threshold: float) -> Numbers:
    """(n,) The subject of each unit embedding (n, d): an old one's number, or from len(bank) on a new one's.

    `threshold`: as `cluster` has it. New subjects are numbered by their first face.
    """
    group = cluster(embeddings, threshold=threshold)
    groups = int(group.max(initial=-1)) + 1
    arrived = bank_of(embeddings, group, groups)
    like = _most_like(arrived, bank, threshold)
    fresh = like < 0
    like[fresh] = len(bank) + np.arange(np.count_nonzero(fresh))
    return like[group]


def _most_like(arrived: SubjectBank, bank: SubjectBank, threshold: float) -> Numbers:
    """(groups,) The subject of `bank` that each group looks like most, the lower number in a tie; -1 if like none."""
    if len(bank) == 0:
        return np.full(len(arrived), -1)
    units = normalized(arrived.means), normalized(bank.means)
    found = nearest(*units, count=min(_CANDIDATES, len(bank)), floor=threshold).astype(np.int64)
    found.sort(axis=1)
    cosine = np.einsum("ij,ikj->ik", arrived.means, bank.means[found])
    margin = cosine - bar(threshold, arrived.faces[:, None], bank.faces[found])
    margin[found < 0] = -1.0
    best = margin.argmax(axis=1)[:, None]
    chosen = np.where(np.take_along_axis(margin, best, axis=1) >= 0, np.take_along_axis(found, best, axis=1), -1)
    return chosen[:, 0]
