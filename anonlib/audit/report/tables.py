"""The report's tables as cells of text, so that the template lays out and decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from anonlib.audit.findings import AuditReport, Figure, Group
from anonlib.audit.report import glossary
from anonlib.audit.report.summary import NOT_MEASURED, amount, by_size, interval, number, share

DASH = "\u2013"


class Cell(NamedTuple):
    """`under` is set small below; `tone` pass or fail marks a cell, beside its words; `number` aligns to the right."""

    text: str
    under: str = ""
    tone: str = ""
    number: bool = False


Value = Cell | Figure | str | int | float | None
"""What a cell is made of: an int is a count, a float a share, None a dash."""
Body = tuple[str, str, list[list[Cell]]]
"""Rows under a heading with a note, both may be empty; the first cell of a row names it."""


class ReportTable(NamedTuple):
    """`wide` ones get a page on its side."""

    title: str
    caption: str
    heads: tuple[str, ...]
    bodies: list[Body]
    wide: bool = False


def all_tables(report: AuditReport) -> list[ReportTable]:
    """Every table of the report, in order; thresholds and versions of software are in report.json alone."""
    return [_gate(report), _reconciliation(report), _attacks(report), _records(report), _groups(report),
            _leaks(report), _utility(report), _models(report)]  # fmt: skip


def _body(rows: Iterable[Iterable[Value]], heading: str = "", note: str = "") -> Body:
    return heading, note, [list(map(_cell, row)) for row in rows]


def _cell(value: Value) -> Cell:
    if isinstance(value, Figure):
        return _figure(value)
    if isinstance(value, int | float):
        return Cell(f"{value:,}" if isinstance(value, int) else share(value), number=True)
    return Cell(DASH, number=True) if value is None else value if isinstance(value, Cell) else Cell(value)


def _figure(figure: Figure | None, unit: str = "share") -> Cell:
    if figure is None or figure.value is None:
        return Cell(DASH if figure is None else NOT_MEASURED, number=True)
    plain = unit if unit in ("share", "points") else ""  # another unit has a column of its own
    return Cell(amount(figure.value, plain), interval(figure, plain), number=True)


def _verdict(holds: bool, good: str, bad: str) -> Cell:
    return Cell(f"\u2713 {good}", tone="pass") if holds else Cell(f"\u2717 {bad}", tone="fail")


def _gate(report: AuditReport) -> ReportTable:
    rows = (
        (
            line.name,
            _verdict(line.passed, "holds", "FAILS"),
            Cell(NOT_MEASURED if line.bound is None else number(line.bound), number=True),
            Cell(DASH if line.limit is None else number(line.limit), number=True),
            line.why,
        )
        for line in report.gate.lines
    )
    caption = "The bound counts, not the mean: the unfavourable end of the interval."
    return ReportTable("Policy gate", caption, ("line", "", "bound", "limit", "why"), [_body(rows)])


def _reconciliation(report: AuditReport) -> ReportTable:
    counts = report.counts
    out = counts.released + counts.no_face + counts.quarantined
    agrees = out == counts.images
    total = f"{'equals' if agrees else 'does NOT equal'} images in"
    images: list[tuple[str, Value]] = [
        ("images in", counts.images),
        ("released, faces replaced", counts.released),
        ("no face found", counts.no_face),
        ("quarantined", counts.quarantined),
        ("released + no face + quarantined", Cell(f"{out:,}", total, "pass" if agrees else "fail", True)),
    ]
    parts: dict[str, Sequence[tuple[str, Value]]] = {
        "Images": images,
        "Faces by method": [("faces found", counts.faces), *by_size(counts.methods)],
        "Why faces fell back": by_size(counts.fallbacks),
        "Why images were quarantined": by_size(counts.quarantine_reasons),
    }
    bodies = [_body(rows, heading) for heading, rows in parts.items() if rows]
    caption = f"{counts.shards:,} shards. Every image that went in is accounted for, or the line says that it is not."
    return ReportTable("Reconciliation of counts", caption, ("what", "count"), bodies)


def _attacks(report: AuditReport) -> ReportTable:
    kinds = glossary.baseline_order(kind for attack in report.attacks for kind in attack.baselines)
    bodies = []
    for name in dict.fromkeys(attack.name for attack in report.attacks):
        attacks = [attack for attack in report.attacks if attack.name == name]
        rows = (
            (
                f"{attack.target}, {attack.recognizer}{' *' if attack.held_out else ''}",
                attack.released.count,
                attack.released,
                _figure(attack.excess, "points"),
                attack.released.chance,
                *(attack.baselines.get(kind) for kind in kinds),
                attack.worst_class,
                attack.worst_person,
            )
            for attack in attacks
        )
        _, title, action = glossary.meaning(name)
        heading = f"{title} ({name}): {action}" if name in glossary.ON_PICTURES else name
        bodies.append(_body(rows, heading, " ".join(dict.fromkeys(attack.note for attack in attacks if attack.note))))
    return ReportTable(
        "Attacks",
        "Shares with 95 % intervals bootstrapped by person; * a recognizer that the method never used. Baselines are "
        "the same photos blurred, pixelated, and with the face under a flat ellipse (solid). Face adds: released minus "
        "solid, paired by photo, in percentage points.",
        ("target, recognizer", "n", "released", "face adds", "guessing", *kinds, "worst class", "worst person"),
        bodies,
        wide=True,
    )


def _records(report: AuditReport) -> ReportTable:
    bodies = []
    for name, (title, action) in glossary.ON_RECORDS.items():
        rows = [
            (
                Cell(", ".join(filter(None, (finding.target, finding.recognizer))), finding.note),
                finding.found.count,
                finding.found,
                finding.allowed,
                _figure(finding.excess, "points"),
                finding.allowed_by or "reported, not judged",
            )
            for finding in report.disclosures
            if finding.name == name
        ]
        bodies += [_body(rows, f"{title} ({name}): {action}")] if rows else []
    return ReportTable(
        "What the release says beside its pictures",
        "Its tables and its manifest, as an attacker reads them; shares with 95 % intervals by person. Allowed: what "
        "the claim allows on the same photos. The policy judges how much more is found, in percentage points.",
        ("target, recognizer", "n", "found", "allowed", "more than allowed", "why that much is allowed"),
        bodies,
        wide=True,
    )


def grouped(report: AuditReport) -> Iterator[tuple[str, str, tuple[Group, ...]]]:
    """(what was measured, its unit, figure of each group): measures of use, and of each attack the strongest."""
    for measure in report.utility:
        if measure.groups:
            yield measure.name, measure.unit, measure.groups
    for name in dict.fromkeys(attack.name for attack in report.attacks):
        best = glossary.strongest(attack for attack in report.attacks if attack.name == name and attack.groups)
        if best is not None:
            yield f"attack {name}, {best.target} ({best.recognizer})", "share", best.groups


def _groups(report: AuditReport) -> ReportTable:
    bodies = []
    for what, unit, groups in grouped(report):
        rows = ((f"{group.by}: {group.name}", group.figure.count, _figure(group.figure, unit)) for group in groups)
        bodies.append(_body(rows, what))
    caption = "Released photos; of each attack the target and recognizer whose interval ends worst."
    return ReportTable("Groups", caption, ("group", "n", "released"), bodies)


def _leaks(report: AuditReport) -> ReportTable:
    rows = (
        (
            check.name,
            _verdict(not check.found, "none", "found"),
            check.found,
            check.checked,
            "; ".join(filter(None, (", ".join(check.where), check.note))) or DASH,
        )
        for check in report.leaks
    )
    heads = ("check", "", "found", "checked", "where")
    return ReportTable("Leaks", "What must not be in a release.", heads, [_body(rows)])


def _utility(report: AuditReport) -> ReportTable:
    kinds = glossary.baseline_order(kind for measure in report.utility for kind in measure.baselines)
    rows: Iterator[tuple[Value, ...]] = (
        (
            Cell(measure.name, measure.note),
            measure.unit,
            f"{measure.better} is better",
            measure.released.count,
            _figure(measure.released, measure.unit),
            *(_figure(measure.baselines.get(kind), measure.unit) for kind in kinds),
        )
        for measure in report.utility
    )
    caption = "What is left of use, with 95 % intervals by person, beside the same measure on the baselines."
    return ReportTable("Utility", caption, ("measure", "unit", "", "n", "released", *kinds), [_body(rows)], wide=True)


def _models(report: AuditReport) -> ReportTable:
    commercial = {None: Cell("as its own terms say"), True: Cell("yes"), False: Cell("NO", tone="fail")}
    rows = (
        (
            Cell(model.name, f"sha256 {model.sha256[:16]}\u2026" if model.sha256 else ""),
            model.role,
            "made the release" if model.used_for == "release" else "judged it",
            model.licence,
            commercial[model.commercial],
        )
        for model in report.models
    )
    heads = ("model", "role", "use", "licence", "commercial use")
    return ReportTable("Models and licences", "report.json has the whole hashes.", heads, [_body(rows)])
