"""report.html, one file without scripts that needs no network, and report.pdf, the same page as a tagged PDF.

Its chart is Vega-Lite drawn as SVG that lies in the page, with a text that says what it shows. Text
reaches a contrast of 4.5 and marks of 3 on their grounds (WCAG 2.2, 1.4.3 and 1.4.11); series differ by shape or dash
as well, so that a grey print says the same.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from importlib import import_module, resources
from types import ModuleType
from typing import Any

from anonlib.audit.findings import AuditReport
from anonlib.audit.gate import NAMING
from anonlib.audit.report import summary
from anonlib.audit.report.summary import listed, share
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
_CHART_STYLE = {
    "font": "Liberation Sans, Arial, Helvetica, sans-serif",
    "background": "transparent",
    "aria": False,
    "view": {"stroke": None},
    "axis": {"labelColor": COLOURS["soft"], "titleColor": COLOURS["ink"], "titleFontWeight": "normal",
             "titlePadding": 6, "labelLimit": 150, "domainColor": COLOURS["axis"], "tickColor": COLOURS["axis"],
             "gridColor": COLOURS["rule"]},
    "legend": {"orient": "bottom", "title": None, "labelColor": COLOURS["ink"], "symbolSize": 70, "columnPadding": 16},
}  # fmt: skip

_KEPT = "expression kept"
"""The measure of use that the chart shows: a flat ellipse keeps none of it."""

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
        charts=list(_trade(report)),
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


def _trade(report: AuditReport) -> Iterator[Chart]:
    """Privacy against use: of the release and of each baseline, what the strongest attack finds and what is kept."""
    naming = [attack for attack in report.attacks if attack.name in NAMING and attack.target == "rank-1"]
    attack, measure = summary.strongest(naming), next((use for use in report.utility if use.name == _KEPT), None)
    if attack is None or measure is None:
        return
    found, kept = ({"released": finding.released} | finding.baselines for finding in (attack, measure))
    places = [(kind, found[kind].value, kept[kind].value) for kind in found if kind in kept]
    known = [(kind, left, use) for kind, left, use in places if left is not None and use is not None]
    each = listed(f"{kind} {share(left)} and {share(use)}" for kind, left, use in known)
    axis = {"type": "quantitative", "scale": {"domain": [0, 1]}, "axis": {"format": ".0%", "tickCount": 5}}
    colour, shape = (
        {
            "field": "kind",
            "type": "nominal",
            "scale": {"domain": [kind for kind, *_ in known], "range": [of[kind] for kind, *_ in known]},
            "legend": {"columns": 4},
        }
        for of in (COLOURS, _SHAPES)
    )
    drawing: str = require("vl_convert").vegalite_to_svg(
        {
            "width": 340,  # px, axes and all: a phone's column
            "height": 250,
            "autosize": {"type": "fit", "contains": "padding"},
            "config": _CHART_STYLE,
            "data": {"values": [{"kind": kind, "found": left, "kept": use} for kind, left, use in known]},
            "mark": {"type": "point", "filled": True, "size": 70},
            "encoding": {
                "x": axis | {"field": "found", "title": f"people found, {attack.name} attack"},
                "y": axis | {"field": "kept", "title": measure.name},
                "color": colour,
                "shape": shape,
            },
        }
    )
    yield (
        "Privacy against use",
        f"What the {attack.name} attack finds ({attack.recognizer}) beside {measure.name}; best is top left.",
        f"People found and {measure.name}: {each}.",
        # A screen reader gets the chart's text in place of the drawing.
        drawing.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1),
    )
