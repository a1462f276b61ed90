import math

import numpy as np
import pytest

from anonlib.privacy.sphere import cosine_beyond, require_unit


def test_unit_rows_pass_in_either_precision() -> None:
    for kind in (np.float32, np.float64):
        require_unit(np.eye(4, dtype=kind), "templates")
        require_unit(np.zeros((0, 4), kind), "templates")


@pytest.mark.parametrize("wrong", [0.0, 0.99, 1.01, np.nan, np.inf])
def test_one_row_of_another_length_is_counted_and_shown(wrong: float) -> None:
    rows = np.eye(4)
    rows[2] = [0.0, 0.0, wrong, 0.0]
    with pytest.raises(ValueError, match=f"^templates must have length 1; 1 of 4 have not, one has {wrong:g}"):
        require_unit(rows, "templates")


@pytest.mark.parametrize("angle", [1.0, 45.0, 75.0, 120.0])
def test_what_passes_in_32_bits_is_as_far_in_64(angle: float) -> None:
    rng = np.random.default_rng(0)
    one, across = rng.normal(size=(2, 2000, 128))
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    across -= (across * one).sum(axis=1, keepdims=True) * one
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    turn = np.radians(angle + rng.normal(scale=1e-5, size=(2000, 1)))
    other = np.cos(turn) * one + np.sin(turn) * across
    assert ((one.astype(np.float32) * other.astype(np.float32)).sum(axis=1) > cosine_beyond(angle)).any()
    passed = np.einsum("nd,nd->n", one, other) <= cosine_beyond(angle) + 5e-6
    assert (np.degrees(np.arccos(np.einsum("nd,nd->n", one, other)[passed])) >= angle).all()
    assert math.degrees(math.acos(cosine_beyond(angle))) - angle < 0.05
