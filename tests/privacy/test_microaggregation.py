from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from anonlib.privacy import classes
from anonlib.privacy.classes import microaggregate
from tests.privacy.made_people import information_loss, lookalikes, people
from tests.support.oracles import order_faults

Aggregate = Callable[[NDArray[np.float32], int], list[NDArray[np.int64]]]
Draw = Callable[[int, int], NDArray[np.float32]]


def mdav(templates: NDArray[np.float32], k: int) -> list[NDArray[np.int64]]:
    """One cell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classes, "_CELL", len(templates))
        return microaggregate(templates, k)


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
    with pytest.raises(ValueError, match="cannot form a class"):
        microaggregate(templates[: k - 1], k)


def twins(count: int, seed: int) -> NDArray[np.float32]:
    return np.repeat(people(1, seed), count, axis=0)


def far_off(count: int, seed: int) -> NDArray[np.float32]:
    """Three who form a cell too small for a group, which joins its neighbour."""
    templates = people(count, seed)
    templates[:3] *= 100
    return templates


@pytest.mark.parametrize("draw", [people, lookalikes, twins, far_off])
@pytest.mark.parametrize("k", [2, 5, 40])
def test_many_cells_keep_the_sizes_too(monkeypatch: pytest.MonkeyPatch, draw: Draw, k: int) -> None:
    monkeypatch.setattr(classes, "_CELL", 60)
    groups = microaggregate(draw(1500, 4), k)
    assert sorted(np.concatenate(groups).tolist()) == list(range(1500))
    assert all(k <= len(group) <= 2 * k - 1 for group in groups)


def test_cells_lose_at_most_three_percent_more_than_mdav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "_CELL", 1024)
    templates = people(3000, 1, 128)
    reference = information_loss(templates, mdav(templates, 5))
    assert information_loss(templates, microaggregate(templates, 5)) <= 1.03 * reference


@pytest.mark.parametrize("aggregate", [mdav, microaggregate])
def test_the_order_of_the_list_changes_no_group(monkeypatch: pytest.MonkeyPatch, aggregate: Aggregate) -> None:
    monkeypatch.setattr(classes, "_CELL", 64)
    assert not order_faults(lambda templates: aggregate(templates, 4), people(700, 5))
