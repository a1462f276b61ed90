import numpy as np

from anonlib.synthesis.canonical import shape_model
from anonlib.training.shape_model import fit_shape_model


def test_what_moves_within_a_person_is_expression_and_what_does_not_is_not() -> None:
    rng = np.random.default_rng(0)
    mean = shape_model().mean
    jaw, mouth = 0.05 * rng.normal(size=(2, *mean.shape)).astype(np.float32)
    meshes, people = [], []
    for person in range(40):
        identity = rng.normal() * jaw
        for _ in range(4):
            meshes.append(100 * (mean + identity + rng.normal() * mouth + 0.001 * rng.normal(size=mean.shape)))
            people.append(str(person))
    model = fit_shape_model(np.array(meshes, np.float32), people)
    kept_mouth = np.linalg.norm(model.expression_of(model.mean + mouth)) / np.linalg.norm(mouth)
    kept_jaw = np.linalg.norm(model.expression_of(model.mean + jaw)) / np.linalg.norm(jaw)
    assert kept_mouth > 0.75
    assert kept_jaw < 0.25


def test_the_shipped_mean_is_upright_and_one_eye_distance_wide() -> None:
    mean = shape_model().mean
    eyes = mean[[33, 133]].mean(axis=0), mean[[362, 263]].mean(axis=0)
    assert abs(eyes[0][1] - eyes[1][1]) < 0.02
    assert 0.9 < eyes[1][0] - eyes[0][0] < 1.1
