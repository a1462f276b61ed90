from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from anonlib.privacy import microaggregation
from anonlib.privacy.microaggregation import group_means, information_loss, mdav, microaggregate
from tests.privacy.made_people import lookalikes, people
from tests.support.oracles import order_faults

Aggregate = Callable[[NDArray[np.float32], int], list[NDArray[np.int64]]]
Draw = Callable[[int, int], NDArray[np.float32]]

sizes = st.integers(2, 6), st.integers(2, 80), st.integers(0, 1000)


def textbook_mdav(templates: NDArray[np.float32], k: int) -> set[tuple[int, ...]]:
    """As Domingo-Ferrer and Torra write it down, with distances and lists."""
    left, groups = list(range(len(templates))), set()
    points = templates.astype(np.float64)

    def far(point: NDArray[np.float64]) -> int:
        return max(left, key=lambda one: float(((points[one] - point) ** 2).sum()))

    def take(centre: int) -> None:
        nearest = sorted(left, key=lambda one: float(((points[one] - points[centre]) ** 2).sum()))[:k]
        groups.add(tuple(sorted(nearest)))
        left[:] = [one for one in left if one not in nearest]

    while len(left) >= 2 * k:
        both = len(left) >= 3 * k
        first = far(points[left].mean(axis=0))
        take(first)
        if both:
            take(far(points[first]))
    return groups | {tuple(left)}


@given(*sizes)
@settings(deadline=None, max_examples=40)
def test_mdav_forms_the_groups_of_the_textbook(k: int, count: int, seed: int) -> None:
    templates = people(max(count, k), seed)
    assert {tuple(group.tolist()) for group in mdav(templates, k)} == textbook_mdav(templates, k)


@pytest.mark.parametrize("aggregate", [mdav, microaggregate])
@pytest.mark.parametrize("draw", [people, lookalikes])
@given(*sizes)
@settings(deadline=None, max_examples=40)
def test_groups_partition_the_subjects_and_have_k_to_2k_minus_1_members(
    aggregate: Aggregate, draw: Draw, k: int, count: int, seed: int
) -> None:
    if count < k:
        with pytest.raises(ValueError, match="cannot form a class"):
            aggregate(draw(count, seed), k)
        return
    groups = aggregate(draw(count, seed), k)
    assert sorted(np.concatenate(groups).tolist()) == list(range(count))
    assert all(k <= len(group) <= 2 * k - 1 for group in groups)


@pytest.mark.parametrize("draw", [people, lookalikes])
@pytest.mark.parametrize("k", [2, 5, 40])
def test_many_cells_keep_the_sizes_too(monkeypatch: pytest.MonkeyPatch, draw: Draw, k: int) -> None:
    monkeypatch.setattr(microaggregation, "_CELL", 60)
    groups = microaggregate(draw(1500, 3), k)
    assert sorted(np.concatenate(groups).tolist()) == list(range(1500))
    assert all(k <= len(group) <= 2 * k - 1 for group in groups)


def test_twins_of_one_template_fill_many_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microaggregation, "_CELL", 60)
    groups = microaggregate(np.repeat(people(1, 1), 500, axis=0), 5)
    assert sorted(np.concatenate(groups).tolist()) == list(range(500))
    assert all(5 <= len(group) <= 9 for group in groups)


def test_a_cell_too_small_for_a_group_joins_its_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microaggregation, "_CELL", 60)
    templates = people(600, 4)
    templates[:3] = 100 * templates[:3]
    groups = microaggregate(templates, 5)
    assert sorted(np.concatenate(groups).tolist()) == list(range(600))
    assert all(5 <= len(group) <= 9 for group in groups)


@pytest.mark.parametrize("dim", [8, 128])
def test_cells_lose_at_most_three_percent_more_than_mdav(monkeypatch: pytest.MonkeyPatch, dim: int) -> None:
    monkeypatch.setattr(microaggregation, "_CELL", 256)
    templates = people(3000, 1, dim)
    reference = information_loss(templates, mdav(templates, 5))
    assert information_loss(templates, microaggregate(templates, 5)) <= 1.03 * reference


def test_exchanging_members_repays_what_the_cut_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microaggregation, "_CELL", 256)
    templates = people(3000, 1, 128)
    with_exchange = information_loss(templates, microaggregate(templates, 5))
    monkeypatch.setattr(microaggregation, "_ROUNDS", 0)
    assert with_exchange < 0.97 * information_loss(templates, microaggregate(templates, 5))


def test_time_grows_with_the_subjects_and_not_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in rows that MDAV compares, since a clock on a shared machine proves nothing."""
    compared = []
    plain = microaggregation._mdav

    def counting(points: NDArray[np.float32], k: int) -> list[NDArray[np.int64]]:
        compared.append(len(points) ** 2)
        return plain(points, k)

    monkeypatch.setattr(microaggregation, "_mdav", counting)
    work = []
    for count in (4000, 40_000):
        compared.clear()
        monkeypatch.setattr(microaggregation, "_ROUNDS", 0)
        microaggregate(people(count, 2, 4), 5)
        work.append(sum(compared))
    assert work[1] <= 13 * work[0]


@pytest.mark.parametrize("aggregate", [mdav, microaggregate])
def test_the_order_of_the_list_changes_no_group(monkeypatch: pytest.MonkeyPatch, aggregate: Aggregate) -> None:
    monkeypatch.setattr(microaggregation, "_CELL", 64)
    assert not order_faults(lambda templates: aggregate(templates, 4), people(700, 5))


def test_ties_are_broken_the_same_way_every_time() -> None:
    templates = lookalikes(200, 2)
    one, two = microaggregate(templates, 3), microaggregate(templates.copy(), 3)
    assert [group.tolist() for group in one] == [group.tolist() for group in two]


def test_information_loss_is_the_share_of_the_variance_within_groups() -> None:
    templates = np.array([[0.0, 0.0], [2.0, 0.0], [10.0, 0.0], [12.0, 0.0]], np.float32)
    assert information_loss(templates, [[0, 1], [2, 3]]) == pytest.approx(4 / 104)
    assert information_loss(templates, [[0, 1, 2, 3]]) == pytest.approx(1)
    assert information_loss(templates, [[0], [1], [2], [3]]) == 0
    assert information_loss(templates[:1].repeat(4, axis=0), [[0, 1], [2, 3]]) == 0
    assert information_loss(templates, []) == 0


def test_every_member_weighs_the_same_in_a_mean() -> None:
    weights = group_means(np.eye(5, dtype=np.float32), [[4, 0], [1, 2, 3]])
    assert np.allclose(weights, [[0.5, 0, 0, 0, 0.5], [0, 1 / 3, 1 / 3, 1 / 3, 0]])
    assert group_means(np.eye(5, dtype=np.float32), []).shape == (0, 5)
