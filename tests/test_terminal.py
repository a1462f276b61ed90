"""What a terminal shows of an audit: every attack that names people beside its baselines, and what failed."""

from __future__ import annotations

from anonlib.audit.findings import Figure
from anonlib.terminal import attack_table, disclosure_table, policy_rows, short
from tests.support.findings import report, unmeasured


def test_each_attack_that_names_people_is_a_line_beside_its_baselines() -> None:
    whole = report()
    lines = attack_table(whole)
    shown = [one for one in whole.attacks if one.target == "rank-1"]
    assert shown and len(lines) == len(shown) + 4
    for one in shown:
        (line,) = [line for line in lines if line.startswith(f"{one.name}, {one.recognizer} ")]
        assert short(one.released) in line and all(short(figure) in line for figure in one.baselines.values())


def test_each_attack_on_what_the_release_says_is_a_line_beside_what_is_allowed() -> None:
    lines = disclosure_table(report().disclosures)
    (line,) = [line for line in lines if line.startswith("guess, right guess, all faces, classes by the plan ")]
    assert "19.4% [" in line and "18.0%" in line and "1.4% [0.3 2.4]" in line
    (unlabelled,) = [line for line in lines if line.startswith("intersect, people in several classes ")]
    assert unlabelled.split()[-3:] == ["-", "-", "-"]
    assert lines[-2] == "  intersect: the job formed its subjects without labels"
    assert disclosure_table(()) == []


def test_people_that_were_only_clustered_are_not_called_people() -> None:
    assert " people:" in attack_table(report())[0]
    assert "clusters of faces" in attack_table(report(labelled=False))[0]


def test_failed_lines_are_named_with_their_reason() -> None:
    assert policy_rows(report().gate.lines)[0][1].startswith("passed, all ")
    failing = report(passed=False)
    rows = policy_rows(failing.gate.lines)
    failed = [line for line in failing.gate.lines if not line.passed]
    assert rows[0][1] == f"FAILED, {len(failed)} of {len(failing.gate.lines)} lines"
    assert [value for _, value in rows[1:]] == [f"{line.name}: {line.why}" for line in failed]


def test_a_figure_is_short_and_nothing_measured_is_a_dash() -> None:
    assert short(Figure(value=0.055, low=0.0394, high=0.0736, count=9)) == "5.5% [3.9 7.4]"
    assert short(unmeasured()) == short(None) == "-"
