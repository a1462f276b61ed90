"""report.html and report.pdf: offline files for any reader, whatever strings the report holds; report.json's schema."""

from __future__ import annotations

import io
import re
import socket
import sys
from typing import Any

import jsonschema
import pytest
from PIL import Image

from anonlib.audit.findings import AuditReport, GateLine, LeakCheck
from anonlib.audit.report.page import REQUIRED, draw_examples, write_html, write_pdf
from anonlib.audit.report.summary import NBSP, claimed, in_short, risks, what_was_done
from anonlib.errors import JobError
from tests.support import findings, photos
from tests.support.html_text import Page
from tests.support.runs import Run

EXAMPLE = photos.jpeg(photos.nobody()[:32, :32])
HOSTILE = """</style><script>alert("1")</script><img src=x onerror='alert(2)'>&amp;{{ 7 * 7 }}"""


def without_charts(report: AuditReport) -> AuditReport:
    """The same with one attack and no measure of use, since charts take time."""
    return report.model_copy(update={"attacks": report.attacks[:1], "utility": ()})


def page_of(report: AuditReport) -> Page:
    return Page(write_html(without_charts(report)))


@pytest.fixture(scope="module")
def html() -> str:
    return write_html(findings.report(passed=False), [(EXAMPLE, "k-diff, k = 5")])


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_nothing_is_fetched_and_nothing_runs(page: Page, html: str) -> None:
    for element in page.elements:
        assert element.tag not in {"script", "link", "iframe", "object", "embed", "base", "form", "use", "image"}
        for name, value in element.attributes.items():
            assert not name.startswith("on"), f"<{element.tag} {name}>"
            if name in {"src", "href", "xlink:href", "action", "poster", "srcset"}:
                assert value.startswith(("#", "data:image/")), value
    outside = set(re.findall(r"https?://[^\"'\s<]+", html))
    assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html)) and "@import" not in html
    policy = next(meta for meta in page.all("meta") if meta.attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.attributes["content"].startswith("default-src 'none'; img-src data:;")


def test_the_page_can_be_read_aloud(page: Page, html: str) -> None:
    ids = [element.attributes["id"] for element in page.elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    named = {value for element in page.elements for value in element.attributes.get("aria-labelledby", "").split()}
    linked = {link.attributes["href"][1:] for link in page.all("a")}
    assert named | linked | set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)
    assert len(page.all("table")) == 9
    assert all(head.attributes.get("scope") in {"col", "row", "rowgroup"} for head in page.all("th"))
    charts = [element for element in page.all("div") if element.attributes.get("class") == "drawing"]
    assert len(charts) == 1
    assert all(chart.attributes["role"] == "img" and len(chart.attributes["aria-label"]) > 40 for chart in charts)
    assert all(svg.attributes.get("aria-hidden") == "true" for svg in page.all("svg"))
    assert all(image.attributes["alt"] for image in page.all("img"))


def test_pass_and_fail_differ_in_words_and_shape_and_counts_that_do_not_add_up_are_marked(page: Page) -> None:
    passing = page_of(findings.report())
    assert (page.of("verdict").text, passing.of("verdict").text) == ("FAIL", "PASS")
    assert "FAIL" in page.all("title")[0].text and page.of("signature-title").text != passing.of("signature-title").text
    failed, passed = ({element.tag for element in each.elements} for each in (page, passing))
    assert "circle" in passed - failed
    assert "does NOT equal images in" not in passing.of("tables").text
    counts = findings.report().counts.model_copy(update={"released": 4000})
    assert "does NOT equal images in" in page_of(findings.report(counts=counts)).of("tables").text


def test_the_first_page_holds_every_sentence_and_the_first_four_failed_lines_with_their_reason(page: Page) -> None:
    report, text = findings.report(passed=False), re.sub(r"\s+", " ", page.of("officer").text)
    sentences = [
        *in_short(report),
        *what_was_done(report),
        *(sentence for _, _, about in risks(report) for sentence in about),
    ]
    assert all(re.sub(r"\s+", " ", sentence) in text for sentence in sentences)
    assert all((f"{line.name}: {line.why}" in text) is not line.passed for line in report.gate)
    many = tuple(
        GateLine(about="leak", name=f"line {letter}", limit=0, bound=1, passed=False, why=f"because of {letter}")
        for letter in "abcdefgh"
    )
    text = page_of(findings.report(passed=False, gate=many)).of("officer").text
    assert all(line.name in text for line in many) and "because of d" in text and "because of e" not in text


def test_hostile_strings_stay_text() -> None:
    report = findings.report(passed=False)
    attack = report.attacks[0].model_copy(update={"name": HOSTILE, "recognizer": HOSTILE, "note": HOSTILE})
    hostile = report.model_copy(
        update={
            "release": HOSTILE,
            "method": HOSTILE,
            "attacks": (attack.model_copy(update={"groups": {HOSTILE: {HOSTILE: attack.released}}}),),
            "counts": report.counts.model_copy(update={"fallbacks": {HOSTILE: 3}, "quarantine_reasons": {HOSTILE: 1}}),
            "leaks": (LeakCheck(name=HOSTILE, checked=1, found=1, where=(HOSTILE,)),),
            "software": {HOSTILE: HOSTILE, "anonlib": HOSTILE},
        }
    )
    page = Page(write_html(hostile, [(EXAMPLE, HOSTILE)]))
    assert not page.all("script") and len(page.all("style")) == 1
    assert [image.attributes["src"][:15] for image in page.all("img")] == ["data:image/jpeg"]
    assert page.all("h1")[0].text == HOSTILE and HOSTILE in page.of("tables").text


# ---- pdf, json ------------------------------------------------------------------------------------------------


def test_a_pdf_is_tagged_the_same_for_the_same_page_and_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the report went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    page = '<html lang="en"><title>t</title><img src="http://127.0.0.1:9/face.png" alt="a face"><p>text'
    pdf = write_pdf(page)
    assert pdf.startswith(b"%PDF-") and (b"/StructTreeRoot" in pdf or b"/ObjStm" in pdf) and write_pdf(page) == pdf


@pytest.mark.parametrize("package", REQUIRED)
def test_a_missing_package_is_a_sentence_with_what_to_install(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(JobError, match=rf"{package}, which is not installed: pip install 'anonlib\[report\]'"):
        write_pdf("<p>text") if package == "weasyprint" else write_html(findings.report())


def test_a_report_fits_its_schema_and_a_key_of_another_name_does_not() -> None:
    report, schema = findings.report(), AuditReport.model_json_schema()
    jsonschema.validate(report.model_dump(mode="json"), schema)
    assert AuditReport.model_validate_json(report.model_dump_json()) == report
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(report.model_dump(mode="json") | {"name of the worst person": "N. N."}, schema)


def test_examples_of_the_report_are_drawn_without_the_originals(finished: Run) -> None:
    elsewhere = finished.config.input.model_copy(update={"uri": "/nowhere/*.tar"})
    blind = finished.config.model_copy(update={"input": elsewhere})
    examples, repeated, other = (draw_examples(blind, "webdataset", faces=5, seed=seed) for seed in (1, 1, 2))
    assert len(examples) == 5 and examples == repeated != other
    assert all(Image.open(io.BytesIO(jpeg)).size == (176, 176) for jpeg, _ in examples)
    assert all(caption.startswith(("k-diff, k = ", "fill")) for _, caption in examples)


def first_page(report: AuditReport) -> str:
    sentences = [sentence for _, _, about in risks(report) for sentence in about]
    return " ".join([*in_short(report), *what_was_done(report), *claimed(report), *sentences]).replace(NBSP, " ")


def _changed(value: Any, key: str = "") -> Any:
    """The same report with every figure changed."""
    if isinstance(value, dict):
        return {name + 30 if isinstance(name, int) else name: _changed(part, str(name)) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_changed(part, key) for part in value)
    if isinstance(value, bool) or key == "version":
        return value
    if isinstance(value, int):
        return value * value + 17
    return 0.41 * value + 0.0223 if isinstance(value, float) else value


@pytest.mark.parametrize("make", [findings.report, findings.private_report])
def test_every_figure_of_the_first_page_comes_from_the_report(make: Any) -> None:
    report = make(leaks=(LeakCheck(name="GPS", checked=70, found=3),))
    other = AuditReport.model_validate(_changed(report.model_dump()))
    figures = re.compile(r"\d[\d,.]*\d|\d")
    first, second = (figures.findall(first_page(each)) for each in (report, other))
    assert len(first) == len(second) > 50
    kept = {number for number, changed in zip(first, second, strict=True) if number == changed}
    # The number of checks is the same in both, and strings may hold a digit: rank-1.
    strings = " ".join(re.findall(r'"[^"]*"', report.model_dump_json()))
    assert kept <= {str(len(report.leaks)), *figures.findall(strings)}
