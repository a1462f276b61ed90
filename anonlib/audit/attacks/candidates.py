"""Who is it? Scores of several kinds put together by a conditional logit, and how often the right person comes first.

The gallery is one clear photo a person, as in identify.py. Weights are fitted on one half of the people and used on the
other, both ways round, so that no person is judged by weights that were fitted on their photos (McFadden 1974 for the
model).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks.identify import first_of_each, found_within
from anonlib.audit.attacks.rates import Numbers, Shares, difference, figure, rate
from anonlib.audit.evidence.evidence import Evidence
from anonlib.audit.evidence.published import Published
from anonlib.audit.findings import Disclosure

FITTED = 600
"""Photos that weights are fitted on, or a trail is chosen by, at most: memory grows with photos times people."""
_RIDGE = 1e-3
_ROWS = 1024

Scores = NDArray[np.float32]
Score = Callable[[Numbers], Scores]
"""Rows of probes (r,) -> how well each candidate fits (r, g): higher is better, all equal where nothing is known."""


class Candidates:
    """n probes and g candidates, one clear photo each.

    `rows` (n,) and `gallery_rows` (g,): the numbers of their faces in `published`; -1 where the release does not have
    the face.
    """

    def __init__(self, evidence: Evidence, published: Published, recognizer: str, *, seed: int = 0) -> None:
        self.recognizer, self.seed = recognizer, seed
        gallery = first_of_each(evidence.subjects)
        self.probe = ~gallery
        self.released = evidence.released.vectors[recognizer][self.probe]
        self.clear = evidence.clear.vectors[recognizer][gallery]
        self.who, self.enrolled = evidence.subjects[self.probe], evidence.subjects[gallery]
        order = np.argsort(self.enrolled)
        self.own = order[np.searchsorted(self.enrolled[order], self.who)]
        number = {face: row for row, face in enumerate(published.faces)}
        rows = np.array([number.get(face, -1) for face in evidence.faces], np.int64)
        self.rows, self.gallery_rows = rows[self.probe], rows[gallery]
        people = np.unique(self.who)
        half = np.random.default_rng(seed).permutation(len(people)) % 2
        self.half = half[np.searchsorted(people, self.who)]

    def picture(self, rows: Numbers) -> Scores:
        """The cosine of the released face to each candidate's clear photo."""
        return self.released[rows] @ self.clear.T

    def ranks(self, score: Score, rows: Numbers) -> tuple[Numbers, Numbers]:
        """How many candidates fit better than the right one, and how many as well, itself among them; both (r,)."""
        better, tied = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            scores = score(part)
            own = scores[np.arange(len(part)), self.own[part]][:, None]
            better[start : start + _ROWS] = (scores > own).sum(axis=1)
            tied[start : start + _ROWS] = (scores == own).sum(axis=1)
        return better, tied

    def some(self, rows: Numbers) -> Numbers:
        """At most FITTED of the rows, drawn at random."""
        lot = np.random.default_rng(self.seed)
        return np.sort(lot.choice(rows, min(len(rows), FITTED), replace=False))

    def hits(self, score: Score, ranks: int = 1) -> Shares:
        """(n,) Whether the right person is among the first `ranks`."""
        return found_within(ranks, *self.ranks(score, np.arange(len(self.who))))

    def both_ways(self, fit: Callable[[Numbers], Score], ranks: Sequence[int] = (1,)) -> list[Shares]:
        """(n,) for each of `ranks`: the hits of each half of the people by what `fit` makes of the other half."""
        found = [np.full(len(self.who), np.nan) for _ in ranks]
        for half in (0, 1):
            others, those = np.flatnonzero(self.half != half), np.flatnonzero(self.half == half)
            if len(others) and len(those):
                better, tied = self.ranks(fit(others), those)
                for values, rank in zip(found, ranks, strict=True):
                    values[those] = found_within(rank, better, tied)
        return found

    def together(self, scores: Mapping[str, Score]) -> Callable[[Numbers], Score]:
        """What weighs `scores` by a conditional logit on the rows that it is given."""

        def fit(rows: Numbers) -> Score:
            chosen = self.some(rows)
            parts = [score(chosen) for score in scores.values()]
            parts = [part - part.mean(axis=1, keepdims=True) for part in parts]
            scale = [float(part.std()) or 1.0 for part in parts]
            stacked = np.stack([part / size for part, size in zip(parts, scale, strict=True)])
            weights = conditional_logit(stacked, self.own[chosen])

            def score(asked: Numbers) -> Scores:
                return np.asarray(
                    sum(
                        np.float32(weight / size) * one(asked)
                        for weight, size, one in zip(weights, scale, scores.values(), strict=True)
                    ),
                    np.float32,
                )

            return score

        return fit

    def disclosure(
        self,
        name: str,
        target: str,
        values: Shares,
        *,
        beside: Shares | None = None,
        ranks: int = 1,
        judged: bool = False,
        note: str = "",
    ) -> Disclosure:
        """`values` (n,) with `beside` (n,), what the pictures alone give, as what the claim allows."""
        chance = min(1.0, ranks / max(len(self.enrolled), 1))
        return Disclosure.model_validate(
            {
                "name": name,
                "target": target,
                "recognizer": self.recognizer,
                "found": figure(rate(values, self.who, chance=chance, seed=self.seed)),
                "allowed": None if beside is None or np.isnan(beside).all() else float(np.nanmean(beside)),
                "allowed_by": "" if beside is None else "the picture alone",
                "excess": None if beside is None else figure(difference(values, beside, self.who, seed=self.seed)),
                "judged_by": "high" if judged else None,
                "note": note,
            }
        )


def conditional_logit(scores: Scores, own: Numbers) -> NDArray[np.float64]:
    """Weights (f,), none below 0, that make the right candidates `own` (r,) likeliest by their `scores` (f, r, g).

    The logarithm of the odds of two candidates is the weighted difference of their scores; the fit is by maximum
    likelihood with a small ridge.
    """
    from scipy.optimize import minimize

    rows, flat = np.arange(len(own)), scores.reshape(len(scores), -1)
    right = scores[:, rows, own].mean(axis=1, dtype=np.float64)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        total = (weights.astype(np.float32) @ flat).reshape(scores.shape[1:])
        top = total.max(axis=1, keepdims=True)
        shares = np.exp(total - top)
        summed = shares.sum(axis=1, keepdims=True)
        shares /= summed
        likelihood = float(weights @ right) - float((top + np.log(summed)).mean(dtype=np.float64))
        slope = (flat @ shares.reshape(-1)).astype(np.float64) / len(own) - right
        return _RIDGE * float(weights @ weights) / 2 - likelihood, slope + _RIDGE * weights

    start = np.full(len(scores), 0.1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(scores))
    return np.asarray(found.x, np.float64)
