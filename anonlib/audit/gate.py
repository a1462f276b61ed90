"""The policy gate: does what the audit found allow this release to be called released?

A line for everything that could refuse it, and each says what counted. It is the unfavourable end of an interval that
is held against a limit, so that few photos cannot pass by luck; what could not be measured does not pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from anonlib.audit.findings import ON_RECORDS, Attack, Disclosure, Figure, Gate, GateLine, LeakCheck, Measure, Missed
from anonlib.config import PolicyConfig

TARGETS = ("rank-1", "TAR")
NAMING = ("naive", "trained", "inversion", "averaging")
"""Attacks that name people from clear photos. Parrot and linkage compare released photos with each other: that one
person keeps one face is what a release is for, so they are reported and not judged."""


def judge(
    policy: PolicyConfig,
    untrue: str | None,
    attacks: Sequence[Attack],
    leaks: Iterable[LeakCheck],
    missed: Missed,
    utility: Iterable[Measure],
    disclosures: Sequence[Disclosure],
) -> Gate:
    """Every line of `policy`; `untrue` is the sentence with which the certificate was refused, None if it holds.

    Who learns from which class a face comes is right as often as 1/effective k: that much the claim allows, as `guess`
    holds against what is true, and the policy may allow less.
    """
    lines = [
        GateLine(
            name="certificate",
            limit=None,
            bound=None,
            passed=untrue is None,
            why=untrue or "every file is as signed, and the claim's conditions hold",
        ),
        *_named(policy, attacks, _allowed(disclosures)),
        *told(policy, disclosures),
        *map(_leak, leaks),
        *_missed(policy, missed),
        *_kept(policy, list(utility)),
    ]
    return Gate(passed=all(line.passed for line in lines), lines=tuple(lines))


def _allowed(disclosures: Sequence[Disclosure]) -> float | None:
    """How often an attacker who knows the class may be right, by the certificate; None for a claim without classes."""
    return next((one.allowed for one in disclosures if one.name == "guess" and one.judged_by), None)


def _named(policy: PolicyConfig, attacks: Sequence[Attack], allowed: float | None) -> Iterator[GateLine]:
    judged = [one for one in attacks if one.name in NAMING and one.target in TARGETS]
    for name in NAMING:
        if not any(one.name == name for one in judged):
            yield GateLine(
                name=f"{name} attack", limit=policy.excess, bound=None, passed=False, why="this attack was not made"
            )
    for one in judged:
        bound = one.excess.high if one.excess is not None else None
        yield GateLine(
            name=f"{one.name} attack, {one.target} by {one.recognizer}",
            limit=policy.excess,
            bound=bound,
            passed=bound is not None and bound <= policy.excess,
            why=_of_attack(one, bound, allowed if bound is not None and bound > policy.excess else None),
        )


def told(policy: PolicyConfig, disclosures: Sequence[Disclosure], names: Sequence[str] = ON_RECORDS) -> list[GateLine]:
    """A line for each judged attack of `names` on what the release says beside its pictures.

    An attack that had nothing to follow, or says what it needs, has a line in the report and none here.
    """
    lines = [
        GateLine(name=f"{name} attack", limit=policy.excess, bound=None, passed=False, why="this attack was not made")
        for name in names
        if not any(one.name == name for one in disclosures)
    ]
    for one in disclosures:
        if one.judged_by is None or one.name not in names:
            continue
        bound = None if one.excess is None else getattr(one.excess, one.judged_by)
        by = f" by {one.recognizer}" if one.recognizer else ""
        said = f"{_share(one.found)} found, {'nothing' if one.allowed is None else f'{one.allowed:.1%}'} allowed"
        least = {"high": "at most", "low": "at least", "value": "exactly"}[one.judged_by]
        lines.append(
            GateLine(
                name=f"{one.name} attack, {one.target}{by}",
                limit=policy.excess,
                bound=bound,
                passed=bound is not None and bound <= policy.excess,
                why="it could not be measured: too few photos of people who can be told apart"
                if bound is None
                else f"{said} ({one.allowed_by}); {least} {bound:.1%} more",
            )
        )
    return lines


def _of_attack(one: Attack, bound: float | None, allowed: float | None) -> str:
    solid = one.baselines.get("solid")
    if bound is None or solid is None:
        return "it could not be measured: too few photos of people who can be told apart"
    return (
        f"{_share(one.released)} of the released photos against {_share(solid)} behind a flat ellipse; "
        f"at most {bound:.1%} more"
        + (f" (whoever knows the class may be right for {allowed:.1%}, by the certificate)" if allowed else "")
    )


def _leak(one: LeakCheck) -> GateLine:
    where = f": {', '.join(one.where)}" if one.where else ""
    return GateLine(
        name=f"leak, {one.name}",
        limit=0,
        bound=one.found,
        passed=one.found == 0,
        why=f"{one.found:,} of {one.checked:,}{where}",
    )


def _missed(policy: PolicyConfig, missed: Missed) -> Iterator[GateLine]:
    bound = missed.second.high
    yield GateLine(
        name="missed faces, second look",
        limit=policy.missed,
        bound=bound,
        passed=bound is not None and bound <= policy.missed,
        why=f"in {_share(missed.second)} of the images {missed.second_by} finds a face that was left as it was",
    )
    if policy.reviewed or missed.sampled:
        enough = missed.sampled >= policy.reviewed
        yield GateLine(
            name="missed faces, judged by a person",
            limit=policy.reviewed_upper,
            bound=missed.upper,
            passed=enough and missed.upper <= policy.reviewed_upper,
            why=f"{missed.wrong:,} of {missed.sampled:,} judged images showed a face left as it was"
            + ("" if enough else f"; the policy asks for {policy.reviewed:,}"),
        )


def _kept(policy: PolicyConfig, utility: Sequence[Measure]) -> Iterator[GateLine]:
    measured = {one.name: one for one in utility}
    for name, limit in sorted(policy.kept.items()):
        one = measured.get(name)
        if one is None:
            known = ", ".join(sorted(measured))
            yield GateLine(name=name, limit=limit, bound=None, passed=False, why=f"no such measure; there are {known}")
            continue
        higher = one.better == "higher"
        bound = one.released.low if higher else one.released.high
        yield GateLine(
            name=name,
            limit=limit,
            bound=bound,
            passed=bound is not None and (bound >= limit if higher else bound <= limit),
            why=f"{'at least' if higher else 'at most'} {limit:g} {one.unit} is asked",
        )


def _share(figure: Figure) -> str:
    return "an unknown share" if figure.value is None else f"{figure.value:.1%}"
