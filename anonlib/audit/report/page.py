"""report.html, one file without scripts that needs no network, and report.pdf, the same page as a tagged PDF.

Its charts are Vega-Lite drawn as SVG that lies in the page, with a text that says what it shows. Text
reaches a contrast of 4.5 and marks of 3 on their grounds (WCAG 2.2, 1.4.3 and 1.4.11); series differ by shape or dash
as well, so that a grey print says the same.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module, resources
from types import ModuleType
from typing import Any

from anonlib.audit.findings import AuditReport, Histogram
from anonlib.audit.gate import NAMING
from anonlib.audit.report import summary
from anonlib.audit.report.summary import figure_text, listed, share
from anonlib.errors import JobError

REQUIRED = ("jinja2", "vl_convert", "weasyprint")
"""The optional packages of the report, as modules."""
COLOURS = {
    "paper": "#ffffff",
    "ink": "#1a1f25",
    "soft": "#525c67",
    "rule": "#d3d9df",
    "axis": "#7b858f",
    "pass": "#0d5f2b",
    "pass-ground": "#e5f4ea",
    "fail": "#9c1027",
    "fail-ground": "#fdebed",
    "released": "#0b4f9e",
    "clear": "#1b7a55",
    "blur": "#8a3ab0",
    "pixelate": "#94610a",
    "solid": "#5a636d",
    "one-face": "#b2451b",
    "one-face-all": "#7a5a3c",
}
_SHAPES = {"released": "circle", "clear": "triangle-up", "blur": "square", "pixelate": "diamond", "solid": "cross",
           "one-face": "triangle-down", "one-face-all": "triangle-right"}  # fmt: skip
_WIDTH = 340  # px, axes and all: a phone's column
_CHART_STYLE = {
    "font": "Liberation Sans, Arial, Helvetica, sans-serif",
    "background": "transparent",
    "aria": False,
    "view": {"stroke": None},
    "axis": {"labelColor": COLOURS["soft"], "titleColor": COLOURS["ink"], "titleFontWeight": "normal",
             "titlePadding": 6, "labelLimit": 150, "domainColor": COLOURS["axis"], "tickColor": COLOURS["axis"],
             "gridColor": COLOURS["rule"]},
    "axisY": {"domain": False, "ticks": False},
    "legend": {"orient": "bottom", "title": None, "labelColor": COLOURS["ink"], "symbolSize": 70, "columnPadding": 16},
    "text": {"color": COLOURS["ink"]},
}  # fmt: skip

Node = dict[str, Any]
Chart = tuple[str, str, str, str]
"""Title, caption, a text that is read out in place of the drawing, and the drawing as SVG."""


def require(name: str) -> ModuleType:
    """The module, which comes with the extra `report`; raises JobError."""
    try:
        return import_module(name)
    except ImportError as error:
        raise JobError(
            f"the report needs {error.name or name}, which is not installed: pip install 'anonlib[report]'"
        ) from None


def write_html(report: AuditReport, examples: Sequence[tuple[bytes, str]] = ()) -> str:
    """The page; the same text for the same arguments. Raises JobError where an extra is missing.

    `examples`: pieces of released photos as JPEG, never of an original, with their captions.
    """
    jinja2, templates = require("jinja2"), resources.files("anonlib.audit.report") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (templates / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # A CSS string in which every character but plain letters and digits is an escape.
    footer = f"anonlib audit \u00b7 {report.release}"
    footer = "".join(char if char.isascii() and char.isalnum() else f"\\{ord(char):x} " for char in footer)
    page: str = environment.get_template("report.html.j2").render(
        report=report,
        examples=[(f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}", text) for jpeg, text in examples],
        palette=COLOURS,
        footer=f'"{footer}"',
        charts=[*_trade(report), *map(_similarity, report.histograms), *_attacks(report)],
        summary=summary,
    )
    return page


def write_pdf(html: str) -> bytes:
    """The PDF/UA of a page by `write_html`; the same bytes for the same page and fonts. Raises JobError."""
    document: bytes = rendered(html).write_pdf(pdf_variant="pdf/ua-1")
    return document


def rendered(html: str) -> Any:
    """WeasyPrint's document, whose pages can be counted; only data URIs are read. Raises JobError."""
    weasyprint, urls = require("weasyprint"), require("weasyprint.urls")
    fetcher = urls.URLFetcher(allowed_protocols=("data",))
    return weasyprint.HTML(string=html, url_fetcher=fetcher).render(pdf_variant="pdf/ua-1")


# ---- charts ---------------------------------------------------------------------------------------------------


def _similarity(histogram: Histogram) -> Chart:
    series = {"two people": histogram.impostor, "one person": histogram.genuine, "released": histogram.released}
    rows = [
        {"kind": kind, "cosine": edge, "share": height}
        for kind, heights in series.items()
        for edge, height in zip(histogram.edges, (*heights, heights[-1]), strict=True)
    ]
    colours = (COLOURS["solid"], COLOURS["clear"], COLOURS["released"])
    x = _number("cosine", "cosine similarity", scale={"nice": False}, axis={"grid": False})
    lines = _layer(
        rows,
        {"type": "line", "interpolate": "step-after", "strokeWidth": 1.8},
        x=x,
        y=_number("share", "share of pairs", axis=_PERCENT),
        color=_kind(dict(zip(series, colours, strict=True))),
        strokeDash=_kind(dict(zip(series, ([2, 2], [6, 3], [1, 0]), strict=True))),
    )
    mark = [{"cosine": histogram.threshold, "text": f"accepted from {histogram.threshold:.2f}"}]
    rule = _layer(mark, {"type": "rule", "color": COLOURS["fail"], "strokeWidth": 1.5}, x=x)
    label = _layer(mark, {"type": "text", "color": COLOURS["fail"], "y": -8}, x=x, text={"field": "text"})
    # Shares in the bins that begin at or above the threshold.
    bins = [number for number, edge in enumerate(histogram.edges[:-1]) if edge >= histogram.threshold]
    above = {kind: share(sum(heights[number] for number in bins)) for kind, heights in series.items()}
    return (
        f"Similarity of released faces to their originals, {histogram.recognizer}",
        "Clear pairs of one person and of two, and released faces against their own originals. "
        f"At or above {histogram.threshold:.3f} the recognizer takes a pair for one person.",
        f"Histogram of cosine similarities. At or above the threshold of {histogram.threshold:.3f} lie, by whole bins, "
        f"{above['one person']} of the clear pairs of one person, {above['two people']} of the pairs of two people and "
        f"{above['released']} of the released faces against their originals.",
        _svg([lines, rule, label], 195),
    )


def _trade(report: AuditReport) -> Iterator[Chart]:
    """Privacy against use: of the release and of each baseline, what the strongest attack finds and what is kept."""
    naming = [attack for attack in report.attacks if attack.name in NAMING and attack.target == "rank-1"]
    attack, measure = summary.strongest(naming), next((use for use in report.utility if use.name == _KEPT), None)
    if attack is None or measure is None:
        return
    found, kept = ({"released": finding.released} | finding.baselines for finding in (attack, measure))
    places = [(kind, found[kind].value, kept[kind].value) for kind in found if kind in kept]
    known = [(kind, left, use) for kind, left, use in places if left is not None and use is not None]
    rows = [{"kind": kind, "found": left, "kept": use} for kind, left, use in known]
    x = _number("found", f"people found, {attack.name} attack", scale={"domain": [0, 1]}, axis=_PERCENT)
    y = _number("kept", measure.name, scale={"domain": [0, 1]}, axis=_PERCENT)
    marks = [{kind: of[kind] for kind, *_ in known} for of in (COLOURS, _SHAPES)]
    colour, shape = (_kind(mark, legend={"columns": 4}) for mark in marks)
    each = listed(f"{kind} {share(left)} and {share(use)}" for kind, left, use in known)
    yield (
        "Privacy against use",
        f"What the {attack.name} attack finds ({attack.recognizer}) beside {measure.name}; best is top left.",
        f"People found and {measure.name}: {each}.",
        _svg([_layer(rows, {"type": "point", "filled": True, "size": 70}, x=x, y=y, color=colour, shape=shape)], 250),
    )


def _attacks(report: AuditReport) -> Iterator[Chart]:
    """A forest plot: of each attack its strongest target and recognizer, with intervals, beside its baselines."""
    names = dict.fromkeys(attack.name for attack in report.attacks)
    best = [summary.strongest(attack for attack in report.attacks if attack.name == name) for name in names]
    attacks = {f"{attack.name}, {attack.target}": attack for attack in best if attack is not None}
    if not attacks:
        return
    rows: list[Node] = []
    for label, attack in attacks.items():
        for kind, figure in ({"released": attack.released} | attack.baselines).items():
            if figure.value is not None:
                low, high = (figure.value if end is None else end for end in (figure.low, figure.high))
                rows.append({"row": label, "kind": kind, "value": figure.value, "low": low, "high": high})
    chances = [{"row": label, "value": attack.released.chance} for label, attack in attacks.items()]
    chances = [row for row in chances if row["value"] is not None]
    kinds = ["released", *summary.baselines_of(attacks.values())]
    y = {"field": "row", "type": "nominal", "title": None, "sort": None, "scale": {"paddingInner": 0.25}}
    y["axis"] = {"grid": False}
    shared: Node = {
        "y": y,
        "yOffset": {"field": "kind", "type": "nominal", "sort": kinds},
        "color": _kind({kind: COLOURS.get(kind, COLOURS["ink"]) for kind in kinds}, legend={"columns": 3}),
    }
    x = _number("value", "share (95 % interval by person)", scale={"domain": [0, 1]}, axis=_PERCENT)
    shape = _kind({kind: _SHAPES.get(kind, "stroke") for kind in kinds})
    layers = [
        _layer(rows, {"type": "rule", "strokeWidth": 1.6}, x=x | {"field": "low"}, x2={"field": "high"}, **shared),
        _layer(rows, {"type": "point", "filled": True, "size": 42, "opacity": 1}, x=x, shape=shape, **shared),
        _layer(chances, {"type": "tick", "color": COLOURS["ink"], "thickness": 1.5}, x=x, y=y),
    ]
    each = listed(f"{attack.name} {attack.target} {figure_text(attack.released)}" for attack in attacks.values())
    yield (
        "What the attacks reach",
        "Of each attack the target and recognizer whose interval ends worst; a black tick is guessing.",
        f"Released photos: {each}. The baselines are in the table of attacks.",
        _svg(layers if chances else layers[:2], 78 + 10 * len(attacks) * len(kinds)),
    )


_KEPT = "expression kept"
"""The measure of use that the chart of privacy against use shows: a flat ellipse keeps none of it."""
_PERCENT = {"format": ".0%", "tickCount": 5}


def _layer(rows: Sequence[Mapping[str, Any]], mark: Node, **encoding: Node) -> Node:
    return {"data": {"values": rows}, "mark": mark, "encoding": encoding}


def _number(field: str, title: str, **more: Any) -> Node:
    return {"field": field, "type": "quantitative", "title": title, **more}


def _kind(values: Mapping[str, Any], **more: Any) -> Node:
    """A channel that shows each kind of row by its value, in this order."""
    scale = {"domain": list(values), "range": list(values.values())}
    return {"field": "kind", "type": "nominal", "sort": None, "scale": scale, **more}


def _svg(layers: Sequence[Node], height: int) -> str:
    """A drawing `height` px high."""
    size = {"width": _WIDTH, "height": height, "autosize": {"type": "fit", "contains": "padding"}}
    drawing: str = require("vl_convert").vegalite_to_svg(size | {"layer": layers, "config": _CHART_STYLE})
    # A screen reader gets the chart's text in place of the drawing.
    return drawing.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
