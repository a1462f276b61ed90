"""The first page in sentences, made from the report's figures and from nothing else: verdict, claim, risks.

No sentence grades a risk as low or high: it says what the strongest attack reached, on how many photos and with which
interval, beside what guessing reaches and what is left when the face is hidden, and it says what was not measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from anonlib.audit.findings import Attack, AuditReport, Figure, GateLine
from anonlib.audit.report import glossary

NBSP = "\u00a0"
NOT_MEASURED = "not measured"
_EPSILON_UNITS = {
    "release": " a release, for any two people",
    "radian": " a radian between two people",
    "Euclidean distance": " a unit of Euclidean distance between two people",
}
"""By the units of privacy.dp.Cost."""


# ---- figures as text ------------------------------------------------------------------------------------------


def share(value: float) -> str:
    """`12.3 %`; below a tenth of a per cent, with two significant digits."""
    percent = 100 * value
    if 0 < abs(percent) < 0.1:
        return f"{percent:.{1 - math.floor(math.log10(abs(percent)))}f}{NBSP}%"
    return f"{percent:.1f}{NBSP}%"


def number(value: float) -> str:
    """Up to four significant digits, thousands apart."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def amount(value: float, unit: str = "share") -> str:
    """A value of a measure in its unit; a `share` in per cent."""
    return share(value) if unit == "share" else f"{number(value)}{NBSP}{unit}".strip(f"{NBSP} ")


def interval(figure: Figure, unit: str = "share") -> str:
    """`10.1 to 14.0 %`, empty where there is none."""
    if figure.low is None or figure.high is None:
        return ""
    ending = f"{NBSP}%" if unit == "share" else f"{NBSP}{unit}" if unit else ""
    return f"{amount(figure.low, unit).removesuffix(ending)} to {amount(figure.high, unit)}"


def figure_text(figure: Figure | None, unit: str = "share") -> str:
    """`12.3 % (10.1 to 14.0 %, n = 3,214)`, or that nothing was measured."""
    if figure is None or figure.value is None:
        return NOT_MEASURED
    return f"{amount(figure.value, unit)} ({_basis(interval(figure, unit), figure)})"


def points(value: float) -> str:
    """A share in percentage points with its sign."""
    return f"{round(100 * value, 1) + 0.0:+.1f}".replace("-", "\u2212")


def points_interval(figure: Figure) -> str:
    """`+1.3 to +2.5`, empty where there is none."""
    return "" if figure.low is None or figure.high is None else f"{points(figure.low)} to {points(figure.high)}"


def _basis(ends: str, figure: Figure) -> str:
    return ", ".join(part for part in (ends, f"n{NBSP}={NBSP}{figure.count:,}") if part)


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """`1 face`, `2 faces`, `no face`."""
    if count == 0:
        return f"no {noun}"
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def listed(parts: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = list(parts) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def by_size(counts: dict[str, int]) -> list[tuple[str, int]]:
    """Most frequent first."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def size_range(sizes: dict[int, int]) -> str:
    """`5 to 9` of size -> how many classes have it; `no` where there is none."""
    present = [size for size, classes in sizes.items() if classes]
    if not present:
        return "no"
    return f"{min(present)}" if min(present) == max(present) else f"{min(present)} to {max(present)}"


# ---- verdict, method, claim -----------------------------------------------------------------------------------


def verdict(report: AuditReport) -> str:
    """The gate in a sentence."""
    lines, failed = report.gate.lines, failed_lines(report)
    if failed:
        return f"{len(failed)} of {len(lines)} lines of the policy do not hold. This is not a release."
    return f"All {len(lines)} lines of the policy hold."


def failed_lines(report: AuditReport) -> list[GateLine]:
    """The lines of the policy that do not hold."""
    return [line for line in report.gate.lines if not line.passed]


def settings(report: AuditReport) -> str:
    """The method's settings, without those that are not set."""
    parts = (
        f"{name} {_setting(value)}" for name, value in report.settings.items() if name != "name" and value is not None
    )
    return ", ".join(parts) or "no settings"


def _setting(value: str | int | float | bool | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float) else str(value)


def what_was_done(report: AuditReport) -> list[str]:
    """What the job did with images and faces, and what the audit attacked."""
    counts = report.counts
    methods = listed(
        f"{name} {faces:,}{f' ({share(faces / counts.faces)})' if counts.faces else ''}"
        for name, faces in by_size(counts.methods)
    )
    people = counted(report.people, "person", "people")
    source = "that the dataset tells apart" if report.labelled else "as a clustering tells them apart"
    return [
        f"{counted(counts.images, 'image')} in {counted(counts.shards, 'shard')} went in. "
        f"{counts.released:,} were released with their faces replaced, in {counts.no_face:,} no face was found, and "
        f"{counts.quarantined:,} were withheld.",
        f"{counted(counts.faces, 'face')} were found" + (f": {methods}." if methods else "."),
        f"The attacks were run on {counted(report.photos, 'photo')} of {people} {source}.",
    ]


def claimed(report: AuditReport) -> list[str]:
    """The certificate's claim, and the sizes behind it."""
    claim = report.claim
    text = f"{claim.text.rstrip('.')}."
    if claim.kind == "none":
        return [f"{text} The release claims nothing that could be proved; only what was measured speaks."]
    sentences = [text]
    if claim.class_sizes:
        effective = (
            f"; where people who may be one person count once, {size_range(claim.effective_sizes)}"
            if claim.effective_sizes
            else ""
        )
        classes = counted(sum(claim.class_sizes.values()), "class", "classes")
        sentences.append(f"{classes} of {size_range(claim.class_sizes)} people{effective}.")
    if claim.epsilon is not None:
        unit = _EPSILON_UNITS.get(claim.epsilon_unit, f" {claim.epsilon_unit}".rstrip())
        sentences.append(
            f"Epsilon is {number(claim.epsilon)}{unit}: the logarithm of the odds between two people shifts by no more."
        )
    return [*sentences, "Hair, clothes, background and faces that were not found are outside the claim."]


# ---- the three risks ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Risk:
    """One of WP216's risks: `sentences` are what the figures say of it."""

    title: str
    question: str
    sentences: tuple[str, ...]


def risks(report: AuditReport) -> list[Risk]:
    """Singling out, linkability, inference: what bears on each."""
    return [
        Risk(
            glossary.SINGLING_OUT,
            "Can a person be picked out of the release?",
            (
                *_attacks(report, glossary.SINGLING_OUT),
                _records(report),
                _leaks(report),
                " ".join(missed_faces(report)),
            ),
        ),
        Risk(
            glossary.LINKABILITY,
            "Can two released photos of a person be put together?",
            (*_attacks(report, glossary.LINKABILITY), *_shared_surrogates(report)),
        ),
        Risk(
            glossary.INFERENCE,
            "Can something about a person be learnt from the release?",
            (*_attacks(report, glossary.INFERENCE), _readable(report)),
        ),
    ]


def _attacks(report: AuditReport, risk: str) -> list[str]:
    """The strongest attack on this risk, what the face itself adds, the worst-off, and which attacks are missing."""
    attacks = [attack for attack in report.attacks if glossary.meaning(attack.name).risk == risk]
    best = glossary.strongest(attacks)
    sentences = [] if best is None else [_outcome(best), *_excess(best), *_worst(best)]
    measured = {attack.name for attack in attacks if attack.released.value is not None}
    absent = listed(
        f"{attack.title} ({name})"
        for name, attack in glossary.PICTURE_MEANINGS.items()
        if attack.risk == risk and name not in measured
    )
    return [*sentences, *([f"Not measured: {absent}."] if absent else [])]


def _outcome(attack: Attack) -> str:
    meaning, figure = glossary.meaning(attack.name), attack.released
    use = "never used by the method" if attack.held_out else "also used by the method"
    chance = [] if figure.chance is None else [f"guessing {share(figure.chance)}"]
    baselines = [
        f"{name} {NOT_MEASURED if found is None or found.value is None else share(found.value)}"
        for name, found in (
            ("face under a flat ellipse", attack.baselines.get("solid")),
            ("photos before", attack.baselines.get("clear")),
        )
    ]
    ending = "" if meaning.action.endswith("?") else "."
    return (
        f"The strongest attack is the {meaning.title}: {meaning.action}{ending} With {attack.recognizer} ({use}), "
        f"{glossary.TARGETS.get(attack.target, attack.target)}: {figure_text(figure)}. "
        f"For comparison: {', '.join([*chance, *baselines])}.{_against_chance(figure)}"
    )


def _against_chance(figure: Figure) -> str:
    if figure.chance is None or figure.low is None or figure.high is None:
        return ""
    if figure.low > figure.chance:
        return " That is more than guessing."
    return " That cannot be told from guessing." if figure.high >= figure.chance else " That is less than guessing."


def _excess(attack: Attack) -> list[str]:
    excess = attack.excess
    if excess is None or excess.value is None:
        return []
    text = f"{points(excess.value)} points ({_basis(points_interval(excess), excess)})"
    if excess.low is not None and excess.low > 0:
        return [f"The face adds {text} to what hair, clothes and place give away."]
    return [f"What the face adds to hair, clothes and place cannot be told from nothing: {text}."]


def _worst(attack: Attack) -> list[str]:
    worst = listed(
        f"for the worst-off {noun} {figure_text(figure)}"
        for noun, figure in (("person", attack.worst_person), ("class", attack.worst_class))
        if figure is not None and figure.value is not None
    )
    return [f"The same {worst}."] if worst else []


def _records(report: AuditReport) -> str:
    """What the release says beside its pictures: the attack that finds most beyond what the claim allows."""
    judged = [finding for finding in report.disclosures if finding.judged_by and finding.excess]
    if not judged:
        return "What the release says beside its pictures was not judged."
    worst = max(judged, key=lambda finding: (finding.excess and finding.excess.high) or 0.0)
    allowed = "nothing" if worst.allowed is None else share(worst.allowed)
    return (
        f"Of what the release says beside its pictures, the {glossary.RECORD_MEANINGS[worst.name].title} tells most: "
        f"{figure_text(worst.found)}, where {allowed} is allowed."
    )


def _leaks(report: AuditReport) -> str:
    if not report.leaks:
        return "The release was not scanned for leaks."
    total = counted(len(report.leaks), "check")
    found = [f"{check.name} ({check.found:,} of {check.checked:,})" for check in report.leaks if check.found]
    if not found:
        return f"{total} for leaks found nothing."
    return f"{len(found)} of {total} for leaks found something: {listed(found)}."


def missed_faces(report: AuditReport) -> list[str]:
    """Faces that may have been overlooked: by the second look, and by a person's."""
    missed = report.missed
    second = (
        f"A second look by {missed.second_by} sees a face that the job had not found in "
        f"{figure_text(missed.second)} of the images."
        if missed.second.value is not None
        else "No second look for missed faces was taken."
    )
    if not missed.sampled:
        return [second, "No person has looked at a sample, so there is no bound on missed faces."]
    return [
        second,
        f"A person looked at {counted(missed.sampled, 'image')} and saw a face left as it was in {missed.wrong:,}: "
        f"with {number(100 * missed.confidence)}{NBSP}% confidence at most {share(missed.upper)} of the images have "
        "one.",
    ]


def _shared_surrogates(report: AuditReport) -> list[str]:
    if not report.claim.class_sizes:
        return []
    sizes = size_range(report.claim.class_sizes)
    return [f"All photos of a class show one surrogate, so photos can be put together by class: {sizes} people."]


def _readable(report: AuditReport) -> str:
    """What stays readable of a person by design."""
    kept = listed(
        f"{measure.name} {figure_text(measure.released, measure.unit)}"
        for measure in report.utility
        if measure.name in glossary.KEPT_ATTRIBUTES
    )
    return f"Readable in a released face: {kept}." if kept else "Which attributes stay readable was not measured."
