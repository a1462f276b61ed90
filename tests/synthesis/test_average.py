import cv2
import numpy as np
import pytest

from anonlib.synthesis.canonical import SIZE, canonical_frame, vertices_of
from anonlib.synthesis.light import STEP, hair_zone, skin_region, to_log
from anonlib.synthesis.textures.average import (
    Portrait,
    Texture,
    average,
    detail_of,
    member_texture,
    portrait,
    smile,
    smiling,
)

SEEN = np.ones((SIZE, SIZE), np.float32)


def texture(value: float) -> Texture:
    return Texture(np.full((SIZE, SIZE, 3), value, np.float32), np.full((468, 3), value, np.float32), value)


def photo_of(value: float) -> Portrait:
    return Portrait(np.full((SIZE, SIZE, 3), value, np.float32), SEEN, np.zeros((468, 3), np.float32), 0.0)


def test_what_one_member_alone_has_leaves_no_ghost() -> None:
    assert average([*[texture(0.0)] * 5, texture(-3.0)]).detail.min() > -0.1


@pytest.mark.parametrize("order", [(0.0, 0.1, 0.2), (0.2, 0.1, 0.0), (0.1, 0.2, 0.0)])
def test_every_member_weighs_exactly_the_same_in_any_order(order: tuple[float, ...]) -> None:
    mean = average([texture(value) for value in order])
    assert np.allclose(mean.detail, 0.1) and np.allclose(mean.shape, 0.1) and mean.happy == pytest.approx(0.1)


def test_a_member_with_many_photos_weighs_no_more_than_one_with_a_single_photo() -> None:
    many, single = member_texture([photo_of(0.1)] * 7), member_texture([photo_of(0.3)])
    assert np.allclose(average([many, single]).detail, 0.2, atol=1e-4)


def test_what_no_photo_shows_comes_from_the_mirror() -> None:
    half = (np.arange(SIZE) < SIZE // 2).astype(np.float32)
    detail, seen = np.broadcast_to(half[:, None], (SIZE, SIZE, 3)), np.broadcast_to(half, (SIZE, SIZE))
    merged = member_texture([Portrait(detail, seen, np.zeros((468, 3), np.float32), 0.0)])
    assert np.allclose(merged.detail[:, SIZE // 2 + 20 : SIZE - 2], 1.0, atol=0.05)


def test_the_detail_of_a_face_hardly_depends_on_the_light_it_stands_in(photo, mesh) -> None:
    columns = np.linspace(0.55, 1.0, photo.shape[1])[None, :, None]
    lit = np.clip(photo * columns * np.array([1.0, 0.85, 0.7]), 0, 255).astype(np.uint8)
    plain, shaded = (portrait(image, mesh, 1.0).detail[skin_region()] for image in (photo, lit))
    assert np.abs(plain - shaded).mean() < 0.05
    assert np.abs(np.log((photo + 4.0) / (lit + 4.0)))[100:150, 200:260].mean() > 0.25


def test_hair_and_background_become_plain_skin_outside_the_face(photo, mesh) -> None:
    frame, vertices = canonical_frame(), vertices_of(mesh)
    raw = to_log(frame.warp_in(photo, vertices)[0]) - detail_of(photo, vertices, STEP)[1].field()
    outside = frame.inside & (hair_zone() == 1)
    assert np.abs(portrait(photo, mesh, 1.0).detail[outside]).mean() < 0.5 * np.abs(raw[outside]).mean()


def test_a_large_photo_gives_a_finer_texture_of_the_same_face(photo, mesh) -> None:
    large, at = cv2.resize(photo, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC), 3 * mesh
    plain, fine = (member_texture([portrait(large, at, 1.0, finer=finer)]).detail for finer in (1, 2))
    small = cv2.resize(fine, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    middle = skin_region()
    assert len(fine) == 2 * SIZE and np.abs(small - plain)[middle].mean() < 0.25 * np.abs(plain)[middle].mean()
    assert len(average([texture(0.0), member_texture([portrait(large, at, 1.0, finer=2)])]).detail) == 2 * SIZE
    assert len(portrait(photo, mesh, 1.0, finer=2).detail) == SIZE


def test_a_smile_is_symmetric_and_the_opposite_of_its_opposite() -> None:
    assert np.abs(smile() - smile()[:, ::-1])[:, 8:-8].mean() < 0.02
    plain = np.zeros((SIZE, SIZE, 3), np.float32)
    assert np.allclose(smiling(plain, 1.0), -smiling(plain, -1.0)) and np.abs(smiling(plain, 1.0)).max() > 0.05
