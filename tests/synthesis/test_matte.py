"""Hair over a face stays, strand by strand; what only looks different from skin, and the face's own outline, do not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from anonlib.synthesis.matte import Cover, matte, strands, without

EYES = 60.0
FACE = np.zeros((240, 240), bool)
FACE[60:200, 60:180] = True


def shares(view: np.ndarray, skin: int = 170, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Of a view whose px are shown `step` times as large."""
    view, face = (of.repeat(step, axis=0).repeat(step, axis=1) for of in (view, FACE))
    residual = np.log(view.astype(np.float32) + 4.0) - float(np.log(skin + 4.0))
    return strands(view, residual, 0.08, face, step * EYES, step)


def skin(tone: int = 170) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 4, (240, 240, 1))
    return np.clip(tone + noise, 0, 255).astype(np.uint8).repeat(3, axis=2)


@pytest.mark.parametrize("tone", [20, 90])
def test_hair_and_a_strand_of_it_lie_over_skin_and_the_skin_between_them_does_not(tone: int) -> None:
    view = skin()
    view[:80] = tone
    cv2.line(view, (120, 70), (130, 110), (tone,) * 3, 3)
    share, colour = shares(view)
    assert share[65:75].min() > 0.95 and share[96, 120:132].max() > 0.9 and share[90:110, 60:110].max() < 0.05
    assert np.abs(colour[96, 125] - tone).max() < 12


def test_grey_hair_that_is_as_bright_as_skin_lies_over_it() -> None:
    tone = np.array([200, 150, 115], np.float32)
    view = np.clip(skin(0).astype(np.float32) + tone, 0, 255).astype(np.uint8)
    view[:80] = 152
    share, _ = strands(view, np.log(view + 4.0).astype(np.float32) - np.log(tone + 4.0), 0.14, FACE, EYES)
    assert share[65:75].min() > 0.9 and share[95:, 60:180].max() < 0.05


def test_what_is_dark_and_does_not_reach_the_face_from_outside_is_the_faces() -> None:
    view = skin()
    view[90:100, 90:150] = 20
    assert shares(view)[0][FACE].max() == 0


def test_dark_hair_stays_over_a_cheek_and_a_shade_of_skin_does_not() -> None:
    """At the sides of a face, though not from brows to jaw, where nothing stays."""
    none, side = np.zeros((2, 240, 240), np.float32)
    side[:, 150:] = 1
    for tone, stays in ((30, True), (130, False)):
        view = skin()
        view[:, 130:] = tone
        residual = np.log((view + 20.0) / 190.0).astype(np.float32)
        kept, _ = matte(view, residual, 0.08, FACE, Cover(none, side, none, none), EYES)
        assert (kept[80:180, 155:178].min() > 0.9) == stays and kept[80:180, 62:145].max() < 0.05, tone


def test_no_px_of_a_face_fills_what_its_outline_leaves() -> None:
    view = np.random.default_rng(1).integers(0, 100, (240, 240, 3), dtype=np.uint8)
    marked = view.copy()
    marked[FACE] = 255
    filled = without(marked, FACE, EYES)
    assert (filled == without(view, FACE, EYES)).all() and filled.max() < 100
    assert (filled[:55] == view[:55]).all() and not without(marked, np.ones_like(FACE), EYES).any()
