from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_people import people, strata

from anonlib.privacy.growth import extend, intersections, showable

K = 5
SAME = 0.999
Class = tuple[int, ...]


def in_order(k: int) -> Callable[[np.ndarray], list[list[int]]]:
    """Forms classes of k subjects, the last of up to 2k - 1, as they are numbered; too few are left out."""

    def form(newcomers: np.ndarray) -> list[list[int]]:
        parts = max(len(newcomers) // k, 1)
        bounds = [k * part for part in range(parts)] + [len(newcomers)]
        made = [newcomers[one:other].tolist() for one, other in pairwise(bounds)]
        return [members for members in made if len(members) >= k]

    return form


def shown_by_hand(releases: Sequence[Sequence[Sequence[int]]], present: Sequence[set[int]], subject: int) -> list[int]:
    """The class of a subject in each release that shows it, -1 elsewhere."""
    found = []
    for classes, there in zip(releases, present, strict=True):
        homes = [number for number, members in enumerate(classes) if subject in members and subject in there]
        found.append(homes[0] if homes else -1)
    return found


# --- growing ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 5),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 1000)), min_size=2, max_size=4),
    st.booleans(),
)
def test_over_releases_with_whoever_is_there_everyone_shown_keeps_k_candidates(
    k: int, drawn: list[tuple[int, int]], known: bool
) -> None:
    """Each release brings newcomers, and of the people of earlier ones shows some."""
    count, old = 0, []
    releases: list[list[Class]] = []
    present: list[set[int]] = []
    for newcomers, seed in drawn:
        rng = np.random.default_rng(seed)
        there = set(np.flatnonzero(rng.random(count) < rng.choice([0.2, 0.8, 1.0])).tolist())
        there |= set(range(count, count + newcomers))
        count += newcomers
        old, left = extend(old, [()] * count, in_order(k), join=not known)
        kept, redacted = showable(releases, present, old, there, k=k, absences_known=known)
        assert set(left).isdisjoint(member for members in old for member in members)
        shown = there & {member for members in kept for member in members}
        assert there == shown | set(redacted) | (there & set(left)), "shown, redacted or waiting for others"
        releases.append(kept)
        present.append(there)
        assert not intersections(releases, present, k=k, absences_known=known)


def test_old_classes_keep_their_members_and_newcomers_form_their_own() -> None:
    classes, left = extend([range(5)], [()] * 11, in_order(K))
    assert (classes, left) == ([(0, 1, 2, 3, 4), (5, 6, 7, 8, 9, 10)], [])


def test_newcomers_too_few_for_a_class_wait() -> None:
    assert extend([range(5)], [()] * 7, in_order(K)) == ([(0, 1, 2, 3, 4)], [5, 6])


def test_newcomers_too_few_join_their_kin_and_there_the_smallest_class_where_absences_are_unknown() -> None:
    kinds = [("female",)] * 5 + [("male",)] * 11 + [("female",)] * 2 + [("male",)]
    classes, left = extend([range(5), range(5, 11), range(11, 16)], kinds, in_order(K), join=True)
    assert (classes, left) == ([(0, 1, 2, 3, 4, 16, 17), (5, 6, 7, 8, 9, 10), (11, 12, 13, 14, 15, 18)], [])


def test_without_an_old_class_there_is_nothing_to_join() -> None:
    assert extend([], [()] * 3, in_order(K), join=True) == ([], [0, 1, 2])


# --- who may be shown ---------------------------------------------------------------------------------------------


def test_a_class_of_which_two_are_there_hides_nobody() -> None:
    """The second dataset holds 0 and 5 alone: who knows it names their faces."""
    classes, everybody = [range(5), range(5, 10)], set(range(10))
    kept, redacted = showable([classes], [everybody], classes, {0, 5}, k=K)
    assert (kept, redacted) == ([], [0, 5])
    found = intersections([classes, classes], [everybody, {0, 5}], k=K)
    assert "subject 0 is one of 1 in releases 0, 1 together, fewer than k = 5" in found
    assert len(found) == 10, "and the others are one of four, because two are elsewhere"
    assert not intersections([classes, classes], [everybody, {0, 5}], k=K, absences_known=False)
    assert showable([classes], [everybody], classes, {0, 5}, k=K, absences_known=False)[1] == []


def test_the_absent_are_told_apart_from_those_who_are_there() -> None:
    classes, everybody = [range(9)], set(range(9))
    assert showable([classes], [everybody], classes, set(range(5)), k=K) == ([], [0, 1, 2, 3, 4])
    assert showable([classes], [everybody], classes, set(range(5)), k=4) == ([tuple(range(9))], [])


def test_a_class_that_is_not_shown_does_not_keep_another_from_being_shown() -> None:
    classes, everybody = [range(5), range(5, 10)], set(range(10))
    there = {0, 5, 6, 7, 8, 9}
    assert showable([classes], [everybody], classes, there, k=K) == ([(5, 6, 7, 8, 9)], [0])


def test_a_newcomer_in_an_old_class_is_told_apart_by_who_knows_that_it_is_new() -> None:
    releases, present = [[range(5)], [range(6)]], [set(range(5)), set(range(6))]
    assert intersections(releases, present, k=K) == ["subject 5 is one of 1 in release 1, fewer than k = 5"]
    assert not intersections(releases, present, k=K, absences_known=False)


def test_an_earlier_release_with_a_smaller_k_is_shown_no_more() -> None:
    classes, everybody = [range(5), range(5, 12)], set(range(12))
    kept, redacted = showable([classes], [everybody], classes, everybody, k=7)
    assert (kept, redacted) == ([tuple(range(5, 12))], [0, 1, 2, 3, 4])


# --- the proof ----------------------------------------------------------------------------------------------------


def test_clustering_afresh_for_every_release_is_caught() -> None:
    rng = np.random.default_rng(1)
    releases = [[part.tolist() for part in np.split(rng.permutation(100), 20)] for _ in range(2)]
    found = intersections(releases, [set(range(100))] * 2, k=K)
    assert len(found) > 90
    assert "in releases 0, 1 together, fewer than k = 5" in found[0]


def test_candidates_who_may_be_one_person_count_once() -> None:
    templates = people(5, 7)
    templates[4] = templates[3]
    releases, present = [[range(5)], [range(5)]], [set(range(5))] * 2
    assert not intersections(releases, present, k=K)
    assert len(intersections(releases, present, k=K, templates=templates, same_person=SAME)) == 5
    split = showable(releases[:1], present[:1], [range(5)], present[0], k=K, templates=templates, same_person=SAME)
    assert split == ([], [0, 1, 2, 3, 4])


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(0, 1000), st.booleans())
def test_the_proof_agrees_with_a_count_by_hand(many: int, seed: int, known: bool) -> None:
    rng = np.random.default_rng(seed)
    homes = rng.integers(-1, 3, size=(12, many))
    releases = [[np.flatnonzero(homes[:, release] == label).tolist() for label in range(3)] for release in range(many)]
    present = [set(np.flatnonzero(rng.random(12) < 0.8).tolist()) for _ in range(many)]
    shown = np.array([shown_by_hand(releases, present, subject) for subject in range(12)])
    weak = set()
    for subject in range(12):
        seen = shown[subject] >= 0
        where = (homes if not known else shown)[:, seen]
        candidates = (where == shown[subject, seen]).all(axis=1)
        if known:
            candidates &= (shown[:, ~seen] == -1).all(axis=1)
        if seen.any() and candidates.sum() < 3:
            weak.add(subject)
    found = intersections(releases, present, k=3, absences_known=known)
    assert {int(sentence.split()[1]) for sentence in found} == weak


def test_a_subject_in_two_classes_of_a_release_has_no_candidates_to_count() -> None:
    twice = [[range(5), range(4, 9)]]
    assert intersections(twice, [set(range(9))], k=K) == ["subject 4 is in two classes of release 0"]


# --- what is no partition -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "sentence"),
    [
        ([range(5), range(4, 9)], "subject 4 is in two old classes; the earlier release is no partition"),
        ([range(5, 11)], "an old class names subject 10, and there are 10 subjects"),
        ([[-1, 2, 3]], "an old class names subject -1"),
    ],
)
def test_an_earlier_release_that_is_no_partition_is_refused(old: list[list[int]], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        extend(old, strata(10, 1), in_order(K))


@pytest.mark.parametrize(
    ("formed", "sentence"),
    [
        ([[0, 5, 6]], "subject 0 was formed anew and is in an old class"),
        ([[5, 6], [6, 7]], "subject 6 is in two of the classes that were formed"),
        ([[5, 12]], "a class that was formed names subject 12"),
    ],
)
def test_newcomers_that_are_formed_into_no_partition_are_refused(formed: list[list[int]], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        extend([range(5)], strata(10, 1), lambda newcomers: formed)


def test_a_release_without_its_people_is_refused() -> None:
    with pytest.raises(ValueError, match="there are 2 releases, and it is said of 1 who is present"):
        intersections([[range(5)]] * 2, [set(range(5))], k=K)


def test_a_subject_without_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="class 0 of release 1 names subject -1"):
        intersections([[range(5)], [[-1, 2, 3, 4, 5]]], [set(range(5))] * 2, k=K)
