"""Public identities that stand in for a subject: the nearest of a gallery, mixed, or one far away.

`surrogate` is the choice of Meden et al. 2017 (arXiv 1707.09376): the identities of a closed public gallery that are
nearest to the person, mixed. Which ones were chosen is a function of the person and tells up to log2(b choose k) bits;
the weights are all 1/k, since weights by distance would be real numbers that say where among its neighbours a template
lies, without any bound. And the mixture of the very nearest is like the person: for 420 people of LFW and a gallery of
1,857 photos of others, five nearest mixed are 43 degrees from their template (median) and find it again at rank 1 for
87 %. So a mixture must keep `own_angle`, and the nearest that can keep it are mixed.

`donor` is for feature embedding (Hanawa et al. 2024, 10.1186/s13640-024-00646-z), which needs somebody unlike: any one
far enough away, drawn with the subject's key. Neither claims anything.

Both choose once for a subject, from its template; photos are never looked at. A gallery may hold the very person (the
public faces come from the web), so whoever is nearer than two photos of one person are is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.clustering import normalized
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.privacy.sphere import cosine_beyond, require_unit
from anonlib.privacy.strata import Stratum

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
SAME_PERSON_ANGLE = 45.0
"""Degrees in the identity space within which 95 % of two photos of one person lie, and 3 in 100,000 of two people's."""
OWN_ANGLE = 75.0
"""Degrees beyond which nine of ten strangers lie."""
_SUBJECTS = 1024


@dataclass(frozen=True)
class Choice:
    """Who stands in: `rows` (n, m) of the bank, their `weights` (n, m), which sum to 1.

    `agreed` (n,): how many leading parts of its stratum a subject shares with them all; fewer than the stratum has
    where the bank has too few such people.
    """

    rows: NDArray[np.int64]
    weights: Vectors
    agreed: NDArray[np.int64]


@dataclass(frozen=True)
class Gallery:
    """Public identities: unit rows (b, d) and, if they are known, strata from coarse to fine like the subjects'."""

    vectors: Vectors
    strata: Sequence[Stratum] = ()

    def __post_init__(self) -> None:
        require_unit(self.vectors, "the gallery's vectors")
        if self.strata and len(self.strata) != len(self.vectors):
            raise ValueError(f"the gallery has {len(self.vectors)} vectors but {len(self.strata)} strata")


def surrogate(
    templates: Vectors, gallery: Gallery, k: int, *, strata: Sequence[Stratum] = (), own_angle: float = OWN_ANGLE
) -> Choice:
    """`k` neighbours of each template (n, d), nearest first, each weighing 1/k: the nearest that may be mixed.

    None is within SAME_PERSON_ANGLE of the template, and their mixture is not within `own_angle` degrees: where that of
    the nearest is, as many are passed over as it takes. Of the subject's stratum where it has such a k, else of a
    coarser one.
    """
    if k < 1:
        raise ValueError(f"at least one identity must be chosen, not {k}")
    member, mixed = cosine_beyond(SAME_PERSON_ANGLE), cosine_beyond(own_angle)

    def choose(subjects: Rows, rows: Rows, cosine: Vectors) -> Rows:
        order = np.argsort(-cosine, axis=1, kind="stable")
        first = (cosine > member).sum(axis=1)
        last = np.full(len(subjects), len(rows) - k)

        def window(start: Rows) -> Rows:
            return np.take_along_axis(order, np.maximum(start, 0)[:, None] + np.arange(k), axis=1)

        def may_be_mixed(start: Rows) -> NDArray[np.bool_]:
            mix = normalized(gallery.vectors[rows[window(start)]].mean(axis=1))
            return np.asarray((mix * templates[subjects]).sum(axis=1) <= mixed, np.bool_)

        if len(rows) < k:
            return np.full((len(subjects), k), -1)
        possible = (first <= last) & may_be_mixed(last)
        # Bisection for the nearest window that may be mixed; `last` always may.
        while (open_ := possible & (first < last)).any():
            middle = (first + last) // 2
            good = may_be_mixed(middle)
            last = np.where(open_ & good, middle, last)
            first = np.where(open_ & ~good, middle + 1, first)
        return np.where(possible[:, None], rows[window(last)], -1)

    return _chosen(templates, gallery, strata, k, choose, f"{k} identities whose mixture is {own_angle:g} degrees")


def donor(
    templates: Vectors,
    gallery: Gallery,
    subjects: Sequence[str],
    keyring: Keyring,
    *,
    strata: Sequence[Stratum] = (),
    own_angle: float = OWN_ANGLE,
) -> Choice:
    """One identity for each template (n, d), `own_angle` degrees or more away, drawn evenly with the subject's key.

    Of the subject's stratum where that has one, else of a coarser one.
    """
    if len(templates) != len(subjects) or len(set(subjects)) != len(subjects):
        raise ValueError(f"{len(templates)} templates need as many different subjects, not {len(set(subjects))}")
    limit = cosine_beyond(own_angle)

    def choose(numbers: Rows, rows: Rows, cosine: Vectors) -> Rows:
        chosen = np.full((len(numbers), 1), -1)
        for place, number in enumerate(numbers):
            far = np.flatnonzero(cosine[place] <= limit)
            if len(far):
                chosen[place] = rows[keyring.generator(Purpose.DONOR, subjects[number]).choice(far)]
        return chosen

    return _chosen(templates, gallery, strata, 1, choose, f"an identity {own_angle:g} degrees")


def mixture(gallery: Gallery, choice: Choice) -> Vectors:
    """The identity vector (n, d) of each choice: the weighted mean, put back on the sphere once."""
    mean = np.einsum("nm,nmd->nd", choice.weights, gallery.vectors[choice.rows])
    return normalized(mean.astype(np.float32))


def _chosen(
    templates: Vectors,
    gallery: Gallery,
    strata: Sequence[Stratum],
    count: int,
    choose: Callable[[Rows, Rows, Vectors], Rows],
    wanted: str,
) -> Choice:
    """What `choose` makes of subjects (s,), gallery rows (r,) and their cosines (s, r): rows (s, count), or -1.

    It is asked with the rows of each subject's whole stratum first, then, for those it gave -1, with coarser ones.
    """
    require_unit(templates, "templates")
    if len(strata) not in (0, len(templates)):
        raise ValueError(f"there are {len(templates)} templates but {len(strata)} strata")
    if strata and not gallery.strata:
        raise ValueError("the subjects have strata, but the gallery has none to choose by")
    rows = np.full((len(templates), count), -1, np.int64)
    agreed = np.zeros(len(templates), np.int64)
    groups: dict[Stratum, list[int]] = {}
    for subject in range(len(templates)):
        groups.setdefault(strata[subject] if strata else (), []).append(subject)
    for stratum in sorted(groups):
        for level in range(len(stratum), -1, -1):
            waiting = [subject for subject in groups[stratum] if rows[subject, 0] < 0]
            pool = _sharing(gallery, stratum[:level])
            for start in range(0, len(waiting), _SUBJECTS):
                block = np.array(waiting[start : start + _SUBJECTS], np.int64)
                rows[block] = choose(block, pool, templates[block] @ gallery.vectors[pool].T)
                agreed[block] = level
    missing = int((rows[:, 0] < 0).sum())
    if missing:
        raise ValueError(
            f"the gallery of {len(gallery.vectors):,} does not have {wanted} away for {missing:,} of "
            f"{len(templates):,} subjects; give a larger gallery or a smaller own_angle"
        )
    return Choice(rows, np.full(rows.shape, 1 / count, np.float32), agreed)


def _sharing(gallery: Gallery, stratum: Stratum) -> Rows:
    """Rows of the gallery whose strata begin with `stratum`."""
    if not stratum:
        return np.arange(len(gallery.vectors))
    return np.array([row for row, own in enumerate(gallery.strata) if own[: len(stratum)] == stratum], np.int64)
