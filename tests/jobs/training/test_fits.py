"""The small fits find what was planted in their data."""

from __future__ import annotations

import numpy as np

from anonlib.synthesis.canonical import SIZE, shape_model
from anonlib.synthesis.textures.average import Portrait
from jobs.training.fits import fit_readout, fit_relief, fit_shape_model, fit_smile


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
    kept_mouth, kept_jaw = (
        np.linalg.norm(model.expression_of(model.mean + moved)) / np.linalg.norm(moved) for moved in (mouth, jaw)
    )
    assert kept_mouth > 0.75
    assert kept_jaw < 0.25
    eyes = model.mean[[33, 133]].mean(axis=0), model.mean[[362, 263]].mean(axis=0)
    assert abs(eyes[0][1] - eyes[1][1]) < 0.02
    assert 0.9 < eyes[1][0] - eyes[0][0] < 1.1


def test_wearers_of_glasses_are_found_at_fifteen_percent_false_alarms() -> None:
    rng = np.random.default_rng(0)
    wears = rng.random(600) < 0.3
    vectors = rng.normal(size=(600, 40)).astype(np.float32)
    vectors[wears, :5] += 2.0
    weight, bias = fit_readout(vectors, wears)
    logits = vectors @ weight + bias
    assert (logits[wears] > 0).mean() > 0.95
    assert abs((logits[~wears] > 0).mean() - 0.15) < 0.02


def test_a_smile_is_the_difference_of_happy_and_neutral() -> None:
    smile = np.zeros((SIZE, SIZE, 3), np.float32)
    smile[150:200, 60:196] = 0.4
    happy = np.tile([0.0, 1.0], 60)
    rng = np.random.default_rng(0)
    seen, shape = np.ones((SIZE, SIZE), np.float32), np.zeros((468, 3), np.float32)
    portraits = [
        Portrait((share * smile + 0.02 * rng.normal(size=smile.shape)).astype(np.float32), seen, shape, 0.0)
        for share in happy
    ]
    smile = fit_smile(portraits, happy, 1 - happy)
    assert abs(float(smile[160:190, 80:176].mean()) - 0.4) < 0.05
    assert abs(float(smile[20:100].mean())) < 0.03


def test_a_relief_keeps_pores_and_leaves_out_shade_and_hair() -> None:
    rng = np.random.default_rng(0)
    pores = rng.normal(0, 0.03, (2 * SIZE, 2 * SIZE)).astype(np.float32)
    shade = np.linspace(4, 5, 2 * SIZE, dtype=np.float32)[:, None]
    hair = np.zeros_like(pores)
    hair[:260] = rng.normal(0, 0.6, hair[:260].shape)
    relief, haired = (fit_relief(shade + pores + more, 3.0).astype(np.float32) - 128 for more in (0 * hair, hair))
    cheek = np.s_[300:340, 150:190]
    assert np.corrcoef(relief[cheek].ravel(), pores[cheek].ravel())[0, 1] > 0.8
    assert abs(relief[cheek].mean()) < 3
    brow = np.s_[150:170, 240:270]
    assert abs(np.corrcoef(haired[brow].ravel(), hair[brow].ravel())[0, 1]) < 0.3
