"""Cells are about equal, depend on the sample alone, and several cuts keep neighbours together that one parts."""

from __future__ import annotations

import numpy as np
import pytest

from anonlib.privacy.cuts import Cut, cut
from anonlib.privacy.subjects import agglomerate, cluster, normalized


def cone(people: int, photos: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Faces as dlib embeds them, and who is who."""
    rng = np.random.default_rng(seed)
    axis = np.zeros(128)
    axis[0] = 0.8**0.5
    owner = rng.permutation(np.repeat(np.arange(people), photos))
    centres = rng.normal(size=(people, 128)) * (0.16 / 128) ** 0.5
    noise = rng.normal(size=(len(owner), 128)) * (0.04 / 128) ** 0.5
    return normalized((axis + centres[owner] + noise).astype(np.float32)), owner


FACES, OWNER = cone(400, 5)


@pytest.mark.parametrize("cells", [1, 2, 7, 16])
def test_no_cell_holds_twice_its_share(cells: int) -> None:
    held = np.bincount(cut(FACES, cells, seed=1).of(FACES), minlength=cells)
    assert len(held) == cells and held.min() > 0
    assert held.max() < 2 * len(FACES) / cells


def test_an_uneven_crowd_is_cut_evenly_too() -> None:
    crowd = np.concatenate(
        [FACES[:200], normalized(FACES[:1] + 0.02 * np.random.default_rng(1).normal(size=(3000, 128)))]
    )
    held = np.bincount(cut(crowd.astype(np.float32), 8, seed=1).of(crowd.astype(np.float32)), minlength=8)
    assert held.max() < 2 * len(crowd) / 8


def test_the_same_sample_is_cut_in_the_same_way_and_another_seed_elsewhere() -> None:
    first, again, other = (cut(FACES, 8, seed=seed).of(FACES) for seed in (1, 1, 2))
    assert (first == again).all()
    same = other[:, None] == other
    assert not (same == (first[:, None] == first)).all()


def test_fewer_different_faces_than_cells_make_fewer_cells() -> None:
    assert cut(np.repeat(FACES[:3], 50, axis=0), 8, seed=1).cells == 3
    with pytest.raises(ValueError, match="0 vectors cannot be cut into 8 cells"):
        cut(FACES[:0], 8, seed=1)


def test_the_nearest_cells_begin_with_a_faces_own() -> None:
    here = cut(FACES, 5, seed=1)
    nearest = here.nearest(FACES[:50], 9)
    assert (nearest[:, 0] == here.of(FACES[:50])).all()
    assert (np.sort(nearest[:, :5], axis=1) == np.arange(5)).all() and (nearest[:, 5:] == -1).all()
    assert Cut(here.centres, here.cell).means().shape == (5, 128)


def test_clusters_that_were_begun_elsewhere_grow_on_as_if_nothing_had_stopped() -> None:
    faces, _ = cone(150, 6, seed=3)
    sure = cluster(faces, threshold=0.96)
    sums = np.stack([faces[sure == one].sum(axis=0) for one in range(sure.max() + 1)])
    grown = agglomerate(sums, np.bincount(sure), threshold=0.93)[sure]
    assert len(set(sure.tolist())) > len(set(grown.tolist()))
    assert (grown == cluster(faces, threshold=0.93)).all()


def test_what_one_cut_parts_the_next_ones_join() -> None:
    parted = []
    number, sums = np.arange(len(FACES)), FACES
    for seed in range(5):
        cell = cut(FACES, 8, seed=seed + 1).of(normalized(sums))
        joined, subjects = np.empty(len(sums), np.int64), 0
        sizes = np.bincount(number)
        for one in range(8):
            rows = np.flatnonzero(cell == one)
            joined[rows] = subjects + agglomerate(sums[rows], sizes[rows], threshold=0.93)
            subjects = int(joined[rows].max(initial=subjects - 1)) + 1
        number = joined[number]
        sums = np.zeros((subjects, 128), np.float32)
        np.add.at(sums, number, FACES)
        parted.append(sum(len(set(number[one == OWNER].tolist())) > 1 for one in range(400)))
    assert parted[0] > 40 and parted[-1] <= 2, parted
    assert all(len(set(OWNER[number == one].tolist())) == 1 for one in range(subjects))
