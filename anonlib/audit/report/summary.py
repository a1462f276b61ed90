"""The first page in sentences, made from the report's figures and from nothing else: what was done, claim, risks.

No sentence grades a risk as low or high: it says what the strongest attack reached, on how many photos and with which
interval, beside what guessing reaches and what is left when the face is hidden, and it says what was not measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from anonlib.audit.findings import About, Attack, AuditReport, Figure, GateLine, Group
from anonlib.audit.report import glossary

NBSP = "\u00a0"
NOT_MEASURED = "not measured"
_EPSILON_UNITS = {
    "release": "a release, for any two people",
    "radian": "a radian between two people",
    "Euclidean distance": "a unit of Euclidean distance between two people",
}
_KEPT_ATTRIBUTES = ("gender kept", "age band kept", "expression kept")

# ---- figures as text ------------------------------------------------------------------------------------------


def share(value: float) -> str:
    """`12.3 %`; below a tenth of a per cent, with two significant digits."""
    percent = 100 * value
    digits = 1 - math.floor(math.log10(abs(percent))) if 0 < abs(percent) < 0.1 else 1
    return f"{percent:.{digits}f}{NBSP}%"


def number(value: float) -> str:
    """Up to four significant digits, thousands apart."""
    whole = value == int(value) and abs(value) < 1e15
    return f"{value:,.0f}" if whole or abs(value) >= 1000 else f"{value:.4g}"


def amount(value: float, unit: str = "share") -> str:
    """A value in its unit: a `share` in per cent, `points` in percentage points with a sign."""
    if unit == "share":
        return share(value)
    if unit == "points":
        return f"{round(100 * value, 1) + 0.0:+.1f}".replace("-", "\u2212")
    return f"{number(value)}{NBSP}{unit}".strip(NBSP)


def interval(figure: Figure, unit: str = "share") -> str:
    """`10.1 to 14.0 %`, empty where there is none."""
    if figure.low is None or figure.high is None:
        return ""
    ending = {"share": "%", "points": ""}.get(unit, unit)
    return f"{amount(figure.low, unit).removesuffix(f'{NBSP}{ending}')} to {amount(figure.high, unit)}"


def figure_text(figure: Figure | None, unit: str = "share") -> str:
    """`12.3 % (10.1 to 14.0 %, n = 3,214)`, or that nothing was measured."""
    if figure is None or figure.value is None:
        return NOT_MEASURED
    basis = filter(None, (interval(figure, unit), f"n{NBSP}={NBSP}{figure.count:,}"))
    return f"{amount(figure.value, unit)} ({', '.join(basis)})"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """`1 face`, `2 faces`, `no face`."""
    return f"{count:,} {plural or noun + 's'}" if count > 1 else f"{count or 'no'} {noun}"


def listed(parts: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = list(parts) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def _size_range(sizes: dict[int, int]) -> str:
    """`5 to 9` of size -> how many classes have it."""
    return f"{min(sizes)}" if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)}"


# ---- the gate in short ----------------------------------------------------------------------------------------


def in_short(report: AuditReport) -> list[str]:
    """Three sentences: what the policy asked, what was found, and what risk is left."""

    def worst(about: About) -> tuple[GateLine, float] | None:
        """The line of that kind that goes furthest beyond its limit, one without a figure first; and that limit."""
        lines = [(line, line.limit) for line in report.gate.lines if line.about == about and line.limit is not None]
        return max(lines, key=lambda pair: math.inf if pair[0].bound is None else pair[0].bound - pair[1], default=None)

    def most(value: float | None) -> str:
        return "a share that could not be measured" if value is None else f"at most {share(value)}"

    def more(value: float | None) -> str:
        return f"{'an unknown number of' if value is None else f'at most {100 * value:.1f}'} points more often"

    leaks, checks = sum(check.found > 0 for check in report.leaks), len(report.leaks)
    untrue = any(line.about == "certificate" and not line.passed for line in report.gate.lines)
    asked, left = ["a true certificate", "no leak"], []
    found = [
        f"the certificate {'does not hold' if untrue else 'holds'}",
        f"{leaks or 'none'} of {checks} checks found a leak" if checks else "leaks were not looked for",
    ]
    if about := worst("missed"):
        line, limit = about
        asked.append(f"faces missed in {most(limit)} of the images")
        found.append(f"faces are missed in {most(line.bound)}")
    if about := worst("identity"):
        line, limit = about
        asked.append(f"people found {more(limit)} than if everybody wore one face")
        found.append(f"people are found {more(line.bound)} than if everybody wore one face ({line.name})")
    if about := worst("context"):
        line, limit = about
        asked.append(f"with that face {more(limit)} than under flat ellipses")
        left.append(
            "hair, outline, pose and light: with one face for everybody people are found "
            f"{more(line.bound)} than under flat ellipses ({line.why.partition(':')[0]})"
        )
    if report.claim.kind != "none":
        left.append(f"what the claim allows ({report.claim.text.rstrip('.')})")
    return [
        f"Asked: {listed(asked)}.",
        f"Found: {listed(found)}.",
        f"Left: {listed(left) or 'what flat ellipses leave: hair, clothes and place'}.",
    ]


# ---- method, claim, groups ------------------------------------------------------------------------------------


def settings(report: AuditReport) -> str:
    """The method's settings, without those that are not set."""

    def text(value: str | float | bool) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        return value if isinstance(value, str) else number(value)

    given = {name: value for name, value in report.settings.items() if name != "name" and value is not None}
    return ", ".join(f"{name} {text(value)}" for name, value in given.items()) or "no settings"


def what_was_done(report: AuditReport) -> list[str]:
    """What the job did with images and faces, and what the audit attacked."""
    counts = report.counts
    methods = listed(f"{name} {faces:,} ({share(faces / counts.faces)})" for name, faces in counts.methods.items())
    source = "that the dataset tells apart" if report.labelled else "as a clustering tells them apart"
    attacked = (
        f"The attacks were run on {counted(report.photos, 'photo')} of {counted(report.people, 'person', 'people')}"
    )
    return [
        f"{counted(counts.images, 'image')} in {counted(counts.shards, 'shard')} went in. "
        f"{counts.released:,} were released with their faces replaced, in {counts.no_face:,} no face was found, and "
        f"{counts.quarantined:,} were withheld.",
        f"{counted(counts.faces, 'face')} were found" + (f": {methods}." if methods else "."),
        f"{attacked} {source}."
        if report.attacks
        else "Attacks that compare photos were left out, since no person is known to be in two photos.",
        *(["This was a quick audit: no attacker was trained, so the policy cannot pass."] if report.quick else []),
    ]


def claimed(report: AuditReport) -> list[str]:
    """The certificate's claim, and the sizes behind it."""
    claim = report.claim
    sentences = [f"{claim.text.rstrip('.')}."]
    if claim.kind == "none":
        return [*sentences, "The release claims nothing that could be proved; only what was measured speaks."]
    if claim.class_sizes:
        classes = counted(sum(claim.class_sizes.values()), "class", "classes")
        effective = "; where people who may be one person count once, " if claim.effective_sizes else ""
        effective += _size_range(claim.effective_sizes) if claim.effective_sizes else ""
        sentences.append(f"{classes} of {_size_range(claim.class_sizes)} people{effective}.")
    if claim.epsilon is not None:
        amounts = f"{number(claim.epsilon)} {_EPSILON_UNITS.get(claim.epsilon_unit, claim.epsilon_unit)}".strip()
        sentences.append(f"Epsilon is {amounts}: the logarithm of the odds between two people shifts by no more.")
    return [*sentences, "Hair, clothes, background and faces that were not found are outside the claim."]


def grouped(report: AuditReport) -> Iterator[tuple[str, str, tuple[Group, ...]]]:
    """(what was measured, its unit, figure of each group): measures of use, and of each attack the strongest."""
    for measure in report.utility:
        if measure.groups:
            yield measure.name, measure.unit, measure.groups
    for name in dict.fromkeys(attack.name for attack in report.attacks):
        best = glossary.strongest(attack for attack in report.attacks if attack.name == name and attack.groups)
        if best is not None:
            yield f"attack {name}, {best.target} ({best.recognizer})", "share", best.groups


# ---- the three risks ------------------------------------------------------------------------------------------


def risks(report: AuditReport) -> list[tuple[str, str, list[str]]]:
    """Singling out, linkability, inference: title, question, and what the figures say of it."""
    readable = listed(
        f"{measure.name} {figure_text(measure.released, measure.unit)}"
        for measure in report.utility
        if measure.name in _KEPT_ATTRIBUTES
    )
    kept = (
        f"Readable in a released face: {readable}." if readable else "Which attributes stay readable was not measured."
    )
    by_class, sizes = [], report.claim.class_sizes
    if sizes:
        people = f"{_size_range(sizes)} people"
        by_class = [f"All photos of a class show one surrogate, so photos can be put together by class: {people}."]
    singled_out = [_records(report), " ".join(missed_faces(report))]
    further = (
        (glossary.SINGLING_OUT, "Can a person be picked out of the release?", singled_out),
        (glossary.LINKABILITY, "Can two released photos of a person be put together?", by_class),
        (glossary.INFERENCE, "Can something about a person be learnt from the release?", [kept]),
    )
    return [(risk, question, [*_attacks(report, risk), *sentences]) for risk, question, sentences in further]


def _attacks(report: AuditReport, risk: str) -> list[str]:
    """The strongest attack on this risk, what the face itself adds, the worst-off, and which attacks are missing."""
    attacks = [attack for attack in report.attacks if glossary.meaning(attack.name)[0] == risk]
    best = glossary.strongest(attacks)
    sentences = [] if best is None else _outcome(best, by_channel=risk == glossary.SINGLING_OUT)
    measured = {attack.name for attack in attacks if attack.released.value is not None}
    absent = listed(
        f"{title} ({name})"
        for name, (bears_on, title, _) in glossary.ON_PICTURES.items()
        if bears_on == risk and name not in measured
    )
    return [*sentences, *([f"Not measured: {absent}."] if absent else [])]


def _outcome(attack: Attack, by_channel: bool) -> list[str]:
    """`by_channel`: what the release adds to one face for everybody, that to a flat ellipse, and the worst-off, too."""
    figure, identity, context = attack.released, attack.identity, attack.context
    _, title, action = glossary.meaning(attack.name)
    solid, clear = (attack.baselines.get(kind) for kind in ("solid", "clear"))
    beside = [] if figure.chance is None else [f"guessing {share(figure.chance)}"]
    for name, baseline in (("face under a flat ellipse", solid), ("photos before", clear)):
        value = None if baseline is None else baseline.value
        beside.append(f"{name} {NOT_MEASURED if value is None else share(value)}")
    against_chance = ""
    if figure.chance is not None and figure.low is not None and figure.high is not None:
        against_chance = " That cannot be told from guessing."
        if figure.low > figure.chance:
            against_chance = " That is more than guessing."
        elif figure.high < figure.chance:
            against_chance = " That is less than guessing."
    sentences = [
        f"The strongest attack is the {title}: {action}{'' if action.endswith('?') else '.'} With {attack.recognizer} "
        f"({'never' if attack.held_out else 'also'} used by the method), "
        f"{glossary.TARGETS.get(attack.target, attack.target)}: {figure_text(figure)}. "
        f"For comparison: {', '.join(beside)}.{against_chance}"
    ]
    if by_channel and identity is not None and identity.value is not None:
        text = f"{figure_text(identity, 'points')} percentage points"
        adds = f"The release adds {text} to what one face for everybody leaves"
        nothing = f"What the release adds to one face for everybody cannot be told from nothing: {text}"
        left = "" if context is None else f"; that one adds {figure_text(context, 'points')} to a flat ellipse"
        sentences.append(f"{adds if identity.low is not None and identity.low > 0 else nothing}{left}.")
    worst = listed(
        f"for the worst-off {noun} {figure_text(worst_off)}"
        for noun, worst_off in (("person", attack.worst_person), ("class", attack.worst_class))
        if worst_off is not None and worst_off.value is not None
    )
    return [*sentences, *([f"The same {worst}."] if worst and by_channel else [])]


def _records(report: AuditReport) -> str:
    """What the release says beside its pictures: the attack that finds most beyond what the claim allows."""
    judged = [finding for finding in report.disclosures if finding.judged_by and finding.excess]
    if not judged:
        return "What the release says beside its pictures was not judged."
    worst = max(judged, key=lambda finding: (finding.excess and finding.excess.high) or 0.0)
    allowed = "nothing" if worst.allowed is None else share(worst.allowed)
    title, _ = glossary.ON_RECORDS[worst.name]
    return (
        f"Of what the release says beside its pictures, the {title} tells most: {figure_text(worst.found)}, where "
        f"{allowed} is allowed."
    )


def missed_faces(report: AuditReport) -> list[str]:
    """Faces that may have been overlooked: by the second look, and by a person's."""
    missed = report.missed
    second = "No second look for missed faces was taken."
    if missed.second.value is not None:
        images = f"{figure_text(missed.second)} of the images"
        second = f"A second look by {missed.second_by} sees a face that the job had not found in {images}."
    if not missed.sampled:
        return [second, "No person has looked at a sample, so there is no bound on missed faces."]
    return [
        second,
        f"A person looked at {counted(missed.sampled, 'image')} and saw a face left as it was in {missed.wrong:,}: "
        f"with {number(100 * missed.confidence)}{NBSP}% confidence at most {share(missed.upper)} of the images have "
        "one.",
    ]
