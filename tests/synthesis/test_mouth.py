"""A laugh shows teeth, a closed mouth stays closed, and lips are no redder than lips are."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.faces.mesh import mouth_opening
from anonlib.synthesis.canonical import shape_model
from anonlib.synthesis.light import from_log, to_log
from anonlib.synthesis.mouth import Mouth, draw_mouth, with_lips

Shape = NDArray[np.float32]
SIDE = 200
SKIN = np.array([200.0, 150.0, 120.0], np.float32)


def opened(by: float) -> Shape:
    """The mean shape with its lips `by` mouth widths apart."""
    shape = shape_model().mean.copy()
    width = np.linalg.norm(shape[topology.MOUTH_LEFT] - shape[topology.MOUTH_RIGHT])
    upper, lower = list(topology.LIPS_INNER[1:10]), list(topology.LIPS_INNER[:10:-1])
    arch = 1 - np.linspace(-1, 1, 9) ** 2
    shape[lower] = shape[upper]
    shape[lower, 1] += by * width * arch
    return shape


def drawn(by: float, happy: float, colour: NDArray[np.float32] = SKIN) -> tuple[NDArray[np.float32], Mouth]:
    """The mouth of such a shape on skin, with lips of a `colour`, and where it is."""
    vertices = 100 * opened(by) + SIDE / 2
    vertices[:, 1] -= vertices[topology.LIP_TOP, 1] - SIDE / 2
    mouth = Mouth.of(vertices.astype(np.float32), 100.0)
    light = np.broadcast_to(to_log(SKIN), (SIDE, SIDE, 3)).astype(np.float32)
    return draw_mouth(np.broadcast_to(colour, (SIDE, SIDE, 3)).astype(np.float32), mouth, light, happy), mouth


@pytest.mark.parametrize("by", [0.15, 0.3])
def test_an_open_mouth_stays_as_open_and_a_closed_one_closed(by: float) -> None:
    closed, wide = opened(0.02), opened(by)
    assert abs(mouth_opening(with_lips(closed, wide, 1.0)) - mouth_opening(wide)) < 0.02
    assert mouth_opening(with_lips(wide, closed, 0.0)) < 0.02
    far = np.linalg.norm(closed[:, :2] - closed[topology.LIP_TOP, :2], axis=1) > 1.0
    assert np.abs(with_lips(closed, wide, 1.0) - closed)[far].max() < 0.02


def test_a_neutral_shape_that_smiles_does_not_smile_twice() -> None:
    source, corners = opened(0.02), [topology.MOUTH_LEFT, topology.MOUTH_RIGHT]
    smiling = source.copy()
    smiling[:, 0] *= 1.2
    smiling[corners, 1] -= 0.08
    drawn, wanted = with_lips(smiling, source, 0.0), source[corners]
    assert np.ptp(drawn[corners, 0]) < np.ptp(wanted[:, 0]) + 0.01
    assert abs(drawn[corners, 1].mean() - wanted[:, 1].mean()) < 0.02
    narrow = with_lips(source, smiling, 0.0)
    assert np.abs(narrow[corners] - wanted).max() < 0.01


def test_a_laugh_shows_more_teeth_than_a_word_and_a_closed_mouth_none() -> None:
    bright = []
    for by, happy in ((0.3, 1.0), (0.3, 0.0), (0.0, 1.0)):
        pixels, mouth = drawn(by, happy)
        x, y0, y1 = int(mouth.upper[5, 0]) + 6, int(mouth.upper[5, 1]), int(mouth.lower[5, 1])
        bright.append(int((pixels[y0 + 1 : y1 - 1, x].mean(axis=1) > 90).sum()))
    assert bright[0] > 2 * bright[1] > 0 == bright[2]


def test_red_lips_become_paler_and_skin_beside_them_stays() -> None:
    red = from_log(to_log(SKIN) + np.array([0.2, -0.5, -0.2], np.float32))
    pixels, mouth = drawn(0.0, 0.0, red)
    x, y = np.rint((mouth.lower[5] + mouth.outer[[14, 15, 16]].mean(axis=0)) / 2).astype(int)
    redness = to_log(pixels)[..., 0] - to_log(pixels)[..., 1]
    before = float(to_log(red)[0] - to_log(red)[1])
    assert redness[y, x] < before - 0.15 and abs(redness[5, 5] - before) < 1e-3
