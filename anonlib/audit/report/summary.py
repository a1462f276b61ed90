"""What a privacy officer reads first: sentences made from the figures, and from nothing else.

Its parts are those of ISO/IEC 27559:2022: context
assessment, data assessment, identifiability assessment and mitigation (what risk is left stands in risks.py), and
de-identification governance.
"""

from __future__ import annotations

from anonlib.audit.findings import AuditReport, GateLine
from anonlib.audit.report.formatting import NBSP, counted, epsilon, listed, number, of, share, span


def verdict(report: AuditReport) -> str:
    """The gate in a sentence."""
    lines, failed = report.gate.lines, failed_lines(report)
    if not lines:
        return "the policy has no line, so nothing was held against it"
    if failed:
        do = "does" if len(failed) == 1 else "do"
        return f"{len(failed)} of {counted(len(lines), 'line')} of the policy {do} not hold"
    return f"all {len(lines)} lines of the policy hold" if len(lines) > 1 else "the one line of the policy holds"


def failed_lines(report: AuditReport) -> list[GateLine]:
    return [line for line in report.gate.lines if not line.passed]


def was_done(report: AuditReport) -> list[str]:
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
            f"{of(total, counts.faces)} fell back to another surrogate or to the flat ellipse, most often "
            f"\u201c{reason}\u201d ({most:,})."
        )
    return sentences


def looked_at(report: AuditReport) -> str:
    """What the audit could attack."""
    return f"The attacks were run on {counted(report.photos, 'photo')} of {_people(report)}."


def _people(report: AuditReport) -> str:
    people = counted(report.people, "person", "people")
    return f"{people} that the dataset tells apart" if report.labelled else f"{people} as a clustering tells them apart"


def _part(some: int, whole: int) -> str:
    return f" ({share(some / whole)})" if whole else ""


def _withheld(report: AuditReport) -> str:
    reasons = by_size(report.counts.quarantine_reasons)
    return f" ({listed(f'{reason}: {images:,}' for reason, images in reasons)})" if reasons else ""


def by_size(counts: dict[str, int]) -> list[tuple[str, int]]:
    """Most frequent first."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def claimed(report: AuditReport) -> list[str]:
    """The certificate's claim, and the sizes behind it."""
    claim = report.claim
    if claim.kind == "none":
        return [f"{_ended(claim.text)} The release claims nothing that could be proved; only what was measured speaks."]
    sentences = [_ended(claim.text)]
    if claim.class_sizes:
        sentences.append(
            f"{counted(sum(claim.class_sizes.values()), 'class', 'classes')} of {span(claim.class_sizes)} people"
            + (
                f"; where people who may be one person count once, {span(claim.effective_sizes)}."
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


# ---- ISO/IEC 27559 --------------------------------------------------------------------------------------------


def framework(report: AuditReport) -> list[tuple[str, list[str]]]:
    """The four parts of ISO/IEC 27559: what this report holds of each, and what it leaves to the officer."""
    attacks = list(dict.fromkeys(one.name for one in report.attacks))
    recognizers = list(dict.fromkeys(one.recognizer for one in report.attacks))
    return [
        (
            "Context assessment",
            [
                f"Attackers tried: {listed(attacks) or 'none'}, by {listed(recognizers) or 'no recognizer'}, with the "
                "whole release and, for a look-up, clear photos of the same people. "
                "Who receives the release, and under which terms, is not known here and is for you to write down."
            ],
        ),
        (
            "Data assessment",
            [
                f"{counted(report.counts.images, 'image')}, {counted(report.counts.faces, 'face')}; attacks on "
                f"{counted(report.photos, 'photo')} of {_people(report)}. "
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
                f"Certificate sha256{NBSP}{report.certificate_sha256[:16]}\u2026; "
                f"{counted(len(report.models), 'model')}, "
                f"{_commercial(report)} "
                "Keep this report with its signature; repeat the audit before another release of the same people."
            ],
        ),
    ]


def _commercial(report: AuditReport) -> str:
    refused = listed(one.name for one in report.models if one.commercial is False)
    unknown = listed(one.name for one in report.models if one.commercial is None)
    said_of = [
        *([f"{refused} may not be used commercially"] if refused else []),
        *([f"only the terms of {unknown} can say whether that may be"] if unknown else []),
    ]
    return f"of which {' and '.join(said_of)}." if said_of else "all of which may be used commercially."


def settings(report: AuditReport) -> str:
    """What the method was told, without what it was not."""
    said_of = (
        f"{name} {_setting(value)}" for name, value in report.settings.items() if name != "name" and value is not None
    )
    return ", ".join(said_of) or "no settings"


def _setting(value: str | int | float | bool | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float) else str(value)


def _far(report: AuditReport) -> str:
    rates = sorted({one.far for one in report.thresholds})
    return f"a false accept rate of {listed(share(one) for one in rates)}" if rates else "no measured false accept rate"
