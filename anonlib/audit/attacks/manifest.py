"""Ask the manifest: every number, flag and code of a face's row, held against each person's clear photo.

A figure of likeness to the source is asked as it stands: which candidate's photo is that far from the released face?
Any other number or code is asked beside what the same program says of the candidate's own photo. What the plan decides
for a whole class (k, epsilon, the surrogate) is no measurement of a photo and is left to the tables. All of it is put
together with the picture and the tables by a conditional logit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks.candidates import Candidates, Score, Scores
from anonlib.audit.attacks.certificate import MOST, best
from anonlib.audit.attacks.identify import places
from anonlib.audit.attacks.rates import FEWEST, Numbers, Shares, figure, rate
from anonlib.audit.evidence.evidence import Evidence
from anonlib.audit.evidence.published import DIGEST, Published
from anonlib.audit.facts import without_numbers
from anonlib.audit.findings import Disclosure
from anonlib.audit.intervals import figure_of_sums

NOTHING = "no number, flag or code of a row differs between faces: nothing to ask"
FLAGS = ("fallback", "reason")
MOST_CODES = 12
"""Different codes of a field that are told apart; more are free text."""
_OF_PLAN = frozenset({DIGEST, "k", "epsilon"})

Row = Mapping[str, Any]


def queries(candidates: Candidates, evidence: Evidence, published: Published) -> dict[str, Score]:
    """A score for each field of a manifest row that differs between faces."""
    probes, gallery = (_rows(published, rows) for rows in (candidates.rows, candidates.gallery_rows))
    found = _figures(candidates, evidence, probes)
    measured = [[_fields(row) for row in rows] for rows in (probes, gallery)]
    for name in dict.fromkeys(name for row in measured[0] for name in row):
        asked, own = ([row.get(name) for row in rows] for rows in measured)
        kinds = {type(value) for value in asked if value is not None}
        if kinds <= {int, float}:
            values = [np.array([np.nan if one is None else one for one in side], np.float64) for side in (asked, own)]
            known = values[0][~np.isnan(values[0])]
            if len(np.unique(known)) > 1 and not np.isnan(values[1]).all():
                found[name] = _nearer(*values)
        elif 1 < len(set(asked)) <= MOST_CODES:
            order = {value: place for place, value in enumerate(dict.fromkeys([*asked, *own]))}
            found[name] = _same(*(np.array([order[value] for value in side], np.int64) for side in (asked, own)))
    return found


def manifest(
    candidates: Candidates, evidence: Evidence, published: Published, walks: Mapping[str, Score]
) -> list[Disclosure]:
    """Rank-1 of the picture alone, with the manifest, with the tables, and with both."""
    asked = queries(candidates, evidence, published)
    picture: dict[str, Score] = {"picture": candidates.picture}
    alone = candidates.hits(candidates.picture)
    found = [
        candidates.disclosure("manifest", "rank-1, picture alone", alone, note="" if asked else NOTHING, judged=False)
    ]
    parts = {"manifest": asked, "tables": walks, "manifest and tables": {**asked, **walks} if asked and walks else {}}
    for part, scores in parts.items():
        if not scores:
            continue

        def fit(rows: Numbers, scores: Mapping[str, Score] = scores) -> Score:
            trails = {name: walks[name] for name in scores if name in walks}
            kept = {name: trails[name] for name in best(candidates, trails, rows, MOST)}
            fields = {name: score for name, score in scores.items() if name not in walks}
            return candidates.together({**picture, **fields, **kept})(rows)

        (values,) = candidates.both_ways(fit)
        note = f"asked: {', '.join(asked)}" if part == "manifest" else ""
        found.append(
            candidates.disclosure("manifest", f"rank-1, picture, {part}", values, beside=alone, judged=True, note=note)
        )
    return found


def flags(candidates: Candidates, published: Published) -> list[Disclosure]:
    """Does a flag place the person? What a refused face must not look like is shown by their other photos.

    The mean of the person's other replaced photos is looked up among clear ones, for faces with the flag and without,
    by any recognizer: one that the re-check used is the one whose opinion the flag is.
    It is the low end of the difference that is judged, since few faces have a flag: one that places its person for
    sure fails, one that cannot be told from nothing does not.
    """
    rows = _rows(published, candidates.rows)
    kept = np.array([row.get(FLAGS[0]) is None and row.get(DIGEST) is not None for row in rows], bool)
    summed = np.zeros((len(candidates.enrolled), candidates.released.shape[1]), np.float32)
    np.add.at(summed, candidates.own[kept], candidates.released[kept])
    others = summed[candidates.own] - np.where(kept[:, None], candidates.released, 0)
    known = np.linalg.norm(others, axis=1) > 1e-3
    better, tied = places(others, candidates.who, candidates.clear, candidates.enrolled)
    hits = np.where(known, np.clip((5 - better) / np.maximum(tied, 1), 0.0, 1.0), np.nan)
    found: dict[bytes, Disclosure] = {}
    for name in FLAGS:
        codes = np.array([without_numbers(row[name]) if row.get(name) else "" for row in rows], np.str_)
        for code in sorted(set(codes.tolist()) - {""}):
            flagged = (codes == code) & known
            if flagged.sum() >= FEWEST:
                found[flagged.tobytes()] = _flag(candidates, code, flagged, kept & known, hits)
    return list(found.values())


def _flag(
    candidates: Candidates, flag: str, flagged: NDArray[np.bool_], kept: NDArray[np.bool_], hits: Shares
) -> Disclosure:
    hit = np.nan_to_num(hits)
    columns = np.stack([hit * flagged, flagged, hit * kept, kept], axis=1).astype(np.float64)

    def apart(sums: NDArray[np.float64]) -> Shares:
        with np.errstate(invalid="ignore"):
            return np.asarray(sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3], np.float64)

    count = int(flagged.sum())
    return Disclosure(
        name="manifest",
        target=f"rank-5 by a flag ({flag})",
        recognizer=candidates.recognizer,
        found=figure(rate(hits[flagged], candidates.who[flagged], seed=candidates.seed)),
        allowed=float(hits[kept].mean()) if kept.any() else None,
        allowed_by="the same look-up for faces without a flag",
        excess=figure_of_sums(columns, candidates.who, apart, count=count, seed=candidates.seed),
        judged_by="low",
        note="the person's other photos are averaged and looked up",
    )


def _figures(candidates: Candidates, evidence: Evidence, rows: Sequence[Row]) -> dict[str, Score]:
    """Likeness to the source, for each recognizer that has it and that the attacker has too."""
    found: dict[str, Score] = {}
    probe = candidates.probe
    gallery = np.flatnonzero(~probe)
    for name, vectors in evidence.released.vectors.items():
        told = np.array([_told(row, name) for row in rows], np.float64)
        if not np.isnan(told).all():
            ours, clear = vectors[probe], evidence.clear.vectors[name][gallery]

            def score(
                asked: Numbers, ours: Scores = ours, clear: Scores = clear, told: NDArray[np.float64] = told
            ) -> Scores:
                return _neutral(-np.abs(ours[asked] @ clear.T - told[asked, None]))

            found[f"similarity by {name}"] = score
    return found


def _told(row: Row, recognizer: str) -> float:
    return next((one["to_source"] for one in row.get("similarity") or () if one["recognizer"] == recognizer), np.nan)


def _fields(row: Row) -> dict[str, Any]:
    """The scalars of a row that are measured on its photo; a box as its shape and size."""
    fields = {
        name: without_numbers(value) if name in FLAGS and value else value
        for name, value in row.items()
        if name not in _OF_PLAN and not isinstance(value, list | dict)
    }
    if row.get("box"):
        wide, high = row["box"][2] - row["box"][0], row["box"][3] - row["box"][1]
        if wide > 0 and high > 0:
            fields |= {"box shape": float(np.log(wide / high)), "box size": float(np.log(wide * high))}
    return fields


def _nearer(asked: NDArray[np.float64], own: NDArray[np.float64]) -> Score:
    return lambda rows: _neutral(-np.abs(asked[rows, None] - own[None, :]))


def _same(asked: Numbers, own: Numbers) -> Score:
    return lambda rows: (asked[rows, None] == own[None, :]).astype(np.float32)


def _neutral(scores: NDArray[np.floating[Any]]) -> Scores:
    """Scores in which what is not known counts as much as the mean of its row."""
    unknown = np.isnan(scores)
    if unknown.any():
        known = np.maximum((~unknown).sum(axis=1, keepdims=True), 1)
        scores = np.where(unknown, np.where(unknown, 0, scores).sum(axis=1, keepdims=True) / known, scores)
    return np.asarray(scores, np.float32)


def _rows(published: Published, numbers: Numbers) -> list[Row]:
    """MANIFEST_FACE rows; an empty one where the release does not have the face."""
    found = published.manifest.take(np.maximum(numbers, 0)).to_pylist()
    return [row if number >= 0 else {} for row, number in zip(found, numbers.tolist(), strict=True)]
