"""How well painted faces are what was asked for: identity, likeness to the source, gender, age, shape and realism.

Every number is a function of what judges saw; nothing here opens an image. The distance between painted and real faces
is Frechet's for two Gaussians (Dowson and Landau 1982; Heusel et al. 2017 for networks' features), in a recognizer's
feature space. It falls with the size of the samples, so two figures can be compared only if both come from as many
faces, held against the same real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks import Rate, Shares, rank_one, rate
from anonlib.audit.generators.cast import RequestedLook
from anonlib.audit.generators.judges import REALISM, JudgedFace
from anonlib.audit.utility.kept import expression_kept, mesh_error
from anonlib.privacy.strata import stratum_of

FRONTAL = 20.0

Vectors = NDArray[np.float32]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Identity:
    """One recognizer's word. `to_target`: cosine of a painted face to what it should be; `to_others`: mean to others.

    `rank_one`: the target is nearest of all, and `rank_one_frontal` in photos of faces turned FRONTAL degrees or less;
    `naive`: the person of the photo is nearest of all; `consistency`: cosine of one identity in two people's photos;
    `different`: mean cosine of two identities in two people's photos.
    """

    to_target: Rate
    to_others: float
    rank_one: Rate
    rank_one_frontal: Rate
    naive: Rate
    consistency: Rate
    different: float


@dataclass(frozen=True)
class Looks:
    """What a painted face keeps of the photo and gets of what was asked; mesh errors in distances of the eyes.

    `age_off`: years that it looks older than was asked, negative if younger.
    `mesh_meant`: to the mesh it was meant to have; `mesh_source`: to that of the photo's own face; `frechet`: to real
    faces of other people.
    """

    found: Rate
    expression: Rate
    gender: Rate
    gender_held_out: Rate
    age_band: Rate
    age_band_held_out: Rate
    age_off: Rate
    age_off_held_out: Rate
    mesh_meant: Rate
    mesh_source: Rate
    frechet: float


@dataclass(frozen=True)
class Paintings:
    """m painted faces: numbers of the `target` (m,), -1 for none, and of the person in the photo, the `host` (m,).

    `yaw` (m,) degrees, of the photos.
    """

    target: Numbers
    host: Numbers
    yaw: NDArray[np.float32]
    seen: JudgedFace


def identity(
    first: Paintings,
    second: Paintings,
    again: Numbers,
    vectors: tuple[Vectors, Vectors],
    gallery: tuple[Vectors, Numbers],
    clear: Vectors,
) -> Identity:
    """By one recognizer, whose unit `vectors` of the first (m, d) and second (p, d) paintings are given.

    `again` (p,): which first painting each second one repeats in another photo. `gallery`: vectors (g, d) among which
    targets are sought, and the target (g,) that each is part of. `clear` (n, d): a photo of each person.
    """
    one, two = vectors
    wanted = first.target >= 0
    own = first.target[:, None] == gallery[1][None, :]
    similarity = (one @ gallery[0].T).astype(np.float64)
    targets = len(np.unique(gallery[1][gallery[1] >= 0]))
    hits = np.where(wanted, rank_one(one, first.target, *gallery), np.nan)
    frontal = np.where(np.abs(first.yaw) <= FRONTAL, hits, np.nan)
    chance = 1 / max(targets, 1)
    naive = rank_one(one, first.host, clear, np.arange(len(clear)))
    paired = (one[again] * two).sum(axis=1).astype(np.float64)
    apart = first.target[again, None] != second.target[None, :]
    apart &= first.host[again, None] != second.host[None, :]
    return Identity(
        rate(_mean_of(similarity, own), first.target),
        _whole(similarity[wanted[:, None] & ~own]),
        rate(hits, first.target, chance=chance),
        rate(frontal, first.target, chance=chance),
        rate(naive, first.host, chance=1 / max(len(clear), 1)),
        rate(paired, second.target),
        _whole((one[again] @ two.T)[apart]),
    )


def looks(
    paintings: Paintings,
    asked: Sequence[RequestedLook],
    expressions: NDArray[np.float32],
    meant: NDArray[np.float32],
    source: NDArray[np.float32],
    real: Vectors,
) -> Looks:
    """Against what was `asked` (m) and the photos' own `expressions` (m, 7) and `source` meshes (m, 468, 3).

    `meant` (m, 468, 3), NaN where it is not known; `real` (r, d): features of real faces of other people.
    """
    seen, host = paintings.seen, paintings.host
    fitted = np.where(np.isnan(seen.age), np.nan, 0.0)
    years = np.array([one.age for one in asked], np.float64)

    def of(values: Shares) -> Rate:
        return rate(values, host)

    return Looks(
        of(seen.found.astype(np.float64)),
        of(expression_kept(expressions, seen.expression)),
        of(gender_as_asked(asked, seen.female)),
        of(gender_as_asked(asked, seen.held_female)),
        of(band_as_asked(asked, seen.age)),
        of(band_as_asked(asked, seen.held_age)),
        of(seen.age - years),
        of(seen.held_age - years),
        of(mesh_error(meant, seen.meshes) + fitted),
        of(mesh_error(source, seen.meshes) + fitted),
        frechet(seen.vectors[REALISM], real),
    )


def gender_as_asked(asked: Sequence[RequestedLook], female: NDArray[np.float32]) -> Shares:
    """(n,) Whether a probability of female lies on the side that was asked for; NaN where there is none."""
    wanted = np.array([one.female >= 0.5 for one in asked], bool)
    return np.where(np.isnan(female), np.nan, ((female >= 0.5) == wanted).astype(np.float64))


def band_as_asked(asked: Sequence[RequestedLook], age: NDArray[np.float32]) -> Shares:
    """(n,) Whether an age in years lies in the band that was asked for; NaN where there is none."""
    hits = [
        np.nan if np.isnan(years) else float(stratum_of(one.female, float(years))[1] == one.stratum[1])
        for one, years in zip(asked, age, strict=True)
    ]
    return np.array(hits, np.float64)


def frechet(one: Vectors, other: Vectors) -> float:
    """The squared Frechet distance of two samples' Gaussians, rows (n, d) and (m, d); NaN if either has fewer than two.

    The trace of the root of C1 C2 is the nuclear norm of A1 A2', where Ci = Ai' Ai: no root of a matrix is taken.
    """
    if min(len(one), len(other)) < 2:
        return float("nan")
    means = [rows.mean(axis=0, dtype=np.float64) for rows in (one, other)]
    a, b = ((rows - mean) / np.sqrt(len(rows) - 1) for rows, mean in zip((one, other), means, strict=True))
    shared = float(np.linalg.svd(a @ b.T, compute_uv=False).sum())
    return float(((means[0] - means[1]) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * shared)


def _mean_of(values: Shares, chosen: NDArray[np.bool_]) -> Shares:
    """(m,) The mean of those chosen in each row of (m, g); NaN where none is."""
    counts = chosen.sum(axis=1)
    return np.where(counts > 0, (values * chosen).sum(axis=1) / np.maximum(counts, 1), np.nan)


def _whole(values: NDArray[np.floating]) -> float:
    return float(values.mean()) if len(values) else float("nan")
