"""Sums of epsilon over releases are never too low, and a run that would exceed a budget is refused."""

import math
import random
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonlib.privacy.clustering import normalized
from anonlib.privacy.dp import Mechanism, draw_id, epsilon_of, identities
from anonlib.privacy.keys import Keyring
from anonlib.privacy.ledger import LedgerEntry, overdrawn, refusal, suspected

rows = st.builds(
    LedgerEntry,
    st.sampled_from("abcd"),
    st.sampled_from(["z1", "z2", "z3"]),
    st.sampled_from([0.0, 0.1, 0.5, 1.0, 7.0]),
)
entries = st.lists(rows, max_size=12)
Links = dict[str, list[str]]


def linked(pairs: Iterable[str]) -> Links:
    """The suspects of each subject, by pairs."""
    links: Links = {}
    for first, second in pairs:
        links.setdefault(first, []).append(second)
        links.setdefault(second, []).append(first)
    return links


groups = st.sets(st.sampled_from(["ab", "ac", "ad", "bc", "bd", "cd"])).map(linked)


def counted(rows: Iterable[LedgerEntry], subjects: Iterable[str]) -> float:
    """What an attacker has seen who takes all `subjects` for one person: every different draw, at its dearest."""
    dearest: dict[str, float] = {}
    for row in rows:
        if row.subject in subjects:
            dearest[row.draw] = max(row.pure, dearest.get(row.draw, 0.0))
    return sum(dearest.values())


def spent(booked: list[LedgerEntry], subject: str = "a", suspects: Links | None = None) -> float:
    """What a ledger without any budget left says that the account of a subject would have spent."""
    return overdrawn([], [*booked, LedgerEntry(subject, "a draw", 1e-6)], 0.0, suspects)[subject] - 1e-6


# --- sums ---------------------------------------------------------------------------------------------------------


@given(entries, groups, st.sampled_from("abcd"))
def test_an_account_has_its_own_draws_and_those_of_its_direct_suspects(
    booked: list[LedgerEntry], suspects: Links, subject: str
) -> None:
    assert spent(booked, subject, suspects) == pytest.approx(counted(booked, [subject, *suspects.get(subject, ())]))


@given(entries, entries, st.randoms(use_true_random=False), groups)
def test_neither_order_nor_repetition_of_rows_matters(
    booked: list[LedgerEntry], planned: list[LedgerEntry], order: random.Random, suspects: Links
) -> None:
    repeated = booked + [order.choice(booked) for _ in booked]
    order.shuffle(repeated)
    assert overdrawn(repeated, planned, 1.0, suspects) == overdrawn(booked, planned, 1.0, suspects)


@pytest.mark.parametrize(
    ("draws", "suspects", "total"),
    [
        (["a z1", "a z2"], [], 4.0),
        (["a z1", "a z1"], [], 2.0),
        (["a z1", "b z2", "c z3"], ["ab"], 4.0),
        (["a z1", "b z1", "c z1"], ["ab", "ac", "bc"], 2.0),
        (["a z1", "b z2", "c z3"], ["ab", "bc"], 4.0),
    ],
    ids=["two draws", "a draw used once more", "a person in two parts", "parts that share a draw", "a chain"],
)
def test_a_draw_costs_once_and_each_part_of_a_person_counts(
    draws: list[str], suspects: list[str], total: float
) -> None:
    booked = [LedgerEntry(*row.split(), 2.0) for row in draws]
    assert spent(booked, "a", linked(suspects)) == pytest.approx(total)


def test_draws_of_a_mechanism_are_known_by_their_ids() -> None:
    template, mechanism = normalized(np.ones((1, 8), np.float32)), Mechanism("vmf", 3.0)
    booked = []
    for release in ("r1", "r1", "r2"):
        z = identities(mechanism, template, ["a"], Keyring(b"0123456789abcdef" * 2, release))[0]
        booked.append(LedgerEntry("a", draw_id(z), epsilon_of(mechanism).pure))
    assert spent(booked) == pytest.approx(12.0)


@pytest.mark.parametrize("epsilon", [-1.0, math.nan])
def test_an_epsilon_that_would_hide_others_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        LedgerEntry("a", "z", epsilon)
    with pytest.raises(ValueError, match="0 or more"):
        overdrawn([], [], epsilon)


# --- budget -------------------------------------------------------------------------------------------------------


@given(entries, entries, groups, st.sampled_from([0.0, 0.5, 1.0, 3.0, 10.0]))
def test_a_run_starts_only_if_no_account_that_it_adds_to_ends_over_budget(
    booked: list[LedgerEntry], planned: list[LedgerEntry], suspects: Links, most: float
) -> None:
    """A suspect of a subject of the run is charged too, even if absent from the run."""
    expected = {}
    for subject in "abcd":
        members = [subject, *suspects.get(subject, ())]
        before, after = counted(booked, members), counted(booked + planned, members)
        if after > most + 1e-6 and after > before:
            expected[subject] = after
    assert overdrawn(booked, planned, most, suspects) == pytest.approx(expected)
    assert (refusal(booked, planned, most, suspects) is None) == (not expected)


def test_a_run_over_budget_is_refused_in_a_sentence_of_counts() -> None:
    booked = [LedgerEntry("Ann", "z1", 2.0), LedgerEntry("Bob", "z2", 0.5)]
    planned = [LedgerEntry("Ann", "z3", 2.0), LedgerEntry("Bob", "z4", 2.0)]
    refused = refusal(booked, planned, 3.0)
    assert refused is not None and "Ann" not in refused
    assert refused.startswith(
        "1 of the 2 accounts that this run draws on would exceed the budget of epsilon 3 over all releases, the worst "
        "of them, at 4, by 1;"
    )
    assert refusal(booked, planned, 4.0) is None


def test_three_tenths_fill_a_budget_of_point_three() -> None:
    planned = [LedgerEntry("a", f"z{n}", 0.1) for n in range(3)]
    assert refusal([], planned, 0.3) is None
    assert refusal([], [*planned, LedgerEntry("a", "z4", 0.1)], 0.3) is not None


def test_no_budget_outlives_a_method_without_an_epsilon() -> None:
    booked = [LedgerEntry("a", "z1", math.inf)]
    assert "without any bound" in (refusal(booked, [LedgerEntry("a", "z2", 2.0)], 1000.0) or "")
    assert refusal(booked, [LedgerEntry("a", "z1", math.inf), LedgerEntry("a", "z3", 0.0)], 1000.0) is None


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
