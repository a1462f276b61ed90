import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.privacy.clustering import KnownSubjects, cluster, join, known_subjects, normalized

DIM = 48


def photos(of: np.ndarray, people: int, seed: int, spread: float) -> np.ndarray:
    """Photos (n, d) of the people numbered in `of`, who look the same for every seed."""
    centres = np.random.default_rng(99).normal(size=(people, DIM))
    noise = spread * np.random.default_rng(seed).normal(size=(len(of), DIM))
    return normalized((centres[of] + noise).astype(np.float32))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 11), min_size=1, max_size=40),
    st.lists(st.integers(0, 11), min_size=0, max_size=40),
    st.floats(0.05, 1.2),
    st.floats(0.3, 0.9),
    st.integers(0, 10_000),
)
def test_old_subjects_never_move(old: list[int], new: list[int], spread: float, threshold: float, seed: int) -> None:
    before = photos(np.array(old), 12, seed, spread)
    subject = cluster(before, threshold=threshold)
    bank = known_subjects(before, subject, int(subject.max()) + 1)
    means, faces = bank.means.copy(), bank.faces.copy()
    joined = join(bank, photos(np.array(new, np.int64), 12, seed + 1, spread), threshold=threshold)
    assert (bank.means == means).all()
    assert (bank.faces == faces).all()
    assert len(joined) == len(new)
    fresh = np.unique(joined[joined >= len(bank)])
    assert fresh.tolist() == list(range(len(bank), len(bank) + len(fresh)))


def test_a_known_person_joins_and_a_stranger_is_new() -> None:
    bank = known_subjects(photos(np.repeat(np.arange(6), 3), 9, 1, 0.2), np.repeat(np.arange(6), 3), 6)
    joined = join(bank, photos(np.array([4, 8, 0, 8, 7]), 9, 2, 0.2), threshold=0.8)
    assert joined.tolist() == [4, 6, 0, 6, 7]


def test_a_subject_of_unlike_faces_is_as_far_as_its_faces_are() -> None:
    """Its scaled mean is the new face itself; over the pairs of faces they are .906 alike."""
    angles = np.radians([-25, 25, 0])
    faces = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    bank = known_subjects(faces[:2], np.array([0, 0]), 1)
    assert join(bank, faces[2:], threshold=0.92).tolist() == [1]
    assert join(bank, faces[2:], threshold=0.88).tolist() == [0]


def test_someone_like_two_old_subjects_does_not_unite_them() -> None:
    angles = np.radians([0, 20, 8])
    faces = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    bank = known_subjects(faces[:2], np.array([0, 1]), 2)
    assert join(bank, faces[2:], threshold=0.95).tolist() == [0]
    assert len(bank) == 2


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_the_order_within_a_batch_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bank = known_subjects(photos(np.arange(8), 12, seed, 0.5), np.arange(8), 8)
    arrivals = photos(rng.integers(12, size=30), 12, seed + 1, 0.5)
    order = rng.permutation(30)
    one, two = join(bank, arrivals, threshold=0.7)[order], join(bank, arrivals[order], threshold=0.7)
    known = one < len(bank)
    assert (known == (two < len(bank))).all()
    assert (one[known] == two[known]).all()
    assert ((one[:, None] == one) == (two[:, None] == two)).all()


def test_the_order_of_batches_does() -> None:
    """A face between two others joins whichever came first, and stays."""
    angles = np.radians([0, 10, 20])
    left, middle, right = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)[:, None]
    for known, later in ((left, right), (right, left)):
        bank = known_subjects(known, np.array([0]), 1)
        assert join(bank, middle, threshold=0.97).tolist() == [0]
        grown = known_subjects(np.concatenate([known, middle]), np.array([0, 0]), 1)
        assert join(grown, later, threshold=0.97).tolist() == [1]


def test_an_empty_bank_is_no_bank() -> None:
    faces = photos(np.array([3, 1, 3, 2]), 5, 1, 0.1)
    empty = known_subjects(faces[:0], np.zeros(0, np.int64), 0)
    assert join(empty, faces, threshold=0.8).tolist() == cluster(faces, threshold=0.8).tolist() == [0, 1, 0, 2]


def test_a_bank_has_a_face_for_every_subject() -> None:
    with pytest.raises(ValueError, match="at least one face"):
        KnownSubjects(np.eye(2, dtype=np.float32), np.array([1, 0]))
