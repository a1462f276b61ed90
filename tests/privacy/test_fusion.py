"""Two recognizers are compared as one: by the weighted mean of their cosines."""

import numpy as np
import pytest

from anonlib.privacy.fusion import KEPT, SHARE, fused
from tests.privacy.made_people import people


@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_cosine_is_the_weighted_mean_of_both(count: int) -> None:
    first, second = people(count, 1, 32), people(count, 2, 300).astype(np.float16)
    both = fused(first, second)
    second = second.astype(np.float32)
    wanted = SHARE * first @ first.T + (1 - SHARE) * second @ second.T
    assert np.allclose(both @ both.T, wanted, atol=2e-3)


def test_copies_of_a_photo_stay_equal_and_long_vectors_get_short() -> None:
    first, second = people(500, 1, 32), people(500, 2, 600).astype(np.float16)
    first[499], second[499] = first[3], second[3]
    both = fused(first, second)
    assert both.shape == (500, 32 + KEPT)
    assert np.array_equal(both[499], both[3])
