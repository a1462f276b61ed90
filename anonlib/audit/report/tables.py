"""The report's tables as cells of text, so that the template lays out and decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from anonlib.audit.findings import Attack, AuditReport, Disclosure, Figure
from anonlib.audit.report import glossary
from anonlib.audit.report.formatting import (
    DASH,
    NOT_MEASURED,
    amount,
    interval,
    number,
    said,
    share,
    signed,
    signed_interval,
)
from anonlib.audit.report.summary import by_size


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


def all_of(report: AuditReport) -> list[ReportTable]:
    """Every table of the report, in order."""
    return [_gate(report), _reconciliation(report), _attacks(report), _disclosures(report), _thresholds(report),
            _leaks(report), _utility(report), _missed(report), _models(report), _software(report)]  # fmt: skip


def _count(value: int) -> TableCell:
    return TableCell(f"{value:,}", number=True)


def _figure(figure: Figure | None, unit: str = "share") -> TableCell:
    if figure is None or figure.value is None:
        return TableCell(NOT_MEASURED if figure is not None else DASH, number=True)
    plain = "" if unit != "share" else unit  # another unit has a column of its own
    return TableCell(amount(figure.value, plain), interval(figure, plain), number=True)


def _one(rows: Iterable[tuple[TableCell, ...]]) -> tuple[TableBody, ...]:
    return (TableBody("", tuple(rows)),)


def _reconciliation(report: AuditReport) -> ReportTable:
    counts = report.counts
    out = counts.released + counts.no_face + counts.quarantined
    agree = out == counts.images
    images = [
        (TableCell("images in"), _count(counts.images)),
        (TableCell("released, faces replaced"), _count(counts.released)),
        (TableCell("no face found"), _count(counts.no_face)),
        (TableCell("quarantined"), _count(counts.quarantined)),
        (
            TableCell("released + no face + quarantined"),
            TableCell(
                f"{out:,}",
                "equals images in" if agree else "does NOT equal images in",
                "pass" if agree else "fail",
                True,
            ),
        ),
    ]
    faces = [(TableCell("faces found"), _count(counts.faces))]
    faces += [(TableCell(name), _count(value)) for name, value in by_size(counts.methods)]
    return ReportTable(
        "Reconciliation of counts",
        f"{counts.shards:,} shards. Every image that went in is accounted for, or the line says that it is not.",
        ("what", "count"),
        tuple(
            body
            for body in (
                TableBody("Images", tuple(images)),
                TableBody("Faces, by what became of them", tuple(faces)),
                TableBody("Why faces fell back", _counts(counts.fallbacks)),
                TableBody("Why images were quarantined", _counts(counts.quarantine_reasons)),
            )
            if body.rows
        ),
    )


def _counts(counts: dict[str, int]) -> tuple[tuple[TableCell, ...], ...]:
    return tuple((TableCell(name), _count(value)) for name, value in by_size(counts))


def _gate(report: AuditReport) -> ReportTable:
    rows = (
        (
            TableCell(line.name),
            TableCell("\u2713 holds" if line.passed else "\u2717 FAILS", tone="pass" if line.passed else "fail"),
            TableCell(NOT_MEASURED if line.bound is None else number(line.bound), number=True),
            TableCell(DASH if line.limit is None else number(line.limit), number=True),
            TableCell(line.why),
        )
        for line in report.gate.lines
    )
    return ReportTable(
        "Policy gate",
        "The bound counts, not the mean: the bad end of the interval.",
        ("line", "", "bound", "limit", "why"),
        _one(rows),
    )


def _attacks(report: AuditReport) -> ReportTable:
    kinds = glossary.baseline_order({kind for one in report.attacks for kind in one.baselines})
    names = dict.fromkeys(one.name for one in report.attacks)
    bodies = []
    for name in names:
        mine = [one for one in report.attacks if one.name == name]
        notes = " ".join(dict.fromkeys(one.note for one in mine if one.note))
        meaning = glossary.meaning(name)
        heading = f"{meaning.title} ({name}): {meaning.does}" if meaning.does != name else name
        bodies.append(TableBody(heading, tuple(_attack(one, kinds) for one in mine), notes))
    return ReportTable(
        "Attacks",
        "Shares with 95 % intervals bootstrapped by person; * a recognizer that the method never used. Baselines are "
        "the same photos blurred, pixelated, and with the face under a flat ellipse (solid). Face adds: released minus "
        "solid, paired by photo, in percentage points.",
        ("target, recognizer", "n", "released", "face adds", "guessing", *kinds, "worst class", "worst person"),
        tuple(bodies),
        wide=True,
    )


def _attack(one: Attack, kinds: Iterable[str]) -> tuple[TableCell, ...]:
    return (
        TableCell(f"{one.target}, {one.recognizer}{' *' if one.held_out else ''}"),
        _count(one.released.count),
        _figure(one.released),
        _points(one.excess),
        TableCell(DASH if one.released.chance is None else share(one.released.chance), number=True),
        *(_figure(one.baselines.get(kind)) for kind in kinds),
        _figure(one.worst_class),
        _figure(one.worst_person),
    )


def _disclosures(report: AuditReport) -> ReportTable:
    bodies = []
    for name, meaning in glossary.DISCLOSURES.items():
        mine = [one for one in report.disclosures if one.name == name]
        if mine:
            heading = f"{meaning.title[:1].upper()}{meaning.title[1:]} ({name}): {meaning.does}"
            bodies.append(TableBody(heading, tuple(map(_disclosure, mine))))
    return ReportTable(
        "What the release says beside its pictures",
        "Its tables, its manifest, and who wears what, as an attacker reads them; shares with 95 % intervals by "
        "person. Allowed: what the claim allows on the same photos. The policy judges how much more is found, in "
        "percentage points.",
        ("target, recognizer", "n", "found", "allowed", "more than allowed", "why that much is allowed"),
        tuple(bodies),
        wide=True,
    )


def _disclosure(one: Disclosure) -> tuple[TableCell, ...]:
    return (
        TableCell(", ".join(part for part in (one.target, one.recognizer) if part), one.note),
        _count(one.found.count),
        _figure(one.found),
        TableCell(DASH if one.allowed is None else share(one.allowed), number=True),
        _points(one.excess),
        TableCell(one.allowed_by or "reported, not judged"),
    )


def _points(figure: Figure | None) -> TableCell:
    if figure is None or figure.value is None:
        return TableCell(DASH, number=True)
    return TableCell(signed(figure.value), signed_interval(figure), number=True)


def _thresholds(report: AuditReport) -> ReportTable:
    rows = (
        (
            TableCell(one.recognizer),
            TableCell(f"{one.cosine:.3f}", number=True),
            TableCell(share(one.far), number=True),
            _count(one.pairs),
            _count(one.people),
            TableCell("on this dataset" if one.measured_here else "elsewhere: too few pairs here"),
        )
        for one in report.thresholds
    )
    return ReportTable(
        "Thresholds",
        "The cosine from which a recognizer takes two photos for one person, fixed on clear pairs of people who are "
        "not reported on.",
        ("recognizer", "cosine", "false accepts", "pairs", "people", "measured"),
        _one(rows),
    )


def _leaks(report: AuditReport) -> ReportTable:
    rows = (
        (
            TableCell(one.name),
            TableCell("\u2717 found" if one.found else "\u2713 none", tone="fail" if one.found else "pass"),
            _count(one.found),
            _count(one.checked),
            TableCell("; ".join(part for part in (", ".join(one.where), one.note) if part) or DASH),
        )
        for one in report.leaks
    )
    return ReportTable(
        "Leaks", "What must not be in a release.", ("check", "", "found", "checked", "where"), _one(rows)
    )


def _utility(report: AuditReport) -> ReportTable:
    kinds = glossary.baseline_order({kind for one in report.utility for kind in one.baselines})
    rows = (
        (
            TableCell(one.name, one.note),
            TableCell(one.unit),
            TableCell(f"{one.better} is better"),
            _count(one.released.count),
            _figure(one.released, one.unit),
            *(_figure(one.baselines.get(kind), one.unit) for kind in kinds),
        )
        for one in report.utility
    )
    return ReportTable(
        "Utility",
        "What is left of use, with 95 % intervals by person, beside the same measure on the baselines.",
        ("measure", "unit", "", "n", "released", *kinds),
        _one(rows),
        wide=True,
    )


def _missed(report: AuditReport) -> ReportTable:
    one = report.missed
    judged = (
        [
            (TableCell("images that a person judged"), _count(one.sampled)),
            (TableCell("of these with a face left as it was"), _count(one.wrong)),
            (
                TableCell(f"upper bound, {number(100 * one.confidence)} % (Clopper-Pearson)"),
                TableCell(share(one.upper), number=True),
            ),
        ]
        if one.sampled
        else [(TableCell("images that a person judged"), TableCell("none, so there is no bound", number=True))]
    )
    second = (
        TableCell(f"images with a face that {one.second_by} sees and the job had not found"),
        TableCell(said(one.second), number=True),
    )
    return ReportTable(
        "Missed faces", "Faces that may have been overlooked.", ("what", "figure"), _one([second, *judged])
    )


def _models(report: AuditReport) -> ReportTable:
    rows = (
        (
            TableCell(one.name, f"sha256 {one.sha256[:16]}\u2026" if one.sha256 else ""),
            TableCell(one.role),
            TableCell("made the release" if one.used_for == "release" else "judged it"),
            TableCell(one.licence),
            _commercial(one.commercial),
        )
        for one in report.models
    )
    return ReportTable(
        "Models and licences",
        "report.json has the whole hashes.",
        ("model", "role", "use", "licence", "commercial use"),
        _one(rows),
    )


def _commercial(allowed: bool | None) -> TableCell:
    if allowed is None:
        return TableCell("as its own terms say")
    return TableCell("yes") if allowed else TableCell("NO", tone="fail")


def _software(report: AuditReport) -> ReportTable:
    rows = (
        (TableCell(name), TableCell(version))
        for name, version in sorted(report.software.items(), key=lambda one: one[0].lower())
    )
    return ReportTable("Software", "Versions that the audit ran with.", ("package", "version"), _one(rows))
