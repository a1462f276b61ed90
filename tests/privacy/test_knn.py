import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.privacy.clustering import normalized
from anonlib.privacy.knn import close_pairs, nearest


def people(count: int, photos: int, seed: int, *, spread: float = 0.02, dim: int = 32) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = normalized(rng.normal(size=(count, dim)).astype(np.float32))
    return normalized(np.repeat(centres, photos, axis=0) + spread * rng.normal(size=(count * photos, dim)))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(1, 8), st.floats(-1, 0.99), st.integers(0, 10_000))
def test_the_nearest_are_those_of_the_full_table(rows: int, count: int, floor: float, seed: int) -> None:
    vectors = normalized(np.random.default_rng(seed).normal(size=(rows, 8)).astype(np.float32))
    found = nearest(vectors, vectors, count=count, floor=floor)
    cosine = vectors @ vectors.T
    for row in range(rows):
        expected = [other for other in np.argsort(-cosine[row])[:count] if cosine[row, other] >= floor]
        assert set(found[row][found[row] >= 0].tolist()) == set(expected)


def test_lists_find_whom_comparing_all_finds() -> None:
    vectors = people(1500, 4, seed=1)
    exact = set(zip(*close_pairs(vectors, count=8, floor=0.9), strict=True))
    listed = set(zip(*close_pairs(vectors, count=8, floor=0.9, exact_below=0), strict=True))
    assert len(exact) == 1500 * 6
    assert listed <= exact
    assert len(listed) > 0.99 * len(exact)


def test_a_pair_is_seen_once_and_nobody_is_near_himself() -> None:
    first, second = close_pairs(people(10, 4, seed=5), count=3, floor=0.9)
    assert (first < second).all()
    assert len({*zip(first.tolist(), second.tolist(), strict=True)}) == len(first) == 60
