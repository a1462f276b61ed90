"""The gallery that ships: whole, read back as it was written, and every vector gets a face of what was asked."""

from __future__ import annotations

from itertools import product

import numpy as np

from anonlib.privacy.classes import stratum_of
from anonlib.synthesis.base import IdentityDraw
from anonlib.synthesis.canonical import EYE_SPAN, SIZE
from anonlib.synthesis.compositor import laid, shrunk
from anonlib.synthesis.textures.gallery import NEUTRAL, Gallery, encoded, to_bytes
from anonlib.verification.conditions import gallery_digests

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


def test_fine_detail_shows_in_a_large_photo_and_is_averaged_in_a_small_one() -> None:
    fine = np.zeros((2 * SIZE, 2 * SIZE, 3), np.float32)
    fine[::2] = 1
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    small = np.stack([columns, rows], axis=-1)
    large = np.stack([columns, rows / 2 - 0.25], axis=-1)
    inner = np.s_[9:-9, 9:-9]
    assert np.abs(laid(shrunk(fine, EYE_SPAN * SIZE), small)[inner] - 0.5).max() < 0.01
    assert np.abs(laid(shrunk(fine, EYE_SPAN * 2 * SIZE), large)[inner] - 0.5).min() > 0.49
