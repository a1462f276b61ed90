import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anonlib.synthesis.redact import GREY, fill_hole

HEIGHT, WIDTH = 90, 110
ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
GRADIENT = np.stack([40 + 1.2 * COLUMNS, 200 - ROWS, 60 + 0.5 * (ROWS + COLUMNS)], axis=2)
ALL = np.ones((HEIGHT, WIDTH), bool)
DISC = (COLUMNS - 50) ** 2 + (ROWS - 45) ** 2 < 25**2


def photo(grain: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, grain, GRADIENT.shape) if grain else 0
    return np.clip(np.rint(GRADIENT + noise), 0, 255).astype(np.uint8)


@settings(max_examples=30, deadline=None)
@given(arrays(bool, (24, 30)), arrays(bool, (24, 30)), st.integers(0, 2**32 - 1))
def test_no_px_of_the_hole_or_of_what_is_avoided_has_any_influence(
    hole: np.ndarray, avoid: np.ndarray, at: int
) -> None:
    view = np.random.default_rng(at).integers(0, 256, (24, 30, 3), dtype=np.uint8)
    other = np.where((hole | avoid)[..., None], 255 - view, view)
    first, second = (fill_hole(image, hole, avoid, b"seed") for image in (view, other))
    assert (first[hole] == second[hole]).all()
    assert (first[~hole] == view[~hole]).all()


@pytest.mark.parametrize(
    "hole", [DISC, DISC & (ROWS > 40), DISC | (np.abs(COLUMNS - 84) < 6) & (np.abs(ROWS - 45) < 30)]
)
def test_a_hole_in_a_gradient_leaves_no_seam(hole: np.ndarray) -> None:
    filled = fill_hole(photo(0), hole, ~ALL, b"seed")
    away = np.abs(filled - GRADIENT)[hole]
    assert away.max() <= 1.5


def test_the_grain_is_as_strong_as_the_photos_and_its_seed_decides_it() -> None:
    first, again, other = (fill_hole(photo(6), DISC, ~ALL, seed) for seed in (b"1", b"1", b"2"))
    spread = (first - GRADIENT)[DISC].std(axis=0)
    assert (np.abs(spread / 6 - 1) < 0.2).all()
    assert (first == again).all() and (first != other)[DISC].any()


def test_a_hole_without_surroundings_is_grey() -> None:
    assert (fill_hole(photo(6), DISC, ~DISC, b"seed")[DISC] == GREY).all()
