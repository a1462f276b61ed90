"""report.pdf: the page as it would be printed, tagged for readers, with the light colours."""

from __future__ import annotations

from typing import Any

from anonlib.audit.report.extra import need
from anonlib.audit.report.palette import on_paper


def write_pdf(html: str) -> bytes:
    """The PDF of a page by `write_html`; the same bytes for the same page and fonts. Raises JobError."""
    document: bytes = rendered(html).write_pdf(pdf_variant="pdf/ua-1")
    return document


def rendered(html: str) -> Any:
    """WeasyPrint's document, whose pages can be counted; nothing but data URIs is read. Raises JobError."""
    weasyprint = need("weasyprint")
    urls = need("weasyprint.urls")
    fetcher = urls.URLFetcher(allowed_protocols=("data",))
    return weasyprint.HTML(string=on_paper(html), url_fetcher=fetcher).render(pdf_variant="pdf/ua-1")
