import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.privacy.clustering import known_subjects, normalized
from anonlib.privacy.ties import MOST, tied
from tests.privacy.made_people import people


def parts(persons: int, each: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of subjects, `each` a person, and the person of each."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(persons), each)
    centres = normalized(rng.normal(size=(persons, 64)).astype(np.float32))
    return normalized((centres[who] + spread * rng.normal(size=(len(who), 64))).astype(np.float32)), who


def women(subjects: int) -> np.ndarray:
    """The gender of subjects of whom all are women."""
    return np.ones(subjects, np.float32)


def test_parts_of_one_person_below_the_bar_are_tied() -> None:
    means, who = parts(30, 3, 0.017, 1)
    pairs = (means @ means.T)[who[:, None] == who[None]]
    threshold = float(np.sort(pairs)[: len(pairs) // 3].mean()) + 0.01
    person = tied(means, np.ones(90, np.int64), np.zeros(90, bool), women(90), threshold=threshold)
    assert len(set(zip(person.tolist(), who.tolist(), strict=True))) == len(set(person.tolist())) == 30


def test_people_with_labels_are_never_tied_to_each_other() -> None:
    means, who = parts(5, 4, 0.001, 2)
    labelled = np.zeros(20, bool)
    labelled[::2] = True
    person = tied(means, np.ones(20, np.int64), labelled, women(20), threshold=0.9)
    assert len(set(person[labelled].tolist())) == 10
    assert all(person[row] in person[labelled & (who == who[row])] for row in np.flatnonzero(~labelled))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.integers(0, 1000), st.floats(-0.9, 0.9))
def test_ties_do_not_percolate(count: int, seed: int, threshold: float) -> None:
    person = tied(
        people(count, seed, 3), np.ones(count, np.int64), np.zeros(count, bool), women(count), threshold=threshold
    )
    assert np.bincount(person).max() <= MOST
    assert person[0] == 0 and (np.diff([person[: row + 1].max() for row in range(count)]) <= 1).all()


def test_a_subject_of_unlike_faces_is_tied_by_their_mean_and_not_by_its_direction() -> None:
    angles = np.radians([-25, 25, 0])
    faces = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    bank = known_subjects(faces, np.array([0, 0, 1]), 2)
    assert tied(bank.means, bank.faces, np.zeros(2, bool), women(2), threshold=0.9).tolist() == [0, 0]
    assert tied(bank.means, bank.faces, np.zeros(2, bool), women(2), threshold=0.95).tolist() == [0, 1]


def test_a_man_and_a_woman_are_not_tied_however_alike() -> None:
    means, _ = parts(1, 3, 0.001, 4)
    female = np.array([0.95, 0.05], np.float32)
    assert tied(means, np.ones(3, np.int64), np.zeros(3, bool), women(3), threshold=0.9).tolist() == [0, 0, 0]
    apart = tied(means[:2], np.ones(2, np.int64), np.zeros(2, bool), female, threshold=0.9)
    assert apart.tolist() == [0, 1]
