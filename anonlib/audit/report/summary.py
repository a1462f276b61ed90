"""The first page in sentences, made from the report's figures and from nothing else: what was done, claim, risks.

No sentence grades a risk as low or high: it says what the strongest attack reached, on how many photos and with which
interval, beside what guessing reaches and what is left when the face is hidden, and it says what was not measured. The
risks are those of the Article 29 Working Party's Opinion 05/2014 on anonymisation techniques (WP216, section 2.2): a
person is singled out, two records of one person are linked, something about a person is inferred.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from anonlib.audit.evidence.evidence import BASELINES, CLEAR, HIDDEN
from anonlib.audit.findings import About, Attack, AuditReport, Figure, GateLine, Measure

SINGLING_OUT, LINKABILITY, INFERENCE = "Singling out", "Linkability", "Inference"

_TRAINED = "a recognizer trained on anonymized photos of other people looks a released photo up among"
_TOGETHER = "what a recognizer trained on other people makes of a person's released photos is averaged and looked up"
_PLANNED = f"{_TRAINED} clear photos of its own class, which the plan alone tells"
_RESTORED = "a network trained on other people restores the face before it is looked up"
_AVERAGED = "all released photos of a person are averaged before they are looked up"
ON_PICTURES = {
    "naive": (SINGLING_OUT, "look-up", "a released photo is looked up among clear photos"),
    "trained": (SINGLING_OUT, "trained look-up", f"{_TRAINED} clear photos"),
    "trained, person's photos together": (SINGLING_OUT, "trained look-up of a person", _TOGETHER),
    "trained, with the plan": (SINGLING_OUT, "trained look-up within the class", _PLANNED),
    "inversion": (SINGLING_OUT, "restored look-up", _RESTORED),
    "open set": (
        SINGLING_OUT,
        "open-set look-up",
        "a released photo is looked up among clear photos of half the people",
    ),
    "averaging": (SINGLING_OUT, "averaged look-up", _AVERAGED),
    "parrot": (LINKABILITY, "look-up among released", "a released photo is looked up among released photos"),
    "trained, both released": (LINKABILITY, "trained look-up among released", f"{_TRAINED} released photos"),
    "donors": (INFERENCE, "comparison with donors", "a released face is compared with the people it was made from"),
}
"""Attacks by name: the risk, a title for a lay reader, and a clause that says what the attacker does."""
ON_RECORDS = {
    "certificate": (
        "walk through the tables",
        "the released tables are followed from what a face shows to other faces, whose average is looked up",
    ),
    "manifest": ("questions to the manifest", "what a face's row says is held against each person's clear photo"),
    "guess": ("guess of the most photographed", "the most frequent person of a class is named for all its faces"),
    "intersect": ("intersection of what was split", "classes or draws of a person whom clustering split are joined"),
}
"""Attacks on what a release says beside its pictures, by name: title and clause."""
TARGETS = {
    "rank-1": "the right person comes first",
    "TAR": "accepted as the same person",
    "found at FPIR 0.01": "found, where 1 % of the people who are not enrolled are taken for one who is",
    "accepted by portraits": "accepted as a person whose portrait was averaged into the face",
    "accepted by other photos": "accepted as a person who was averaged into the face, by another photo",
}
_TARGET_ORDER = ("rank-1", "TAR")


def meaning(name: str) -> tuple[str, str, str]:
    """Of an attack on pictures; one that is not described here counts as singling out under its own name."""
    return ON_PICTURES.get(name, (SINGLING_OUT, name, name))


def strongest(attacks: Iterable[Attack]) -> Attack | None:
    """The measured attack that may go furthest, by the unfavourable end of its interval.

    Ranks come before other targets, which are on other scales.
    """

    def order(attack: Attack) -> tuple[int, float]:
        figure, target = attack.released, attack.target
        place = _TARGET_ORDER.index(target) if target in _TARGET_ORDER else len(_TARGET_ORDER)
        return place, -((figure.value if figure.high is None else figure.high) or 0.0)

    return min((attack for attack in attacks if attack.released.value is not None), key=order, default=None)


def baselines_of(findings: Iterable[Attack | Measure]) -> list[str]:
    """The baselines that findings have: the known ones in their order, then any others."""
    names = {name for finding in findings for name in finding.baselines}
    known = (CLEAR, *BASELINES)
    return [name for name in known if name in names] + sorted(names - set(known))


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
        lines = [(line, line.limit) for line in report.gate if line.about == about and line.limit is not None]
        return max(lines, key=lambda pair: math.inf if pair[0].bound is None else pair[0].bound - pair[1], default=None)

    def most(value: float | None) -> str:
        return "a share that could not be measured" if value is None else f"at most {share(value)}"

    def more(value: float | None) -> str:
        return f"{'an unknown number of' if value is None else f'at most {100 * value:.1f}'} points more often"

    leaks, checks = sum(check.found > 0 for check in report.leaks), len(report.leaks)
    untrue = any(line.about == "certificate" and not line.passed for line in report.gate)
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


def grouped(report: AuditReport) -> Iterator[tuple[str, dict[str, dict[str, Figure]]]]:
    """What was attacked, and the figures of each group: of each attack the strongest."""
    for name in dict.fromkeys(attack.name for attack in report.attacks):
        best = strongest(attack for attack in report.attacks if attack.name == name and attack.groups)
        if best is not None:
            yield f"attack {name}, {best.target} ({best.recognizer})", best.groups


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
        (SINGLING_OUT, "Can a person be picked out of the release?", singled_out),
        (LINKABILITY, "Can two released photos of a person be put together?", by_class),
        (INFERENCE, "Can something about a person be learnt from the release?", [kept]),
    )
    return [(risk, question, [*_attacks(report, risk), *sentences]) for risk, question, sentences in further]


def _attacks(report: AuditReport, risk: str) -> list[str]:
    """The strongest attack on this risk, and which attacks are missing."""
    attacks = [attack for attack in report.attacks if meaning(attack.name)[0] == risk]
    best = strongest(attacks)
    sentences = [] if best is None else [_outcome(best)]
    measured = {attack.name for attack in attacks if attack.released.value is not None}
    absent = listed(
        f"{title} ({name})"
        for name, (bears_on, title, _) in ON_PICTURES.items()
        if bears_on == risk and name not in measured
    )
    return [*sentences, *([f"Not measured: {absent}."] if absent else [])]


def _outcome(attack: Attack) -> str:
    figure, (_, title, action) = attack.released, meaning(attack.name)
    beside = [] if figure.chance is None else [f"guessing {share(figure.chance)}"]
    for name, kind in (("face under a flat ellipse", HIDDEN), ("photos before", CLEAR)):
        value = attack.baselines[kind].value if kind in attack.baselines else None
        beside.append(f"{name} {NOT_MEASURED if value is None else share(value)}")
    against_chance = ""
    if figure.chance is not None and figure.low is not None and figure.high is not None:
        against_chance = " That cannot be told from guessing."
        if figure.low > figure.chance:
            against_chance = " That is more than guessing."
        elif figure.high < figure.chance:
            against_chance = " That is less than guessing."
    return (
        f"The strongest attack is the {title}: {action}{'' if action.endswith('?') else '.'} With {attack.recognizer} "
        f"({'never' if attack.held_out else 'also'} used by the method), "
        f"{TARGETS.get(attack.target, attack.target)}: {figure_text(figure)}. "
        f"For comparison: {', '.join(beside)}.{against_chance}"
    )


def _records(report: AuditReport) -> str:
    """What the release says beside its pictures: the attack that finds most beyond what the claim allows."""
    judged = [finding for finding in report.disclosures if finding.judged_by and finding.excess]
    if not judged:
        return "What the release says beside its pictures was not judged."
    worst = max(judged, key=lambda finding: (finding.excess and finding.excess.high) or 0.0)
    allowed = "nothing" if worst.allowed is None else share(worst.allowed)
    title, _ = ON_RECORDS[worst.name]
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
