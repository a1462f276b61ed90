import numpy as np

from anonlib.synthesis.canonical import SIZE
from anonlib.synthesis.textures.average import smile, smiling


def test_a_smile_is_symmetric_and_taken_off_more_strongly_than_put_on() -> None:
    assert np.abs(smile() - smile()[:, ::-1])[:, 8:-8].mean() < 0.02
    plain = np.zeros((SIZE, SIZE, 3), np.float32)
    on, off = smiling(plain, 1.0), smiling(plain, -1.0)
    assert np.allclose(1.5 * on, -off, atol=1e-6) and np.abs(on).max() > 0.05
