"""report.html and report.pdf: one file that needs no network and no script, and the same page printed and tagged."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module, resources
from types import ModuleType
from typing import Any

from anonlib.audit.findings import AuditReport
from anonlib.audit.report import charts, summary, tables
from anonlib.errors import JobError

REQUIRED = ("jinja2", "altair", "vl_convert", "weasyprint")
"""The optional packages of the report, as modules."""


@dataclass(frozen=True)
class ExampleImage:
    """A piece of a released photo, as JPEG, and its caption. Never an original."""

    jpeg: bytes
    caption: str

    @property
    def uri(self) -> str:
        """The bytes as a data URI."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode()}"


def require(name: str) -> ModuleType:
    """The module, which comes with the extra `report`; raises JobError."""
    try:
        return import_module(name)
    except ImportError as error:
        raise JobError(
            f"the report needs {error.name or name}, which is not installed: pip install 'anonlib[report]'"
        ) from None


def write_html(report: AuditReport, examples: Sequence[ExampleImage] = ()) -> str:
    """The page; the same text for the same report and examples. Raises JobError where an extra is missing."""
    for name in ("altair", "vl_convert"):
        require(name)
    jinja2 = require("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page: str = environment.get_template("report.html.j2").render(
        report=report,
        examples=examples,
        palette=charts.COLOURS,
        footer=_css_text(f"anonlib audit \u00b7 {report.release}"),
        verdict=summary.verdict(report),
        failed=summary.failed_lines(report),
        done=summary.what_was_done(report),
        claimed=summary.claimed(report),
        settings=summary.settings(report),
        risks=summary.risks(report),
        charts=charts.all_charts(report),
        tables=tables.all_tables(report),
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


def _template(name: str) -> str:
    return (resources.files("anonlib.audit.report") / "templates" / name).read_text(encoding="utf-8")


def _css_text(text: str) -> str:
    """A CSS string in which every character but plain letters and digits is an escape."""
    return '"' + "".join(char if char.isascii() and char.isalnum() else f"\\{ord(char):x} " for char in text) + '"'
