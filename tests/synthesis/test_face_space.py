"""A mix of bank faces is what was asked for: real faces of that gender and age, weighed as said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.synthesis.textures.face_space import FaceBank, FaceSpace, region
from anonlib.workspace.schemas import MESH_POINTS

DIMENSION, FACES = 8, 60


@pytest.fixture(scope="module")
def bank() -> FaceBank:
    rng = np.random.default_rng(0)
    pixels = 3 * int(region().sum())
    sizes = (pixels,), (4, pixels), (3 * MESH_POINTS,), (3, 3 * MESH_POINTS), (FACES, DIMENSION), (FACES, 7), (FACES,)
    *space, vectors, codes, happy = (rng.standard_normal(size).astype(np.float32) for size in sizes)
    return FaceBank(
        vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        female=(np.arange(FACES) % 2).astype(np.float32),
        age=np.linspace(20, 80, FACES).astype(np.float32),
        codes=codes,
        happy=happy,
        space=FaceSpace(*space),
    )


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, FACES - 1), st.floats(0.1, 10)), min_size=1, max_size=6), st.floats(0.1, 10))
def test_a_mix_is_the_weighted_mean_face_whatever_the_weights_add_up_to(
    bank: FaceBank, chosen: list[tuple[int, float]], scale: float
) -> None:
    rows, weights = [row for row, _ in chosen], [weight for _, weight in chosen]
    mixed = bank.mix(rows, [scale * weight for weight in weights])
    mean = np.average([bank.mix([row]).shape for row in rows], axis=0, weights=weights)
    assert np.allclose(mixed.shape, mean, atol=1e-4)
    assert mixed.happy == pytest.approx(float(np.average(bank.happy[rows], weights=weights)), abs=1e-5)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0]), st.floats(20, 80), st.integers(1, FACES))
def test_gender_and_age_are_kept_as_long_as_enough_faces_have_them(
    bank: FaceBank, seed: int, female: float, age: float, k: int
) -> None:
    z = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
    rows = bank.nearest(z, k, female, age)
    same = bank.female == female
    near = same & (np.abs(bank.age - age) <= 10)
    allowed = near if near.sum() >= k else same if same.sum() >= k else np.ones(FACES, bool)
    assert allowed[rows].all() and len(set(rows.tolist())) == k
    left = np.setdiff1d(np.flatnonzero(allowed), rows)
    assert len(left) == 0 or (bank.vectors[left] @ z).max() <= (bank.vectors[rows] @ z).min() + 1e-6


@pytest.mark.parametrize("k", [0, FACES + 1])
def test_a_bank_gives_no_more_faces_than_it_has(bank: FaceBank, k: int) -> None:
    with pytest.raises(ValueError, match=f"asked of a bank of {FACES}"):
        bank.nearest(bank.vectors[0], k, 0.5, 40)
