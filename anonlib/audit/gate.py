"""The policy gate: whether the audit's findings allow the release to leave.

Each condition is a line, which says what was measured and what is allowed. The unfavourable end of an interval is held
against a limit, so that few photos cannot pass by luck; what could not be measured does not pass.

What attackers find in pictures is judged in two parts. What a release's faces tell beyond one face for everybody is the
method's own. What that one face leaves beyond a flat ellipse no method changes: it is the residual risk.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from anonlib.audit.attacks.records import ON_RECORDS, RECORDS_ALONE
from anonlib.audit.evidence.evidence import HIDDEN, ONE_FACE, ONE_FACE_ALL
from anonlib.audit.findings import About, Attack, Disclosure, Figure, GateLine, LeakCheck, Measure, Missed
from anonlib.config import PolicyConfig

TARGETS = ("rank-1", "TAR")
NAMING = ("naive", "trained", "trained, person's photos together", "inversion", "averaging")
"""Attacks that name people from clear photos. Parrot compares released photos with each other: that one person
keeps one face is what a release is for, so it is reported and not judged."""
ONE_PHOTO_EACH = (
    "left out, since no person is known to be in two photos; name who is in a photo by input.subject_field, or by "
    "--truth-field for the audit alone"
)
_UNMEASURED = "it could not be measured: too few photos of people who can be told apart"


def judge(
    policy: PolicyConfig,
    untrue: str | None,
    attacks: Sequence[Attack],
    leaks: Iterable[LeakCheck],
    missed: Missed,
    utility: Iterable[Measure],
    disclosures: Sequence[Disclosure],
    *,
    compared: bool = True,
    synthesis: bool = True,
) -> Iterator[GateLine]:
    """All lines of `policy`; `untrue` is the sentence with which the certificate was refused, None if it holds.

    `compared`: whether any attack could compare two photos of a person. `synthesis`: whether the method puts a face
    where one was; a redaction shows no face, so it leaves nothing that one face for everybody would.

    An attacker who learns from which class a face comes is right as often as 1/effective k: that much the claim allows,
    as `guess` holds against what is true, and the policy may allow less.
    """
    certificate = untrue or "every file is as signed, and the claim's conditions hold"
    yield GateLine(
        about="certificate", name="certificate", limit=None, bound=None, passed=untrue is None, why=certificate
    )
    if compared:
        yield from _attack_lines(policy, attacks, disclosures)
        yield from _context_lines(policy, attacks) if synthesis else ()
    else:
        yield _at_most("identity", "attacks that compare photos", policy.excess, None, ONE_PHOTO_EACH)
    yield from disclosure_lines(policy, disclosures, tuple(ON_RECORDS) if compared else RECORDS_ALONE)
    yield from map(_leak_line, leaks)
    yield from _missed_lines(policy, missed)
    yield from _utility_lines(policy, {measure.name: measure for measure in utility})


def _at_most(about: About, name: str, limit: float, bound: float | None, why: str) -> GateLine:
    passed = bound is not None and bound <= limit
    return GateLine(about=about, name=name, limit=limit, bound=bound, passed=passed, why=why)


def _judged(attacks: Sequence[Attack]) -> list[Attack]:
    return [attack for attack in attacks if attack.name in NAMING and attack.target in TARGETS]


def _attack_lines(
    policy: PolicyConfig, attacks: Sequence[Attack], disclosures: Sequence[Disclosure]
) -> Iterator[GateLine]:
    # How often an attacker who knows the class may be right, by the certificate; None for a claim without classes.
    allowed = next((finding.allowed for finding in disclosures if finding.name == "guess" and finding.judged_by), None)
    judged = _judged(attacks)
    yield from _not_made("identity", policy, NAMING, {attack.name for attack in judged})
    for attack in judged:
        bound, why = attack.identity.high if attack.identity is not None else None, _UNMEASURED
        if bound is not None:
            shared = _share(attack.baselines[ONE_FACE])
            why = f"{_share(attack.released)} of the released photos against {shared} with one face for everybody; "
            why += f"at most {bound:.1%} more"
            if allowed and bound > policy.excess:
                why += f" (by the certificate, an attacker who knows the class may be right for {allowed:.1%})"
                allowed = None  # said once
        name = f"{attack.name} attack, {attack.target} by {attack.recognizer}"
        yield _at_most("identity", name, policy.excess, bound, why)


def _context_lines(policy: PolicyConfig, attacks: Sequence[Attack]) -> Iterator[GateLine]:
    """One line: the attack to which one face for everybody leaves most beyond a flat ellipse."""
    known = [(attack.context.high, attack) for attack in _judged(attacks) if attack.context is not None]
    bounds = [(bound, attack) for bound, attack in known if bound is not None]
    bound, why = None, _UNMEASURED
    if bounds:
        bound, attack = max(bounds, key=lambda pair: pair[0])
        shares = {kind: _share(figure) for kind, figure in attack.baselines.items()}
        to_all = shares.get(ONE_FACE_ALL, "an unknown share")
        why = (
            f"{attack.name} attack, {attack.target} by {attack.recognizer}: {shares[ONE_FACE]} of the photos with one "
            f"face for everybody of a gender, age band and tone, {to_all} with one for all, {shares[HIDDEN]} behind a "
            f"flat ellipse; at most {bound:.1%} more"
        )
    yield _at_most("context", "context, what any face leaves", policy.context, bound, why)


def disclosure_lines(
    policy: PolicyConfig, disclosures: Sequence[Disclosure], names: Collection[str] = tuple(ON_RECORDS)
) -> Iterator[GateLine]:
    """A line for each judged attack of `names` on what the release says beside its pictures.

    An attack that had nothing to follow, or says what it needs, has a line in the report and none here.
    """
    yield from _not_made("records", policy, names, {finding.name for finding in disclosures})
    for finding in disclosures:
        if finding.judged_by is None or finding.name not in names:
            continue
        name = f"{finding.name} attack, {finding.target}{f' by {finding.recognizer}' if finding.recognizer else ''}"
        bound, why = None if finding.excess is None else getattr(finding.excess, finding.judged_by), _UNMEASURED
        if bound is not None:
            allowed = "nothing" if finding.allowed is None else f"{finding.allowed:.1%}"
            least = {"high": "at most", "low": "at least", "value": "exactly"}[finding.judged_by]
            why = f"{_share(finding.found)} found, {allowed} allowed ({finding.allowed_by}); {least} {bound:.1%} more"
        yield _at_most("records", name, policy.excess, bound, why)


def _not_made(about: About, policy: PolicyConfig, names: Iterable[str], made: set[str]) -> Iterator[GateLine]:
    for name in names:
        if name not in made:
            yield _at_most(about, f"{name} attack", policy.excess, None, "this attack was not made")


def _leak_line(leak: LeakCheck) -> GateLine:
    where = f"{': ' if leak.where else ''}{', '.join(leak.where)}"
    return _at_most("leak", f"leak, {leak.name}", 0, leak.found, f"{leak.found:,} of {leak.checked:,}{where}")


def _missed_lines(policy: PolicyConfig, missed: Missed) -> Iterator[GateLine]:
    why = f"in {_share(missed.second)} of the images {missed.second_by} finds a face that was left as it was"
    yield _at_most("missed", "missed faces, second look", policy.missed, missed.second.high, why)
    if policy.reviewed or missed.sampled:
        enough = missed.sampled >= policy.reviewed
        why = f"{missed.wrong:,} of {missed.sampled:,} judged images showed a face left as it was"
        why += "" if enough else f"; the policy asks for {policy.reviewed:,}"
        line = _at_most("missed", "missed faces, judged by a person", policy.reviewed_upper, missed.upper, why)
        yield line.model_copy(update={"passed": line.passed and enough})


def _utility_lines(policy: PolicyConfig, measured: dict[str, Measure]) -> Iterator[GateLine]:
    for name, limit in sorted(policy.kept.items()):
        measure, bound, passed = measured.get(name), None, False
        why = f"no such measure; there are {', '.join(sorted(measured))}"
        if measure is not None:
            higher, figure = measure.better == "higher", measure.released
            bound = figure.low if higher else figure.high
            passed = bound is not None and (bound >= limit if higher else bound <= limit)
            why = f"at {'least' if higher else 'most'} {limit:g} {measure.unit} is asked"
        yield GateLine(about="utility", name=name, limit=limit, bound=bound, passed=passed, why=why)


def _share(figure: Figure) -> str:
    return "an unknown share" if figure.value is None else f"{figure.value:.1%}"
