"""report.html: one file, every figure from the report, said in words, for any reader and any string."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from anonlib.audit.findings import Attack, AuditReport, Figure, Gate, GateLine, LeakCheck, ModelUse
from anonlib.audit.report import ExampleImage, write_html
from anonlib.audit.report import summary as sentences
from anonlib.audit.report.formatting import NBSP
from anonlib.audit.report.risks import risks
from anonlib.errors import JobError
from tests.audit.report.reading import Page
from tests.support import findings

PNG = b"\x89PNG\r\n\x1a\n and so on"
HOSTILE = """</style><script>alert("1")</script><img src=x onerror='alert(2)'>&amp;{{ 7 * 7 }}"""


def few(report: AuditReport) -> AuditReport:
    """The same with few charts, which are what takes time."""
    attacks = tuple(one.model_copy(update={"curve": (), "groups": ()}) for one in report.attacks[:1])
    return report.model_copy(update={"histograms": (), "attacks": attacks, "utility": report.utility[2:]})


@pytest.fixture(scope="module")
def failing() -> str:
    return write_html(findings.report(passed=False), [ExampleImage(PNG, "k-diff, k = 5")])


@pytest.fixture(scope="module")
def page(failing: str) -> Page:
    return Page(failing)


def officer(report: AuditReport) -> str:
    """What the first page says."""
    left = [sentence for risk in risks(report) for sentence in risk.sentences]
    parts = [sentence for _, some in sentences.framework(report) for sentence in some]
    done = [*sentences.was_done(report), sentences.looked_at(report), *sentences.claimed(report)]
    return " ".join([sentences.verdict(report), *done, *left, *parts]).replace(NBSP, " ")


# ---- one file -------------------------------------------------------------------------------------------------


def test_nothing_is_fetched_and_nothing_runs(page: Page, failing: str) -> None:
    for element in page.elements:
        assert element.tag not in {"script", "link", "iframe", "object", "embed", "base", "form", "use", "image"}
        for name, value in element.attributes.items():
            assert not name.startswith("on"), f"<{element.tag} {name}>"
            if name in {"src", "href", "xlink:href", "action", "poster", "srcset"}:
                assert value.startswith(("#", "data:image/")), value
    outside = set(re.findall(r"https?://[^\"'\s<]+", failing))
    assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", failing))
    assert "@import" not in failing


def test_a_browser_is_told_to_fetch_nothing(page: Page) -> None:
    policy = next(one for one in page.all("meta") if one.attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.attributes["content"].startswith("default-src 'none'; img-src data:;")


def test_every_id_is_one_and_every_reference_leads_somewhere(page: Page, failing: str) -> None:
    ids = [one.attributes["id"] for one in page.elements if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    named = {value for one in page.elements for value in one.attributes.get("aria-labelledby", "").split()}
    linked = {one.attributes["href"][1:] for one in page.all("a")}
    assert named | linked | set(re.findall(r"url\(#([^)]+)\)", failing)) <= set(ids)


def test_the_same_report_gives_the_same_page() -> None:
    report = few(findings.report())
    assert write_html(report) == write_html(report)


# ---- for every reader -----------------------------------------------------------------------------------------


def test_the_page_has_landmarks_and_one_first_heading(page: Page) -> None:
    assert [len(page.all(tag)) for tag in ("header", "nav", "main", "h1")] == [1, 1, 1, 1]
    assert page.all("html")[0].attributes["lang"] == "en"


def test_tables_say_which_cells_are_heads_and_scroll_in_a_box_of_their_own(page: Page) -> None:
    assert len(page.all("table")) == 11
    assert all(one.attributes.get("scope") in {"col", "row", "rowgroup"} for one in page.all("th"))
    boxes = [one for one in page.all("div") if one.attributes.get("class") == "scroll"]
    assert len(boxes) == len(page.all("table"))
    assert all(one.attributes["tabindex"] == "0" and one.attributes["role"] == "region" for one in boxes)


def test_every_picture_is_said_in_words(page: Page) -> None:
    drawings = [one for one in page.all("div") if one.attributes.get("class") == "drawing"]
    assert len(drawings) > 15
    assert all(one.attributes["role"] == "img" and len(one.attributes["aria-label"]) > 40 for one in drawings)
    assert all(one.attributes.get("aria-hidden") == "true" for one in page.all("svg"))
    assert all(one.attributes["alt"] for one in page.all("img"))


def test_drawings_use_no_colour_that_dark_mode_cannot_change(failing: str) -> None:
    colours = set(re.findall(r"(?:fill|stroke)=\"([^\"]+)\"", failing))
    assert {one for one in colours if one.startswith("var(--")}
    assert {one for one in colours if not one.startswith("var(--")} <= {"none", "transparent"}


# ---- the first page -------------------------------------------------------------------------------------------


def test_pass_and_fail_are_said_in_words_and_shape(page: Page) -> None:
    passing = Page(write_html(few(findings.report())))
    assert (page.of("verdict").text, passing.of("verdict").text) == ("FAIL", "PASS")
    assert "FAIL" in page.all("title")[0].text
    shapes = [[one.tag for one in each.elements if one.inside == ["officer"]] for each in (page, passing)]
    assert "circle" in shapes[1]
    assert "circle" not in shapes[0]
    assert passing.of("signature-title").text.startswith("Read, and agreed to the release")
    assert page.of("signature-title").text.startswith("Read, and not released")


def test_the_lines_that_fail_are_named_with_their_reason(page: Page) -> None:
    text = page.of("officer").text
    lines = findings.gate(passed=False).lines
    failed = [line for line in lines if not line.passed]
    assert 1 < len(failed) <= 6
    assert all((f"{line.name}: {line.why}" in text) is not line.passed for line in lines)


def test_of_many_lines_that_fail_all_are_named() -> None:
    lines = tuple(
        GateLine(name=f"line {letter}", limit=0, bound=1, passed=False, why=f"because of {letter}")
        for letter in "abcdefgh"
    )
    text = Page(write_html(few(findings.report(gate=Gate(passed=False, lines=lines))))).of("officer").text
    assert all(line.name in text for line in lines)
    assert "And 2 more" in text


def test_the_three_risks_and_the_four_parts_of_the_standard_are_there(page: Page) -> None:
    headings = " ".join(one.text for one in page.elements if one.tag in {"h3", "h4", "dt"})
    for words in ("Singling out", "Linkability", "Inference", "Context assessment", "Data assessment",
                  "Identifiability assessment and mitigation", "De-identification governance"):  # fmt: skip
        assert words in headings


def _wordless(value: Any, key: str = "") -> Any:
    """The same with no figure in its strings, attacks and models but for their names."""
    if isinstance(value, dict):
        reasons = key in {"fallbacks", "quarantine_reasons"}
        return {re.sub(r"\d", "", name) if reasons else name: _wordless(one, name) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_wordless(one, key) for one in value)
    return re.sub(r"\d", "", value) if isinstance(value, str) and key != "target" else value


def _other(value: Any, key: str = "") -> Any:
    """The same with every figure another."""
    if isinstance(value, dict):
        return {name + 30 if isinstance(name, int) else name: _other(one, str(name)) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_other(one, key) for one in value)
    if isinstance(value, bool) or key == "version":
        return value
    if isinstance(value, int):
        return value * value + 17
    return 0.37 * value + 0.0123 if isinstance(value, float) else value


@pytest.mark.parametrize("make", [findings.report, findings.private_report])
def test_every_figure_of_the_first_page_comes_from_the_report(make: Any) -> None:
    one = AuditReport.model_validate(_wordless(make(leaks=(LeakCheck(name="GPS", checked=70, found=3),)).model_dump()))
    two = AuditReport.model_validate(_other(one.model_dump()))

    first, second = (re.findall(r"\d[\d,.]*\d|\d", officer(report)) for report in (one, two))
    assert len(first) == len(second) > 60
    kept = [number for number, other in zip(first, second, strict=True) if number == other]
    # How many lines, checks, models and attacks there are is the same in both; 256 is a hash, rank-1 a name.
    same = {len(one.gate.lines), len(one.leaks), len(one.models), len(one.attacks), 256, 1, 10}
    assert set(kept) <= {str(number) for number in same}


def test_the_page_says_every_sentence(page: Page) -> None:
    report = findings.report(passed=False)
    text = re.sub(r"\s+", " ", page.of("officer").text + page.of("behind").text)
    for sentence in [*sentences.was_done(report), sentences.looked_at(report), *sentences.claimed(report)]:
        assert re.sub(r"\s+", " ", sentence) in text
    for risk in risks(report):
        assert all(re.sub(r"\s+", " ", sentence) in text for sentence in risk.sentences)
        assert all(re.sub(r"\s+", " ", row.released) in text for row in risk.rows)


def _model(commercial: bool | None) -> ModelUse:
    return ModelUse(name="m", role="r", licence="l", commercial=commercial, sha256="", used_for="audit")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"leaks": (LeakCheck(name="GPS", checked=70, found=3),)}, "found something: GPS (3 of 70)"),
        ({"leaks": ()}, "The release was not scanned for leaks."),
        ({"disclosures": ()}, "What the release says beside its pictures was not judged."),
        ({"attacks": ()}, "Not measured: look-up (naive), trained look-up (trained)"),
        ({"utility": ()}, "Which attributes stay readable was not measured."),
        ({"people": 1}, "of 1 person that the dataset tells apart"),
        ({"labelled": False}, "as a clustering tells them apart"),
        (
            {"models": (_model(False), _model(None))},
            "of which m may not be used commercially and only the terms of m can say",
        ),
    ],
)
def test_what_was_found_and_what_was_not_measured_is_said(change: dict[str, Any], said: str) -> None:
    assert said in officer(findings.report(**change))


def _attack(released: Figure, excess: Figure | None = None) -> Attack:
    return Attack(
        name="naive",
        target="rank-1",
        recognizer="faceres",
        held_out=True,
        released=released,
        baselines={},
        excess=excess,
    )


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.02, 0.04, "That is more than guessing."),
        (0.005, 0.02, "That cannot be told from guessing."),
        (0.001, 0.005, "That is less than guessing."),
    ],
)
def test_an_attack_is_held_against_guessing_by_its_interval(low: float, high: float, said: str) -> None:
    figure = Figure(value=(low + high) / 2, low=low, high=high, count=900, chance=0.01)
    assert said in officer(findings.report(attacks=(_attack(figure),)))


def test_what_the_face_adds_is_told_from_nothing_by_its_interval() -> None:
    figure = Figure(value=0.03, low=0.02, high=0.04, count=900, chance=0.01)
    more = Figure(value=0.02, low=0.01, high=0.03, count=900)
    none = Figure(value=-0.001, low=-0.01, high=0.008, count=900)
    assert "The face adds +2.0 points (+1.0 to +3.0, n = 900)" in officer(
        findings.report(attacks=(_attack(figure, more),))
    )
    text = officer(findings.report(attacks=(_attack(figure, none),)))
    assert "cannot be told from nothing: \u22120.1 points (\u22121.0 to +0.8, n = 900)" in text


def test_the_strongest_attack_is_the_one_whose_interval_ends_worst() -> None:
    sure = Figure(value=0.03, low=0.029, high=0.031, count=9000, chance=0.01)
    unsure = Figure(value=0.02, low=0.001, high=0.2, count=9, chance=0.01)
    attacks = (_attack(sure), _attack(unsure).model_copy(update={"name": "trained"}))
    assert "The strongest attack is the trained look-up" in officer(findings.report(attacks=attacks))


# ---- whatever the report holds ----------------------------------------------------------------------------------


def test_counts_that_do_not_add_up_are_said() -> None:
    counts = findings.report().counts.model_copy(update={"released": 4000})
    text = Page(write_html(few(findings.report(counts=counts)))).of("tables").text
    assert "does NOT equal images in" in text
    assert "does NOT" not in Page(write_html(few(findings.report()))).of("tables").text


def test_hostile_strings_are_text_and_nothing_else() -> None:
    report = findings.report(passed=False)
    attack = report.attacks[0].model_copy(update={"name": HOSTILE, "recognizer": HOSTILE, "note": HOSTILE})
    group = report.attacks[0].groups[0].model_copy(update={"name": HOSTILE})
    hostile = report.model_copy(
        update={
            "release": HOSTILE,
            "method": HOSTILE,
            "attacks": (attack.model_copy(update={"groups": (group,)}),),
            "histograms": (report.histograms[0].model_copy(update={"recognizer": HOSTILE}),),
            "counts": report.counts.model_copy(update={"fallbacks": {HOSTILE: 3}, "quarantine_reasons": {HOSTILE: 1}}),
            "leaks": (LeakCheck(name=HOSTILE, checked=1, found=1, where=(HOSTILE,)),),
            "software": {HOSTILE: HOSTILE, "anonlib": HOSTILE},
        }
    )
    page = Page(write_html(hostile, [ExampleImage(PNG, HOSTILE)]))
    assert not page.all("script")
    assert [one.attributes["src"][:15] for one in page.all("img")] == ["data:image/png;"]
    assert len(page.all("style")) == 1
    assert page.all("h1")[0].text == HOSTILE
    assert HOSTILE in page.of("tables").text


def test_a_report_of_nothing_is_a_page_too() -> None:
    nothing = findings.report(
        attacks=(_attack(findings.unmeasured()),),
        histograms=(),
        thresholds=(),
        leaks=(),
        utility=(),
        models=(),
        software={},
    )
    text = Page(write_html(nothing)).of("tables").text
    assert "not measured" in text


def test_an_example_is_png_or_jpeg() -> None:
    with pytest.raises(ValueError, match="the example 'a face' is neither PNG nor JPEG"):
        write_html(few(findings.report()), [ExampleImage(b"GIF89a", "a face")])


@pytest.mark.parametrize("package", ["jinja2", "altair", "vl_convert"])
def test_a_missing_package_is_a_sentence_that_says_what_to_install(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(JobError, match=rf"{package}, which is not installed: pip install 'anonlib\[report\]'"):
        write_html(few(findings.report()))
