"""Pixels that were not photographed are strange; a brighter photo, or another one, is not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.audit.naturalness import FEATURES, LEAST, features, strangeness

COUNT = 3 * LEAST
PEOPLE = np.arange(COUNT) // 2


def scenes(seed: int) -> NDArray[np.uint8]:
    """Ellipses over ellipses, seen through a lens and with a little grain: statistics like those of photographs."""
    drawn = np.random.default_rng(seed)
    found = np.zeros((COUNT, 112, 112, 3), np.uint8)
    for scene in found:
        for _ in range(60):
            size = drawn.pareto(1.5) * 4 + 2
            centre, axes = drawn.integers(0, 112, 2), (int(min(size, 60)), int(min(size * drawn.uniform(0.4, 1), 60)))
            grey = int(drawn.integers(20, 235))
            cv2.ellipse(scene, (int(centre[0]), int(centre[1])), axes, drawn.uniform(0, 180), 0, 360, (grey,) * 3, -1)
        lens = cv2.GaussianBlur(scene, (0, 0), 0.7).astype(np.float32) + drawn.normal(0, 2, (112, 112, 1))
        scene[:] = np.clip(lens, 0, 255)
    return found


CLEAR = scenes(0)
ALL = np.ones(COUNT, bool)
KNOWN = features(CLEAR, ALL)


def strange(crops: NDArray[np.uint8]) -> float:
    return float(np.nanmean(strangeness(features(crops, ALL), KNOWN, PEOPLE)))


def test_a_clear_face_is_as_strange_as_other_clear_faces() -> None:
    assert strange(CLEAR) == pytest.approx(1.0, abs=0.15)
    assert strange(scenes(1)) == pytest.approx(1.0, abs=0.15)


def test_a_brighter_photo_is_not_strange() -> None:
    assert strange(np.clip(CLEAR.astype(int) + 15, 0, 255).astype(np.uint8)) < 1.25


@pytest.mark.parametrize("way", ["blur", "mosaic", "grain"])
def test_what_no_camera_makes_is_strange(way: str) -> None:
    changed = CLEAR.copy()
    drawn = np.random.default_rng(2)
    for crop in changed:
        if way == "blur":
            crop[:] = cv2.GaussianBlur(crop, (0, 0), 3)
        elif way == "mosaic":
            crop[:] = cv2.resize(cv2.resize(crop, (14, 14)), (112, 112), interpolation=cv2.INTER_NEAREST)
        else:
            crop[:] = np.clip(crop + drawn.normal(0, 25, crop.shape), 0, 255)
    assert strange(changed) > 2.5


def test_a_face_is_held_against_other_people_alone() -> None:
    """All of one half's people are blurred, in the reference too: only the other half's photos can tell."""
    half = PEOPLE % 2 == 0
    mixed = CLEAR.copy()
    for row in np.flatnonzero(half):
        mixed[row] = cv2.GaussianBlur(mixed[row], (0, 0), 3)
    known = features(mixed, ALL)
    found = strangeness(known, known, PEOPLE)
    assert found[half].mean() > 2.5


def test_a_flat_face_or_one_that_is_not_asked_for_has_no_number() -> None:
    crops = CLEAR[:3].copy()
    crops[1] = 127
    found = features(crops, np.array([True, True, False]))
    assert found.shape == (3, FEATURES)
    assert np.isnan(found).any(axis=1).tolist() == [False, True, True]
    assert features(crops, np.zeros(3, bool)).shape == (3, FEATURES)


def test_too_few_clear_faces_say_nothing() -> None:
    few = slice(0, LEAST)
    assert np.isnan(strangeness(KNOWN[few], KNOWN[few], PEOPLE[few])).all()


def test_normal_noise_has_the_shape_of_a_normal() -> None:
    """Alpha of a generalized Gaussian is 2 for the normal and 1 for Laplace's (Sharifi and Leon-Garcia 1995)."""
    from anonlib.audit.naturalness import _lopsided, _symmetric

    drawn = np.random.default_rng(4)
    normal, laplace = drawn.normal(0, 3, (1, 200_000)), drawn.laplace(0, 1, (1, 200_000))
    shape, variance = _symmetric(normal.astype(np.float32))[0]
    assert (shape, variance) == (pytest.approx(2, abs=0.05), pytest.approx(9, rel=0.02))
    assert _symmetric(laplace.astype(np.float32))[0, 0] == pytest.approx(1, abs=0.05)
    lopsided = np.where(laplace < 0, 2 * laplace, laplace).astype(np.float32)
    shape, mean, left, right = _lopsided(lopsided)[0]
    assert left == pytest.approx(4 * right, rel=0.05)
    assert mean < 0
