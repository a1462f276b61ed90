import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.privacy.microaggregation import information_loss
from anonlib.privacy.swaps import exchanged
from tests.privacy.made_people import lookalikes, people


@given(st.integers(2, 5), st.integers(1, 12), st.integers(0, 1000), st.booleans())
@settings(deadline=None, max_examples=60)
def test_exchanges_keep_the_partition_and_the_sizes_and_never_lose(k: int, many: int, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(k, 2 * k, size=many)
    templates = (lookalikes if ties else people)(int(sizes.sum()), seed)
    before = np.split(rng.permutation(len(templates)), np.cumsum(sizes)[:-1])
    after = exchanged(templates, before, k)
    assert sorted(np.concatenate(after).tolist()) == list(range(len(templates)))
    assert all(k <= len(group) <= 2 * k - 1 for group in after)
    assert information_loss(templates, after) <= information_loss(templates, before) + 1e-6


def test_two_who_sit_in_the_wrong_groups_are_swapped() -> None:
    points = np.array([[0, 0], [0, 1], [9, 9], [9, 8], [0, 2], [9, 7]], np.float32)
    after = exchanged(points, [np.array([0, 1, 2]), np.array([3, 4, 5])], 3)
    assert sorted(sorted(group.tolist()) for group in after) == [[0, 1, 4], [2, 3, 5]]


def test_one_too_many_moves_to_where_it_belongs() -> None:
    points = np.array([[0, 0], [0, 1], [9, 9], [9, 8], [9, 7]], np.float32)
    after = exchanged(points, [np.array([0, 1, 2]), np.array([3, 4])], 2)
    assert sorted(sorted(group.tolist()) for group in after) == [[0, 1], [2, 3, 4]]


def test_one_group_has_nobody_to_exchange_with() -> None:
    only = [np.array([1, 0])]
    assert exchanged(people(2, 1), only, 2) == only
