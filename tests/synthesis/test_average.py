from itertools import product

import numpy as np
import pytest

from anonlib.privacy.classes import stratum_of
from anonlib.synthesis.base import IdentityDraw
from anonlib.synthesis.canonical import SIZE
from anonlib.synthesis.light import skin_region
from anonlib.synthesis.textures.average import (
    Portrait,
    Texture,
    average,
    member_texture,
    portrait,
)
from anonlib.synthesis.textures.gallery import NEUTRAL, Gallery, encoded, to_bytes
from anonlib.verification.conditions import gallery_digests

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


def test_the_detail_of_a_face_hardly_depends_on_the_light_it_stands_in(photo, mesh) -> None:
    columns = np.linspace(0.55, 1.0, photo.shape[1])[None, :, None]
    lit = np.clip(photo * columns * np.array([1.0, 0.85, 0.7]), 0, 255).astype(np.uint8)
    plain, shaded = (portrait(image, mesh, 1.0).detail[skin_region()] for image in (photo, lit))
    assert np.abs(plain - shaded).mean() < 0.05
    assert np.abs(np.log((photo + 4.0) / (lit + 4.0)))[100:150, 200:260].mean() > 0.25


DATA = Gallery.shipped()
GALLERY = Gallery.from_bytes(DATA)
LOOKS = tuple(product((0.0, 1.0), (20.0, 40.0, 70.0)))


def test_the_shipped_gallery_is_small_free_and_of_every_gender_and_age() -> None:
    assert len(DATA) < 20 * 2**20 and GALLERY.about.commercial and GALLERY.about.faces == len(GALLERY)
    assert all(len(GALLERY.rows(stratum_of(*look))) >= 3 for look in LOOKS)
    assert len(set(gallery_digests())) == len(GALLERY)
    assert sum(map(len, map(GALLERY.rows, {own[:1] for own in GALLERY.strata}))) == len(GALLERY)


def test_a_draw_gets_the_face_of_its_row_and_without_one_the_nearest() -> None:
    for row in (0, len(GALLERY) - 1):
        near = GALLERY.face(IdentityDraw(GALLERY.bank.vectors[row], 1.0, 30.0))
        drawn = GALLERY.face(IdentityDraw(-GALLERY.bank.vectors[row], 1.0, 30.0, (row,), (1.0,)))
        assert near.shape.tobytes() == GALLERY.texture(row).shape.tobytes() == drawn.shape.tobytes()


def test_a_face_is_read_back_as_it_was_written() -> None:
    picture = np.broadcast_to(np.linspace(60, 200, 512)[:, None, None], (512, 512, 3)).astype(np.uint8)
    arrays = {name: np.ones(1) for name in ("female", "age", "tone", "happy")}
    arrays |= {
        "tone": np.full(1, NEUTRAL[0]),
        "centre": np.zeros(4),
        "vectors": np.eye(4)[:1],
        "shapes": np.zeros((1, 468, 3)),
    }
    data = to_bytes(GALLERY.about, [encoded(picture)], **arrays)
    detail = Gallery.from_bytes(data).texture(0).detail
    assert np.abs((np.exp(detail) * (NEUTRAL[0] + 4) - 4) - picture).max() < 2
