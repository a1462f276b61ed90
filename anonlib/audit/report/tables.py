"""The report's tables as cells of text, so that the template lays out and decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from anonlib.audit.findings import AuditReport, Figure, Group
from anonlib.audit.report import glossary
from anonlib.audit.report.summary import (
    NOT_MEASURED,
    amount,
    by_size,
    interval,
    number,
    points,
    points_interval,
    share,
)

DASH = "\u2013"


@dataclass(frozen=True)
class TableCell:
    """`under` is set small below; `tone` pass or fail marks a cell, beside its words; `number` aligns to the right."""

    text: str
    under: str = ""
    tone: str = ""
    number: bool = False


@dataclass(frozen=True)
class TableBody:
    """Rows under a heading of their own, or under none; the first cell of a row names it."""

    heading: str
    rows: tuple[tuple[TableCell, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class ReportTable:
    """`wide` ones get a page on its side."""

    title: str
    caption: str
    heads: tuple[str, ...]
    bodies: tuple[TableBody, ...]
    wide: bool = False


def all_tables(report: AuditReport) -> list[ReportTable]:
    """Every table of the report, in order; thresholds and versions of software are in report.json alone."""
    return [_gate(report), _reconciliation(report), _attacks(report), _records(report), _groups(report),
            _leaks(report), _utility(report), _models(report)]  # fmt: skip


def _body(rows: Iterable[tuple[object, ...]], heading: str = "", note: str = "") -> TableBody:
    cells = (tuple(cell if isinstance(cell, TableCell) else TableCell(str(cell)) for cell in row) for row in rows)
    return TableBody(heading, tuple(cells), note)


def _number(text: str, under: str = "") -> TableCell:
    return TableCell(text, under, number=True)


def _count(value: int) -> TableCell:
    return _number(f"{value:,}")


def _share(value: float | None) -> TableCell:
    return _number(DASH if value is None else share(value))


def _figure(figure: Figure | None, unit: str = "share") -> TableCell:
    if figure is None or figure.value is None:
        return _number(NOT_MEASURED if figure is not None else DASH)
    plain = "" if unit != "share" else unit  # another unit has a column of its own
    return _number(amount(figure.value, plain), interval(figure, plain))


def _points(figure: Figure | None) -> TableCell:
    if figure is None or figure.value is None:
        return _number(DASH)
    return _number(points(figure.value), points_interval(figure))


def _verdict(holds: bool, good: str, bad: str) -> TableCell:
    return TableCell(f"\u2713 {good}" if holds else f"\u2717 {bad}", tone="pass" if holds else "fail")


def _gate(report: AuditReport) -> ReportTable:
    rows = (
        (
            line.name,
            _verdict(line.passed, "holds", "FAILS"),
            _number(NOT_MEASURED if line.bound is None else number(line.bound)),
            _number(DASH if line.limit is None else number(line.limit)),
            line.why,
        )
        for line in report.gate.lines
    )
    caption = "The bound counts, not the mean: the unfavourable end of the interval."
    return ReportTable("Policy gate", caption, ("line", "", "bound", "limit", "why"), (_body(rows),))


def _reconciliation(report: AuditReport) -> ReportTable:
    counts = report.counts
    out = counts.released + counts.no_face + counts.quarantined
    agrees = "equals images in" if out == counts.images else "does NOT equal images in"
    images = {
        "images in": counts.images,
        "released, faces replaced": counts.released,
        "no face found": counts.no_face,
        "quarantined": counts.quarantined,
    }
    total = TableCell(f"{out:,}", agrees, "pass" if out == counts.images else "fail", True)
    rows = [*((name, _count(value)) for name, value in images.items()), ("released + no face + quarantined", total)]
    parts = {
        "Faces by method": {"faces found": counts.faces} | dict(by_size(counts.methods)),
        "Why faces fell back": dict(by_size(counts.fallbacks)),
        "Why images were quarantined": dict(by_size(counts.quarantine_reasons)),
    }
    bodies = [
        _body(((name, _count(value)) for name, value in numbers.items()), heading)
        for heading, numbers in parts.items()
        if numbers
    ]
    caption = f"{counts.shards:,} shards. Every image that went in is accounted for, or the line says that it is not."
    return ReportTable("Reconciliation of counts", caption, ("what", "count"), (_body(rows, "Images"), *bodies))


def _attacks(report: AuditReport) -> ReportTable:
    kinds = glossary.baseline_order({kind for attack in report.attacks for kind in attack.baselines})
    bodies = []
    for name in dict.fromkeys(attack.name for attack in report.attacks):
        attacks = [attack for attack in report.attacks if attack.name == name]
        rows = (
            (
                f"{attack.target}, {attack.recognizer}{' *' if attack.held_out else ''}",
                _count(attack.released.count),
                _figure(attack.released),
                _points(attack.excess),
                _share(attack.released.chance),
                *(_figure(attack.baselines.get(kind)) for kind in kinds),
                _figure(attack.worst_class),
                _figure(attack.worst_person),
            )
            for attack in attacks
        )
        meaning = glossary.meaning(name)
        heading = f"{meaning.title} ({name}): {meaning.action}" if name in glossary.PICTURE_MEANINGS else name
        bodies.append(_body(rows, heading, " ".join(dict.fromkeys(attack.note for attack in attacks if attack.note))))
    return ReportTable(
        "Attacks",
        "Shares with 95 % intervals bootstrapped by person; * a recognizer that the method never used. Baselines are "
        "the same photos blurred, pixelated, and with the face under a flat ellipse (solid). Face adds: released minus "
        "solid, paired by photo, in percentage points.",
        ("target, recognizer", "n", "released", "face adds", "guessing", *kinds, "worst class", "worst person"),
        tuple(bodies),
        wide=True,
    )


def _records(report: AuditReport) -> ReportTable:
    bodies = []
    for name, meaning in glossary.RECORD_MEANINGS.items():
        rows = (
            (
                TableCell(", ".join(part for part in (finding.target, finding.recognizer) if part), finding.note),
                _count(finding.found.count),
                _figure(finding.found),
                _share(finding.allowed),
                _points(finding.excess),
                finding.allowed_by or "reported, not judged",
            )
            for finding in report.disclosures
            if finding.name == name
        )
        bodies.append(_body(rows, f"{meaning.title} ({name}): {meaning.action}"))
    return ReportTable(
        "What the release says beside its pictures",
        "Its tables and its manifest, as an attacker reads them; shares with 95 % intervals by person. Allowed: what "
        "the claim allows on the same photos. The policy judges how much more is found, in percentage points.",
        ("target, recognizer", "n", "found", "allowed", "more than allowed", "why that much is allowed"),
        tuple(body for body in bodies if body.rows),
        wide=True,
    )


def grouped(report: AuditReport) -> Iterator[tuple[str, str, tuple[Group, ...]]]:
    """(what was measured, its unit, figure of each group): measures of use, and of each attack the strongest."""
    for measure in report.utility:
        if measure.groups:
            yield measure.name, measure.unit, measure.groups
    for name in dict.fromkeys(attack.name for attack in report.attacks if attack.groups):
        best = glossary.strongest(attack for attack in report.attacks if attack.name == name and attack.groups)
        if best is not None:
            yield f"attack {name}, {best.target} ({best.recognizer})", "share", best.groups


def _groups(report: AuditReport) -> ReportTable:
    bodies = tuple(
        _body(
            (
                (f"{group.by}: {group.name}", _count(group.figure.count), _figure(group.figure, unit))
                for group in groups
            ),
            what,
        )
        for what, unit, groups in grouped(report)
    )
    caption = "Released photos; of each attack the target and recognizer whose interval ends worst."
    return ReportTable("Groups", caption, ("group", "n", "released"), bodies)


def _leaks(report: AuditReport) -> ReportTable:
    rows = (
        (
            check.name,
            _verdict(not check.found, "none", "found"),
            _count(check.found),
            _count(check.checked),
            "; ".join(part for part in (", ".join(check.where), check.note) if part) or DASH,
        )
        for check in report.leaks
    )
    heads = ("check", "", "found", "checked", "where")
    return ReportTable("Leaks", "What must not be in a release.", heads, (_body(rows),))


def _utility(report: AuditReport) -> ReportTable:
    kinds = glossary.baseline_order({kind for measure in report.utility for kind in measure.baselines})
    rows = (
        (
            TableCell(measure.name, measure.note),
            measure.unit,
            f"{measure.better} is better",
            _count(measure.released.count),
            _figure(measure.released, measure.unit),
            *(_figure(measure.baselines.get(kind), measure.unit) for kind in kinds),
        )
        for measure in report.utility
    )
    caption = "What is left of use, with 95 % intervals by person, beside the same measure on the baselines."
    return ReportTable("Utility", caption, ("measure", "unit", "", "n", "released", *kinds), (_body(rows),), wide=True)


def _models(report: AuditReport) -> ReportTable:
    commercial = {
        None: "as its own terms say",
        True: "yes",
        False: TableCell("NO", "", "fail"),
    }
    rows = (
        (
            TableCell(model.name, f"sha256 {model.sha256[:16]}\u2026" if model.sha256 else ""),
            model.role,
            "made the release" if model.used_for == "release" else "judged it",
            model.licence,
            commercial[model.commercial],
        )
        for model in report.models
    )
    heads = ("model", "role", "use", "licence", "commercial use")
    return ReportTable("Models and licences", "report.json has the whole hashes.", heads, (_body(rows),))
