import math
import random
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonlib.privacy.clustering import normalized
from anonlib.privacy.dp import Mechanism, draw_id, epsilon_of, identities
from anonlib.privacy.keys import Keyring
from anonlib.privacy.ledger import Budget, LedgerEntry, SpentEpsilon, entry, refusal, spent, suspected

costs = st.sampled_from([0.0, 0.1, 0.5, 1.0, 7.0])
rows = st.builds(
    lambda subject, release, draw, pure: LedgerEntry(subject, release, "vmf", draw, pure, pure / 2),
    st.sampled_from("abcd"), st.sampled_from(["r1", "r2", "r3"]), st.sampled_from(["z1", "z2", "z3"]), costs,
)  # fmt: skip
entries = st.lists(rows, max_size=12)
pairs = st.sets(st.sampled_from(["ab", "ac", "ad", "bc", "bd", "cd"]))
Links = dict[str, list[str]]


def linked(found: Iterable[str]) -> Links:
    """The suspects of each subject, by pairs."""
    links: Links = {}
    for one, other in found:
        links.setdefault(one, []).append(other)
        links.setdefault(other, []).append(one)
    return links


groups = pairs.map(linked)


def counted(rows: Iterable[LedgerEntry], subjects: Iterable[str]) -> float:
    """What one who sees all `subjects` as one person has seen: every different draw, at its dearest."""
    dearest: dict[str, float] = {}
    for row in rows:
        if row.subject in subjects:
            dearest[row.draw] = max(row.pure, dearest.get(row.draw, 0.0))
    return sum(dearest.values())


def shown(subject: str, release: str, draw: str, pure: float = 2.0) -> LedgerEntry:
    return LedgerEntry(subject, release, "vmf", draw, pure, pure / 2)


# --- sums ---------------------------------------------------------------------------------------------------------


@given(entries, groups)
def test_no_account_is_less_than_what_its_own_rows_and_those_of_its_suspects_spent(
    booked: list[LedgerEntry], suspects: Links
) -> None:
    sums = spent(booked, suspects)
    assert {row.subject for row in booked} <= set(sums)
    for subject, total in sums.items():
        assert total.pure == pytest.approx(counted(booked, [subject, *suspects.get(subject, ())]))
        assert total.pure >= counted(booked, [subject]) - 1e-9
        assert all(total.pure >= counted(booked, [other]) - 1e-9 for other in suspects.get(subject, ()))
        assert total.per_radian == pytest.approx(total.pure / 2)


@given(entries, groups, st.sampled_from("abcd"))
def test_a_subject_that_nobody_is_like_is_charged_with_its_own_draws_alone(
    booked: list[LedgerEntry], suspects: Links, subject: str
) -> None:
    others = {one: [other for other in some if other != subject] for one, some in suspects.items() if one != subject}
    sums = spent(booked, others)
    assert sums.get(subject, SpentEpsilon(0.0, 0.0, 0)).pure == pytest.approx(counted(booked, [subject]))


@given(entries, st.randoms(use_true_random=False), groups)
def test_neither_order_nor_repetition_matters(booked: list[LedgerEntry], order: random.Random, suspects: Links) -> None:
    again = booked + [order.choice(booked) for _ in booked]
    order.shuffle(again)
    assert spent(again, suspects) == spent(booked, suspects)


@given(entries, entries, groups)
def test_a_further_row_never_lowers_a_sum(
    booked: list[LedgerEntry], further: list[LedgerEntry], suspects: Links
) -> None:
    before, after = spent(booked, suspects), spent(booked + further, suspects)
    assert all(after[subject].pure >= total.pure for subject, total in before.items())


def test_independent_draws_of_two_releases_add_up() -> None:
    assert spent([shown("a", "r1", "z1"), shown("a", "r2", "z2")]) == {"a": SpentEpsilon(4.0, 2.0, 2)}


def test_an_earlier_draw_that_is_reused_costs_nothing_new() -> None:
    assert spent([shown("a", "r1", "z1"), shown("a", "r2", "z1")]) == {"a": SpentEpsilon(2.0, 1.0, 1)}


def test_a_rerun_of_a_release_counts_once_unless_it_drew_anew() -> None:
    assert spent([shown("a", "r1", "z1")] * 3)["a"].pure == 2.0
    assert spent([shown("a", "r1", "z1"), shown("a", "r1", "z2")])["a"].pure == 4.0


def test_draws_that_the_mechanisms_made_are_known_again() -> None:
    template, mechanism = normalized(np.ones((1, 8), np.float32)), Mechanism("vmf", 3.0)
    booked = []
    for release in ("r1", "r1", "r2"):
        z = identities(mechanism, template, ["a"], Keyring(b"0123456789abcdef" * 2, release))[0]
        booked.append(entry("a", release, "vmf", draw_id(z), epsilon_of(mechanism)))
    assert spent(booked) == {"a": SpentEpsilon(12.0, 6.0, 2)}


def test_a_person_split_in_m_subjects_costs_m_times_as_much() -> None:
    booked = [shown(subject, "r1", "z" + subject) for subject in "abc"]
    sums = spent(booked, linked(["ab"]))
    assert {subject: total.pure for subject, total in sums.items()} == {"a": 4.0, "b": 4.0, "c": 2.0}


def test_a_draw_that_all_parts_of_a_person_wear_is_one_draw() -> None:
    booked = [shown(subject, "r1", "z") for subject in "abc"]
    assert {total.pure for total in spent(booked, linked(["ab", "ac", "bc"])).values()} == {2.0}


def test_a_suspect_of_a_suspect_is_charged_to_nobody_else() -> None:
    booked = [shown(subject, "r1", "z" + subject) for subject in "abc"]
    sums = spent(booked, linked(["ab", "bc"]))
    assert {subject: total.pure for subject, total in sums.items()} == {"a": 4.0, "b": 6.0, "c": 4.0}


def test_a_method_that_promises_nothing_has_spent_everything() -> None:
    assert spent([entry("a", "r1", "sampling", "z1", None)])["a"].pure == math.inf


@pytest.mark.parametrize("epsilon", [-1.0, math.nan])
def test_an_epsilon_that_would_hide_others_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        LedgerEntry("a", "r", "vmf", "z", epsilon, 0.0)
    with pytest.raises(ValueError, match="0 or more"):
        Budget(epsilon)


# --- budget -------------------------------------------------------------------------------------------------------


@given(entries, entries, groups, st.sampled_from([0.0, 0.5, 1.0, 3.0, 10.0]))
def test_a_run_starts_only_if_nobody_whom_it_costs_ends_over_budget(
    booked: list[LedgerEntry], planned: list[LedgerEntry], suspects: Links, most: float
) -> None:
    """Nobody at all: a suspect of someone in the run, who is absent, is charged too."""
    refused = refusal(booked, planned, Budget(most), suspects)
    before, after = spent(booked, suspects), spent(booked + planned, suspects)
    nothing = SpentEpsilon(0.0, 0.0, 0)
    over = {
        subject
        for subject, total in after.items()
        if total.pure > most + 1e-6 and total.pure > before.get(subject, nothing).pure
    }
    assert set(refused.subjects if refused else ()) == over
    if refused is not None:
        assert refused.excess == pytest.approx(max(after[subject].pure for subject in refused.subjects) - most)


def test_a_run_over_budget_is_refused_in_a_sentence_of_counts() -> None:
    booked = [shown("Ann", "r1", "z1"), shown("Bob", "r1", "z2", 0.5)]
    planned = [shown("Ann", "r2", "z3"), shown("Bob", "r2", "z4")]
    refused = refusal(booked, planned, Budget(3.0))
    assert refused is not None
    assert refused.subjects == ("Ann",)
    assert refused.sentence.startswith(
        "1 of the 2 accounts that this run draws on would exceed the budget of epsilon 3 over all releases, the worst "
        "of them, at 4, by 1;"
    )
    assert "Ann" not in refused.sentence + repr(refused)
    assert refusal(booked, planned, Budget(4.0)) is None


def test_three_tenths_fill_a_budget_of_point_three() -> None:
    planned = [shown("a", f"r{n}", f"z{n}", 0.1) for n in range(3)]
    assert refusal([], planned, Budget(0.3)) is None
    assert refusal([], [*planned, shown("a", "r4", "z4", 0.1)], Budget(0.3)) is not None


def test_reuse_and_uniform_draws_may_run_on_an_overdrawn_account() -> None:
    booked = [shown("a", "r1", "z1", 9.0)]
    assert refusal(booked, [shown("a", "r2", "z1", 9.0)], Budget(1.0)) is None
    assert refusal(booked, [shown("a", "r2", "z2", 0.0)], Budget(1.0)) is None
    assert refusal(booked, [shown("a", "r2", "z2", 0.1)], Budget(1.0)) is not None


def test_no_budget_outlives_a_method_without_an_epsilon() -> None:
    booked = [entry("a", "r1", "sampling", "z1", None)]
    refused = refusal(booked, [shown("a", "r2", "z2")], Budget(1000.0))
    assert refused is not None
    assert "without any bound" in refused.sentence


# --- known defects ------------------------------------------------------------------------------------------------


def last_release_only(booked: Iterable[LedgerEntry]) -> dict[str, float]:
    return {row.subject: row.pure for row in booked}


def by_release_name(booked: Iterable[LedgerEntry]) -> dict[str, float]:
    once = {(row.subject, row.release): row.pure for row in booked}
    return {s: sum(pure for (subject, _), pure in once.items() if subject == s) for s, _ in once}


def by_subject_alone(booked: Iterable[LedgerEntry]) -> dict[str, float]:
    return {subject: total.pure for subject, total in spent(booked).items()}


@pytest.mark.parametrize("defect", [last_release_only, by_release_name, by_subject_alone])
def test_a_ledger_that_forgets_releases_draws_or_split_people_is_caught(
    defect: Callable[[Iterable[LedgerEntry]], dict[str, float]],
) -> None:
    booked = [shown("a", "r1", "z1"), shown("a", "r1", "z2"), shown("a", "r2", "z3"), shown("b", "r2", "z4")]
    seen = counted(booked, "ab")
    assert spent(booked, linked(["ab"]))["a"].pure == seen
    assert defect(booked)["a"] < seen


# --- who may be one person ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [2, 3, 4096])
@pytest.mark.parametrize("threshold", [0.5, 0.9, 1.1])
def test_suspects_are_alike_in_any_two_rows_and_labels_are_believed(
    block: int, threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anonlib.privacy.ledger._BLOCK", block)
    rng = np.random.default_rng(1)
    templates = normalized(rng.normal(size=(40, 3)).astype(np.float32))
    person, labelled = rng.integers(0, 15, size=40), rng.random(40) < 0.5
    expected = {
        (min(person[one], person[other]), max(person[one], person[other]))
        for one in range(40)
        for other in range(40)
        if person[one] != person[other]
        and templates[one] @ templates[other] >= threshold
        and not (labelled[one] and labelled[other])
    }
    found = suspected(templates, person, labelled, threshold)
    assert {(one, other) for one, other in found.tolist()} == expected and len(found) == len(expected)


def test_nobody_is_suspected_where_nobody_is() -> None:
    nothing = np.zeros((0, 3), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    assert suspected(*nothing, 0.9).shape == (0, 2)


def test_a_chain_of_lookalikes_is_no_account() -> None:
    angles = np.radians([0, 10, 20, 90])
    templates = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    threshold = math.cos(math.radians(11))
    assert suspected(templates, np.arange(4), np.zeros(4, bool), threshold).tolist() == [[0, 1], [1, 2]]
    assert suspected(templates, np.arange(4), np.ones(4, bool), threshold).tolist() == []


def test_all_rows_of_a_person_are_one_person() -> None:
    """The first row of person 0 is like nobody, the second like person 1."""
    templates = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0]], np.float32)
    assert suspected(templates, np.array([0, 0, 1]), np.zeros(3, bool), 0.9).tolist() == [[0, 1]]
