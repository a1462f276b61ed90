"""A mix of bank faces is what was asked for: real faces of that gender and age, weighed as said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.synthesis.textures.face_space import FaceBank, FaceSpace, region
from anonlib.workspace.schemas import MESH_POINTS
from tests.support.decoders import Fit

DIMENSION, FACES = 8, 60


@pytest.fixture(scope="module")
def bank() -> FaceBank:
    rng = np.random.default_rng(0)
    pixels = 3 * int(region().sum())
    space = FaceSpace(
        *(
            rng.standard_normal(size).astype(np.float32)
            for size in ((pixels,), (4, pixels), (3 * MESH_POINTS,), (3, 3 * MESH_POINTS))
        )
    )
    vectors = rng.standard_normal((FACES, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    codes = rng.standard_normal((FACES, space.size)).astype(np.float32)
    age = np.linspace(20, 80, FACES).astype(np.float32)
    happy = rng.random(FACES).astype(np.float32)
    return FaceBank(space, vectors, codes, (np.arange(FACES) % 2).astype(np.float32), age, happy)


def test_one_row_of_weight_one_is_that_face(bank: FaceBank) -> None:
    for row in (0, 17, 59):
        mixed, own = bank.mix([row], [1.0]), bank.space.texture(bank.codes[row], float(bank.happy[row]))
        assert mixed.detail.tobytes() == own.detail.tobytes() and mixed.shape.tobytes() == own.shape.tobytes()
        assert mixed.happy == own.happy


@settings(deadline=None)
@given(st.lists(st.integers(0, FACES - 1), min_size=1, max_size=6), st.floats(0.1, 10))
def test_a_mix_is_the_mean_face_whatever_the_weights_add_up_to(bank: FaceBank, rows: list[int], scale: float) -> None:
    mixed = bank.mix(rows, [scale] * len(rows))
    mean = np.mean([bank.mix([row]).shape for row in rows], axis=0)
    assert np.allclose(mixed.shape, mean, atol=1e-4)
    assert np.allclose(bank.mix(rows).shape, mixed.shape, atol=1e-5)
    assert mixed.happy == pytest.approx(float(np.mean(bank.happy[rows])), abs=1e-5)


def test_weights_are_kept(bank: FaceBank) -> None:
    mixed = bank.mix([3, 4], [3.0, 1.0]).shape
    assert np.allclose(mixed, 0.75 * bank.mix([3]).shape + 0.25 * bank.mix([4]).shape, atol=1e-4)


@settings(deadline=None)
@given(st.integers(0, FACES - 1), st.integers(1, 5))
def test_a_bank_face_is_nearest_to_itself(bank: FaceBank, row: int, k: int) -> None:
    rows = bank.nearest(bank.vectors[row], k, float(bank.female[row]), float(bank.age[row]))
    assert rows[0] == row and len(set(rows.tolist())) == k


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
    assert allowed[rows].all()
    left = np.setdiff1d(np.flatnonzero(allowed), rows)
    assert len(left) == 0 or (bank.vectors[left] @ z).max() <= (bank.vectors[rows] @ z).min() + 1e-6


@pytest.mark.parametrize("k", [0, FACES + 1])
def test_a_bank_gives_no_more_faces_than_it_has(bank: FaceBank, k: int) -> None:
    with pytest.raises(ValueError, match=f"asked of a bank of {FACES}"):
        bank.nearest(bank.vectors[0], k, 0.5, 40)


@pytest.mark.parametrize(("rows", "weights"), [([], None), ([1], [0.0]), ([1, 2], [1.0]), ([1, 2], [2.0, -1.0])])
def test_weights_that_misfit_are_refused(bank: FaceBank, rows: list[int], weights: list[float] | None) -> None:
    with pytest.raises(ValueError, match="as many weights"):
        bank.mix(rows, weights)


def test_a_code_of_another_length_is_refused(bank: FaceBank) -> None:
    with pytest.raises(ValueError, match="7 numbers"):
        bank.space.texture(np.zeros(6, np.float32), 0.0)


def test_a_fitted_bank_knows_its_own_faces(fitted: Fit) -> None:
    bank = fitted.decoder.bank
    for row in range(0, len(bank), 5):
        assert bank.nearest(bank.vectors[row], 1, float(bank.female[row]), float(bank.age[row]))[0] == row
