"""report.pdf: paged, readable, the same again, and made without a network."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest

from anonlib.audit.report import write_html, write_pdf
from anonlib.audit.report.palette import LIGHT
from anonlib.audit.report.pdf import rendered
from anonlib.errors import JobError
from tests.audit.report.test_page import few
from tests.support import findings


@pytest.fixture(scope="module")
def html() -> str:
    return write_html(few(findings.report(passed=False)))


def words(page: Any) -> str:
    return " ".join(box.text for box in page._page_box.descendants() if hasattr(box, "text"))


def test_the_first_page_holds_verdict_risks_and_signature_and_is_numbered(html: str) -> None:
    pages = rendered(html).pages
    first = words(pages[0])
    for said in ("FAIL", "What does not hold", "Singling out", "Linkability", "Inference", "Signature"):
        assert said in first
    assert f"page 1 of {len(pages)}" in first
    assert "Behind the first page" in words(pages[1])


def test_tables_lie_on_their_side(html: str) -> None:
    pages = rendered(html).pages
    assert pages[0].height > pages[0].width
    assert pages[-1].width > pages[-1].height


def test_the_same_page_gives_the_same_tagged_file(html: str) -> None:
    first = write_pdf(html)
    assert first.startswith(b"%PDF-")
    assert b"/StructTreeRoot" in first or b"/ObjStm" in first
    assert first == write_pdf(html)


def test_paper_gets_the_light_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    import weasyprint

    seen: dict[str, str] = {}

    class Spy(weasyprint.HTML):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            seen["html"] = options["string"]
            super().__init__(**options)

    monkeypatch.setattr(weasyprint, "HTML", Spy)
    rendered('<svg viewBox="0 0 9 9"><path d="M0 0h9" stroke="var(--released)"/></svg>')
    assert f'stroke="{LIGHT["released"]}"' in seen["html"]


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the report went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert rendered('<img src="http://127.0.0.1:9/face.png"><p>text').pages


def test_a_missing_package_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(JobError, match=r"weasyprint, which is not installed: pip install 'anonlib\[report\]'"):
        write_pdf("<p>text")
