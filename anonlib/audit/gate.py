"""The policy gate: does what the audit found allow this release to be called released?

Everything that could refuse it has a line, and each line says what counted. The unfavourable end of an interval is held
against a limit, so that few photos cannot pass by luck; what could not be measured does not pass.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from anonlib.audit.attacks.suite import ON_RECORDS
from anonlib.audit.findings import Attack, Disclosure, Figure, Gate, GateLine, LeakCheck, Measure, Missed
from anonlib.config import PolicyConfig

TARGETS = ("rank-1", "TAR")
NAMING = ("naive", "trained", "inversion", "averaging")
"""Attacks that name people from clear photos. Parrot and linkage compare released photos with each other: that one
person keeps one face is what a release is for, so they are reported and not judged."""
_UNMEASURED = "it could not be measured: too few photos of people who can be told apart"


def judge(
    policy: PolicyConfig,
    untrue: str | None,
    attacks: Sequence[Attack],
    leaks: Iterable[LeakCheck],
    missed: Missed,
    utility: Iterable[Measure],
    disclosures: Sequence[Disclosure],
) -> Gate:
    """All lines of `policy`; `untrue` is the sentence with which the certificate was refused, None if it holds.

    An attacker who learns from which class a face comes is right as often as 1/effective k: that much the claim allows,
    as `guess` holds against what is true, and the policy may allow less.
    """
    certificate = untrue or "every file is as signed, and the claim's conditions hold"
    lines = [
        GateLine(name="certificate", limit=None, bound=None, passed=untrue is None, why=certificate),
        *_attack_lines(policy, attacks, disclosures),
        *disclosure_lines(policy, disclosures),
        *map(_leak_line, leaks),
        *_missed_lines(policy, missed),
        *_utility_lines(policy, list(utility)),
    ]
    return Gate(passed=all(line.passed for line in lines), lines=tuple(lines))


def _attack_lines(
    policy: PolicyConfig, attacks: Sequence[Attack], disclosures: Sequence[Disclosure]
) -> Iterator[GateLine]:
    # How often an attacker who knows the class may be right, by the certificate; None for a claim without classes.
    allowed = next((found.allowed for found in disclosures if found.name == "guess" and found.judged_by), None)
    judged = [attack for attack in attacks if attack.name in NAMING and attack.target in TARGETS]
    yield from _not_made(policy, NAMING, {attack.name for attack in judged})
    for attack in judged:
        bound = attack.excess.high if attack.excess is not None else None
        solid = attack.baselines.get("solid")
        passed = bound is not None and bound <= policy.excess
        why = _UNMEASURED
        if bound is not None and solid is not None:
            why = (
                f"{_share(attack.released)} of the released photos against {_share(solid)} behind a flat ellipse; "
                f"at most {bound:.1%} more"
            )
            if allowed and not passed:
                why += f" (whoever knows the class may be right for {allowed:.1%}, by the certificate)"
        yield GateLine(
            name=f"{attack.name} attack, {attack.target} by {attack.recognizer}",
            limit=policy.excess,
            bound=bound,
            passed=passed,
            why=why,
        )


def disclosure_lines(
    policy: PolicyConfig, disclosures: Sequence[Disclosure], names: Collection[str] = tuple(ON_RECORDS)
) -> Iterator[GateLine]:
    """A line for each judged attack of `names` on what the release says beside its pictures.

    An attack that had nothing to follow, or says what it needs, has a line in the report and none here.
    """
    yield from _not_made(policy, names, {found.name for found in disclosures})
    for found in disclosures:
        if found.judged_by is None or found.name not in names:
            continue
        bound = None if found.excess is None else getattr(found.excess, found.judged_by)
        allowed = "nothing" if found.allowed is None else f"{found.allowed:.1%}"
        least = {"high": "at most", "low": "at least", "value": "exactly"}[found.judged_by]
        why = f"{_share(found.found)} found, {allowed} allowed ({found.allowed_by}); {least} "
        yield GateLine(
            name=f"{found.name} attack, {found.target}" + (f" by {found.recognizer}" if found.recognizer else ""),
            limit=policy.excess,
            bound=bound,
            passed=bound is not None and bound <= policy.excess,
            why=_UNMEASURED if bound is None else f"{why}{bound:.1%} more",
        )


def _not_made(policy: PolicyConfig, names: Iterable[str], made: set[str]) -> Iterator[GateLine]:
    for name in names:
        if name not in made:
            why = "this attack was not made"
            yield GateLine(name=f"{name} attack", limit=policy.excess, bound=None, passed=False, why=why)


def _leak_line(check: LeakCheck) -> GateLine:
    where = f": {', '.join(check.where)}" if check.where else ""
    why = f"{check.found:,} of {check.checked:,}{where}"
    return GateLine(name=f"leak, {check.name}", limit=0, bound=check.found, passed=check.found == 0, why=why)


def _missed_lines(policy: PolicyConfig, missed: Missed) -> Iterator[GateLine]:
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


def _utility_lines(policy: PolicyConfig, utility: Sequence[Measure]) -> Iterator[GateLine]:
    measured = {measure.name: measure for measure in utility}
    for name, limit in sorted(policy.kept.items()):
        measure, bound, passed = measured.get(name), None, False
        if measure is None:
            why = f"no such measure; there are {', '.join(sorted(measured))}"
        elif measure.better == "higher":
            bound = measure.released.low
            passed, why = bound is not None and bound >= limit, f"at least {limit:g} {measure.unit} is asked"
        else:
            bound = measure.released.high
            passed, why = bound is not None and bound <= limit, f"at most {limit:g} {measure.unit} is asked"
        yield GateLine(name=name, limit=limit, bound=bound, passed=passed, why=why)


def _share(figure: Figure) -> str:
    return "an unknown share" if figure.value is None else f"{figure.value:.1%}"
