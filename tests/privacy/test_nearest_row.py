import numpy as np
import pytest

from anonlib.privacy import nearest_row as module
from anonlib.privacy.nearest_row import nearest
from tests.privacy.made_people import people


def test_the_most_similar_row_and_the_first_among_equals() -> None:
    bank = np.array([[1, 0], [0, 1], [0, 1]], np.float32)
    assert nearest(np.array([[0.1, 1], [1, 0.1]], np.float32), bank).tolist() == [1, 0]


def test_nobody_is_its_own_neighbour() -> None:
    bank = people(40, 1)
    rows = np.array([3, 17])
    found = nearest(bank[rows], bank, rows)
    similarity = bank[rows] @ bank.T
    similarity[[0, 1], rows] = -2
    assert found.tolist() == similarity.argmax(axis=1).tolist()


@pytest.mark.parametrize("own", [False, True])
def test_a_bank_too_large_for_every_pair_is_searched_by_lists(monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    bank = people(3000, 2)
    rows = np.arange(0, 3000, 7)
    exact = nearest(bank[rows], bank, rows if own else None)
    monkeypatch.setattr(module, "_EXACT_PAIRS", 4000)
    found = nearest(bank[rows], bank, rows if own else None)
    assert (found == exact).mean() > 0.95
    assert not own or not (found == rows).any()


def test_a_bank_without_a_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to choose from"):
        nearest(people(1, 1), people(1, 1), np.array([0]))
