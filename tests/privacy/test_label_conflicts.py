import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.privacy.clustering import normalized
from anonlib.privacy.label_conflicts import Disagreements, disagreements

NEAR, APART = 0.8, 0.6


def faces(of: list[int], seed: int = 0) -> np.ndarray:
    """Photos (n, 64) of the people numbered in `of`: about .9 alike, strangers about 0."""
    centres = normalized(np.random.default_rng(1).normal(size=(40, 64)).astype(np.float32))
    noise = np.random.default_rng(seed).normal(size=(len(of), 64)) * (0.11 / 64) ** 0.5
    return normalized((centres[of] + noise).astype(np.float32))


def check(of: list[int], label: list[int]) -> Disagreements:
    return disagreements(faces(of), np.array(label, np.int64), near=NEAR, apart=APART)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(0, 1000))
def test_right_labels_are_in_doubt_nowhere(photos: list[int], seed: int) -> None:
    of = np.repeat(np.arange(len(photos)), photos).tolist()
    assert len(disagreements(faces(of, seed), np.array(of), near=NEAR, apart=APART)) == 0


def test_a_face_under_another_name_is_found_with_the_name_it_should_have() -> None:
    found = check([0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 0])
    assert [(one.face, one.label, one.like) for one in found.misplaced] == [(6, 0, 1)]
    assert found.misplaced[0].own < APART < NEAR < found.misplaced[0].other
    assert not found.one_person
    assert not found.two_people


def test_a_face_is_not_compared_with_itself() -> None:
    """Two faces under a name, one of them wrong: with itself in the mean it would look half right."""
    found = check([0, 1, 1, 1, 1], [0, 0, 1, 1, 1])
    assert [one.face for one in found.misplaced] == [1]
    assert abs(found.misplaced[0].own) < 0.4


def test_a_face_is_not_like_another_because_it_is_like_itself() -> None:
    two = np.array([[1, 0], [0.5, 0.75**0.5]], np.float32)
    assert not disagreements(two, np.array([0, 0]), near=0.6, apart=0.6).misplaced


def test_one_person_under_two_names_is_found() -> None:
    found = check([0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 2, 2])
    assert [(one.first, one.second) for one in found.one_person] == [(0, 2)]
    assert not found.misplaced
    assert not found.two_people


def test_two_people_under_one_name_are_found() -> None:
    found = check([0, 0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 0, 1, 1])
    assert [(one.label, one.faces) for one in found.two_people] == [(0, (3, 4))]
    assert found.two_people[0].cosine < APART
    assert not found.one_person


def test_faces_that_are_a_second_person_under_a_name_are_said_once() -> None:
    found = check([0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1])
    assert len(found.two_people) == 1
    assert not found.misplaced


def test_a_stranger_without_a_better_name_is_not_misplaced() -> None:
    assert len(check([0, 0, 0, 5, 1, 1], [0, 0, 0, 0, 1, 1])) == 0


def test_a_name_with_more_faces_than_are_compared_is_checked_on_some() -> None:
    found = check([0] * 900 + [1] * 400, [0] * 1300)
    assert len(found.two_people) == 1
    assert 100 < len(found.two_people[0].faces) < 400
    assert min(found.two_people[0].faces) >= 900


def test_no_labels_no_doubts() -> None:
    assert len(check([], [])) == 0


def test_the_two_bars_cannot_cross() -> None:
    with pytest.raises(ValueError, match="like and unlike"):
        disagreements(faces([0]), np.array([0]), near=0.5, apart=0.6)
