"""The first page's sentences hold the report's figures, and say what was not measured."""

from __future__ import annotations

import re
from typing import Any

import pytest

from anonlib.audit.findings import Attack, AuditReport, Figure, LeakCheck
from anonlib.audit.report.summary import NBSP, claimed, in_short, risks, strongest, what_was_done
from tests.support import findings


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


@pytest.mark.parametrize("what", ["leaks", "disclosures", "attacks", "utility"])
def test_what_was_not_measured_is_a_sentence(what: str) -> None:
    sentences = (
        r"leaks were not looked for",
        r"not judged",
        r"Not measured: look-up \(naive\)",
        r"stay readable was not measured",
    )
    expected = dict(zip(("leaks", "disclosures", "attacks", "utility"), sentences, strict=True))[what]
    assert re.search(expected, first_page(findings.report(**{what: ()})))
    assert not re.search(expected, first_page(findings.report()))


def _attack(released: Figure) -> Attack:
    return findings.attacks()[0].model_copy(update={"released": released})


@pytest.mark.parametrize(
    ("low", "high", "guessing"),
    [
        (0.02, 0.04, "more than guessing"),
        (0.004, 0.02, "cannot be told from guessing"),
        (0.001, 0.005, "less than guessing"),
    ],
)
def test_an_attack_is_held_against_guessing_by_its_interval(low: float, high: float, guessing: str) -> None:
    figure = Figure(value=(low + high) / 2, low=low, high=high, count=900, chance=0.01)
    assert guessing in first_page(findings.report(attacks=(_attack(figure),)))


def test_the_strongest_attack_is_the_one_whose_interval_ends_worst() -> None:
    sure = _attack(Figure(value=0.03, low=0.029, high=0.031, count=9000, chance=0.01))
    unsure = _attack(Figure(value=0.02, low=0.001, high=0.2, count=9, chance=0.01))
    assert strongest((sure, unsure, _attack(findings.unmeasured()))) is unsure
    assert strongest((_attack(findings.unmeasured()),)) is None
