"""The gate: the unfavourable bound counts, what is missing does not pass, and every line says what it saw."""

from __future__ import annotations

from typing import Any

import pytest

from anonlib.audit.attacks.records import ON_RECORDS
from anonlib.audit.findings import Attack, Figure, GateLine, LeakCheck, Measure, Missed
from anonlib.audit.gate import NAMING, judge
from anonlib.config import PolicyConfig
from tests.support import findings

SEEN = Missed(second=Figure(value=0.01, low=0.0, high=0.02, count=400), second_by="a second scale")


def figure(value: float | None, low: float | None = None, high: float | None = None) -> Figure:
    return Figure(value=value, low=low, high=high, count=100)


def attack(name: str, identity: Figure = figure(0.0, -0.01, 0.01), target: str = "rank-1") -> Attack:  # noqa: B008
    return findings.attacks()[0].model_copy(update={"name": name, "target": target, "identity": identity})


RECORDS = findings.disclosures(0.0)
HARMLESS = [attack(name) for name in NAMING]


def failed(policy: PolicyConfig = PolicyConfig(), **changes: Any) -> list[GateLine]:  # noqa: B008
    """The lines that refuse a harmless release, but for `changes`: arguments of `judge`."""
    harmless = {"untrue": None, "attacks": HARMLESS, "leaks": (), "missed": SEEN, "utility": (), "disclosures": RECORDS}
    return [line for line in judge(policy, **(harmless | changes)) if not line.passed]


def test_a_harmless_release_passes() -> None:
    loud = figure(0.9, 0.8, 1.0)
    # Photos that are alike among themselves are not judged.
    assert not failed(leaks=[LeakCheck(name="GPS", checked=10, found=0)], attacks=[*HARMLESS, attack("parrot", loud)])


@pytest.mark.parametrize("name", NAMING)
def test_the_upper_bound_refuses_where_the_mean_would_pass(name: str) -> None:
    worse = [other for other in HARMLESS if other.name != name] + [attack(name, figure(0.02, 0.01, 0.031))]
    (line,) = failed(attacks=worse)
    assert line.name == f"{name} attack, rank-1 by fr-feature" and line.bound == 0.031 and "3.1% more" in line.why
    assert "an attacker who knows the class may be right for 18.0%" in line.why
    assert not failed(PolicyConfig(excess=0.04), attacks=worse)


def test_what_one_face_leaves_has_a_limit_of_its_own_and_is_no_matter_of_a_redaction() -> None:
    left = HARMLESS[1].model_copy(update={"context": figure(0.09, 0.06, 0.12)})
    attacks = [HARMLESS[0], left, *HARMLESS[2:]]
    (line,) = failed(attacks=attacks)
    assert (line.about, line.bound, line.limit) == ("context", 0.12, 0.1) and line.why.startswith(left.name)
    assert not failed(PolicyConfig(context=0.12), attacks=attacks) and not failed(attacks=attacks, synthesis=False)
    (line,) = failed(attacks=[made.model_copy(update={"context": None}) for made in HARMLESS])
    assert line.about == "context" and "could not be measured" in line.why


@pytest.mark.parametrize("name", (*NAMING, *ON_RECORDS))
def test_an_attack_that_was_not_made_does_not_pass(name: str) -> None:
    attacks, records = ([made for made in all_made if made.name != name] for all_made in (HARMLESS, RECORDS))
    (line,) = failed(attacks=attacks, disclosures=records)
    assert line.name == f"{name} attack" and "not made" in line.why


def test_what_could_not_be_measured_does_not_pass() -> None:
    (line,) = failed(attacks=[*HARMLESS, attack("naive", figure(None), "TAR")])
    assert line.bound is None and "could not be measured" in line.why
    (line,) = failed(missed=Missed(second=figure(None), second_by="a second scale"))
    assert line.bound is None


def test_more_than_the_claim_allows_refuses_by_the_upper_bound_and_says_what_was_allowed() -> None:
    lines = failed(disclosures=findings.disclosures(0.025))
    assert [line.name.partition(" ")[0] for line in lines] == ["certificate", "manifest", "guess"]
    assert lines[2].bound == pytest.approx(0.035)
    assert lines[2].why.endswith("found, 18.0% allowed (1 / effective k as certified); at most 3.5% more")


def test_a_flag_that_few_faces_have_is_judged_by_the_low_end() -> None:
    few = RECORDS[1].model_copy(update={"judged_by": "low", "excess": figure(0.1, -0.2, 0.4)})
    assert not failed(disclosures=[*RECORDS, few])
    (line,) = failed(disclosures=[*RECORDS, few.model_copy(update={"excess": figure(0.7, 0.5, 0.9)})])
    assert line.bound == 0.5 and "at least 50.0% more" in line.why


def test_an_untrue_certificate_and_a_leak_refuse_and_are_named() -> None:
    leaks = [LeakCheck(name="GPS", checked=900, found=1, where=("data/a.tar, key 7",))]
    certificate, leak = failed(untrue="data/a.tar is not the one that its marker names", leaks=leaks)
    assert certificate.name == "certificate" and "a.tar" in certificate.why
    assert leak.name == "leak, GPS" and leak.why == "1 of 900: data/a.tar, key 7"


def test_missed_faces_count_by_their_upper_bound() -> None:
    several = Missed(second=figure(0.04, 0.02, 0.06), second_by="a second scale")
    (line,) = failed(missed=several)
    assert line.name == "missed faces, second look" and line.bound == 0.06
    judged = SEEN.model_copy(update={"sampled": 50, "wrong": 0, "upper": 0.058})
    (line,) = failed(missed=judged)
    assert line.name == "missed faces, judged by a person"
    assert not failed(PolicyConfig(reviewed_upper=0.06), missed=judged)


def test_a_policy_can_ask_for_a_person() -> None:
    policy = PolicyConfig(reviewed=300, reviewed_upper=1)
    (line,) = failed(policy)
    assert "the policy asks for 300" in line.why
    assert not failed(policy, missed=SEEN.model_copy(update={"sampled": 300, "upper": 0.01}))


@pytest.mark.parametrize(("better", "passes"), [("higher", True), ("lower", False)])
def test_a_policy_can_ask_for_use(better: str, passes: bool) -> None:
    measure = Measure(name="pose", released=figure(0.9, 0.9, 0.9), better=better)
    assert (not failed(PolicyConfig(kept={"pose": 0.8}), utility=[measure])) is passes
    (line,) = failed(PolicyConfig(kept={"poise": 0.8}), utility=[measure])
    assert line.why == "no such measure; there are pose"
