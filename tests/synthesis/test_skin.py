"""How strong features of a new face are."""

import numpy as np
from numpy.typing import NDArray

from anonlib.synthesis.skin import Grain, as_strong, strength

SIDE = 96


def _grain_of(photo: NDArray[np.uint8], features: NDArray[np.bool_]) -> Grain:
    nothing = np.zeros_like(features)
    return Grain.of(photo, nothing, nothing, features, 45.0)


def test_brows_are_as_soft_as_the_photos_and_the_skin_is_no_crisper() -> None:
    random = np.random.default_rng(0)
    features = np.zeros((SIDE, SIDE), bool)
    features[30:60, 20:76] = True
    crisp = np.repeat(random.integers(60, 200, (SIDE, SIDE, 1)), 3, axis=2).astype(np.float32)
    soft = np.full((SIDE, SIDE, 3), 130, np.uint8)
    soft[features] = (130 + (crisp[features] - 130) / 8).astype(np.uint8)
    painted = as_strong(crisp, _grain_of(soft, features), features.astype(np.float32))
    before, after, wanted = (strength(np.float32(of).mean(axis=2), features) for of in (crisp, painted, soft))
    assert after < before / 4
    assert after < 1.5 * wanted
    inner = np.zeros_like(features)
    inner[70:90, 10:86] = True  # skin, away from the features
    assert strength(np.float32(painted).mean(axis=2), inner) < strength(np.float32(crisp).mean(axis=2), inner)


def test_features_become_at_most_so_much_stronger() -> None:
    random = np.random.default_rng(1)
    features = np.ones((SIDE, SIDE), bool)
    faint = np.repeat(random.integers(125, 135, (SIDE, SIDE, 1)), 3, axis=2).astype(np.float32)
    strong = np.repeat(random.integers(30, 230, (SIDE, SIDE, 1)), 3, axis=2).astype(np.uint8)
    painted = as_strong(faint, _grain_of(strong, features), features.astype(np.float32))
    before, after = (strength(of.mean(axis=2), features) for of in (faint, painted))
    assert 1.2 * before < after < 2.0 * before
