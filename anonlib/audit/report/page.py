"""report.html: one file that needs no network and no script, to be read on a screen, a phone and paper."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from anonlib.audit.findings import AuditReport
from anonlib.audit.report import charts, palette, summary, tables
from anonlib.audit.report.extra import need
from anonlib.audit.report.risks import risks

_MAGIC = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


@dataclass(frozen=True)
class ExampleImage:
    """A piece of a released photo, PNG or JPEG, and what it is called. Never an original."""

    image: bytes
    caption: str

    @property
    def uri(self) -> str:
        """The bytes as a data URI; raises ValueError for another format."""
        kind = next((kind for magic, kind in _MAGIC.items() if self.image.startswith(magic)), None)
        if kind is None:
            raise ValueError(f"the example {self.caption!r} is neither PNG nor JPEG")
        return f"data:{kind};base64,{base64.b64encode(self.image).decode()}"


def write_html(report: AuditReport, examples: Sequence[ExampleImage] = ()) -> str:
    """The page; the same text for the same report and examples. Raises JobError where an extra is missing."""
    for name in ("altair", "vl_convert"):
        need(name)
    jinja2 = need("jinja2")
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
        light=palette.variables(palette.LIGHT),
        dark=palette.variables(palette.DARK),
        footer=_css_text(f"anonlib audit \u00b7 {report.release}"),
        verdict=summary.verdict(report),
        failed=summary.failed_lines(report),
        done=[*summary.was_done(report), summary.looked_at(report)],
        claimed=summary.claimed(report),
        settings=summary.settings(report),
        risks=risks(report),
        framework=summary.framework(report),
        charts=charts.all_of(report),
        tables=tables.all_of(report),
    )
    return page


def _template(name: str) -> str:
    return (resources.files("anonlib.audit.report") / "templates" / name).read_text(encoding="utf-8")


def _css_text(text: str) -> str:
    """A CSS string whose every sign is an escape where it might be more than a letter."""
    return '"' + "".join(one if one.isascii() and one.isalnum() else f"\\{ord(one):x} " for one in text) + '"'
