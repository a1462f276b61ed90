import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.privacy.subjects import by_label, cluster, normalized, templates


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
