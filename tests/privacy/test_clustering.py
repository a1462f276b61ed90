import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.privacy import clustering
from anonlib.privacy.clustering import RISE, bar, by_label, cluster, normalized, templates


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 25), st.integers(1, 6), st.integers(0, 10_000))
def test_well_separated_people_are_found_exactly(people: int, photos: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    centres = normalized(rng.normal(size=(people, 128)).astype(np.float32))
    owner = np.repeat(np.arange(people), photos)
    faces = normalized(centres[owner] + 0.02 * rng.normal(size=(len(owner), 128)).astype(np.float32))
    found = cluster(faces, threshold=0.8)
    assert ((found[:, None] == found) == (owner[:, None] == owner)).all()


def test_a_chain_of_small_steps_does_not_become_one_person() -> None:
    angles = np.radians(np.arange(0, 120, 8))
    faces = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = cluster(faces, threshold=0.98)
    assert len(set(found.tolist())) >= 4
    ends = found[0], found[-1]
    assert ends[0] != ends[1]


def cone(people: int, photos: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Faces as dlib embeds them: strangers at a cosine of about .8, photos of one person at .96; and who is who."""
    rng = np.random.default_rng(seed)
    axis = np.zeros(128)
    axis[0] = 0.8**0.5
    owner = rng.permutation(np.repeat(np.arange(people), photos))
    centres = rng.normal(size=(people, 128)) * (0.16 / 128) ** 0.5
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


@pytest.mark.parametrize("exact_below", [0, 100_000])
def test_people_of_a_narrow_cone_are_found(exact_below: int) -> None:
    faces, owner = cone(600, 5)
    found = cluster(faces, threshold=0.92, exact_below=exact_below)
    wrong = np.count_nonzero(same(found) != same(owner)) / np.count_nonzero(same(owner))
    assert wrong < 0.002


def test_a_person_with_more_photos_than_neighbours_stays_one() -> None:
    faces, owner = cone(4, 150, seed=3)
    assert (same(cluster(faces, threshold=0.92, neighbours=8)) == same(owner)).all()


def test_bursts_that_crowd_their_own_neighbourhood_find_each_other() -> None:
    """Forty photos of one second are each other's nearest; only their mean sees the person's other burst."""
    faces, owner = cone(3, 2, seed=6)
    found = cluster(np.repeat(faces, 40, axis=0), threshold=0.92, neighbours=8)
    assert (same(found) == same(np.repeat(owner, 40))).all()


def test_means_are_compared_with_their_scatter() -> None:
    """Two wide groups whose scaled means are near: over all pairs of faces they are not."""
    rng = np.random.default_rng(5)
    towards = np.zeros((2, 64))
    towards[:, 0], towards[0, 1], towards[1, 1] = 1.0, 0.25, -0.25
    faces = normalized((np.repeat(towards, 40, axis=0) + 0.06 * rng.normal(size=(80, 64))).astype(np.float32))
    found = cluster(faces, threshold=0.78)
    one, two = (normalized(part.mean(axis=0, keepdims=True))[0] for part in (faces[:40], faces[40:]))
    assert one @ two > 0.78 + RISE > (faces[:40] @ faces[40:].T).mean() + RISE
    assert set(found[:40]).isdisjoint(found[40:])


def test_the_bar_rises_as_clusters_grow() -> None:
    sizes = np.array([1, 2, 10, 10_000])
    heights = bar(0.9, sizes, sizes)
    assert heights[0] == 0.9
    assert (np.diff(heights) > 0).all()
    assert heights[-1] < 0.9 + RISE


def test_clusters_are_numbered_by_their_first_face() -> None:
    faces = np.eye(3, dtype=np.float32)[[2, 0, 2, 1, 0]]
    assert cluster(faces, threshold=0.9).tolist() == [0, 1, 0, 2, 1]


def test_threads_and_processes_change_nothing() -> None:
    code = (
        "import hashlib\n"
        "from tests.privacy.test_clustering import cone; from anonlib.privacy.clustering import cluster\n"
        "faces = cone(900, 4, seed=11)[0]\n"
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
        for threads in ("1", "2", "3")
    }
    assert len(told) == 1


def test_the_order_of_faces_does_not_change_who_is_who() -> None:
    rng = np.random.default_rng(7)
    centres = normalized(rng.normal(size=(9, 64)).astype(np.float32))
    owner = rng.integers(9, size=60)
    faces = normalized(centres[owner] + 0.05 * rng.normal(size=(60, 64)).astype(np.float32))
    order = rng.permutation(60)
    one, two = cluster(faces, threshold=0.7)[order], cluster(faces[order], threshold=0.7)
    assert ((one[:, None] == one) == (two[:, None] == two)).all()


def test_no_faces_are_no_people() -> None:
    assert len(cluster(np.zeros((0, 128), np.float32), threshold=0.9)) == 0


def test_a_template_is_the_unit_mean() -> None:
    faces = np.array([[1, 0], [0, 1], [0, 1]], np.float32)
    found = templates(faces, np.array([0, 0, 1]), 2)
    assert np.allclose(found, [[2**-0.5, 2**-0.5], [0, 1]])


def test_labels_number_people_by_name() -> None:
    numbers, names = by_label(["b", "a", "b"])
    assert names == ["a", "b"]
    assert numbers.tolist() == [1, 0, 1]


def test_thousands_of_copies_are_one_face_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    faces, owner = cone(3, 2, seed=9)
    copies = np.random.default_rng(1).integers(6, size=4000)
    seen = []
    asked = clustering.close_pairs
    monkeypatch.setattr(clustering, "close_pairs", lambda *a, **k: seen.append(len(a[0])) or asked(*a, **k))
    found = cluster(faces[copies], threshold=0.92)
    assert (same(found) == same(owner[copies])).all()
    assert seen[0] == 6


@pytest.mark.parametrize("exact_below", [0, 100_000])
def test_a_table_of_halves_on_disk_gives_the_same_people_and_stays_as_it_is(tmp_path: Path, exact_below: int) -> None:
    faces, owner = cone(400, 5, seed=12)
    table = np.memmap(tmp_path / "faces", np.float16, "w+", shape=faces.shape)
    table[:] = faces
    table.flush()
    before = (tmp_path / "faces").read_bytes()
    found = cluster(
        np.memmap(tmp_path / "faces", np.float16, "r", shape=faces.shape), threshold=0.92, exact_below=exact_below
    )
    assert (same(found) == same(owner)).mean() > 0.9999
    assert (tmp_path / "faces").read_bytes() == before
