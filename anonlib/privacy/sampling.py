"""An identity of no person for every subject: drawn from a public prior, far from the subject and from everybody else.

After Kuang et al. 2022 (JEI 31(2) 023011), of which the idea alone is public: sample an anonymous identity, keep it
realistic by its nearest neighbours, use it again for all of the person's images. Here the prior and the neighbours
come from a public bank, never from the dataset under release, and the candidates of a subject from its own key.

The prior is one normal distribution with the bank's mean and covariance, put back on the sphere. More would be of
little use: in the identity space of the pipeline's recognizer a bank of 2,600 photos has about 29 effective
dimensions, and what it draws lies as far from the nearest of 840 people (median 61 degrees, 5 to 95 %: 53 to 67) as
strangers lie from each other's nearest.

What the angles mean there (LFW): two photos of one person are 36 degrees apart (median; 95 % within 45), a photo and
its person's template 28 (99 % within 49), photos of different people 90 (1 in 1,000 within 55, 2 in 10,000 within 50).
So an `other_angle` of 50 keeps everybody's own photos out of reach of p; nearly all draws keep it among 840 people and
about half among 200,000, where one in ten keeps 55. `own_angle` chooses among strangers: 75 turns away 8 % of draws. A
wider one hides less, since p then tells of everybody near it that he is not the subject: 90 is half of all people,
one bit.

The claim is none: p is not independent of who is in the dataset, because it keeps clear of all of them. Two subjects'
p may lie close together, as strangers do; nothing keeps them apart, since likeness among p says nothing about anyone.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.clustering import normalized
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.privacy.sphere import cosine_beyond, require_unit

Vectors = NDArray[np.float32]
_ROUND = 32
_SUBJECTS = 1024
_PEOPLE = 8192
_GLANCE_FROM = 20_000


@dataclass(frozen=True)
class Prior:
    """normalize(`mean` (d,) + `factor` (d, d) g) for a standard normal g."""

    mean: NDArray[np.float64]
    factor: NDArray[np.float64]

    def draw(self, generator: np.random.Generator, count: int) -> Vectors:
        """Unit rows (count, d)."""
        noise = generator.normal(size=(count, len(self.mean)))
        return normalized((self.mean + noise @ self.factor.T).astype(np.float32))


def fit_prior(bank: Vectors) -> Prior:
    """The prior of a public bank: unit rows (b, d), at least 2. Of fewer than d it spans only what they span."""
    if len(bank) < 2:
        raise ValueError(f"a prior cannot be fitted to {len(bank)} public faces")
    rows = bank.astype(np.float64)
    variance, axes = np.linalg.eigh(np.cov(rows.T))
    return Prior(rows.mean(axis=0), axes * np.sqrt(np.maximum(variance, 0.0)))


def sample(
    prior: Prior,
    bank: Vectors,
    templates: Vectors,
    subjects: Sequence[str],
    keyring: Keyring,
    *,
    own_angle: float,
    other_angle: float,
    neighbours: int = 5,
    wanted: int = 4,
    candidates: int = 1024,
) -> list[Vectors]:
    """Up to `wanted` identities (m, d) for each subject, at least one, unit rows: the most natural first.

    ValueError if a subject has none among `candidates`. Every identity is `own_angle` degrees or more from its subject
    and `other_angle` or more from every subject and every row of `bank` (b, d); naturalness is the mean cosine to the
    `neighbours` nearest rows of the bank. `templates` (n, d) unit rows of ALL people of the dataset, `subjects` their
    ids. Exact: time grows with n (n + b) (one core, 200,000 subjects: 12 minutes, or 4 with `wanted` 1), memory with
    n + b.
    """
    import faiss

    if len(templates) != len(subjects) or len(set(subjects)) != len(subjects):
        raise ValueError(f"{len(templates)} templates need as many different subjects, not {len(set(subjects))}")
    require_unit(templates, "templates")
    require_unit(bank, "the bank's vectors")
    if len(bank) < neighbours:
        raise ValueError(f"the public bank has {len(bank)} faces; {neighbours} nearest ones cannot be found in it")
    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(np.ascontiguousarray(bank, np.float32))

    def nearest_in_bank(points: Vectors) -> Vectors:
        return np.asarray(index.search(points, neighbours)[0], np.float32)

    glance = _glance(templates) if len(templates) >= _GLANCE_FROM else None
    search = _Search(prior, nearest_in_bank, glance, templates, cosine_beyond(own_angle), cosine_beyond(other_angle))
    found: list[Vectors] = []
    for start in range(0, len(subjects), _SUBJECTS):
        generators = [keyring.generator(Purpose.SAMPLING, subject) for subject in subjects[start : start + _SUBJECTS]]
        found += search.run(templates[start : start + _SUBJECTS], generators, wanted, candidates)
        empty = sum(len(points) == 0 for points in found)
        if empty:
            raise ValueError(
                f"{empty:,} of {len(found):,} subjects found no acceptable identity among {candidates:,} candidates: "
                f"an own_angle of {own_angle:g} and an other_angle of {other_angle:g} degrees leave too little room "
                f"among {len(subjects):,} subjects and {len(bank):,} public faces; lower one of them"
            )
    return found


@dataclass(frozen=True)
class _Search:
    """`own_limit`, `other_limit`: cosines that no identity exceeds; `people`: all templates.

    `glance`: the cosine (m,) to somebody near each point, if there are so many people that it saves time.
    """

    prior: Prior
    nearest_in_bank: Callable[[Vectors], Vectors]
    glance: Callable[[Vectors], Vectors] | None
    people: Vectors
    own_limit: float
    other_limit: float

    def run(
        self, own: Vectors, generators: Sequence[np.random.Generator], wanted: int, candidates: int
    ) -> list[Vectors]:
        """For each of the templates `own` (s, d), candidates in rounds until `wanted` are found or all are tried."""
        found = [_Accepted() for _ in generators]
        unfinished = list(range(len(found)))
        while unfinished:
            for subject in unfinished:
                found[subject].tried += _ROUND
            drawn = np.stack([self.prior.draw(generators[subject], _ROUND) for subject in unfinished])
            self._accept(drawn, own[unfinished], [found[subject] for subject in unfinished], wanted)
            unfinished = [
                subject
                for subject in unfinished
                if len(found[subject].points) < wanted and found[subject].tried < candidates
            ]
        return [accepted.ranked(own.shape[1]) for accepted in found]

    def _accept(self, drawn: Vectors, own: Vectors, found: Sequence[_Accepted], wanted: int) -> None:
        """Of `drawn` (s, c, d), the most natural ones are compared with all people first: that is the dear part."""
        to_own = np.einsum("scd,sd->sc", drawn, own)
        to_bank = self.nearest_in_bank(drawn.reshape(-1, drawn.shape[2])).reshape(*drawn.shape[:2], -1)
        natural = to_bank.mean(axis=2)
        fit = (to_own <= self.own_limit) & (to_bank[:, :, 0] <= self.other_limit)
        queues = [
            deque(int(column) for column in np.argsort(-natural[row], kind="stable") if fit[row, column])
            for row in range(len(drawn))
        ]
        while True:
            chosen = [
                (row, queue.popleft())
                for row, queue in enumerate(queues)
                for _ in range(min(len(queue), wanted - len(found[row].points)))
            ]
            if not chosen:
                return
            rows, columns = np.array(chosen).T
            to_people = self._to_people(drawn[rows, columns])
            for row, column, cosine in zip(rows, columns, to_people, strict=True):
                if cosine <= self.other_limit:
                    found[row].points.append((float(natural[row, column]), drawn[row, column]))

    def _to_people(self, points: Vectors) -> Vectors:
        """The largest cosine (m,) of each point to anybody; a point is given up where it first exceeds the limit."""
        largest = np.full(len(points), -1.0, np.float32) if self.glance is None else self.glance(points)
        alive = np.flatnonzero(largest <= self.other_limit)
        for start in range(0, len(self.people), _PEOPLE):
            block = (points[alive] @ self.people[start : start + _PEOPLE].T).max(axis=1)
            largest[alive] = np.maximum(largest[alive], block)
            alive = alive[largest[alive] <= self.other_limit]
        return largest


@dataclass
class _Accepted:
    """Of a subject the `points` that fit, each with its naturalness, and how many candidates were `tried`."""

    points: list[tuple[float, Vectors]] = field(default_factory=list)
    tried: int = 0

    def ranked(self, size: int) -> Vectors:
        """(m, size), the most natural first."""
        best = sorted(self.points, key=lambda scored: -scored[0])
        return np.array([point for _, point in best], np.float32).reshape(-1, size)


def _glance(people: Vectors) -> Callable[[Vectors], Vectors]:
    """Somebody near each point, of the 16 clusters next to it: where that is too near, nobody else is asked."""
    import faiss

    size = people.shape[1]
    clusters = int(4 * math.sqrt(len(people)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(size), size, clusters, faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid = 64
    index.train(people)
    index.add(people)
    index.nprobe = min(16, clusters)
    return lambda points: np.asarray(index.search(points, 1)[0][:, 0], np.float32)
