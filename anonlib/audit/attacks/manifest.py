"""Ask the manifest: every number, flag and code of a face's row, held against each person's clear photo.

A number or code is compared with what the same program says of the candidate's own photo. What the plan decides for a
whole class (k, epsilon, the surrogate) is no measurement of a photo and is left to the tables. All of it is put
together with the picture and the tables by a conditional logit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks.base import Attacker, Material, Score, Scores
from anonlib.audit.attacks.certificate import MOST, best, walks
from anonlib.audit.attacks.similarity import places
from anonlib.audit.evidence.published import DIGEST
from anonlib.audit.findings import Disclosure
from anonlib.audit.statistics import FEWEST, Numbers, Shares, figure_of_sums, rate

NOTHING = "no number, flag or code of a row differs between faces: nothing to ask"
FLAG = "fallback"
MOST_CODES = 12
"""Different codes of a field that are told apart; more are free text."""
_OF_PLAN = frozenset({DIGEST, "k", "epsilon"})

Row = Mapping[str, Any]


def manifest(material: Material) -> Iterator[Disclosure]:
    """Rank-1 of the picture alone, with the manifest, with the tables, and with both."""
    for attacker in material.held_out:
        fields, tables = queries(attacker), walks(attacker)
        alone = attacker.hits(attacker.picture)
        yield attacker.disclosure("manifest", "rank-1, picture alone", alone, note="" if fields else NOTHING)
        parts = {"manifest": (fields, {}), "tables": ({}, tables), "manifest and tables": (fields, tables)}
        for part, (scores, trails) in parts.items():
            both = part == "manifest and tables"
            if (both and not (scores and trails)) or not (scores or trails):
                continue

            def fit(
                rows: Numbers,
                attacker: Attacker = attacker,
                scores: Mapping[str, Score] = scores,
                trails: Mapping[str, Score] = trails,
            ) -> Score:
                kept = [trails[name] for name in best(attacker, trails, rows, MOST)]
                return attacker.together([attacker.picture, *scores.values(), *kept], rows)

            (values,) = attacker.both_ways(fit)
            note = f"asked: {', '.join(scores)}" if part == "manifest" else ""
            yield attacker.disclosure(
                "manifest", f"rank-1, picture, {part}", values, beside=alone, judged=True, note=note
            )
    yield from flags(material)


def queries(attacker: Attacker) -> dict[str, Score]:
    """A score for each field of a manifest row that differs between faces."""
    probes, gallery = (_rows(attacker, rows) for rows in attacker.rows)
    found: dict[str, Score] = {}
    measured = [[_fields(row) for row in rows] for rows in (probes, gallery)]
    for name in dict.fromkeys(name for row in measured[0] for name in row):
        first, second = ([row.get(name) for row in rows] for rows in measured)
        kinds = {type(value) for value in first if value is not None}
        if kinds <= {int, float}:
            values = [
                np.array([np.nan if value is None else value for value in side], np.float64) for side in (first, second)
            ]
            known = values[0][~np.isnan(values[0])]
            if len(np.unique(known)) > 1 and not np.isnan(values[1]).all():
                found[name] = _nearer(*values)
        elif 1 < len(set(first)) <= MOST_CODES:
            order = {value: position for position, value in enumerate(dict.fromkeys([*first, *second]))}
            found[name] = _same(*(np.array([order[value] for value in side], np.int64) for side in (first, second)))
    return found


def flags(material: Material) -> Iterator[Disclosure]:
    """Does a flag place the person? What a refused face must not look like is shown by their other photos.

    The mean of the person's other replaced photos is looked up among clear ones, for faces with the flag and without,
    by any recognizer: one that the re-check used is the one whose opinion the flag is.
    The low end of the difference is judged, since few faces have a flag: one that places its person for sure fails, one
    that cannot be told from nothing does not.
    """
    for attacker in material.attackers:
        rows = _rows(attacker, attacker.rows[0])
        kept = np.array([row.get(FLAG) is None and row.get(DIGEST) is not None for row in rows], bool)
        summed = np.zeros((len(attacker.enrolled), attacker.released.shape[1]), np.float32)
        np.add.at(summed, attacker.right[kept], attacker.released[kept])
        others = summed[attacker.right] - np.where(kept[:, None], attacker.released, 0)
        known = np.linalg.norm(others, axis=1) > 1e-3
        better, tied = places(others, attacker.who, attacker.clear, attacker.enrolled)
        hits = np.where(known, np.clip((5 - better) / np.maximum(tied, 1), 0.0, 1.0), np.nan)
        codes = np.array([row.get(FLAG) or "" for row in rows], np.str_)
        for code in sorted(set(codes.tolist()) - {""}):
            flagged = (codes == code) & known
            if flagged.sum() >= FEWEST:
                yield _flag(attacker, code, flagged, kept & known, hits)


def _flag(
    attacker: Attacker, flag: str, flagged: NDArray[np.bool_], kept: NDArray[np.bool_], hits: Shares
) -> Disclosure:
    hit = np.nan_to_num(hits)
    columns = np.stack([hit * flagged, flagged, hit * kept, kept], axis=1).astype(np.float64)

    def apart(sums: Shares) -> Shares:
        with np.errstate(invalid="ignore"):
            return np.asarray(sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3], np.float64)

    count = int(flagged.sum())
    return Disclosure(
        name="manifest",
        target=f"rank-5 by a flag ({flag})",
        recognizer=attacker.recognizer,
        found=rate(hits[flagged], attacker.who[flagged], seed=attacker.seed),
        allowed=float(hits[kept].mean()) if kept.any() else None,
        allowed_by="the same look-up for faces without a flag",
        excess=figure_of_sums(columns, attacker.who, apart, count=count, seed=attacker.seed),
        judged_by="low",
        note="the person's other photos are averaged and looked up",
    )


def _fields(row: Row) -> dict[str, Any]:
    """The scalars of a row that are measured on its photo; a box as its shape and size."""
    fields = {name: value for name, value in row.items() if name not in _OF_PLAN and not isinstance(value, list | dict)}
    if row.get("box"):
        wide, high = row["box"][2] - row["box"][0], row["box"][3] - row["box"][1]
        if wide > 0 and high > 0:
            fields |= {"box shape": float(np.log(wide / high)), "box size": float(np.log(wide * high))}
    return fields


def _nearer(probes: Shares, gallery: Shares) -> Score:
    return lambda rows: _neutral(-np.abs(probes[rows, None] - gallery[None, :]))


def _same(probes: Numbers, gallery: Numbers) -> Score:
    return lambda rows: (probes[rows, None] == gallery[None, :]).astype(np.float32)


def _neutral(scores: NDArray[np.floating[Any]]) -> Scores:
    """Scores in which what is not known counts as much as the mean of its row."""
    unknown = np.isnan(scores)
    if unknown.any():
        known = np.maximum((~unknown).sum(axis=1, keepdims=True), 1)
        scores = np.where(unknown, np.where(unknown, 0, scores).sum(axis=1, keepdims=True) / known, scores)
    return np.asarray(scores, np.float32)


def _rows(attacker: Attacker, numbers: Numbers) -> list[Row]:
    """MANIFEST_FACE rows; an empty one where the release does not have the face."""
    assert attacker.published is not None
    found = attacker.published.manifest.take(np.maximum(numbers, 0)).to_pylist()
    return [row if number >= 0 else {} for row, number in zip(found, numbers.tolist(), strict=True)]
