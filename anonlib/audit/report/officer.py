"""What a privacy officer reads first: sentences made from the figures, and from nothing else.

The residual risk is told under the three risks of WP216, the rest under the four parts of ISO/IEC 27559:2022 (context
assessment, data assessment, identifiability assessment and mitigation, de-identification governance). No sentence
grades a risk as low or high: it says what an attack reached, with how many photos and which interval, next to what
guessing reaches and to what is left when the face is hidden, and it says what was not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from anonlib.audit.findings import Attack, Figure, GateLine, Report
from anonlib.audit.report import glossary
from anonlib.audit.report.words import NBSP, NOT_MEASURED, counted, epsilon, listed, number, of, points, said, share


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


def verdict(report: Report) -> str:
    """The gate in a sentence."""
    lines, failed = report.gate.lines, failed_lines(report)
    if not lines:
        return "the policy has no line, so nothing was held against it"
    if failed:
        return f"{len(failed)} of {counted(len(lines), 'line')} of the policy {'does' if len(failed) == 1 else 'do'} not hold"
    return f"all {len(lines)} lines of the policy hold" if len(lines) > 1 else "the one line of the policy holds"


def failed_lines(report: Report) -> list[GateLine]:
    return [line for line in report.gate.lines if not line.passed]


def was_done(report: Report) -> list[str]:
    """What the job did with images and faces."""
    counts = report.counts
    methods = listed(f"{name} {faces:,}{_part(faces, counts.faces)}" for name, faces in by_size(counts.methods))
    sentences = [
        f"{counted(counts.images, 'image')} in {counted(counts.shards, 'shard')} went in. "
        f"{counts.released:,} were released with their faces replaced, in {counts.no_face:,} no face was found, and "
        f"{counts.quarantined:,} were withheld{_withheld(report)}.",
        f"{counted(counts.faces, 'face')} were found" + (f": {methods}." if methods else "."),
    ]
    if counts.fallbacks:
        reason, most = by_size(counts.fallbacks)[0]
        total = sum(counts.fallbacks.values())
        sentences.append(
            f"{of(total, counts.faces)} fell back to another surrogate or to the flat ellipse, most often since "
            f"\u201c{reason}\u201d ({most:,})."
        )
    return sentences


def looked_at(report: Report) -> str:
    """What the audit could attack."""
    people = counted(report.people, "person", "people")
    return f"The attacks were run on {counted(report.photos, 'photo')} of {people} whose names are known."


def _part(some: int, whole: int) -> str:
    return f" ({share(some / whole)})" if whole else ""


def _withheld(report: Report) -> str:
    reasons = by_size(report.counts.quarantine_reasons)
    return f" ({listed(f'{reason}: {images:,}' for reason, images in reasons)})" if reasons else ""


def by_size(counts: dict[str, int]) -> list[tuple[str, int]]:
    """Most frequent first."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def claimed(report: Report) -> list[str]:
    """The certificate's claim, and the sizes behind it."""
    claim = report.claim
    if claim.kind == "none":
        return [f"{_ended(claim.text)} The release claims nothing that could be proved; only what was measured speaks."]
    sentences = [_ended(claim.text)]
    if claim.class_sizes:
        sentences.append(
            f"{counted(sum(claim.class_sizes.values()), 'class', 'classes')} of {_span(claim.class_sizes)} people"
            + (
                f"; where people who may be one person count once, {_span(claim.effective_sizes)}."
                if claim.effective_sizes
                else "."
            )
        )
    if claim.epsilon is not None:
        sentences.append(f"Epsilon is {epsilon(claim)}.")
    sentences.append("Hair, clothes, background and faces that were not found are outside the claim.")
    return sentences


def _ended(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) or not text else f"{text}."


def _span(sizes: dict[int, int]) -> str:
    there = [size for size, classes in sizes.items() if classes]
    if not there:
        return "no"
    return f"{min(there)}" if min(there) == max(there) else f"{min(there)} to {max(there)}"


# ---- the three risks ------------------------------------------------------------------------------------------


def risks(report: Report) -> list[Risk]:
    """Singling out, linkability, inference: what bears on each."""
    return [
        Risk(
            glossary.SINGLING_OUT,
            "Can a person be picked out of the release?",
            (*_lead(report, glossary.SINGLING_OUT), _leaks(report), " ".join(missed(report))),
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


def _of_risk(report: Report, risk: str) -> dict[str, list[Attack]]:
    found: dict[str, list[Attack]] = {}
    for attack in report.attacks:
        if glossary.meaning(attack.name).risk == risk:
            found.setdefault(attack.name, []).append(attack)
    return found


def _rows(report: Report, risk: str) -> tuple[Row, ...]:
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


def _lead(report: Report, risk: str) -> list[str]:
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
        f"{counts}: {said(figure)}. For comparison: {', '.join(compared)}."
        + _against_chance(figure)
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


def _leaks(report: Report) -> str:
    if not report.leaks:
        return "The release was not scanned for leaks."
    found = [check for check in report.leaks if check.found]
    if not found:
        return f"{counted(len(report.leaks), 'check')} for leaks found nothing."
    each = listed(f"{check.name} ({check.found:,} of {check.checked:,})" for check in found)
    return f"{len(found)} of {counted(len(report.leaks), 'check')} for leaks found something: {each}."


def missed(report: Report) -> list[str]:
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


def _sizes(report: Report) -> list[str]:
    sizes = report.claim.class_sizes
    if not sizes:
        return []
    return [f"One surrogate is worn by all photos of a class, so photos can be put together by class: {_span(sizes)} people."]


def _kept(report: Report) -> list[str]:
    """What stays readable of a person by design, and what the claim bounds."""
    kept = [one for one in report.utility if any(word in one.name.lower() for word in glossary.KEPT_ATTRIBUTES)]
    each = listed(f"{one.name} {said(one.released, one.unit)}" for one in kept)
    readable = f"Readable in a released face: {each}." if kept else "Which attributes stay readable was not measured."
    if report.claim.epsilon is None:
        return [readable]
    return [
        readable,
        f"By the claim, the logarithm of the odds between two people shifts by at most {epsilon(report.claim)}.",
    ]


# ---- ISO/IEC 27559 --------------------------------------------------------------------------------------------


def framework(report: Report) -> list[tuple[str, list[str]]]:
    """The four parts of ISO/IEC 27559: what this report holds of each, and what it leaves to the officer."""
    attacks = list(dict.fromkeys(one.name for one in report.attacks))
    recognizers = list(dict.fromkeys(one.recognizer for one in report.attacks))
    outside = [one for one in report.models if not one.commercial]
    return [
        (
            "Context assessment",
            [
                f"Attackers tried: {listed(attacks) or 'none'}, by {listed(recognizers) or 'no recognizer'}; each has "
                "the whole release and clear photos of the same people. "
                "Who receives the release, and under which terms, is not known here and is for you to write down."
            ],
        ),
        (
            "Data assessment",
            [
                f"{counted(report.counts.images, 'image')}, {counted(report.counts.faces, 'face')}; attacks on "
                f"{counted(report.photos, 'photo')} of {counted(report.people, 'named person', 'named people')}. "
                + (
                    "Hair, clothes and place were attacked by themselves (context)."
                    if "context" in attacks
                    else "Hair, clothes and place were not attacked by themselves."
                )
            ],
        ),
        (
            "Identifiability assessment and mitigation",
            [
                f"Mitigation: {report.method} ({settings(report)}). Assessment: "
                f"{counted(len(report.attacks), 'figure')} of attack, thresholds at {_far(report)}, "
                f"{counted(len(report.leaks), 'check')} for leaks; {verdict(report)}."
            ],
        ),
        (
            "De-identification governance",
            [
                f"Certificate sha256{NBSP}{report.certificate_sha256[:16]}\u2026; {counted(len(report.models), 'model')}, "
                + (
                    f"of which {listed(one.name for one in outside)} may not be used commercially."
                    if outside
                    else "all of which may be used commercially."
                )
                + " Keep this report with the signature below; repeat the audit before another release of the same people."
            ],
        ),
    ]


def settings(report: Report) -> str:
    """What the method was told, without what it was not."""
    said_of = (f"{name} {_setting(value)}" for name, value in report.settings.items() if value is not None)
    return ", ".join(said_of) or "no settings"


def _setting(value: str | int | float | bool | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float) else str(value)


def _far(report: Report) -> str:
    rates = sorted({one.far for one in report.thresholds})
    return f"a false accept rate of {listed(share(one) for one in rates)}" if rates else "no measured false accept rate"
