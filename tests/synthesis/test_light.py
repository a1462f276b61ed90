import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.synthesis.canonical import SIZE, canonical_frame
from anonlib.synthesis.light import (
    STEP,
    fit_light,
    from_log,
    hair_zone,
    kept_zone,
    middle,
    skin_region,
    to_log,
    toned,
)

CHIN = 152
ONES = np.ones((SIZE // STEP, SIZE // STEP), np.float32)


def shaded(tone: tuple[float, float, float], slope: float) -> np.ndarray:
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE - 0.5
    return (np.log(np.array(tone)) + slope * columns[..., None] - 0.3 * rows[..., None] ** 2).astype(np.float32)


@settings(deadline=None, max_examples=25)
@given(st.floats(30, 230), st.floats(-1, 1))
def test_a_smooth_light_is_recovered(tone: float, slope: float) -> None:
    texture = shaded((tone, tone * 0.8, tone * 0.6), slope)
    light = fit_light(texture[::STEP, ::STEP], ONES)
    assert np.abs(light.field() - texture)[skin_region()].max() < 0.05
    assert light.clarity > 0.99


def test_glasses_leave_no_ghost_in_the_light() -> None:
    texture = shaded((180, 140, 120), 0.5)
    plain = fit_light(texture[::STEP, ::STEP], ONES).field()
    worn = texture.copy()
    cv2.rectangle(worn, (60, 100), (195, 130), (1.0, 1.0, 1.0), -1)
    light = fit_light(worn[::STEP, ::STEP], ONES)
    assert np.abs(light.field() - plain)[skin_region()].max() < 0.06
    assert light.clarity < 0.97


def test_log_and_back_is_the_identity() -> None:
    values = np.linspace(0, 255, 64, dtype=np.float32)
    assert np.allclose(from_log(to_log(values)), values, atol=1e-2)


def test_no_photo_may_keep_a_px_between_brows_and_chin() -> None:
    kept, hair = kept_zone(), hair_zone()
    assert (kept <= hair + 1e-6).all()
    assert kept[skin_region()].max() < 0.02
    assert kept[0].min() == 1.0


def test_a_cap_over_the_forehead_does_not_darken_the_light_on_the_face() -> None:
    texture = shaded((180, 140, 120), 0.5)
    worn = texture.copy()
    worn[: SIZE // 3] = np.log(12.0)
    worn += np.random.default_rng(0).normal(0, 0.35, worn.shape).astype(np.float32)
    light = fit_light(worn[::STEP, ::STEP], ONES)
    assert np.abs(light.field() - texture)[middle()].max() < 0.15


def test_the_middle_is_believed_where_most_of_the_face_is_wrapped_up() -> None:
    texture = shaded((180, 140, 120), 0.5)
    wrapped = np.full_like(texture, np.log(12.0))
    seen = cv2.dilate(middle().astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    wrapped[seen] = texture[seen]
    wrapped[: SIZE // 2 - 10] = np.log(12.0)
    light = fit_light(wrapped[::STEP, ::STEP], ONES)
    assert np.abs(light.field() - texture)[middle()][:, 0].mean() < 0.2


def test_the_rim_takes_the_tone_of_the_neck_and_the_middle_does_not() -> None:
    outside = kept_zone()[::STEP, ::STEP] > 0.5
    residual = np.full((SIZE // STEP, SIZE // STEP, 3), 1e-3, np.float32)
    residual[outside] = -0.1
    added = toned(residual, 0.1)
    chin = int(canonical_frame().points[CHIN, 1]) // STEP
    assert added[chin + 1, SIZE // STEP // 2].max() < -0.02
    assert np.abs(added[middle()[::STEP, ::STEP]]).max() < 0.02


def test_what_cannot_be_skin_gives_the_rim_no_tone() -> None:
    residual = np.full((SIZE // STEP, SIZE // STEP, 3), -1.5, np.float32)
    assert np.abs(toned(residual, 0.1)).max() < 0.01
