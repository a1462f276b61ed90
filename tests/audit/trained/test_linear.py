"""Claims about what a linear map brings back."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from anonlib.audit.trained.data import TrainingPairs, split
from anonlib.audit.trained.linear import FINE, fit_restorer, ridge, small
from anonlib.synthesis.redact import redact
from tests.audit.trained.made import held


@pytest.mark.parametrize("rows", [30, 300])
def test_a_ridge_finds_a_linear_map_be_there_more_rows_than_columns_or_fewer(rows: int) -> None:
    random = np.random.default_rng(0)
    basis = random.normal(size=(8, 60))
    x = (random.normal(size=(rows, 8)) @ basis).astype(np.float32)
    true = random.normal(size=(60, 3)).astype(np.float32)
    fresh = (random.normal(size=(50, 8)) @ basis).astype(np.float32)
    found = ridge(x, x @ true + 5, fresh, lambda answers: -float(np.abs(answers - fresh @ true - 5).max()))
    assert np.allclose(found(fresh), fresh @ true + 5, atol=0.05)


def test_however_long_a_box_is_its_ellipse_lies_at_one_place() -> None:
    one = held("solid")
    coarse = small(one.released, one.boxes, FINE)
    covered = np.abs(coarse - 127 / 255).max(axis=3) < 0.01
    first = covered[int(one.boxes[:, 0].argmax())]
    wide = covered[int(one.boxes[:, 0].argmin())]
    assert (first == wide).mean() > 0.96
    assert abs(first.mean() - np.pi / 4 * (1.25 / 1.5) * (1.35 / 1.5)) < 0.03


def restored(how: str) -> tuple[float, float]:
    """Mean squared error of the faces of people not learnt from, as released and as restored."""
    one = held(how)
    parts = split(one.people, 0)
    restorer = fit_restorer(TrainingPairs(one, partial(redact, how=how)), parts, 1, np.random.default_rng(0))
    rows = parts.attack
    out = restorer(one.released[rows], one.boxes[rows])
    assert np.abs(restorer.find(one.released[rows], one.boxes[rows]) - one.points[rows]).mean() < 3

    def error(frames: np.ndarray) -> float:
        inside = slice(28, 68)
        return float(np.square(frames[:, inside, inside] - one.clear[rows][:, inside, inside].astype(float)).mean())

    return error(one.released[rows]), error(out)


def test_a_blur_is_undone_by_a_linear_map_and_a_flat_ellipse_is_not() -> None:
    before, after = restored("blur")
    assert after < 0.25 * before
    before, after = restored("solid")
    assert after > 0.8 * before
