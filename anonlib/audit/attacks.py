"""What an attacker with a recognizer gets out of a release: identification, verification, and who is framed.

Every number is a function of embeddings and names; nothing here reads a file. Vectors are unit rows, so a product is
a cosine. The attacks are those of Newton et al. 2005 (k-Same, IEEE TKDE 17(2)): naive, an anonymized photo against
clear ones, and parrot, against photos that were anonymized the same way. Intervals resample people, not photos, since
photos of one person stand or fall together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anonlib.faces.embed import THRESHOLDS

if TYPE_CHECKING:
    from anonlib.audit.evidence import Evidence

FAR = 1e-3
RESAMPLES = 500
ENOUGH_IMPOSTORS = 10_000
"""Pairs below which a threshold at FAR 1e-3 would rest on fewer than ten of them."""

_ROWS = 1024

Vectors = NDArray[np.float32]
Numbers = NDArray[np.int64]
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Rate:
    """A mean over `count` photos with its 95 % interval by people; `chance` is what guessing gives. NaN if none."""

    value: float
    low: float
    high: float
    count: int
    chance: float | None = None


@dataclass(frozen=True)
class Attacks:
    """One recognizer's: `rates` by attack, and the cosine that verification and donors were judged by.

    `same_surrogate`: mean cosine of two released photos of one person that wear one surrogate.
    """

    threshold: float
    measured_here: bool
    impostors: int
    rates: dict[str, Rate]
    same_surrogate: Rate


# ---- identification -------------------------------------------------------------------------------------------


def first_of_each(subjects: Numbers) -> NDArray[np.bool_]:
    """(n,) True at the first photo of each person: the gallery; the others are probes."""
    chosen = np.zeros(len(subjects), bool)
    chosen[np.unique(subjects, return_index=True)[1]] = True
    return chosen


def rank_one(
    probes: Vectors,
    probe_subjects: Numbers,
    gallery: Vectors,
    gallery_subjects: Numbers,
    groups: tuple[Numbers, Numbers] | None = None,
) -> Shares:
    """(n,) Whether the most similar of `gallery` (g, d) is the person of each of `probes` (n, d): 1, 0, or in a tie
    the share of the tied that are. With `groups` (of probes, of gallery) only the probe's own group is searched; a
    probe with nobody to be compared with is NaN.
    """
    hits = np.full(len(probes), np.nan)
    for start in range(0, len(probes) if len(gallery) else 0, _ROWS):
        rows = slice(start, start + _ROWS)
        similarity = probes[rows] @ gallery.T
        if groups is not None:
            similarity[groups[0][rows, None] != groups[1][None, :]] = -np.inf
        best = similarity.max(axis=1, keepdims=True)
        tied = (similarity == best) & np.isfinite(best)
        own = tied & (probe_subjects[rows, None] == gallery_subjects[None, :])
        count = tied.sum(axis=1)
        hits[rows] = np.where(count > 0, own.sum(axis=1) / np.maximum(count, 1), np.nan)
    return hits


def within_class_rank_one(
    probes: Vectors,
    probe_subjects: Numbers,
    probe_classes: Numbers,
    gallery: Vectors,
    gallery_subjects: Numbers,
    gallery_classes: Numbers,
) -> tuple[Shares, Shares]:
    """Rank-one among the people of the probe's own class, and its chance 1/people, both (n,); class -1 is none.

    NaN where the class is not known or has nobody else in the gallery, since then there is nothing to guess.
    """
    people = np.array([np.unique(gallery_subjects[gallery_classes == one]).size for one in probe_classes], np.int64)
    counted = (probe_classes >= 0) & (people >= 2)
    hits = rank_one(probes, probe_subjects, gallery, gallery_subjects, (probe_classes, gallery_classes))
    return np.where(counted, hits, np.nan), np.where(counted, 1 / np.maximum(people, 1), np.nan)


# ---- verification ---------------------------------------------------------------------------------------------


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


def threshold_at_far(impostors: Vectors, far: float) -> float:
    """The least cosine such that accepting at or above it accepts at most a share `far` of `impostors` (n,)."""
    if len(impostors) == 0:
        raise ValueError("a threshold needs at least one impostor pair")
    allowed = int(np.floor(far * len(impostors) + 1e-9))
    if allowed >= len(impostors):
        return -1.0
    refused = np.partition(impostors, len(impostors) - 1 - allowed)[len(impostors) - 1 - allowed]
    return float(np.nextafter(refused, np.asarray(np.inf, impostors.dtype)))


def accepted_at(similarities: Shares, threshold: float) -> Shares:
    """(n,) 1 where the cosine reaches the threshold, 0 where not, NaN where there is none."""
    return np.where(np.isnan(similarities), np.nan, (similarities >= threshold).astype(np.float64))


def tar_at_far(genuine: Shares, impostors: Vectors, far: float) -> float:
    """Share of genuine cosines accepted at the threshold where `far` of the impostors are."""
    return float(np.nanmean(accepted_at(genuine, threshold_at_far(impostors, far))))


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


# ---- intervals ------------------------------------------------------------------------------------------------


def bootstrap_interval(
    values: Shares, subjects: Numbers, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values` (n,), resampling people with all their photos (Efron 1979).

    Where all values agree it has no width, whatever n is: read it together with the count.
    """
    if len(values) == 0:
        return float("nan"), float("nan")
    _, person = np.unique(subjects, return_inverse=True)
    people = int(person.max()) + 1
    sums, counts = np.bincount(person, values), np.bincount(person)
    drawn = np.random.default_rng(seed).multinomial(people, np.full(people, 1 / people), size=resamples)
    low, high = np.quantile((drawn @ sums) / (drawn @ counts), (0.025, 0.975))
    return float(low), float(high)


def rate(values: Shares, subjects: Numbers, *, chance: float | None = None, seed: int = 0) -> Rate:
    """The mean of `values` (n,) with its interval; NaN are not counted."""
    counted = ~np.isnan(values)
    if not counted.any():
        return Rate(float("nan"), float("nan"), float("nan"), 0, chance)
    low, high = bootstrap_interval(values[counted], subjects[counted], seed=seed)
    return Rate(float(values[counted].mean()), low, high, int(counted.sum()), chance)


# ---- all of them ----------------------------------------------------------------------------------------------


def attack(evidence: Evidence, recognizer: str, *, seed: int = 0) -> Attacks:
    """Every attack by one recognizer on what was gathered."""
    gallery = first_of_each(evidence.subjects)
    probe = ~gallery
    who, enrolled = evidence.subjects[probe], evidence.subjects[gallery]
    clear, released = evidence.clear.vectors[recognizer], evidence.released.vectors[recognizer]
    impostors = impostor_similarities(clear[probe], who, clear[gallery], enrolled)
    measured_here = len(impostors) >= ENOUGH_IMPOSTORS
    threshold = threshold_at_far(impostors, FAR) if measured_here else THRESHOLDS[recognizer]
    guess = 1 / max(len(enrolled), 1)
    replaced = np.where(evidence.replaced[probe], 0.0, np.nan)

    def of(values: Shares, chance: float | None = None) -> Rate:
        return rate(values, who, chance=chance, seed=seed)

    def identified(probes: Vectors, enrolment: Vectors) -> Shares:
        return rank_one(probes[probe], who, enrolment[gallery], enrolled)

    def verified(probes: Vectors) -> Shares:
        return accepted_at(genuine_similarities(probes[probe], who, clear[gallery], enrolled), threshold)

    def within(probes: Vectors, enrolment: Vectors) -> Rate:
        classes = evidence.classes
        hits, chance = within_class_rank_one(
            probes[probe], who, classes[probe], enrolment[gallery], enrolled, classes[gallery]
        )
        return of(hits, float(np.nanmean(chance)) if not np.isnan(chance).all() else None)

    # Whoever was averaged may be recognized by the photo that went in, or by another one, which is the worse.
    donors = evidence.donors[recognizer], evidence.donor_people, evidence.donor_classes
    other = np.isin(evidence.people, evidence.donor_people) & ~evidence.averaged
    others = clear[other], evidence.people[other], evidence.classes[other]

    def framed(vectors: Vectors, those: tuple[Vectors, Numbers, Numbers]) -> Rate:
        nearest = nearest_donor(vectors, evidence.people, evidence.worn, *those)
        return rate(accepted_at(nearest, threshold), evidence.subjects, seed=seed)

    naive, parrot = identified(released, clear), identified(released, released)
    rates = {
        "rank-1 clear": of(identified(clear, clear), guess),
        "rank-1 naive": of(naive, guess),
        "rank-1 naive, replaced": of(naive + replaced, guess),
        "rank-1 parrot": of(parrot, guess),
        "rank-1 parrot, replaced": of(parrot + replaced, guess),
        "within class clear": within(clear, clear),
        "within class naive": within(released, clear),
        "within class parrot": within(released, released),
        "TAR clear": of(verified(clear), FAR),
        "TAR naive": of(verified(released), FAR),
        "donors' portraits, clear": framed(clear, donors),
        "donors' portraits": framed(released, donors),
        "donors' other photos, clear": framed(clear, others),
        "donors' other photos": framed(released, others),
    }
    hidden = evidence.looks["solid"].vectors[recognizer]
    rates["rank-1 context"] = of(identified(hidden, hidden), guess)
    alike = genuine_similarities(released[probe], who, released[gallery], enrolled)
    worn = dict(zip(enrolled.tolist(), evidence.worn[gallery].tolist(), strict=True))
    same = np.array(
        [worn[one] == own >= 0 for one, own in zip(who.tolist(), evidence.worn[probe].tolist(), strict=True)]
    )
    consistent = of(np.where(same, alike, np.nan))
    return Attacks(threshold, measured_here, len(impostors), rates, consistent)
