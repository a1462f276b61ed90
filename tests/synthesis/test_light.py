import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.faces import topology
from anonlib.synthesis.base import Extent
from anonlib.synthesis.canonical import SIZE, canonical_frame
from anonlib.synthesis.light import (
    STEP,
    Light,
    fit_light,
    hair_zone,
    kept_zone,
    middle,
    skin_region,
    tone_of,
)

SMALL = (SIZE // STEP, SIZE // STEP)
DARK = np.float32(np.log(12.0))


def shaded(tone: float = 180, slope: float = 0.5) -> np.ndarray:
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE - 0.5
    tones = np.log(tone * np.array([1, 0.8, 0.6]))
    return (tones + slope * columns[..., None] - 0.3 * rows[..., None] ** 2).astype(np.float32)


def fitted(texture: np.ndarray) -> Light:
    return fit_light(texture[::STEP, ::STEP], np.ones(SMALL, np.float32))


@settings(deadline=None, max_examples=25)
@given(st.floats(30, 230), st.floats(-1, 1))
def test_a_smooth_light_is_recovered(tone: float, slope: float) -> None:
    texture = shaded(tone, slope)
    light = fitted(texture)
    assert np.abs(light.field() - texture)[skin_region()].max() < 0.05 and light.clarity > 0.99


@pytest.mark.parametrize("extent", ["skin", "wide"])
def test_no_photo_may_keep_a_px_between_brows_and_chin(extent: Extent) -> None:
    kept, points = kept_zone(extent), canonical_frame().points
    face = skin_region() & (np.arange(SIZE)[:, None] > points[topology.LEFT_EYE_OUTER, 1])
    assert (kept <= hair_zone() + 1e-6).all() and kept[face].max() < 0.1 and kept[0].min() == 1.0


def in_glasses(texture: np.ndarray) -> np.ndarray:
    return cv2.rectangle(texture.copy(), (60, 100), (195, 130), (1.0, 1.0, 1.0), -1)


def in_a_cap(texture: np.ndarray) -> np.ndarray:
    worn = np.where(np.arange(SIZE)[:, None, None] < SIZE // 3, DARK, texture)
    return (worn + np.random.default_rng(0).normal(0, 0.35, worn.shape)).astype(np.float32)


def wrapped_up(texture: np.ndarray) -> np.ndarray:
    seen = cv2.dilate(middle().astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    seen[: SIZE // 2 - 10] = False
    return np.where(seen[..., None], texture, DARK)


@pytest.mark.parametrize(("worn", "most"), [(in_glasses, 0.06), (in_a_cap, 0.15), (wrapped_up, 0.5)])
def test_what_lies_over_a_face_leaves_no_ghost_in_its_light(worn, most: float) -> None:
    light = fitted(worn(shaded()))
    off = np.abs(light.field() - shaded())[middle()]
    assert off.max() < most and off.mean() < 0.2 and light.clarity < 0.97


def test_a_face_takes_the_smooth_tone_of_skin_and_nothing_finer_or_of_what_cannot_be_skin() -> None:
    rows = np.arange(SMALL[0])[:, None, None]
    smooth = np.broadcast_to(0.1 * np.cos(rows * np.pi / 32), (*SMALL, 3)).astype(np.float32)
    fine = np.broadcast_to(0.1 * np.cos(rows * np.pi / 2), (*SMALL, 3)).astype(np.float32)
    face = skin_region()[::STEP, ::STEP]
    assert np.abs(tone_of(smooth, 0.1) - smooth)[face].mean() < 0.03
    assert np.abs(tone_of(fine, 0.1))[face].mean() < 0.01
    assert np.abs(tone_of(np.full_like(smooth, -1.5), 0.1)).max() < 0.03
