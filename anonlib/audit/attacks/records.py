"""Attacks on what a release says beside its pictures: its tables, its manifest, and who shows what.

certificate   the tables are followed from what a face shows to what other faces show, whose average is looked up
manifest      every number, flag and code of a face's row is held against each person's clear photo
guess         the most photographed member of a class is always named
intersect     the classes of a person whom clustering took for several are intersected
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.audit.attacks.base import Attacker, Material
from anonlib.audit.attacks.similarity import Score, Scores, dot, found_within
from anonlib.audit.attacks.trails import walked
from anonlib.audit.evidence.evidence import RELEASED
from anonlib.audit.evidence.published import DIGEST
from anonlib.audit.findings import Disclosure
from anonlib.audit.statistics import FEWEST, Numbers, Shares, difference, figure_of_sums, nothing, rate
from anonlib.verification.certificate import WITHOUT_LABELS

MOST_CODES = 12
"""Different codes of a field that are told apart; more are free text."""
NO_TRAIL = "no table leads from what a face shows to what another shows: nothing to follow"
NO_FIELD = "no number, flag or code of a row differs between faces: nothing to ask"
NO_CLASSES = "the release has no classes: nothing to guess"
NOT_SAID = "the certificate gives these groups no effective k to hold this against"
NO_SPLIT = "the method has no classes and no draws: nothing to intersect"
NEEDS_LABELS = (
    "the job formed its subjects without labels, so only labels can show whom it split: name a field of the dataset "
    "by --truth-field"
)
_OF_PLAN = frozenset({DIGEST, "k", "epsilon"})
"""What the plan decides for a whole class is no measurement of a photo, and is left to the tables."""


# ---- certificate --------------------------------------------------------------------------------------------------


def certificate(material: Material) -> Iterator[Disclosure]:
    """Rank-1 of the best trail, chosen on the other half of the people, beside the picture's."""
    for attacker in material.held_out:
        alone, trails = found_within(1, *attacker.ranks(attacker.picture)), _walks(attacker)
        if not trails:
            yield attacker.disclosure("certificate", "rank-1, picture alone", alone, note=NO_TRAIL)
            continue
        chosen = set[str]()
        followed = found_within(1, *attacker.both_ways(partial(_best, attacker, trails, chosen)))
        note = f"{len(trails)} trails; followed {' and '.join(sorted(chosen))}"
        yield attacker.disclosure("certificate", "rank-1", followed, alone, note)


def _walks(attacker: Attacker) -> dict[str, Score]:
    """How near each trail of the tables leads to a person's clear photos, from what the photo asked about shows."""
    records, released = attacker.material.records, attacker.vectors[RELEASED]
    worn = np.where(attacker.rows >= 0, records.shown[attacker.rows], -1)
    return {
        name: dot(walked(trail, worn, released)[attacker.probe], attacker.clear)
        for name, trail in attacker.material.trails.items()
    }


def _best(attacker: Attacker, scores: Mapping[str, Score], chosen: set[str], rows: Numbers) -> Score:
    """The trail that puts the right person nearest to the front for these rows, by the least mean logarithm of the
    rank; its name is added to `chosen`. Where no trail begins there is the picture."""

    def depth(name: str) -> float:
        better, tied = attacker.ranks(scores[name], attacker.sample(rows))
        return float(np.log(better + (tied + 1) / 2).mean())

    name = min(scores, key=depth)
    chosen.add(name)

    def score(probes: Numbers) -> Scores:
        fits = scores[name](probes)
        lost = ~fits.any(axis=1)
        fits[lost] = attacker.picture(probes[lost])
        return fits

    return score


# ---- manifest -----------------------------------------------------------------------------------------------------


def manifest(material: Material) -> Iterator[Disclosure]:
    """Rank-1 of the picture put together with the manifest by a conditional logit, then with the best trail of the
    tables, too, beside the picture's."""
    for attacker in material.held_out:
        fields = queries(attacker)
        alone = found_within(1, *attacker.ranks(attacker.picture))
        if not fields:
            yield attacker.disclosure("manifest", "rank-1, picture alone", alone, note=NO_FIELD)
            continue
        asked = found_within(1, *attacker.both_ways(partial(attacker.together, [attacker.picture, *fields.values()])))
        note = f"asked: {', '.join(fields)}"
        yield attacker.disclosure("manifest", "rank-1, picture, manifest", asked, alone, note)
        if trails := _walks(attacker):
            both = found_within(1, *attacker.both_ways(partial(_with_tables, attacker, fields, trails)))
            yield attacker.disclosure("manifest", "rank-1, picture, manifest and tables", both, alone)
    yield from flags(material)


def _with_tables(attacker: Attacker, fields: Mapping[str, Score], trails: Mapping[str, Score], rows: Numbers) -> Score:
    best = _best(attacker, trails, set(), rows)
    return attacker.together([attacker.picture, *fields.values(), best], rows)


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
        codes = np.array([code or "" for code in _at(records.manifest.column("fallback").to_pylist(), probes)], np.str_)
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


# ---- guess --------------------------------------------------------------------------------------------------------


def guess(material: Material) -> Iterator[Disclosure]:
    """Always the most photographed member, by the plan's classes and by what faces show.

    That is right for this member's share of the class's faces, which 1/k bounds only where all have as many photos. So
    a class is worth min(people, photos / photos of the most photographed), its effective k, and none more may be
    certified.
    """
    published = material.records
    classes, shown, k = published.classes, published.shown, published.claim.k
    shows = shown >= 0
    if k is None or not (shows & (classes >= 0)).any():
        yield Disclosure(name="guess", target="right guess", found=nothing(), note=NO_CLASSES)
        return
    # What the released tables give as the effective k of those who show a surrogate: the least of all rows.
    certified = np.full(len(published.surrogates), np.nan)
    number = {digest: position for position, digest in enumerate(published.surrogates)}
    for row in (row for rows in published.tables.values() for row in rows):
        digest, effective = row.get("wears"), row.get("effective_k")
        if isinstance(digest, str) and digest in number and effective:
            certified[number[digest]] = np.fmin(certified[number[digest]], float(effective))
    planned = np.array([effective for _, effective in published.plan.sizes], np.float64)
    for how, groups, effective_k in (("by the plan", classes, planned), ("by what faces show", shown, certified)):
        rows = shows & (groups >= 0)
        if rows.any():
            target, people = f"right guess, all faces, classes {how}", published.people[rows]
            yield _guessed(target, people, groups[rows], effective_k[groups[rows]], 1 / max(k, 1), material.seed)


def _guessed(target: str, people: Numbers, groups: Numbers, effective: Shares, bound: float, seed: int) -> Disclosure:
    """The right guesses of these faces (n,), whose group has the certified `effective` k (n,), or NaN."""
    _, group = np.unique(groups, return_inverse=True)
    # A pair is a group and a person in it; `counts` are its faces.
    pairs, counts = np.unique(np.stack([group, people]), axis=1, return_counts=True)
    faces, members = np.bincount(group), np.bincount(pairs[0])
    # In each group the pair with most faces comes first, and of several the person with the lowest number.
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    named = order[np.unique(pairs[0][order], return_index=True)[1]]
    right = (people == pairs[1][named][group]).astype(np.float64)
    top = counts[named] / faces
    worth = np.minimum(members, 1 / top)
    allowed, over, worst = 1 / effective, top[group] > bound + 1e-9, int(np.argmax(top))
    note = (
        f"1/people {np.mean(1 / members[group]):.1%}, 1/effective k measured here {np.mean(1 / worth[group]):.1%}; "
        f"{over.mean():.1%} of the faces lie in classes that allow more than 1/k = {bound:.1%}; the worst class "
        f"allows {top[worst]:.1%}, of {faces[worst]:,} faces of {members[worst]:,} people"
    )
    certified = not np.isnan(allowed).all()
    return Disclosure(
        name="guess",
        target=target,
        found=rate(right, people, chance=float(np.mean(1 / members[group])), seed=seed),
        allowed=float(np.nanmean(allowed)) if certified else None,
        allowed_by="1 / effective k as certified, mean over these faces" if certified else "",
        excess=difference(right, allowed, people, seed=seed) if certified else None,
        judged_by="value" if certified else None,
        note=note if certified else f"{note}; {NOT_SAID}",
    )


# ---- intersect ----------------------------------------------------------------------------------------------------


def intersect(material: Material) -> Iterator[Disclosure]:
    """People in several classes, and those whom the classes name; of a method that draws, people with several draws.

    The more classes, the fewer candidates are left in all of them, and each draw costs its epsilon. Only labels that
    the job did not use can show either.
    """
    published, seed = material.records, material.seed
    named, classes, people, claim = published.named, published.classes, published.people, published.claim
    several_classes = "people in several classes"
    allowed_by = WITHOUT_LABELS if published.clustered else "the claim is of every person"
    if not named.any() or (published.clustered and not published.evaluated):
        yield _share(several_classes, [], NEEDS_LABELS, seed)
        return
    subjects = np.array([published.plan.person.get(face, -1) for face in published.faces], np.int64)
    split = _sets(people, subjects, named & (subjects >= 0))
    parts = Counter(map(len, split.values()))
    note = f"of {len(split):,} people {len(split) - parts[1]:,} were taken for several, up to {max(parts, default=0)}"
    if claim.k is not None:
        in_class = named & (classes >= 0)
        members, of_person = _sets(classes, people, in_class), _sets(people, classes, in_class)
        several = [len(sets) > 1 for sets in of_person.values()]
        left = [len(set.intersection(*(members[cls] for cls in sets))) for sets in of_person.values()]
        alone = [many and count == 1 for many, count in zip(several, left, strict=True)]
        yield _share(several_classes, several, note, seed)
        note += f"; {sum(several)} lie in several classes, {sum(alone)} of them alone are in all of theirs"
        yield _share("people named by their classes", alone, note, seed, allowed_by)
    elif claim.epsilon is not None:
        shown = published.shown
        draws = [len(drawn) for drawn in _sets(people, shown, named & (shown >= 0)).values()]
        most = max(draws, default=0)
        note += f"; a person shows up to {most} draws, which cost {most} times the epsilon of one"
        yield _share("people with several draws", [count > 1 for count in draws], note, seed, allowed_by)
    else:
        yield _share(several_classes, [], NO_SPLIT, seed)


def _sets(keys: Numbers, values: Numbers, rows: NDArray[np.bool_]) -> dict[int, set[int]]:
    """The values (n,) that each key (n,) has in these rows (n,)."""
    sets: dict[int, set[int]] = defaultdict(set)
    for key, value in zip(keys[rows].tolist(), values[rows].tolist(), strict=True):
        sets[key].add(value)
    return sets


def _share(target: str, hits: Iterable[bool], note: str, seed: int, allowed_by: str = "") -> Disclosure:
    """A share of the people (n,), which is judged if a claim allows none of them."""
    shares = np.array(list(hits), np.float64)
    people = np.arange(len(shares))
    return Disclosure(
        name="intersect",
        target=target,
        found=rate(shares, people, seed=seed),
        allowed=0.0 if allowed_by else None,
        allowed_by=allowed_by,
        excess=difference(shares, np.zeros(len(shares)), people, seed=seed) if allowed_by else None,
        judged_by="high" if allowed_by else None,
        note=note,
    )


ON_RECORDS: dict[str, Callable[[Material], Iterable[Disclosure]]] = {
    attack.__name__: attack for attack in (certificate, manifest, guess, intersect)
}
"""Attacks on what a release says beside its pictures; the first two compare photos too."""
WITH_PICTURES = frozenset({"certificate", "manifest"})
RECORDS_ALONE = frozenset(ON_RECORDS) - WITH_PICTURES


def attack_records(material: Material, only: Collection[str] = tuple(ON_RECORDS)) -> list[Disclosure]:
    """What the attacks in `only` find, those by recognizers first; WITH_PICTURES need evidence."""
    found = [finding for name, attack in ON_RECORDS.items() if name in only for finding in attack(material)]
    order = {name: number for number, name in enumerate(material.evidence.clear.vectors if material.evidence else ())}
    return sorted(found, key=lambda finding: order.get(finding.recognizer, len(order)))
