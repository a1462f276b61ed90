"""Verification: does a recognizer accept two photos as one person, at a threshold fixed on other people?

The threshold lets a share FAR of clear pairs of two people pass. It is measured on half of the people, chosen by a hash
of their names; only the other half is reported on.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks.identify import Vectors
from anonlib.audit.attacks.rates import Numbers, Shares
from anonlib.audit.evidence.evidence import Evidence
from anonlib.audit.findings import Threshold
from anonlib.faces.embed import THRESHOLDS

FAR = 1e-3
ENOUGH_IMPOSTORS = 10_000
"""Pairs below which a threshold at FAR 1e-3 would rest on fewer than ten of them."""

_ROWS = 1024
_MOST_PHOTOS = 4096


def reported(names: NDArray[np.str_], *, seed: int = 0) -> NDArray[np.bool_]:
    """(n,) Whether a person's photos are probes of verification; those of the others fix the threshold."""
    people, number = np.unique(names, return_inverse=True)
    half = np.array([hashlib.sha256(f"{seed}/{name}".encode()).digest()[0] % 2 == 0 for name in people], bool)
    return half[number] if len(names) else np.zeros(0, bool)


def threshold_of(evidence: Evidence, recognizer: str, *, seed: int = 0) -> Threshold:
    """The cosine at FAR 1e-3 on clear pairs of people who are not reported on; the catalogue's if there are too few."""
    others = np.flatnonzero(~reported(evidence.names, seed=seed))
    if len(others) > _MOST_PHOTOS:
        others = np.sort(np.random.default_rng(seed).choice(others, _MOST_PHOTOS, replace=False))
    subjects, vectors = evidence.subjects[others], evidence.clear.vectors[recognizer][others]
    impostors = impostor_pairs(vectors, subjects)
    enough = len(impostors) >= ENOUGH_IMPOSTORS
    return Threshold(
        recognizer=recognizer,
        cosine=threshold_at_far(impostors, FAR) if enough else THRESHOLDS[recognizer],
        far=FAR,
        pairs=len(impostors),
        people=np.unique(subjects).size,
        measured_here=enough,
    )


def impostor_pairs(vectors: Vectors, subjects: Numbers) -> Vectors:
    """(pairs,) Cosines of every two photos (n, d) of two people."""
    parts = [np.zeros(0, np.float32)]
    for start in range(0, len(vectors), _ROWS):
        rows = slice(start, start + _ROWS)
        later = np.arange(len(vectors))[None, :] > np.arange(start, min(start + _ROWS, len(vectors)))[:, None]
        parts.append((vectors[rows] @ vectors.T)[later & (subjects[rows, None] != subjects[None, :])])
    return np.concatenate(parts)


def threshold_at_far(impostors: Vectors, far: float) -> float:
    """The least cosine such that accepting at or above it accepts at most a share `far` of `impostors` (n,)."""
    if len(impostors) == 0:
        raise ValueError("a threshold needs at least one impostor pair")
    allowed = int(np.floor(far * len(impostors) + 1e-9))
    if allowed >= len(impostors):
        return -1.0
    refused = np.partition(impostors, len(impostors) - 1 - allowed)[len(impostors) - 1 - allowed]
    return float(np.nextafter(refused, np.asarray(np.inf, impostors.dtype)))


def genuine_similarities(probes: Vectors, probe_subjects: Numbers, gallery: Vectors, subjects: Numbers) -> Shares:
    """(n,) Cosine of each probe to the one gallery photo of its person; NaN where the gallery has none."""
    if len(gallery) == 0:
        return np.full(len(probes), np.nan)
    order = np.argsort(subjects, kind="stable")
    place = np.minimum(np.searchsorted(subjects[order], probe_subjects), len(order) - 1)
    mate = order[place]
    similarity = np.einsum("ij,ij->i", probes, gallery[mate]).astype(np.float64)
    return np.where(subjects[mate] == probe_subjects, similarity, np.nan)


def impostor_similarities(probes: Vectors, probe_subjects: Numbers, gallery: Vectors, subjects: Numbers) -> Vectors:
    """(pairs,) Cosines of every probe to every gallery photo of another person."""
    parts = [
        (probes[start : start + _ROWS] @ gallery.T)[probe_subjects[start : start + _ROWS, None] != subjects[None, :]]
        for start in range(0, len(probes), _ROWS)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def accepted_at(similarities: Shares, threshold: float) -> Shares:
    """(n,) 1 where the cosine reaches the threshold, 0 where not, NaN where there is none."""
    return np.where(np.isnan(similarities), np.nan, (similarities >= threshold).astype(np.float64))


def nearest_donor(
    outputs: Vectors,
    own: Numbers,
    worn: Numbers,
    donors: Vectors,
    donor_people: Numbers,
    donor_classes: Numbers,
) -> Shares:
    """(n,) Highest cosine of each of `outputs` (n, d) to a donor (m, d) of the class whose surrogate it wears.

    The person `own` in the photo is left out: the question is whether somebody else is framed. NaN where no donor is
    left, or nothing is worn (-1).
    """
    nearest = np.full(len(outputs), np.nan)
    for number in np.unique(worn[worn >= 0]):
        rows, members = np.flatnonzero(worn == number), np.flatnonzero(donor_classes == number)
        if len(members) == 0:
            continue
        similarity = outputs[rows] @ donors[members].T
        similarity[own[rows, None] == donor_people[members][None, :]] = -np.inf
        best = similarity.max(axis=1).astype(np.float64)
        nearest[rows] = np.where(np.isfinite(best), best, np.nan)
    return nearest
