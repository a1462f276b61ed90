import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_people import people, strata
from oracles import faults

from anonlib.privacy.classes import EquivalenceClass, form_classes
from anonlib.privacy.growth import extend, intersections
from anonlib.privacy.subjects import normalized

K = 5
SAME = 0.999


def members_of(classes: list[EquivalenceClass]) -> list[tuple[int, ...]]:
    return [one.members for one in classes]


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 5), st.lists(st.integers(0, 30), min_size=2, max_size=4), st.integers(0, 1000), st.booleans())
def test_over_releases_that_grow_everyone_keeps_k_candidates(k: int, sizes: list[int], seed: int, join: bool) -> None:
    total = sum(sizes)
    templates, kinds = people(total, seed), strata(total, seed, 2)
    releases: list[list[tuple[int, ...]]] = [[]]
    for count in np.cumsum(sizes).tolist():
        classes, left = extend(releases[-1], templates[:count], kinds[:count], k=k, same_person=SAME, join=join)
        found = faults(
            members_of(classes), count, k=k, left=left, templates=templates[:count], same_person=SAME, kept=releases[-1]
        )
        assert not found
        assert not releases[-1] or not join or not left
        releases.append(members_of(classes))
    assert not intersections(releases, k=k, templates=templates, same_person=SAME, absences_known=not join)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 5), st.integers(0, 60), st.integers(0, 1000))
def test_the_first_release_is_formed_as_ever(k: int, count: int, seed: int) -> None:
    templates, kinds = people(count, seed), strata(count, seed)
    expected = form_classes(templates, kinds, k=k, same_person=SAME)
    assert extend([], templates, kinds, k=k, same_person=SAME) == expected


def test_clustering_afresh_for_every_release_is_caught() -> None:
    templates = people(120, 1)
    first, _ = form_classes(templates[:100], [()] * 100, k=K, same_person=SAME)
    second, _ = form_classes(templates, [()] * 120, k=K, same_person=SAME)
    found = intersections([members_of(first), members_of(second)], k=K)
    assert len(found) > 50
    assert "in releases 0, 1 together, fewer than k = 5" in found[0]


def test_newcomers_too_few_for_a_class_join_their_kin() -> None:
    kinds = [("female",)] * 5 + [("male",)] * 5 + [("female",)] * 2
    classes, left = extend([range(5), range(5, 10)], people(12, 2), kinds, k=K, same_person=SAME)
    assert members_of(classes) == [(0, 1, 2, 3, 4, 10, 11), (5, 6, 7, 8, 9)]
    assert not left


def test_newcomers_enough_for_a_class_leave_the_old_ones_alone() -> None:
    classes, _ = extend([range(5)], people(11, 3), [()] * 11, k=K, same_person=SAME)
    assert members_of(classes) == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9, 10)]


def test_an_old_class_never_parts_however_large() -> None:
    classes, _ = extend([range(14)], people(16, 4), [()] * 16, k=K, same_person=SAME)
    assert members_of(classes) == [tuple(range(16))]


def test_a_greater_k_makes_old_classes_grow_together() -> None:
    classes, _ = extend([range(5), range(5, 10)], people(10, 5), [()] * 10, k=7, same_person=SAME)
    assert members_of(classes) == [tuple(range(10))]
    found = intersections([[range(5), range(5, 10)], members_of(classes)], k=7)
    assert found[0] == "subject 0 is one of 5 in releases 0, 1 together, fewer than k = 7"


def test_a_lone_newcomer_is_told_apart_by_who_knows_that_it_is_new() -> None:
    templates = people(6, 6)
    joined, _ = extend([range(5)], templates, [()] * 6, k=K, same_person=SAME)
    releases = [[range(5)], members_of(joined)]
    assert not intersections(releases, k=K)
    found = intersections(releases, k=K, absences_known=True)
    assert found == ["subject 5 is one of 1 in release 1, fewer than k = 5"]
    waiting, left = extend([range(5)], templates, [()] * 6, k=K, same_person=SAME, join=False)
    assert (members_of(waiting), left) == ([(0, 1, 2, 3, 4)], [5])


def test_old_classes_that_are_short_grow_without_newcomers_who_have_to_be_told_apart() -> None:
    centres = np.eye(3, dtype=np.float32)[[0] * 5 + [1] * 5 + [2] * 8]
    centres[10:, :2] = 1
    templates = normalized(centres + 0.1 * people(18, 8, 3))
    classes, _ = extend([range(5), range(5, 10)], templates, [()] * 18, k=7, same_person=0.99999, join=False)
    assert members_of(classes) == [tuple(range(10)), tuple(range(10, 18))]


def test_candidates_who_may_be_one_person_count_once() -> None:
    templates = people(5, 7)
    templates[4] = templates[3]
    releases = [[range(5)], [range(5)]]
    assert not intersections(releases, k=K)
    assert len(intersections(releases, k=K, templates=templates, same_person=SAME)) == 5


def test_a_subject_that_skips_a_release_is_not_found_by_the_others() -> None:
    releases = [[range(6)], [range(5)], [range(6)]]
    assert not intersections(releases, k=K)
    assert intersections(releases, k=6)[0] == "subject 0 is one of 5 in releases 0, 1, 2 together, fewer than k = 6"


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(0, 1000), st.booleans())
def test_the_proof_agrees_with_a_count_by_hand(many: int, seed: int, absences_known: bool) -> None:
    rng = np.random.default_rng(seed)
    homes = rng.integers(-1, 3, size=(12, many))
    releases = [[np.flatnonzero(homes[:, release] == label).tolist() for label in range(3)] for release in range(many)]
    weak = set()
    for subject in range(12):
        seen = [release for release in range(many) if homes[subject, release] >= 0]
        compared = list(range(many)) if absences_known else seen
        candidates = (homes[:, compared] == homes[subject, compared]).all(axis=1)
        if seen and candidates.sum() < 3:
            weak.add(subject)
    found = intersections(releases, k=3, absences_known=absences_known)
    assert {int(sentence.split()[1]) for sentence in found} == weak


def test_a_subject_in_two_classes_of_a_release_has_no_candidates_to_count() -> None:
    assert intersections([[range(5), range(4, 9)]], k=K) == ["subject 4 is in two classes of release 0"]


@pytest.mark.parametrize(
    ("old", "sentence"),
    [
        ([range(5), range(4, 9)], "subject 4 is in two old classes"),
        ([range(5, 11)], "an old class names subject 10, and there are templates of 10 subjects"),
        ([[-1, 2, 3]], "an old class names subject -1"),
    ],
)
def test_an_earlier_release_that_is_no_partition_is_refused(old: list[list[int]], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        extend(old, people(10, 1), [()] * 10, k=K, same_person=SAME)


def test_a_subject_without_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="class 0 of release 1 names subject -1"):
        intersections([[range(5)], [[-1, 2, 3, 4, 5]]], k=K)
