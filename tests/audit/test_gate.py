"""The gate: the unfavourable bound counts, what is missing does not pass, and every line says what it saw."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from anonlib.audit.attacks.suite import ON_RECORDS
from anonlib.audit.findings import Attack, Disclosure, Figure, Gate, GateLine, LeakCheck, Measure, Missed
from anonlib.audit.gate import NAMING, judge
from anonlib.config import PolicyConfig
from tests.support import findings

POLICY = PolicyConfig()
SEEN = Missed(second=Figure(value=0.01, low=0.0, high=0.02, count=400), second_by="a second scale")


def figure(value: float | None, low: float | None = None, high: float | None = None) -> Figure:
    return Figure(value=value, low=low, high=high, count=100)


def attack(name: str, excess: Figure | None = None, target: str = "rank-1") -> Attack:
    excess = excess if excess is not None else figure(0.0, -0.01, 0.01)
    return Attack(
        name=name,
        target=target,
        recognizer="fr-feature",
        held_out=True,
        released=figure(0.02),
        baselines={"solid": figure(0.02)},
        excess=excess,
    )


HARMLESS_RECORDS = findings.disclosures(0.0)
HARMLESS = [attack(name) for name in NAMING]


def gate(
    attacks: Sequence[Attack] = HARMLESS,
    *,
    policy: PolicyConfig = POLICY,
    untrue: str | None = None,
    leaks: Sequence[LeakCheck] = (),
    missed: Missed = SEEN,
    utility: Sequence[Measure] = (),
    disclosures: Sequence[Disclosure] = HARMLESS_RECORDS,
) -> Gate:
    return judge(policy, untrue, attacks, leaks, missed, utility, disclosures)


def failed(made: Gate) -> list[GateLine]:
    assert made.passed == (not any(not line.passed for line in made.lines))
    return [line for line in made.lines if not line.passed]


def test_a_harmless_release_passes() -> None:
    made = gate(leaks=[LeakCheck(name="GPS", checked=10, found=0)])
    assert made.passed and not failed(made)


@pytest.mark.parametrize("name", NAMING)
def test_the_upper_bound_refuses_where_the_mean_would_pass(name: str) -> None:
    worse = [one for one in HARMLESS if one.name != name] + [attack(name, figure(0.02, 0.01, 0.031))]
    (line,) = failed(gate(worse))
    assert line.name == f"{name} attack, rank-1 by fr-feature" and line.bound == 0.031 and "3.1% more" in line.why
    assert gate(worse, policy=PolicyConfig(excess=0.04)).passed


def test_what_an_effective_k_allows_is_said_where_the_policy_allows_less() -> None:
    worse = [*HARMLESS, attack("trained", figure(0.1, 0.08, 0.15), "TAR")]
    made = gate(worse)
    (line,) = failed(made)
    assert line.why.endswith("at most 15.0% more (whoever knows the class may be right for 18.0%, by the certificate)")
    assert not any("allows" in line.why for line in made.lines if line.passed)


@pytest.mark.parametrize("name", (*NAMING, *ON_RECORDS))
def test_an_attack_that_was_not_made_does_not_pass(name: str) -> None:
    records = [found for found in HARMLESS_RECORDS if found.name != name]
    (line,) = failed(gate([found for found in HARMLESS if found.name != name], disclosures=records))
    assert line.name == f"{name} attack" and "not made" in line.why


def test_an_attack_that_could_not_be_measured_does_not_pass() -> None:
    (line,) = failed(gate([*HARMLESS, attack("naive", figure(None), "TAR")]))
    assert line.bound is None and "could not be measured" in line.why


def test_released_photos_that_are_alike_among_themselves_are_not_judged() -> None:
    loud = figure(0.9, 0.8, 1.0)
    others = [attack("parrot", loud), attack("linkage", loud, "AUC"), attack("naive", loud, "EER")]
    assert gate([*HARMLESS, *others]).passed


def test_more_than_the_claim_allows_refuses_by_the_upper_bound_and_says_what_was_allowed() -> None:
    lines = failed(gate(disclosures=findings.disclosures(0.025)))
    assert [line.name.partition(" ")[0] for line in lines] == ["certificate", "manifest", "guess"]
    assert lines[2].bound == pytest.approx(0.035)
    assert lines[2].why.endswith("found, 18.0% allowed (1 / effective k as certified); at most 3.5% more")


def test_a_flag_that_few_faces_have_is_judged_by_the_low_end() -> None:
    few = HARMLESS_RECORDS[1].model_copy(update={"judged_by": "low", "excess": figure(0.1, -0.2, 0.4)})
    assert gate(disclosures=[*HARMLESS_RECORDS, few]).passed
    sure = few.model_copy(update={"excess": figure(0.7, 0.5, 0.9)})
    (line,) = failed(gate(disclosures=[*HARMLESS_RECORDS, sure]))
    assert line.bound == 0.5 and "at least 50.0% more" in line.why


def test_a_certificate_that_does_not_hold_refuses() -> None:
    (line,) = failed(gate(untrue="data/a.tar is not the one that its marker names"))
    assert line.name == "certificate" and "a.tar" in line.why


def test_one_leak_refuses_and_is_named() -> None:
    (line,) = failed(gate(leaks=[LeakCheck(name="GPS", checked=900, found=1, where=("data/a.tar, key 7",))]))
    assert line.name == "leak, GPS" and line.why == "1 of 900: data/a.tar, key 7"


def test_faces_found_by_a_second_look_count_by_their_upper_bound() -> None:
    several = Missed(second=figure(0.04, 0.02, 0.06), second_by="a second scale")
    (line,) = failed(gate(missed=several))
    assert line.name == "missed faces, second look" and line.bound == 0.06
    unmeasured = Missed(second=figure(None), second_by="a second scale")
    assert not gate(missed=unmeasured).passed


def test_what_people_judged_counts_as_soon_as_anybody_did() -> None:
    judged = SEEN.model_copy(update={"sampled": 50, "wrong": 0, "upper": 0.058})
    (line,) = failed(gate(missed=judged))
    assert line.name == "missed faces, judged by a person"
    assert gate(missed=judged, policy=PolicyConfig(reviewed_upper=0.06)).passed


def test_a_policy_can_ask_for_a_person() -> None:
    policy = PolicyConfig(reviewed=300, reviewed_upper=1)
    (line,) = failed(gate(policy=policy))
    assert "the policy asks for 300" in line.why
    assert gate(policy=policy, missed=SEEN.model_copy(update={"sampled": 300, "upper": 0.01})).passed


@pytest.mark.parametrize(("better", "value", "passes"), [("higher", 0.9, True), ("lower", 0.9, False)])
def test_use_can_be_asked_for_too(better: str, value: float, passes: bool) -> None:
    measure = Measure(name="pose", released=figure(value, value, value), better=better)
    assert gate(policy=PolicyConfig(kept={"pose": 0.8}), utility=[measure]).passed is passes


def test_a_measure_that_does_not_exist_does_not_pass() -> None:
    measure = Measure(name="pose", released=figure(1.0, 1.0, 1.0))
    (line,) = failed(gate(policy=PolicyConfig(kept={"poise": 0.8}), utility=[measure]))
    assert line.why == "no such measure; there are pose"
