import numpy as np

from anonlib.faces import topology
from anonlib.synthesis.canonical import SIZE, canonical_frame
from anonlib.synthesis.expression import OPENINGS, apply_expression, expression_model, mouth_mask

PLAIN = np.zeros((SIZE, SIZE, 3), np.float32)


def test_an_open_mouth_changes_nothing_outside_the_lips() -> None:
    lips = canonical_frame().polygon(topology.LIPS_OUTER, 1.1)
    assert np.abs(apply_expression(PLAIN, 0.0, 0.3)[~lips]).max() < 1e-3
    assert np.abs(apply_expression(PLAIN, 0.0, 0.3)[canonical_frame().polygon(topology.LIPS_INNER, 0.8)]).mean() > 0.2


def test_wider_mouths_are_darker_inside() -> None:
    inside = mouth_mask()[..., 0] > 0.9
    brightness = [float(expression_model().mouth(opening)[inside].mean()) for opening in OPENINGS]
    assert brightness[0] > brightness[-1]


def test_between_two_openings_lies_their_blend() -> None:
    model = expression_model()
    low, high = OPENINGS[0], OPENINGS[1]
    blend = (model.mouth(low) + model.mouth(high)) / 2
    assert np.allclose(model.mouth((low + high) / 2), blend, atol=1e-3)
    assert np.allclose(model.mouth(0.0), model.mouth(low))
    assert np.allclose(model.mouth(2.0), model.mouth(OPENINGS[-1]))


def test_a_smile_is_symmetric_and_the_opposite_of_its_opposite() -> None:
    smile = expression_model().smile
    assert np.abs(smile - smile[:, ::-1])[:, 8:-8].mean() < 0.02
    happier = apply_expression(PLAIN, 1.0, 0.1) - apply_expression(PLAIN, 0.0, 0.1)
    sadder = apply_expression(PLAIN, -1.0, 0.1) - apply_expression(PLAIN, 0.0, 0.1)
    assert np.allclose(happier, -sadder, atol=1e-5)
