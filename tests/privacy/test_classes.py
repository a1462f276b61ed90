import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from anonlib.privacy.classes import effective_k, form_classes, mdav
from anonlib.privacy.subjects import normalized


def people(count: int, seed: int, dim: int = 8) -> NDArray[np.float32]:
    return normalized(np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32))


cases = st.tuples(st.integers(2, 6), st.integers(0, 60), st.integers(0, 10_000))


@settings(deadline=None, max_examples=80)
@given(cases)
def test_classes_partition_the_subjects_and_each_has_k_distinct_ones(case: tuple[int, int, int]) -> None:
    k, count, seed = case
    rng = np.random.default_rng(seed)
    strata = [(str(rng.integers(3)), str(rng.integers(3))) for _ in range(count)]
    classes, left = form_classes(people(count, seed), strata, k=k, same_person=0.99)
    everyone = sorted([member for one in classes for member in one.members] + left)
    assert everyone == list(range(count))
    assert all(len(set(one.members)) >= k and one.effective_k >= k for one in classes)
    assert len(left) in (0, count)
    assert (count < k) <= bool(left) or count == 0


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 5), st.integers(0, 10_000))
def test_a_person_split_in_two_never_counts_twice(k: int, seed: int) -> None:
    singles = people(6 * k, seed)
    templates = np.concatenate([singles, singles[: 2 * k]])
    classes, left = form_classes(templates, [()] * len(templates), k=k, same_person=0.999)
    for one in classes:
        assert len({member if member < 6 * k else member - 6 * k for member in one.members}) >= k
    assert not left


@given(st.integers(2, 6), st.integers(2, 80), st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_mdav_groups_have_k_to_2k_minus_1_members(k: int, count: int, seed: int) -> None:
    if count < k:
        with pytest.raises(ValueError, match="cannot form a class"):
            mdav(people(count, seed), k)
        return
    groups = mdav(people(count, seed), k)
    assert sorted(np.concatenate(groups).tolist()) == list(range(count))
    assert all(k <= len(group) <= 2 * k - 1 for group in groups)


def test_mdav_keeps_neighbours_together_better_than_list_order() -> None:
    templates = people(300, 3)

    def loss(groups: list[NDArray[np.int64]]) -> float:
        return float(sum(((templates[g] - templates[g].mean(axis=0)) ** 2).sum() for g in groups))

    by_order = [np.arange(start, start + 5) for start in range(0, 300, 5)]
    assert loss(mdav(templates, 5)) < 0.8 * loss(by_order)


def test_strata_stay_apart_where_they_can_fill_a_class() -> None:
    strata = [("female", "young")] * 7 + [("male", "young")] * 9
    classes, left = form_classes(people(16, 1), strata, k=3, same_person=0.999)
    assert not left
    for one in classes:
        assert len({strata[member] for member in one.members}) == 1


def test_a_small_stratum_joins_its_gender_before_the_other() -> None:
    strata = [("female", "young")] * 2 + [("female", "old")] * 2 + [("male", "young")] * 6
    classes, _ = form_classes(people(10, 2), strata, k=4, same_person=0.999)
    women = next(one for one in classes if 0 in one.members)
    assert women.members == (0, 1, 2, 3)
    assert women.stratum == ("female",)


def test_effective_k_counts_components_not_members() -> None:
    one, two = people(2, 5)
    assert effective_k(np.stack([one, one, two, two]), 0.999) == 2
