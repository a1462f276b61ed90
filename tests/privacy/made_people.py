"""Templates of people who never lived."""

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.clustering import normalized


def people(count: int, seed: int, dim: int = 8) -> NDArray[np.float32]:
    """Unit templates in every direction."""
    return normalized(np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32))


def lookalikes(count: int, seed: int) -> NDArray[np.float32]:
    """Unit templates of small whole numbers: many are equal, many as far from one another as others are."""
    grid = np.random.default_rng(seed).integers(-1, 2, size=(count, 3)).astype(np.float32)
    grid[(grid == 0).all(axis=1), 0] = 1
    return normalized(grid)


def strata(count: int, seed: int, kinds: int = 3) -> list[tuple[str, ...]]:
    """A gender and an age band for each; an unsure gender has no band."""
    rng = np.random.default_rng(seed)
    drawn = [(str(rng.integers(kinds)), str(rng.integers(kinds))) for _ in range(count)]
    return [one[:1] if one[0] == "0" else one for one in drawn]
