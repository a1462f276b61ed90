import numpy as np
import pytest

from anonlib.faces import topology
from anonlib.synthesis.canonical import SIZE, canonical_frame
from anonlib.synthesis.textures.average import Portrait
from anonlib.training.appearance import fit_appearance


def portraits(count: int, smile: np.ndarray, happy: np.ndarray) -> list[Portrait]:
    rng = np.random.default_rng(0)
    seen, shape = np.ones((SIZE, SIZE), np.float32), np.zeros((468, 3), np.float32)
    return [
        Portrait((happy[n] * smile + 0.02 * rng.normal(size=smile.shape)).astype(np.float32), seen, shape, 0.0)
        for n in range(count)
    ]


def test_a_smile_is_found_as_the_difference_of_happy_and_neutral() -> None:
    smile = np.zeros((SIZE, SIZE, 3), np.float32)
    smile[150:200, 60:196] = 0.4
    happy = np.tile([0.0, 1.0], 60)
    openings = np.tile([0.08, 0.22, 0.45], 40)
    model = fit_appearance(portraits(120, smile, happy), openings, happy, 1 - happy)
    assert abs(float(model.smile[160:190, 80:176].mean()) - 0.4) < 0.05
    assert abs(float(model.smile[20:100].mean())) < 0.03
    lips = canonical_frame().polygon(topology.LIPS_INNER, 1.4)
    assert all((mouth[~lips] == 0).all() for mouth in model.mouths)


def test_too_few_open_mouths_are_refused() -> None:
    flat = np.zeros((SIZE, SIZE, 3), np.float32)
    with pytest.raises(ValueError, match="open by about"):
        fit_appearance(portraits(20, flat, np.ones(20)), np.full(20, 0.08), np.ones(20), np.ones(20))
