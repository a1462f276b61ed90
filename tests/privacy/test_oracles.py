"""Each way of getting k-anonymity wrong that others have gone is done here once, and found."""

import numpy as np
import pytest
from made_people import people
from numpy.typing import NDArray
from oracles import faults, order_faults

from anonlib.privacy.classes import form_classes
from anonlib.privacy.microaggregation import group_means

K = 5
SAME = 0.999


def formed(templates: NDArray[np.float32]) -> list[tuple[int, ...]]:
    classes, _ = form_classes(templates, [()] * len(templates), k=K, same_person=SAME)
    return [one.members for one in classes]


def own_neighbours(templates: NDArray[np.float32]) -> list[list[int]]:
    """Everyone hides among its own k nearest: lists that overlap."""
    return np.argsort(-(templates @ templates.T), axis=1)[:, :K].tolist()


def list_order(templates: NDArray[np.float32]) -> list[list[int]]:
    """Whoever stands next to one another in the file."""
    return [list(range(start, start + K)) for start in range(0, len(templates), K)]


def normalized_inside_the_loop(members: NDArray[np.float32]) -> NDArray[np.float32]:
    """An average that divides as it goes: the last member weighs 1 - 1/k."""
    mean = np.zeros(members.shape[1], np.float32)
    for member in members:
        mean = mean / len(members) + member * (1 - 1 / len(members))
    return mean


def test_sound_classes_have_no_fault() -> None:
    templates = people(60, 1)
    classes = formed(templates)
    weights = [[1 / len(members)] * len(members) for members in classes]
    assert not faults(classes, 60, k=K, templates=templates, same_person=SAME, weights=weights, kept=classes)
    assert not order_faults(formed, templates)


def test_neighbour_lists_of_each_query_are_caught_as_overlapping() -> None:
    templates = people(30, 2)
    found = faults(own_neighbours(templates), 30, k=K)
    assert any("is in class 0 and in class" in fault for fault in found)


def test_clustering_by_list_order_is_caught() -> None:
    templates = people(30, 3)
    assert not faults(list_order(templates), 30, k=K, templates=templates, same_person=SAME)
    found = order_faults(list_order, templates)
    assert found[0] == "subject 0 hides with others when the subjects are listed in another order"


def test_an_average_that_divides_as_it_goes_is_caught() -> None:
    classes = [range(5), range(5, 11)]
    basis = [np.eye(len(members), dtype=np.float32) for members in classes]
    right = [group_means(one, [range(len(one))])[0].tolist() for one in basis]
    wrong = [normalized_inside_the_loop(one).tolist() for one in basis]
    assert not faults(classes, 11, k=K, weights=right)
    assert "subject 4 weighs 0.8 in class 0, not 1/5" in faults(classes, 11, k=K, weights=wrong)


def test_a_person_split_in_two_is_not_counted_twice() -> None:
    singles = people(9, 4)
    templates = np.concatenate([singles, singles[:1]])
    classes = [[0, 9, 1, 2, 3], [4, 5, 6, 7, 8]]
    assert not faults(classes, 10, k=K)
    found = faults(classes, 10, k=K, templates=templates, same_person=SAME)
    assert found == ["class 0 has 5 subjects who may be only 4 people, fewer than k = 5"]


@pytest.mark.parametrize(
    ("classes", "left", "fault"),
    [
        ([range(5), range(5, 9)], [9], "class 1 has 4 subjects, fewer than k = 5"),
        ([range(5), [5, 6, 7, 8, 9, 5]], [], "class 1 names subject 5 twice"),
        ([range(5), [4, 5, 6, 7, 8, 9]], [], "subject 4 is in class 0 and in class 1"),
        ([range(5)], [5, 6, 7, 8], "subject 9 is in no class and not left over"),
        ([range(10)], [3], "subject 3 is left over, and in class 0"),
        ([range(11)], [], "class 0 names subject 10, and there are 10 subjects"),
        ([range(10)], [12], "subject 12 is left over, and there are 10 subjects"),
    ],
)
def test_each_fault_is_named_alone(classes: list[list[int]], left: list[int], fault: str) -> None:
    assert faults(classes, 10, k=K, left=left) == [fault]


def test_a_class_that_could_be_two_is_named_unless_it_had_to_stay_together() -> None:
    templates = people(10, 5)
    found = faults([range(10)], 10, k=K, templates=templates, same_person=SAME)
    assert found == ["class 0 has 10 people, enough for two classes of k = 5"]
    assert not faults([range(10)], 10, k=K, templates=templates, same_person=SAME, kept=[range(6)])


def test_an_old_class_that_was_divided_is_named() -> None:
    found = faults([range(5), range(5, 10)], 12, k=K, left=[10, 11], kept=[[0, 1, 2, 3, 7], [8, 10]])
    assert found == [
        "class 0 of the earlier release is divided: its subjects are now in class 0 and class 1",
        "class 1 of the earlier release is divided: its subjects are now in no class and class 1",
    ]


def test_weights_must_fit_the_classes() -> None:
    assert faults([range(5)], 5, k=K, weights=[]) == ["0 lists of weights for 1 classes"]
    assert faults([range(5)], 5, k=K, weights=[[0.2] * 4]) == ["class 0 has 4 weights for 5 subjects"]


def test_effective_k_needs_a_threshold() -> None:
    with pytest.raises(ValueError, match="same_person"):
        faults([range(5)], 5, k=K, templates=people(5, 1))
