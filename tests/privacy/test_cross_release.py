import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.privacy.cross_release import may_be_shown
from tests.support.oracles import candidates

CLASS = tuple(range(10))


def photos(present: set[int]) -> np.ndarray:
    return np.array([1 if person in present else 0 for person in range(20)])


def test_two_persons_of_an_old_class_alone_are_not_hidden_by_the_absent() -> None:
    """REVIEW-claims, finding 6: old class {0..4}, and the second dataset shows person 0 alone of it."""
    assert not may_be_shown(range(5), [set(range(5))], photos({0}), k=5)
    assert may_be_shown(range(5), [set(range(5))], photos({0}), k=5, absences_known=False)


def test_a_class_that_comes_back_whole_is_shown_again() -> None:
    assert may_be_shown(range(5), [set(range(5))], photos(set(range(5))), k=5)


def test_those_who_are_missing_must_be_k_too() -> None:
    assert may_be_shown(CLASS, [set(CLASS)], photos({0, 1, 2, 3, 4}), k=5)
    assert not may_be_shown(CLASS, [set(CLASS)], photos({0, 1, 2, 3, 4, 5}), k=5)


def test_one_person_with_most_of_the_photos_is_not_hidden() -> None:
    counts = photos(set(range(5)))
    counts[0] = 9
    assert not may_be_shown(range(5), [set(range(5))], counts, k=5)


@settings(deadline=None, max_examples=200)
@given(
    st.integers(2, 4),
    st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=3),
    st.sets(st.integers(0, 9), min_size=1),
    st.booleans(),
)
def test_a_class_that_may_be_shown_leaves_everybody_k_candidates(
    k: int, earlier: list[set[int]], now: set[int], known: bool
) -> None:
    members = sorted(set().union(now, *earlier))
    shown = may_be_shown(members, earlier, photos(now), k=k, absences_known=known)
    releases = [*earlier, now]
    left = [len(candidates(person, [[members]] * len(releases), releases, known)) for person in members]
    if shown:
        assert min(left) >= k
    elif known:
        assert min(left) < k or len(now) < k
