"""An edge shows where the photo had none, hair is what the skin's light does not explain, and crisp skin has grain."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from anonlib.audit.evidence.pixels import crispness, edge_contrast, hair_of, share_changed, skin_of
from anonlib.faces import align
from anonlib.synthesis.canonical import SIZE, canonical_frame

SIDE = 96
SKIN, HAIR, WALL = (190, 140, 115), (40, 30, 28), (120, 150, 170)


@pytest.fixture(scope="module")
def mesh() -> np.ndarray:
    """The canonical face, upright in a frame."""
    return (canonical_frame().points[:468] * (0.62 * SIDE / SIZE) + (0.19 * SIDE, 0.26 * SIDE)).astype(np.float32)


@pytest.fixture(scope="module")
def person(mesh: np.ndarray) -> np.ndarray:
    """Skin that gets darker to the right, under a cap of dark hair that covers the upper third of the forehead."""
    picture = np.full((SIDE, SIDE, 3), WALL, np.float32)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    centre, radius = mesh.mean(axis=0), np.ptp(mesh, axis=0) / 2
    picture[np.hypot((columns - centre[0]) / (1.3 * radius[0]), (rows - centre[1]) / (1.4 * radius[1])) < 1] = HAIR
    face = np.hypot((columns - centre[0]) / radius[0], (rows - centre[1]) / (1.1 * radius[1])) < 1
    light = np.broadcast_to((1.25 - 0.5 * columns / SIDE)[..., None], picture.shape)
    picture[face] = (SKIN * light)[face]
    fringe = face & (rows < centre[1] - 0.7 * radius[1])
    picture[fringe] = HAIR
    return cv2.GaussianBlur(picture, (0, 0), 0.6).astype(np.uint8)


def test_the_share_of_hair_that_changed_is_counted(person, mesh) -> None:
    hair, painted = hair_of(person, mesh), person.copy()
    assert share_changed(person, painted, hair) == 0.0
    painted[:, : SIDE // 2] = SKIN
    left = hair[:, : SIDE // 2].sum() / hair.sum()
    assert share_changed(person, painted, hair) == pytest.approx(left, abs=0.05)
    assert np.isnan(share_changed(person, painted, np.zeros_like(hair)))


def test_a_face_of_another_tone_has_an_edge_and_one_of_the_same_tone_has_none(mesh) -> None:
    inner, generator = skin_of(mesh, SIDE, SIDE), np.random.default_rng(0)

    def photo(tone: float = 1.0) -> np.ndarray:
        """Skin with grain all over; inside the face its tone is another."""
        out = SKIN + cv2.GaussianBlur(generator.normal(0, 40, (SIDE, SIDE, 1)), (0, 0), 1.2)[..., None]
        return np.clip(np.where(inner[..., None], out * tone, out), 0, 255).astype(np.uint8)

    clear = photo()
    same, pale = (edge_contrast(clear, np.where(inner[..., None], photo(tone), clear)) for tone in (1.0, 1.2))
    assert 0.6 < same < 1.25 and pale > 2
    assert np.isnan(edge_contrast(clear, clear))


def test_blurred_skin_is_less_crisp_and_a_strand_across_it_changes_little(mesh) -> None:
    large = (mesh * 4).astype(np.float32)
    grain = np.random.default_rng(1).normal(0, 6, (4 * SIDE, 4 * SIDE, 1))
    skin = np.clip(np.array(SKIN) + grain, 0, 255).astype(np.uint8)
    soft, strand = cv2.GaussianBlur(skin, (0, 0), 1.5), skin.copy()
    strand[:, 190:194] = HAIR
    clear = crispness(skin, large)
    assert crispness(soft, large) < 0.3 * clear
    assert crispness(strand, large) == pytest.approx(clear, rel=0.1)
    moved = np.pad(skin, ((40, 0), (25, 0), (0, 0)))
    assert crispness(moved, align.apply(np.array([[1, 0, 25], [0, 1, 40]], np.float32), large)) == pytest.approx(
        clear, rel=0.02
    )
    assert np.isnan(crispness(skin, mesh * 0.1))
