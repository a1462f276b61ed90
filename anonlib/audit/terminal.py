"""What a terminal shows of an audit: who is named how often, and every line of the policy that failed."""

from __future__ import annotations

from collections.abc import Iterable

from anonlib.audit.findings import AuditReport, Disclosure, Figure

_NAME, _FIGURE, _TARGET = 50, 20, 80


def table(report: AuditReport) -> list[str]:
    """The attacks that name people, a line each: the release, then each baseline."""
    shown = [one for one in report.attacks if one.target == "rank-1"]
    kinds = list(dict.fromkeys(kind for one in shown for kind in one.baselines))
    known = "people" if report.labelled else "clusters of faces"
    lines = [
        f"{report.photos:,} photos of {report.people:,} {known}: how often the right one comes first, 95 % intervals",
        "",
        " " * _NAME + "".join(f"{kind:<{_FIGURE}}" for kind in ("released", *kinds)),
    ]
    for one in shown:
        figures = [one.released, *(one.baselines.get(kind) for kind in kinds)]
        name = f"{one.name}, {one.recognizer}"
        lines.append(f"{name:<{_NAME}}" + "".join(f"{short(figure):<{_FIGURE}}" for figure in figures))
    return [*lines, "", *disclosures(report.disclosures)]


def disclosures(found: Iterable[Disclosure]) -> list[str]:
    """What the release says beside its pictures, a line each: found, allowed, how much more; then the notes."""
    heads = ("found", "allowed", "more than allowed")
    lines = [
        f"{'what the release says beside its pictures':<{_TARGET}}" + "".join(f"{one:<{_FIGURE}}" for one in heads)
    ]
    notes: dict[str, None] = {}
    for one in found:
        name = ", ".join(part for part in (one.name, one.target, one.recognizer) if part)
        allowed = "-" if one.allowed is None else f"{one.allowed:.1%}"
        cells = (short(one.found), allowed, short(one.excess))
        lines.append(f"{name:<{_TARGET}}" + "".join(f"{cell:<{_FIGURE}}" for cell in cells))
        if one.note:
            notes[f"  {one.name}: {one.note}"] = None
    return [*lines, *notes, ""] if len(lines) > 1 else []


def short(figure: Figure | None) -> str:
    """`5.5% [3.9 7.4]`, or a dash where nothing was measured."""
    if figure is None or figure.value is None or figure.low is None or figure.high is None:
        return "-"
    return f"{figure.value:.1%} [{100 * figure.low:.1f} {100 * figure.high:.1f}]"


def outcome(report: AuditReport) -> list[tuple[str, str]]:
    """Whether the policy holds, and what does not."""
    failed = [line for line in report.gate.lines if not line.passed]
    lines = f"{len(report.gate.lines)} lines"
    verdict = f"passed, all {lines}" if report.gate.passed else f"FAILED, {len(failed)} of {lines}"
    return [("policy", verdict), *(("", f"{line.name}: {line.why}") for line in failed)]
