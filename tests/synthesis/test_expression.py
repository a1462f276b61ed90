import numpy as np

from anonlib.synthesis.canonical import SIZE
from anonlib.synthesis.textures.average import smile, smiling


def test_a_smile_is_symmetric_and_the_opposite_of_its_opposite() -> None:
    assert np.abs(smile() - smile()[:, ::-1])[:, 8:-8].mean() < 0.02
    plain = np.zeros((SIZE, SIZE, 3), np.float32)
    assert np.allclose(smiling(plain, 1.0), -smiling(plain, -1.0)) and np.abs(smiling(plain, 1.0)).max() > 0.05
