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
    figure_text,
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


Row = tuple[TableCell, ...]


@dataclass(frozen=True)
class TableBody:
    """Rows under a heading of their own, or under none; the first cell of a row names it."""

    heading: str
    rows: tuple[Row, ...]
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
    """Every table of the report, in order."""
    return [_gate(report), _reconciliation(report), _attacks(report), _records(report), _groups(report),
            _thresholds(report), _leaks(report), _utility(report), _missed_faces(report), _models(report),
            _software(report)]  # fmt: skip


def _body(rows: Iterable[Row]) -> tuple[TableBody, ...]:
    return (TableBody("", tuple(rows)),)


def _number(text: str, under: str = "") -> TableCell:
    return TableCell(text, under, number=True)


def _count(value: int) -> TableCell:
    return _number(f"{value:,}")


def _figure(figure: Figure | None, unit: str = "share") -> TableCell:
    if figure is None or figure.value is None:
        return _number(NOT_MEASURED if figure is not None else DASH)
    plain = "" if unit != "share" else unit  # another unit has a column of its own
    return _number(amount(figure.value, plain), interval(figure, plain))


def _points(figure: Figure | None) -> TableCell:
    if figure is None or figure.value is None:
        return _number(DASH)
    return _number(points(figure.value), points_interval(figure))


def _share(value: float | None) -> TableCell:
    return _number(DASH if value is None else share(value))


def _gate(report: AuditReport) -> ReportTable:
    rows = (
        (
            TableCell(line.name),
            TableCell("\u2713 holds" if line.passed else "\u2717 FAILS", tone="pass" if line.passed else "fail"),
            _number(NOT_MEASURED if line.bound is None else number(line.bound)),
            _number(DASH if line.limit is None else number(line.limit)),
            TableCell(line.why),
        )
        for line in report.gate.lines
    )
    caption = "The bound counts, not the mean: the unfavourable end of the interval."
    return ReportTable("Policy gate", caption, ("line", "", "bound", "limit", "why"), _body(rows))


def _reconciliation(report: AuditReport) -> ReportTable:
    counts = report.counts
    out = counts.released + counts.no_face + counts.quarantined
    agree = out == counts.images
    total = TableCell(
        f"{out:,}", "equals images in" if agree else "does NOT equal images in", "pass" if agree else "fail", True
    )
    images = (
        (TableCell("images in"), _count(counts.images)),
        (TableCell("released, faces replaced"), _count(counts.released)),
        (TableCell("no face found"), _count(counts.no_face)),
        (TableCell("quarantined"), _count(counts.quarantined)),
        (TableCell("released + no face + quarantined"), total),
    )

    def by_name(numbers: dict[str, int]) -> tuple[Row, ...]:
        return tuple((TableCell(name), _count(value)) for name, value in by_size(numbers))

    bodies = (
        TableBody("Images", images),
        TableBody("Faces by method", ((TableCell("faces found"), _count(counts.faces)), *by_name(counts.methods))),
        TableBody("Why faces fell back", by_name(counts.fallbacks)),
        TableBody("Why images were quarantined", by_name(counts.quarantine_reasons)),
    )
    return ReportTable(
        "Reconciliation of counts",
        f"{counts.shards:,} shards. Every image that went in is accounted for, or the line says that it is not.",
        ("what", "count"),
        tuple(body for body in bodies if body.rows),
    )


def _attacks(report: AuditReport) -> ReportTable:
    kinds = glossary.baseline_order({kind for attack in report.attacks for kind in attack.baselines})
    bodies = []
    for name in dict.fromkeys(attack.name for attack in report.attacks):
        attacks = [attack for attack in report.attacks if attack.name == name]
        rows = tuple(
            (
                TableCell(f"{attack.target}, {attack.recognizer}{' *' if attack.held_out else ''}"),
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
        heading = f"{meaning.title} ({name}): {meaning.action}" if name in glossary.ATTACKS else name
        bodies.append(
            TableBody(heading, rows, " ".join(dict.fromkeys(attack.note for attack in attacks if attack.note)))
        )
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
    for name, meaning in glossary.RECORD_ATTACKS.items():
        rows = tuple(
            (
                TableCell(", ".join(part for part in (finding.target, finding.recognizer) if part), finding.note),
                _count(finding.found.count),
                _figure(finding.found),
                _share(finding.allowed),
                _points(finding.excess),
                TableCell(finding.allowed_by or "reported, not judged"),
            )
            for finding in report.disclosures
            if finding.name == name
        )
        if rows:
            bodies.append(TableBody(f"{meaning.title} ({name}): {meaning.action}", rows))
    return ReportTable(
        "What the release says beside its pictures",
        "Its tables and its manifest, as an attacker reads them; shares with 95 % intervals by person. Allowed: what "
        "the claim allows on the same photos. The policy judges how much more is found, in percentage points.",
        ("target, recognizer", "n", "found", "allowed", "more than allowed", "why that much is allowed"),
        tuple(bodies),
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
        TableBody(
            what,
            tuple(
                (TableCell(f"{group.by}: {group.name}"), _count(group.figure.count), _figure(group.figure, unit))
                for group in groups
            ),
        )
        for what, unit, groups in grouped(report)
    )
    caption = "Released photos; of each attack the target and recognizer whose interval ends worst."
    return ReportTable("Groups", caption, ("group", "n", "released"), bodies)


def _thresholds(report: AuditReport) -> ReportTable:
    rows = (
        (
            TableCell(threshold.recognizer),
            _number(f"{threshold.cosine:.3f}"),
            _share(threshold.far),
            _count(threshold.pairs),
            _count(threshold.people),
            TableCell("on this dataset" if threshold.measured_here else "elsewhere: too few pairs here"),
        )
        for threshold in report.thresholds
    )
    return ReportTable(
        "Thresholds",
        "The cosine from which a recognizer takes two photos for one person, fixed on clear pairs of people who are "
        "not reported on.",
        ("recognizer", "cosine", "false accepts", "pairs", "people", "measured"),
        _body(rows),
    )


def _leaks(report: AuditReport) -> ReportTable:
    rows = (
        (
            TableCell(check.name),
            TableCell("\u2717 found" if check.found else "\u2713 none", tone="fail" if check.found else "pass"),
            _count(check.found),
            _count(check.checked),
            TableCell("; ".join(part for part in (", ".join(check.where), check.note) if part) or DASH),
        )
        for check in report.leaks
    )
    heads = ("check", "", "found", "checked", "where")
    return ReportTable("Leaks", "What must not be in a release.", heads, _body(rows))


def _utility(report: AuditReport) -> ReportTable:
    kinds = glossary.baseline_order({kind for measure in report.utility for kind in measure.baselines})
    rows = (
        (
            TableCell(measure.name, measure.note),
            TableCell(measure.unit),
            TableCell(f"{measure.better} is better"),
            _count(measure.released.count),
            _figure(measure.released, measure.unit),
            *(_figure(measure.baselines.get(kind), measure.unit) for kind in kinds),
        )
        for measure in report.utility
    )
    return ReportTable(
        "Utility",
        "What is left of use, with 95 % intervals by person, beside the same measure on the baselines.",
        ("measure", "unit", "", "n", "released", *kinds),
        _body(rows),
        wide=True,
    )


def _missed_faces(report: AuditReport) -> ReportTable:
    missed = report.missed
    look = f"images with a face that {missed.second_by} sees and the job had not found"
    rows = [(TableCell(look), _number(figure_text(missed.second)))]
    if missed.sampled:
        bound = f"upper bound, {number(100 * missed.confidence)} % (Clopper-Pearson)"
        rows += [
            (TableCell("images that a person judged"), _count(missed.sampled)),
            (TableCell("of these with a face left as it was"), _count(missed.wrong)),
            (TableCell(bound), _share(missed.upper)),
        ]
    else:
        rows.append((TableCell("images that a person judged"), _number("none, so there is no bound")))
    return ReportTable("Missed faces", "Faces that may have been overlooked.", ("what", "figure"), _body(rows))


def _models(report: AuditReport) -> ReportTable:
    commercial = {None: TableCell("as its own terms say"), True: TableCell("yes"), False: TableCell("NO", tone="fail")}
    rows = (
        (
            TableCell(model.name, f"sha256 {model.sha256[:16]}\u2026" if model.sha256 else ""),
            TableCell(model.role),
            TableCell("made the release" if model.used_for == "release" else "judged it"),
            TableCell(model.licence),
            commercial[model.commercial],
        )
        for model in report.models
    )
    heads = ("model", "role", "use", "licence", "commercial use")
    return ReportTable("Models and licences", "report.json has the whole hashes.", heads, _body(rows))


def _software(report: AuditReport) -> ReportTable:
    versions = sorted(report.software.items(), key=lambda item: item[0].lower())
    rows = ((TableCell(name), TableCell(version)) for name, version in versions)
    return ReportTable("Software", "Versions that the audit ran with.", ("package", "version"), _body(rows))
