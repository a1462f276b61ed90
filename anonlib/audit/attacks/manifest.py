"""Ask the manifest: every number, flag and code of a face's row, held against each person's clear photo.

What the plan decides for a whole class (k, epsilon, the surrogate) is no measurement of a photo and is left to the
tables. All of it is put together with the picture and the tables by a conditional logit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.audit.attacks.base import Attacker, Material
from anonlib.audit.attacks.certificate import MOST, best, walks
from anonlib.audit.attacks.similarity import Score, Scores, dot, found_within
from anonlib.audit.evidence.published import DIGEST
from anonlib.audit.findings import Disclosure
from anonlib.audit.statistics import FEWEST, Numbers, Shares, figure_of_sums, rate

NOTHING = "no number, flag or code of a row differs between faces: nothing to ask"
BOTH, FLAG = "manifest and tables", "fallback"
MOST_CODES = 12
"""Different codes of a field that are told apart; more are free text."""
Trails = Mapping[str, Score]
_OF_PLAN = frozenset({DIGEST, "k", "epsilon"})


def manifest(material: Material) -> Iterator[Disclosure]:
    """Rank-1 of the picture alone, with the manifest, with the tables, and with both."""
    for attacker in material.held_out:
        fields, tables = queries(attacker), walks(attacker)
        alone = found_within(1, *attacker.ranks(attacker.picture))
        yield attacker.disclosure("manifest", "rank-1, picture alone", alone, note="" if fields else NOTHING)
        for part, scores, trails in (("manifest", fields, {}), ("tables", {}, tables), (BOTH, fields, tables)):
            if not (scores or trails) or (part == BOTH and not (scores and trails)):
                continue
            values = found_within(1, *attacker.both_ways(partial(_together, attacker, scores, trails)))
            note = f"asked: {', '.join(fields)}" if part == "manifest" else ""
            yield attacker.disclosure("manifest", f"rank-1, picture, {part}", values, alone, note=note)
    yield from flags(material)


def _together(attacker: Attacker, scores: Trails, trails: Trails, rows: Numbers) -> Score:
    """The picture with `scores` and the best of `trails`, as these rows weigh them."""
    kept = [trails[name] for name in best(attacker, trails, rows, MOST)]
    return attacker.together([attacker.picture, *scores.values(), *kept], rows)


def queries(attacker: Attacker) -> dict[str, Score]:
    """A score for each field of a manifest row that is measured on a photo and differs; a box as its shape and size."""
    table = attacker.material.records.manifest
    fields = [field for field in table.schema if field.name not in _OF_PLAN and not pa.types.is_nested(field.type)]
    columns: dict[str, list[Any]] = table.select([field.name for field in fields]).to_pydict()
    if "box" in table.column_names:
        x0, y0, x1, y1 = np.array(table.column("box").to_pylist(), np.float64).reshape(-1, 4).T
        fits = (x1 > x0) & (y1 > y0)
        wide, high = np.where(fits, x1 - x0, np.nan), np.where(fits, y1 - y0, np.nan)
        columns |= {"box shape": np.log(wide / high).tolist(), "box size": np.log(wide * high).tolist()}
    scores: dict[str, Score] = {}
    for name, values in columns.items():
        asked, known = (_at(values, attacker.rows[side]) for side in (attacker.probe, attacker.gallery))
        if {type(value) for value in (*asked, *known) if value is not None} <= {int, float}:
            numbers, others = (np.array(side, np.float64) for side in (asked, known))  # None becomes NaN
            if len(np.unique(numbers[~np.isnan(numbers)])) > 1 and not np.isnan(others).all():
                scores[name] = partial(_nearness, numbers, others)
        elif 1 < len(set(asked)) <= MOST_CODES:
            order = {value: position for position, value in enumerate(dict.fromkeys([*asked, *known]))}
            codes = (np.array([order[value] for value in side]) for side in (asked, known))
            scores[name] = partial(_sameness, *codes)
    return scores


def _at(values: list[Any], rows: Numbers) -> list[Any]:
    """The values in these rows; None where the release does not have the face (-1)."""
    return [values[row] if row >= 0 else None for row in rows.tolist()]


def _nearness(probes: Shares, gallery: Shares, rows: Numbers) -> Scores:
    """How near two numbers are; an unknown one gets the mean of its row."""
    scores = -np.abs(probes[rows, None] - gallery[None, :])
    unknown = np.isnan(scores)
    means = np.where(unknown, 0, scores).sum(axis=1, keepdims=True) / np.maximum((~unknown).sum(axis=1), 1)[:, None]
    return np.asarray(np.where(unknown, means, scores), np.float32)


def _sameness(probes: Numbers, gallery: Numbers, rows: Numbers) -> Scores:
    return np.asarray(probes[rows, None] == gallery[None, :], np.float32)


def flags(material: Material) -> Iterator[Disclosure]:
    """Whether a flag tells who a person is: a refused face looked like something that the person's other photos show.

    The mean of the person's other replaced photos is looked up among clear ones, for faces with the flag and without,
    by any recognizer: one that the re-check used is the one whose opinion the flag is. The low end of the difference is
    judged, since few faces have a flag.
    """
    for attacker in material.attackers:
        records, probes = material.records, attacker.rows[attacker.probe]
        codes = np.array([code or "" for code in _at(records.manifest.column(FLAG).to_pylist(), probes)], np.str_)
        kept = (codes == "") & (probes >= 0) & (records.shown[probes] >= 0)
        summed = np.zeros((len(attacker.enrolled), attacker.released.shape[1]), np.float32)
        np.add.at(summed, attacker.right[kept], attacker.released[kept])
        others = summed[attacker.right] - np.where(kept[:, None], attacker.released, 0)
        known = np.linalg.norm(others, axis=1) > 1e-3
        hits = np.where(known, found_within(5, *attacker.ranks(dot(others, attacker.clear))), np.nan)
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

    return Disclosure(
        name="manifest",
        target=f"rank-5 by a flag ({flag})",
        recognizer=attacker.recognizer,
        found=rate(hits[flagged], attacker.who[flagged], seed=attacker.seed),
        allowed=float(hits[kept].mean()) if kept.any() else None,
        allowed_by="the same look-up for faces without a flag",
        excess=figure_of_sums(columns, attacker.who, apart, count=int(flagged.sum()), seed=attacker.seed),
        judged_by="low",
        note="the person's other photos are averaged and looked up",
    )
