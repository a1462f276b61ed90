"""What risk is left, under the three heads of WP216, in sentences made from the figures.

No sentence grades a risk as low or high: it says what the strongest attack reached, on how many photos and with which
interval, beside what guessing reaches and what is left when the face is hidden, and it says what was not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from anonlib.audit.findings import Attack, AuditReport, Figure
from anonlib.audit.report import glossary
from anonlib.audit.report.formatting import (
    NBSP,
    NOT_MEASURED,
    counted,
    epsilon,
    listed,
    number,
    points,
    said,
    share,
    span,
)


@dataclass(frozen=True)
class Row:
    """One figure that bears on a risk, as it is written: released, guessing, face hidden, before."""

    what: str
    by: str
    released: str
    chance: str
    hidden: str
    before: str


@dataclass(frozen=True)
class Risk:
    title: str
    question: str
    sentences: tuple[str, ...]
    rows: tuple[Row, ...]


def risks(report: AuditReport) -> list[Risk]:
    """Singling out, linkability, inference: what bears on each."""
    return [
        Risk(
            glossary.SINGLING_OUT,
            "Can a person be picked out of the release?",
            (*_lead(report, glossary.SINGLING_OUT), *_told(report), _leaks(report), " ".join(missed(report))),
            _rows(report, glossary.SINGLING_OUT),
        ),
        Risk(
            glossary.LINKABILITY,
            "Can two released photos of a person be put together?",
            (*_lead(report, glossary.LINKABILITY), *_sizes(report)),
            _rows(report, glossary.LINKABILITY),
        ),
        Risk(
            glossary.INFERENCE,
            "Can something about a person be learnt from the release?",
            (*_lead(report, glossary.INFERENCE), *_kept(report)),
            _rows(report, glossary.INFERENCE),
        ),
    ]


def _of_risk(report: AuditReport, risk: str) -> dict[str, list[Attack]]:
    found: dict[str, list[Attack]] = {}
    for attack in report.attacks:
        if glossary.meaning(attack.name).risk == risk:
            found.setdefault(attack.name, []).append(attack)
    return found


def _rows(report: AuditReport, risk: str) -> tuple[Row, ...]:
    """The strongest of each attack."""
    rows = []
    for name, attacks in _of_risk(report, risk).items():
        best = glossary.strongest(attacks)
        title = glossary.meaning(name).title
        if best is None:
            rows.append(Row(title, "", NOT_MEASURED, "", "", ""))
        else:
            hidden, before = best.baselines.get("solid"), best.baselines.get("clear")
            rows.append(
                Row(
                    title,
                    f"{best.target}, {best.recognizer}",
                    said(best.released),
                    _bare(best.released.chance),
                    _value(hidden),
                    _value(before),
                )
            )
    return tuple(rows)


def _bare(value: float | None) -> str:
    return "" if value is None else share(value)


def _value(figure: Figure | None) -> str:
    return NOT_MEASURED if figure is None or figure.value is None else share(figure.value)


def _lead(report: AuditReport, risk: str) -> list[str]:
    """The strongest attack on this risk, what the face itself adds, the worst-off, and what is missing."""
    found = _of_risk(report, risk)
    best = glossary.strongest(one for attacks in found.values() for one in attacks)
    sentences = [] if best is None else [*_outcome(best), *_excess(best), *_worst(best)]
    absent = [name for name in glossary.names_of(risk) if glossary.strongest(found.get(name, ())) is None]
    if absent:
        titles = listed(f"{glossary.meaning(name).title} ({name})" for name in absent)
        sentences.append(f"Not measured: {titles}.")
    return sentences


def _outcome(attack: Attack) -> list[str]:
    meaning, figure = glossary.meaning(attack.name), attack.released
    counts = glossary.TARGETS.get(attack.target, attack.target)
    judge = "never used by the method" if attack.held_out else "also used by the method"
    compared = [
        f"{words} {value}"
        for words, value in (
            ("guessing", _bare(figure.chance)),
            ("face under a flat ellipse", _value(attack.baselines.get("solid"))),
            ("photos before", _value(attack.baselines.get("clear"))),
        )
        if value
    ]
    ending = "" if meaning.does.endswith("?") else "."
    return [
        f"The strongest attack is the {meaning.title}: {meaning.does}{ending} With {attack.recognizer} ({judge}), "
        f"{counts}: {said(figure)}. For comparison: {', '.join(compared)}." + _against_chance(figure)
    ]


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
    if excess.low is not None and excess.low > 0:
        return [f"The face adds {points(excess)} to what hair, clothes and place give away."]
    return [f"What the face adds to hair, clothes and place cannot be told from nothing: {points(excess)}."]


def _worst(attack: Attack) -> list[str]:
    worst = [
        f"{words} {said(figure)}"
        for words, figure in (
            ("for the worst-off person", attack.worst_person),
            ("for the worst-off class", attack.worst_class),
        )
        if figure is not None and figure.value is not None
    ]
    return [f"The same {listed(worst)}."] if worst else ["The worst-off person and class were not measured."]


def _told(report: AuditReport) -> list[str]:
    """What the release says beside its pictures: the attack that finds most beyond what the claim allows."""
    judged = [one for one in report.disclosures if one.judged_by and one.excess]
    if not judged:
        return ["What the release says beside its pictures was not judged."]
    worst = max(judged, key=lambda one: (one.excess and one.excess.high) or 0.0)
    allowed = "nothing" if worst.allowed is None else share(worst.allowed)
    return [
        f"Of what the release says beside its pictures, the {glossary.DISCLOSURES[worst.name].title} tells most: "
        f"{said(worst.found)}, where {allowed} is allowed."
    ]


def _leaks(report: AuditReport) -> str:
    if not report.leaks:
        return "The release was not scanned for leaks."
    found = [check for check in report.leaks if check.found]
    if not found:
        return f"{counted(len(report.leaks), 'check')} for leaks found nothing."
    each = listed(f"{check.name} ({check.found:,} of {check.checked:,})" for check in found)
    return f"{len(found)} of {counted(len(report.leaks), 'check')} for leaks found something: {each}."


def missed(report: AuditReport) -> list[str]:
    """Faces that may have been overlooked: by the second look, and by a person's."""
    one = report.missed
    second = (
        f"A second look by {one.second_by} sees a face that the job had not found in {said(one.second)} of the images."
        if one.second.value is not None
        else "No second look for missed faces was taken."
    )
    if not one.sampled:
        return [second, "No person has looked at a sample, so there is no bound on missed faces."]
    return [
        second,
        f"A person looked at {counted(one.sampled, 'image')} and saw a face left as it was in {one.wrong:,}: with "
        f"{number(100 * one.confidence)}{NBSP}% confidence at most {share(one.upper)} of the images have one.",
    ]


def _sizes(report: AuditReport) -> list[str]:
    sizes = report.claim.class_sizes
    if not sizes:
        return []
    return [
        f"One surrogate is worn by all photos of a class, so photos can be put together by class: {span(sizes)} people."
    ]


def _kept(report: AuditReport) -> list[str]:
    """What stays readable of a person by design, and what the claim bounds."""
    kept = [one for one in report.utility if one.name in glossary.KEPT_ATTRIBUTES]
    each = listed(f"{one.name} {said(one.released, one.unit)}" for one in kept)
    readable = f"Readable in a released face: {each}." if kept else "Which attributes stay readable was not measured."
    if report.claim.epsilon is None:
        return [readable]
    return [
        readable,
        f"By the claim, the logarithm of the odds between two people shifts by at most {epsilon(report.claim)}.",
    ]
