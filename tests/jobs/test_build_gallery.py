"""A face of the gallery is one portrait's skin in even light, as crisp as it was, without what lay over it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from anonlib.faces import topology
from anonlib.synthesis.canonical import shape_model
from tests.support.jobs import script

SCRIPT = script("build_gallery")
SIDE = SCRIPT.SIDE
ROWS, COLUMNS = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
ALL = np.ones((SIDE, SIDE), np.float32)
CHEEK = np.s_[250:290, 150:190]


def stripes(strength: float = 0.05) -> np.ndarray:
    """A detail (S, S, 3) of fine stripes."""
    return np.repeat((strength * np.sin(COLUMNS / 2))[..., None], 3, axis=2).astype(np.float32)


def test_light_from_the_side_goes_and_pores_stay() -> None:
    light = (0.4 * (COLUMNS / SIDE - 0.5))[..., None].astype(np.float32)
    plain, lit = (SCRIPT.evened(stripes() + extra, ALL, True) for extra in (np.float32(0), light))
    left, right = lit[250:290, 150:190].mean(), lit[250:290, 322:362].mean()
    assert abs(left - right) < 0.02 < light[0, 342, 0] - light[0, 170, 0]
    assert np.ptp(plain[CHEEK]) > 0.9 * np.ptp(stripes()[CHEEK])


def test_what_a_portrait_does_not_show_comes_from_its_other_half_or_goes_on_from_beside_it() -> None:
    half = ALL * (COLUMNS > SIDE / 2)
    one = SCRIPT.evened(stripes(), half, True)
    assert np.ptp(one[CHEEK]) > 0.9 * np.ptp(stripes()[CHEEK])
    low = ALL * (ROWS > 240)
    assert np.ptp(SCRIPT.evened(stripes(), low, True)[200:235, 150:190]) > 0.5 * np.ptp(stripes()[CHEEK])


@pytest.mark.parametrize(("row", "column", "is_face"), [(290, 116, False), (300, 256, True)])
def test_hair_that_hangs_into_a_face_is_told_from_a_mole_on_it(row: int, column: int, is_face: bool) -> None:
    detail = np.zeros((SIDE, SIDE, 3), np.float32)
    cv2.circle(detail, (column, row), 22, (-1.5, -1.5, -1.5), -1)
    assert (SCRIPT.trusted(detail, ALL)[row, column + 12 * (not is_face)] > 0.5) == is_face


def test_a_brow_is_kept_unless_hair_covers_much_of_it() -> None:
    brow = SCRIPT.hull(topology.LEFT_BROW, SIDE)
    bare = np.zeros((SIDE, SIDE, 3), np.float32)
    bare[brow] = -1.0
    covered = bare.copy()
    covered[:230, :200] = -1.5
    assert SCRIPT.trusted(bare, ALL)[brow].mean() > 0.95
    assert SCRIPT.trusted(covered, ALL)[brow].mean() < 0.5


def test_what_is_seen_from_the_side_is_not_trusted() -> None:
    facing = ALL * np.where(COLUMNS < SIDE / 2, 0.1, 0.9).astype(np.float32)
    trust = SCRIPT.trusted(np.zeros((SIDE, SIDE, 3), np.float32), facing)
    assert trust[CHEEK].max() == 0 and trust[250:290, 322:362].min() == 1


def test_a_mixed_shape_is_that_of_no_portrait() -> None:
    shapes = shape_model().mean + np.random.default_rng(0).normal(0, 0.02, (4, 468, 3)).astype(np.float32)
    mixed = SCRIPT.mixed(shapes) - shape_model().mean
    offsets = shapes - shape_model().mean
    alike = [float((mixed * own).sum() / np.linalg.norm(mixed) / np.linalg.norm(own)) for own in offsets]
    assert max(alike) < 0.6
    assert 0.6 < np.linalg.norm(mixed) / np.linalg.norm(offsets[0]) < 1.1


def test_two_faces_are_one_person_only_if_all_recognizers_say_so() -> None:
    limits = dict.fromkeys(SCRIPT.RECOGNIZERS, 0.9)
    first, second = np.eye(4, dtype=np.float32)[:2]
    others = [[second, first], [first, first], [first, second]]
    assert (SCRIPT.likeness([first, second], others, limits) > 0).tolist() == [False, False, True]
