"""The responsible-AI fields of croissant.json (Croissant RAI 1.0), said from the report's figures.

What only the people know who took the photos (how, when, under which consent) is theirs to say; where they say nothing,
the field says that it is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from anonlib.audit.findings import AuditReport, Figure, Group
from anonlib.audit.report import glossary, summary
from anonlib.audit.report.formatting import NOT_MEASURED, counted, listed, said
from anonlib.audit.report.risks import missed, risks
from anonlib.config import JobConfig


def responsible_ai(
    report: AuditReport, config: JobConfig, collection: str | None = None, maintenance: str | None = None
) -> dict[str, Any]:
    """The `rai:` fields; empty ones are left out by the caller."""
    return {
        "rai:dataCollection": collection or "How and why the photographs were collected is not known to anonlib.",
        "rai:dataCollectionRawData": "The original photographs are not part of the release.",
        "rai:dataCollectionMissingData": _missing(report),
        "rai:dataPreprocessingProtocol": _preprocessing(report, config),
        "rai:dataManipulationProtocol": " ".join([*summary.was_done(report), *summary.claimed(report)]),
        "rai:dataAnnotationProtocol": (
            f"The manifest was written by machines: one row an image, one entry for each of "
            f"{counted(report.counts.faces, 'face')}. "
            + (
                f"A person judged {counted(report.missed.sampled, 'image')}."
                if report.missed.sampled
                else "No person has checked it."
            )
        ),
        "rai:annotationsPerItem": "one manifest row an image, one entry in it for each face that was found",
        "rai:machineAnnotationTools": [
            f"{one.name} ({one.role}; {one.licence})" for one in report.models if one.used_for == "release"
        ],
        "rai:dataBiases": _biases(report),
        "rai:dataLimitations": _limitations(report),
        "rai:dataUseCases": _uses(report),
        "rai:personalSensitiveInformation": [f"{risk.title}: {' '.join(risk.sentences)}" for risk in risks(report)],
        "rai:dataReleaseMaintenancePlan": maintenance,
    }


def _missing(report: AuditReport) -> str:
    counts = report.counts
    reasons = listed(f"{reason}: {images:,}" for reason, images in summary.by_size(counts.quarantine_reasons))
    because = f" ({reasons})" if reasons else ""
    return f"{counts.quarantined:,} of {counted(counts.images, 'image')} are left out{because}."


def _preprocessing(report: AuditReport, config: JobConfig) -> list[str]:
    kept = listed(config.keep_fields)
    return [
        f"Faces were replaced by {report.method} ({summary.settings(report)}).",
        "Metadata of the images was removed, but for colour profiles.",
        f"Of the other fields {kept} were kept, and all the rest dropped."
        if kept
        else "All other fields were dropped.",
        "Keys were replaced by pseudonyms." if config.rekey else "Keys are those of the input.",
    ]


def _biases(report: AuditReport) -> list[str]:
    """Each measure and attack of which the groups are known: the best and the worst off in each kind of group."""
    found = []
    for what, groups in _grouped(report):
        for by in dict.fromkeys(one.by for one in groups):
            each = sorted(
                (one for one in groups if one.by == by and one.figure.value is not None),
                key=lambda one: _value(one.figure),
            )
            if len(each) > 1:
                low, high = each[0], each[-1]
                found.append(f"{what} by {by}: from {low.name} {said(low.figure)} to {high.name} {said(high.figure)}.")
    return found or ["How groups differ was not measured."]


def _grouped(report: AuditReport) -> Iterator[tuple[str, tuple[Group, ...]]]:
    for measure in report.utility:
        if measure.groups:
            yield measure.name, measure.groups
    for name in dict.fromkeys(one.name for one in report.attacks if one.groups):
        best = glossary.strongest(one for one in report.attacks if one.name == name and one.groups)
        if best is not None:
            yield f"attack {name}, {best.target} ({best.recognizer})", best.groups


def _value(figure: Figure) -> float:
    return 0.0 if figure.value is None else figure.value


def _limitations(report: AuditReport) -> list[str]:
    failed = [f"The policy does not hold: {line.name}, {line.why}." for line in summary.failed_lines(report)]
    return [
        *failed,
        *missed(report),
        "Hair, clothes, background and body are as they were, and outside every claim.",
    ]


def _uses(report: AuditReport) -> list[str]:
    """What is left of each use that was measured."""
    found = []
    for one in report.utility:
        before = one.baselines.get("clear")
        beside = f"; originals {said(before, one.unit)}" if before is not None and before.value is not None else ""
        value = said(one.released, one.unit)
        found.append(f"{one.name}: {value}{beside}." if value != NOT_MEASURED else f"{one.name}: {NOT_MEASURED}.")
    return found or ["What the photos are still good for was not measured."]
