"""Parts of several portraits become one face without seams, and what is no face of a portrait leaves nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from anonlib.synthesis.canonical import shape_model
from tests.support.jobs import script

SCRIPT = script("build_gallery")
SIDE = 256
ROWS, COLUMNS = np.mgrid[0:512, 0:512].astype(np.float32)


def portrait(tone: float = 0.0, strength: float = 0.05, trust: float = 1.0) -> Any:
    """A portrait of stripes on an even tone."""
    detail = np.repeat((tone + strength * np.sin(COLUMNS / 3))[..., None], 3, axis=2).astype(np.float16)
    trusted = np.full((512, 512), trust, np.float16)
    return SCRIPT.Source("p", detail, trusted, shape_model().mean, np.log(np.full(3, 150.0)), True, 30.0, 0.0)


def test_parts_of_different_tones_meet_without_a_seam() -> None:
    parts = [portrait(0.0, 0), portrait(0.15, 0), portrait(-0.15, 0), portrait(0.1, 0)]
    face = SCRIPT.composed(parts, SIDE)
    inner = cv2.erode(SCRIPT.oval(SIDE).astype(np.uint8), np.ones((9, 9))) > 0
    steps = np.abs(np.diff(face, axis=1)).max(axis=2)[inner[:, 1:]]
    pasted = sum(part.at(SIDE)[0] * own[..., None] for part, own in zip(parts, SCRIPT.shares(SIDE), strict=True))
    assert steps.max() < 0.4 * np.abs(np.diff(pasted, axis=1)).max()


def test_a_face_is_as_crisp_as_its_portraits() -> None:
    face = SCRIPT.composed([portrait()] * 4, SIDE)
    middle = np.s_[100:160, 100:160]
    assert np.ptp(face[middle]) > 0.9 * np.ptp(portrait().at(SIDE)[0][middle])


def test_what_a_portrait_does_not_show_comes_from_its_other_half_or_stays_plain() -> None:
    half = portrait()
    half = replace(half, trust=(half.trust * (COLUMNS < 256)).astype(np.float16))
    one, none = SCRIPT.composed([half] * 4, SIDE), SCRIPT.composed([portrait(trust=0.0)] * 4, SIDE)
    assert np.ptp(one[100:160, 150:190]) > 0.08 and np.abs(none).max() < 0.01


@pytest.mark.parametrize(("row", "column", "is_face"), [(290, 116, False), (300, 256, True)])
def test_hair_that_hangs_into_a_face_is_told_from_a_mole_on_it(row: int, column: int, is_face: bool) -> None:
    detail = np.zeros((512, 512, 3), np.float32)
    cv2.circle(detail, (column, row), 22, (-1.5, -1.5, -1.5), -1)
    assert (SCRIPT.trusted(detail, 0.1)[row, column + 12 * (not is_face)] > 0.5) == is_face


def test_two_faces_are_one_person_only_if_all_recognizers_say_so() -> None:
    limits = dict.fromkeys(SCRIPT.RECOGNIZERS, 0.9)
    first, second = np.eye(4, dtype=np.float32)[:2]
    assert SCRIPT.is_someone([first, second], [[second, first], [first, second]], limits)
    assert not SCRIPT.is_someone([first, second], [[first, first], [second, second]], limits)
    assert not SCRIPT.is_someone([first, second], [], limits)
