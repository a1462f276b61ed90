"""Identities that stand in for a subject, from public faces: the nearest mixed, one far away, or a draw of them all.

Each is chosen once for a subject, from its template, and none claims anything. In the recognizer's space two photos of
one person are 36 degrees apart (median on LFW; 95 % within 45), those of different people 90 (1 in 1,000 within 55).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.classes import Stratum, stratum_of
from anonlib.privacy.clustering import normalized
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.privacy.knn import cosine_beyond, require_unit

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
Strata = Sequence[Stratum]
Chooser = Callable[[Rows, Rows, Vectors], Rows]
SAME_PERSON_ANGLE = 45.0
"""Degrees in the identity space within which 95 % of two photos of one person lie, and 3 in 100,000 of two people's."""
OWN_ANGLE = 75.0  # degrees beyond which nine of ten strangers lie
WANTED, CANDIDATES = 4, 1024
"""Identities that a subject gets, and draws after which it is given up."""
_ROUND, _SUBJECTS, _PEOPLE = 8, 1024, 2048


class PublicIdentities(NamedTuple):
    """Public identities: unit rows (b, d) and, if they are known, strata from coarse to fine like the subjects'."""

    vectors: Vectors
    strata: Strata = ()


def gallery_of(vectors: Vectors, female: NDArray[np.floating], age: NDArray[np.floating]) -> PublicIdentities:
    """Public faces (b, d) with the strata of their looks (b,)."""
    return PublicIdentities(vectors, [stratum_of(*looks) for looks in zip(female.tolist(), age.tolist(), strict=True)])


def surrogate(
    templates: Vectors, gallery: PublicIdentities, k: int, *, strata: Strata = (), own_angle: float = OWN_ANGLE
) -> Rows:
    """Rows (n, k) of the gallery to mix for each template (n, d), nearest first (Meden et al. 2017, arXiv 1707.09376).

    None is within SAME_PERSON_ANGLE (a gallery of web faces may hold the very person), and their mixture is not within
    `own_angle` degrees: the five nearest mixed find 87 % of 420 people of LFW again, so as many are passed over as it
    takes. Which are chosen tells up to log2(b choose k) bits of the person; weights by distance would tell without any
    bound. Of the subject's stratum where it has such a k, else of a coarser one.
    """
    member, mixed = cosine_beyond(SAME_PERSON_ANGLE), cosine_beyond(own_angle)

    def choose(subjects: Rows, rows: Rows, cosine: Vectors) -> Rows:
        chosen = np.full((len(subjects), k), -1)
        for place, subject in enumerate(subjects):
            order = np.argsort(-cosine[place], kind="stable")[(cosine[place] > member).sum() :]
            sums = np.cumsum(gallery.vectors[rows[order]], axis=0, dtype=np.float64)
            sums[k:] -= sums[:-k].copy()
            fit = np.flatnonzero(normalized(sums[k - 1 :].astype(np.float32)) @ templates[subject] <= mixed)
            if len(fit):
                chosen[place] = rows[order[fit[0] : fit[0] + k]]
        return chosen

    return _chosen(templates, gallery, strata, k, choose, f"{k} identities whose mixture is {own_angle:g} degrees")


def donor(
    templates: Vectors,
    gallery: PublicIdentities,
    ids: Sequence[str],
    keyring: Keyring,
    own_angle: float,
    strata: Strata = (),
) -> Rows:
    """A row (n,) for each template (n, d), `own_angle` degrees or more away, drawn evenly with the subject's key.

    For feature embedding (Hanawa et al. 2024, 10.1186/s13640-024-00646-z). Of the subject's stratum where that has one.
    """
    _require_subjects(templates, ids)
    limit = cosine_beyond(own_angle)

    def choose(numbers: Rows, rows: Rows, cosine: Vectors) -> Rows:
        chosen = np.full((len(numbers), 1), -1)
        for place, number in enumerate(numbers):
            far = np.flatnonzero(cosine[place] <= limit)
            if len(far):
                chosen[place] = rows[keyring.generator(Purpose.DONOR, ids[number]).choice(far)]
        return chosen

    return _chosen(templates, gallery, strata, 1, choose, f"an identity {own_angle:g} degrees")[:, 0]


def mixture(gallery: PublicIdentities, rows: Rows) -> Vectors:
    """The identity vector (n, d) of rows (n, k) of the gallery: their mean, put back on the sphere once."""
    return normalized(gallery.vectors[rows].mean(axis=1))


def _chosen(
    templates: Vectors, gallery: PublicIdentities, strata: Strata, count: int, choose: Chooser, wanted: str
) -> Rows:
    """What `choose` makes of subjects (s,), gallery rows (r,) and their cosines (s, r): rows (s, count), or -1.

    Asked with the rows of each subject's whole stratum first, then, for those it gave -1, with coarser ones.
    """
    require_unit(templates, "templates")
    require_unit(gallery.vectors, "the gallery's vectors")
    rows = np.full((len(templates), count), -1, np.int64)
    groups: dict[Stratum, list[int]] = {}
    for subject in range(len(templates)):
        groups.setdefault(strata[subject] if strata else (), []).append(subject)
    for stratum in sorted(groups):
        for level in range(len(stratum), -1, -1):
            waiting = [subject for subject in groups[stratum] if rows[subject, 0] < 0]
            pool = np.arange(len(gallery.vectors))
            if level:
                kinds = enumerate(gallery.strata)
                pool = np.array([row for row, kind in kinds if kind[:level] == stratum[:level]], np.int64)
            for start in range(0, len(waiting), _SUBJECTS):
                block = np.array(waiting[start : start + _SUBJECTS], np.int64)
                rows[block] = choose(block, pool, templates[block] @ gallery.vectors[pool].T)
    missing = int((rows[:, 0] < 0).sum())
    if missing:
        raise ValueError(
            f"the gallery of {len(gallery.vectors):,} does not have {wanted} away for {missing:,} of "
            f"{len(templates):,} subjects; give a larger gallery or a smaller own_angle"
        )
    return rows


def _require_subjects(templates: Vectors, subjects: Sequence[str]) -> None:
    if len(templates) != len(subjects) or len(set(subjects)) != len(subjects):
        raise ValueError(f"{len(templates)} templates need as many different subjects, not {len(set(subjects))}")


# ---- sampling: an identity of no person, far from the subject and from everybody else ---------------------------


def fit_prior(bank: Vectors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`mean` (d,) and `factor` (d, d) of the bank's (b, d) distribution: mean + factor g for a standard normal g.

    What it draws lies as far from the nearest of 840 people (median 61 degrees) as strangers do.
    """
    rows = bank.astype(np.float64)
    variance, axes = np.linalg.eigh(np.cov(rows.T))
    return rows.mean(axis=0), axes * np.sqrt(np.maximum(variance, 0.0))


def sample(
    bank: Vectors, templates: Vectors, subjects: Sequence[str], keyring: Keyring, own_angle: float, other_angle: float
) -> list[Vectors]:
    """Up to WANTED identities (m, d) for each subject, at least one, unit rows, in the order in which they are drawn.

    After Kuang et al. 2022 (JEI 31(2) 023011): draws by the subject's own key of a prior, fitted on the public `bank`
    (b, d), `own_angle` degrees or more from the subject and `other_angle` from everybody; so they depend on who is
    there, and nothing is claimed. `templates` (n, d) unit rows of ALL people, `subjects` their ids. ValueError if one
    has none among CANDIDATES.
    """
    _require_subjects(templates, subjects)
    require_unit(templates, "templates")
    require_unit(bank, "the bank's vectors")
    mean, factor = fit_prior(bank)
    own_limit, other_limit = cosine_beyond(own_angle), cosine_beyond(other_angle)
    found: list[Vectors] = []
    for start in range(0, len(subjects), _SUBJECTS):
        own = templates[start : start + _SUBJECTS]
        generators = [keyring.generator(Purpose.SAMPLING, subject) for subject in subjects[start : start + _SUBJECTS]]
        accepted: list[list[Vectors]] = [[] for _ in generators]
        for _ in range(0, CANDIDATES, _ROUND):
            open_ = [subject for subject, points in enumerate(accepted) if len(points) < WANTED]
            if not open_:
                break
            noise = (generators[subject].normal(size=(_ROUND, len(mean))) for subject in open_)
            drawn = np.stack([normalized((mean + g @ factor.T).astype(np.float32)) for g in noise])
            fit = np.einsum("scd,sd->sc", drawn, own[open_]) <= own_limit
            for first in range(0, len(templates), _PEOPLE):
                places = np.nonzero(fit)
                fit[places] = (drawn[places] @ templates[first : first + _PEOPLE].T).max(axis=1) <= other_limit
            for subject, points, good in zip(open_, drawn, fit, strict=True):
                accepted[subject] += list(points[good])
        found += [np.array(points[:WANTED], np.float32).reshape(-1, len(mean)) for points in accepted]
    empty = sum(len(points) == 0 for points in found)
    if empty:
        raise ValueError(
            f"{empty:,} of {len(found):,} subjects found no acceptable identity among {CANDIDATES:,} candidates: an "
            f"own_angle of {own_angle:g} and an other_angle of {other_angle:g} degrees leave too little room among "
            f"{len(subjects):,} subjects; lower one of them"
        )
    return found
