import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from anonlib.faces import align

finite = st.floats(-50, 50, width=32)


@given(finite, finite, st.floats(10, 200), st.floats(-3, 3), st.integers(16, 256))
def test_a_square_puts_its_centre_in_the_middle_and_comes_back(
    x: float, y: float, side: float, angle: float, size: int
) -> None:
    centre = np.array([x, y], np.float32)
    matrix = align.square(centre, side, angle, size)
    assert np.allclose(align.apply(matrix, centre), size / 2, atol=0.05)
    assert np.allclose(align.apply(align.inverse(matrix), align.apply(matrix, centre)), centre, atol=0.05)


@given(st.integers(0, 1000), st.floats(0.2, 5), st.floats(-3, 3))
def test_similarity_recovers_what_was_applied(seed: int, scale: float, angle: float) -> None:
    points = np.random.default_rng(seed).normal(size=(5, 2)).astype(np.float32)
    true = np.array([[np.cos(angle), -np.sin(angle), 3], [np.sin(angle), np.cos(angle), -2]], np.float32)
    true[:, :2] *= scale
    assert np.allclose(align.similarity(points, align.apply(true, points)), true, atol=1e-3)


def test_a_shrinking_crop_is_blurred_before_it_is_sampled() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    view = align.crop(noise, align.square(np.array([256, 256], np.float32), 480, 0.0, 48), 48)[4:-4, 4:-4]
    assert abs(float(view.mean()) - 127.5) < 3
    assert view.std() < 0.35 * noise.std()
