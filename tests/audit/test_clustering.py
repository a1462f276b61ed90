import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonlib.audit.clustering import bcubed, real_classes

NUMBERS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=25)


@given(NUMBERS)
def test_bcubed_is_its_definition(pairs: list[tuple[int, int]]) -> None:
    truth, cluster = np.array(pairs).T
    same_person, same_cluster = truth[:, None] == truth, cluster[:, None] == cluster
    both = (same_person & same_cluster).sum(axis=1)
    found = bcubed(truth, cluster)
    assert found.precision == pytest.approx((both / same_cluster.sum(axis=1)).mean())
    assert found.recall == pytest.approx((both / same_person.sum(axis=1)).mean())
    above = np.triu(np.ones_like(same_person), 1)
    assert found.merged == (above & same_cluster & ~same_person).sum()
    assert found.split == (above & same_person & ~same_cluster).sum()
    assert found.f == pytest.approx(2 / (1 / found.precision + 1 / found.recall))


@given(NUMBERS)
def test_the_truth_is_perfect_and_names_do_not_matter(pairs: list[tuple[int, int]]) -> None:
    truth = np.array(pairs)[:, 0]
    found = bcubed(truth, 7 - 3 * truth)
    assert (found.precision, found.recall, found.merged, found.split) == (1, 1, 0, 0)
    assert found.people == found.clusters


def test_merging_costs_precision_and_splitting_recall() -> None:
    truth = np.array([0, 0, 0, 1])
    merged, split = bcubed(truth, np.zeros(4, np.int64)), bcubed(truth, np.arange(4))
    assert (merged.precision, merged.recall, merged.merged, merged.split) == (0.625, 1, 3, 0)
    assert (split.precision, split.recall, split.merged, split.split) == (1, 0.5, 0, 3)


def test_nothing_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        bcubed(np.zeros(0, np.int64), np.zeros(0, np.int64))


def test_a_class_is_real_if_it_hides_as_many_people_as_it_says() -> None:
    subject = np.array([0, 1, 2, 3, 4, 5])
    truth = np.array([0, 1, 2, 3, 3, 4])
    found = real_classes([(0, 1, 2), (3, 4, 5)], [3, 3], subject, truth, 3)
    assert (found.classes, found.effective_real, found.k_real, found.share) == (2, 1, 1, 0.5)
    known = real_classes([(0, 1, 2), (3, 4, 5)], [3, 2], subject, truth, 3)
    assert (known.effective_real, known.k_real) == (2, 1)


def test_a_subject_stands_for_whom_most_of_its_faces_show() -> None:
    subject = np.array([0, 0, 0, 1, 1])
    one = real_classes([(0, 1)], [2], subject, np.array([7, 8, 8, 8, 8]), 2)
    two = real_classes([(0, 1)], [2], subject, np.array([7, 7, 8, 8, 8]), 2)
    assert (one.effective_real, two.effective_real) == (0, 1)


def test_a_class_with_a_nameless_subject_is_left_out() -> None:
    found = real_classes([(0, 1)], [2], np.array([0]), np.array([0]), 2)
    assert found.classes == 0
    assert np.isnan(found.share)
