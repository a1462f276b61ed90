import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.privacy.clustering import (
    KEPT,
    MOST,
    SHARE,
    Subjects,
    bar,
    cluster,
    fused,
    join,
    known_subjects,
    label_doubts,
    normalized,
    tied,
)
from tests.privacy.made_people import people


def cone(count: int, photos: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Faces as dlib embeds them: strangers at a cosine of about .8, photos of one person at .96; and who is who."""
    rng = np.random.default_rng(seed)
    axis = np.zeros(128)
    axis[0] = 0.8**0.5
    owner = rng.permutation(np.repeat(np.arange(count), photos))
    centres = rng.normal(size=(count, 128)) * (0.16 / 128) ** 0.5
    noise = rng.normal(size=(len(owner), 128)) * (0.04 / 128) ** 0.5
    return normalized((axis + centres[owner] + noise).astype(np.float32)), owner


def same(numbers: np.ndarray) -> np.ndarray:
    return numbers[:, None] == numbers


def by_hand(embeddings: np.ndarray, threshold: float) -> np.ndarray:
    """Average linkage by definition: the mean over all pairs of faces, and the best pair joins first."""
    cosine = embeddings.astype(np.float64) @ embeddings.T.astype(np.float64)
    groups = [[face] for face in range(len(embeddings))]
    while True:
        margins = {
            (a, b): cosine[np.ix_(groups[a], groups[b])].mean()
            - float(bar(threshold, np.array(len(groups[a])), np.array(len(groups[b]))))
            for b in range(len(groups))
            for a in range(b)
        }
        if not margins or max(margins.values()) < 0:
            break
        a, b = max(margins, key=lambda pair: margins[pair])
        groups[a] += groups.pop(b)
    number = np.empty(len(embeddings), np.int64)
    for one, members in enumerate(groups):
        number[members] = one
    return number


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 24), st.floats(0.2, 0.9), st.integers(0, 10_000))
def test_rounds_of_mutual_partners_join_as_the_best_pair_first_does(faces: int, threshold: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    embeddings = normalized((rng.normal(size=(faces, 4)) + np.array([2, 0, 0, 0])).astype(np.float32))
    assert (same(cluster(embeddings, threshold=threshold)) == same(by_hand(embeddings, threshold))).all()


def test_bursts_that_crowd_their_own_neighbourhood_find_each_other() -> None:
    """Forty photos of one second are each other's nearest; only their mean sees the person's other burst."""
    faces, owner = cone(3, 2, seed=6)
    found = cluster(np.repeat(faces, 40, axis=0), threshold=0.92, neighbours=8)
    assert (same(found) == same(np.repeat(owner, 40))).all()


def test_threads_and_processes_change_nothing() -> None:
    code = (
        "import hashlib\n"
        "from tests.privacy.test_clustering import cone; from anonlib.privacy.clustering import cluster\n"
        "faces = cone(400, 4, seed=11)[0]\n"
        "for below in (0, 100_000):\n"
        "    print(hashlib.sha256(cluster(faces, threshold=0.925, exact_below=below).tobytes()).hexdigest())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "3")
    }
    assert len(told) == 1


@pytest.mark.parametrize("exact_below", [0, 100_000])
def test_a_table_of_halves_on_disk_gives_the_same_people_and_stays_as_it_is(tmp_path: Path, exact_below: int) -> None:
    faces, owner = cone(400, 5, seed=12)
    table = np.memmap(tmp_path / "faces", np.float16, "w+", shape=faces.shape)
    table[:] = faces
    table.flush()
    before = (tmp_path / "faces").read_bytes()
    mapped = np.memmap(tmp_path / "faces", np.float16, "r", shape=faces.shape)
    found = cluster(mapped, threshold=0.92, exact_below=exact_below)
    assert (same(found) == same(owner)).mean() > 0.9999
    assert (tmp_path / "faces").read_bytes() == before


# --- known subjects --------------------------------------------------------------------------------------------------


DIM = 48


def photos(of: np.ndarray, count: int, seed: int, spread: float) -> np.ndarray:
    """Photos (n, d) of the people numbered in `of`, who look the same for every seed."""
    centres = np.random.default_rng(99).normal(size=(count, DIM))
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
    fresh = np.unique(joined[joined >= len(bank.faces)])
    assert fresh.tolist() == list(range(len(bank.faces), len(bank.faces) + len(fresh)))


def test_a_known_person_joins_and_a_stranger_is_new() -> None:
    bank = known_subjects(photos(np.repeat(np.arange(6), 3), 9, 1, 0.2), np.repeat(np.arange(6), 3), 6)
    joined = join(bank, photos(np.array([4, 8, 0, 8, 7]), 9, 2, 0.2), threshold=0.8)
    assert joined.tolist() == [4, 6, 0, 6, 7]


def test_someone_like_two_old_subjects_does_not_unite_them() -> None:
    angles = np.radians([0, 20, 8])
    faces = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    bank = known_subjects(faces[:2], np.array([0, 1]), 2)
    assert join(bank, faces[2:], threshold=0.95).tolist() == [0]
    assert len(bank.faces) == 2


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_the_order_within_a_batch_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bank = known_subjects(photos(np.arange(8), 12, seed, 0.5), np.arange(8), 8)
    arrivals = photos(rng.integers(12, size=30), 12, seed + 1, 0.5)
    order = rng.permutation(30)
    one, two = join(bank, arrivals, threshold=0.7)[order], join(bank, arrivals[order], threshold=0.7)
    known = one < len(bank.faces)
    assert (known == (two < len(bank.faces))).all()
    assert (one[known] == two[known]).all()
    assert ((one[:, None] == one) == (two[:, None] == two)).all()


def test_an_empty_bank_is_no_bank() -> None:
    faces = photos(np.array([3, 1, 3, 2]), 5, 1, 0.1)
    empty = known_subjects(faces[:0], np.zeros(0, np.int64), 0)
    assert join(empty, faces, threshold=0.8).tolist() == cluster(faces, threshold=0.8).tolist() == [0, 1, 0, 2]


# --- two recognizers as one ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_cosine_is_the_weighted_mean_of_both(count: int) -> None:
    first, second = people(count, 1, 32), people(count, 2, 300).astype(np.float16)
    both = fused(first, second)
    second = second.astype(np.float32)
    wanted = SHARE * first @ first.T + (1 - SHARE) * second @ second.T
    assert np.allclose(both @ both.T, wanted, atol=2e-3)


def test_copies_of_a_photo_stay_equal_and_long_vectors_get_short() -> None:
    first, second = people(500, 1, 32), people(500, 2, 600).astype(np.float16)
    first[499], second[499] = first[3], second[3]
    both = fused(first, second)
    assert both.shape == (500, 32 + KEPT)
    assert np.array_equal(both[499], both[3])


# --- ties ------------------------------------------------------------------------------------------------------------


def parts(persons: int, each: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of subjects, `each` a person, and the person of each."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(persons), each)
    centres = normalized(rng.normal(size=(persons, 64)).astype(np.float32))
    return normalized((centres[who] + spread * rng.normal(size=(len(who), 64))).astype(np.float32)), who


def single(means: np.ndarray) -> Subjects:
    """Subjects of one face each."""
    return Subjects(means, np.ones(len(means), np.int64))


def women(subjects: int) -> np.ndarray:
    """The gender of subjects of whom all are women."""
    return np.ones(subjects, np.float32)


def test_parts_of_one_person_below_the_bar_are_tied() -> None:
    means, who = parts(30, 3, 0.017, 1)
    pairs = (means @ means.T)[who[:, None] == who[None]]
    threshold = float(np.sort(pairs)[: len(pairs) // 3].mean()) + 0.01
    person = tied(single(means), np.zeros(90, bool), women(90), threshold=threshold)
    assert len(set(zip(person.tolist(), who.tolist(), strict=True))) == len(set(person.tolist())) == 30


def test_people_with_labels_are_never_tied_to_each_other() -> None:
    means, who = parts(5, 4, 0.001, 2)
    labelled = np.zeros(20, bool)
    labelled[::2] = True
    person = tied(single(means), labelled, women(20), threshold=0.9)
    assert len(set(person[labelled].tolist())) == 10
    assert all(person[row] in person[labelled & (who == who[row])] for row in np.flatnonzero(~labelled))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.integers(0, 1000), st.floats(-0.9, 0.9))
def test_ties_do_not_percolate(count: int, seed: int, threshold: float) -> None:
    person = tied(single(people(count, seed, 3)), np.zeros(count, bool), women(count), threshold=threshold)
    assert np.bincount(person).max() <= MOST
    assert person[0] == 0 and (np.diff([person[: row + 1].max() for row in range(count)]) <= 1).all()


def test_a_man_and_a_woman_are_not_tied_however_alike() -> None:
    means, _ = parts(1, 3, 0.001, 4)
    female = np.array([0.95, 0.05], np.float32)
    assert tied(single(means), np.zeros(3, bool), women(3), threshold=0.9).tolist() == [0, 0, 0]
    apart = tied(single(means[:2]), np.zeros(2, bool), female, threshold=0.9)
    assert apart.tolist() == [0, 1]


# --- labels ----------------------------------------------------------------------------------------------------------


NEAR, APART = 0.8, 0.6


def look(of: list[int], seed: int = 0) -> np.ndarray:
    """Photos (n, 64) of the people numbered in `of`: about .9 alike, strangers about 0."""
    centres = normalized(np.random.default_rng(1).normal(size=(40, 64)).astype(np.float32))
    noise = np.random.default_rng(seed).normal(size=(len(of), 64)) * (0.11 / 64) ** 0.5
    return normalized((centres[of] + noise).astype(np.float32))


def doubts(faces: np.ndarray, labels: str) -> list[str]:
    return label_doubts(faces, labels, [str(row) for row in range(len(labels))], near=NEAR, apart=APART)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(0, 1000))
def test_right_labels_are_in_doubt_nowhere(photos: list[int], seed: int) -> None:
    of = np.repeat(np.arange(len(photos)), photos).tolist()
    assert doubts(look(of, seed), "".join("abcdefghijkl"[number] for number in of)) == []


@pytest.mark.parametrize(
    ("of", "labels", "sentences"),
    [
        ([0, 0, 0, 1, 1, 1, 1], "aaabbba", ["6 is labelled a and looks like b"]),
        # Two faces under a name, one of them wrong: with itself in the mean it would look half right.
        ([0, 1, 1, 1, 1], "aabbb", ["1 is labelled a and looks like b"]),
        ([0, 0, 1, 1, 0, 0], "aabbcc", ["a and c look like one person"]),
        ([0, 0, 0, 1, 1, 2, 2], "aaaaabb", ["a looks like two people, one of them in 3, 4"]),
        # Faces that are a second person under a name are not said to be misplaced too.
        ([0, 0, 0, 1, 1, 1, 1], "aaaaabb", ["a looks like two people, one of them in 3, 4"]),
        # A stranger without a better name is not misplaced.
        ([0, 0, 0, 5, 1, 1], "aaaabb", []),
        ([0] * 8 + [1] * 9, "a" * 17, ["a looks like two people, one of them in 0, 1, 2, 3, 4 and 3 more"]),
        ([], "", []),
    ],
)
def test_what_labels_and_faces_disagree_on_is_said_once(of: list[int], labels: str, sentences: list[str]) -> None:
    assert doubts(look(of) if of else np.zeros((0, 64), np.float32), labels) == sentences


def test_no_cluster_has_two_faces_that_are_apart_and_the_others_join_as_without_them() -> None:
    rng = np.random.default_rng(5)
    faces = normalized((np.eye(1, 32)[0] + 0.05 * rng.normal(size=(30, 32))).astype(np.float32))
    photos = [list(range(start, start + 3)) for start in range(0, 30, 3)]
    found = cluster(faces, threshold=0.9, apart=photos)
    for photo in photos:
        assert len(set(found[photo])) == 3
    assert len(set(found.tolist())) < 12
    alone = cluster(faces, threshold=0.9)
    assert len(set(alone.tolist())) == 1
    assert cluster(faces, threshold=0.9, apart=[[row] for row in range(30)]).tolist() == alone.tolist()
