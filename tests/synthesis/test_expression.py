import numpy as np

from anonlib.faces import topology
from anonlib.synthesis.canonical import SIZE, canonical_frame
from anonlib.synthesis.expression import OPENINGS, apply_expression, expression_model, mouth_inside

PLAIN = np.zeros((SIZE, SIZE, 3), np.float32)


def test_an_open_mouth_changes_nothing_outside_the_lips_and_is_darker_the_wider_it_is() -> None:
    frame, opened = canonical_frame(), apply_expression(PLAIN, 0.0, 0.3)
    assert np.abs(opened[~frame.polygon(topology.LIPS_OUTER, 1.1)]).max() < 1e-3
    assert np.abs(opened[frame.polygon(topology.LIPS_INNER, 0.8)]).mean() > 0.2
    inside = expression_model()[2][..., 0] > 0.9
    assert mouth_inside(OPENINGS[0])[inside].mean() > mouth_inside(OPENINGS[-1])[inside].mean()


def test_a_smile_is_symmetric_and_the_opposite_of_its_opposite() -> None:
    _, smile, _ = expression_model()
    assert np.abs(smile - smile[:, ::-1])[:, 8:-8].mean() < 0.02
    sad, plain, happy = (apply_expression(PLAIN, share, 0.1) for share in (-1.0, 0.0, 1.0))
    assert np.allclose(happy - plain, plain - sad, atol=1e-5)
