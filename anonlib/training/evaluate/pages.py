"""Pages of pictures: the same photos by every source side by side, and one identity with every look.

They show photos of the dataset, so they are as restricted as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from anonlib.audit.sheet import square_view, write
from anonlib.training.evaluate.participants import YAWS, Participants, ScannedPhoto
from anonlib.training.evaluate.sources import DecodedSource, FaceSource, painted
from anonlib.workspace.schemas import EXPRESSIONS

AGES = (22.0, 38.0, 54.0, 70.0)
ROWS_A_PAGE = 10

_TILE = 240
_ZOOM = 1.9
_CAPTION, _TITLE, _MARGIN, _GAP = 22, 44, 20, 4
_INK, _SOFT = (25, 25, 28), (110, 110, 116)

Tile = tuple[NDArray[np.uint8], ScannedPhoto, str]
"""An image (h, w, 3), the photo that it was made of, and a caption."""


def compared(
    participants: Participants, sources: Sequence[FaceSource], *, faces: int = 40, seed: int = 0
) -> Iterator[Image.Image]:
    """Pages of ROWS_A_PAGE random photos each: every source's version, of the donors that figures are of."""
    donors = np.sort(np.random.default_rng(seed).permutation(len(participants))[:faces]).tolist()
    for start in range(0, len(donors), ROWS_A_PAGE):
        rows: list[list[Tile]] = []
        for donor in donors[start : start + ROWS_A_PAGE]:
            host = int(participants.first[donor])
            photo = participants.scenes[host]
            requests = [(source, source.request(donor, host)) for source in sources]
            rows.append([(source.paint(photo, request)[0], photo, source.name) for source, request in requests])
        yield _page(rows, f"photos {start + 1} to {start + len(rows)} of {len(donors)}, at random (seed {seed})")


def control(participants: Participants, source: DecodedSource, *, donor: int = 0) -> Image.Image:
    """One person's identity in seven expressions, four ages of two genders, and five yaw angles.

    Expression and yaw are those of photos of people of the identity's gender, which stand above; age and gender are
    requested of the decoder, in one photo.
    """
    request = source.request(donor, donor)
    *models, plain = participants.models[request.female >= 0.5]
    face = source.face(request)

    def with_photos(photos: Sequence[ScannedPhoto], captions: Sequence[str]) -> list[list[Tile]]:
        pairs = list(zip(photos, captions, strict=True))
        return [
            [(photo.rgb, photo, caption) for photo, caption in pairs],
            [(painted(photo, face)[0], photo, f"{source.name}, {caption}") for photo, caption in pairs],
        ]

    rows = with_photos(models[: len(EXPRESSIONS)], EXPRESSIONS)
    for female, word in ((1.0, "woman"), (0.0, "man")):
        faces = [source.face(replace(request, female=female, age=age)) for age in AGES]
        images = [painted(plain, changed)[0] for changed in faces]
        rows.append([(image, plain, f"{word}, {age:g} years") for image, age in zip(images, AGES, strict=True)])
    turned = models[len(EXPRESSIONS) :]
    rows += with_photos(turned, [f"yaw {photo.yaw:+.0f} ({yaw:+.0f})" for photo, yaw in zip(turned, YAWS, strict=True)])
    return _page(rows, f"{source.name}: one identity with every look")


def _page(rows: Sequence[Sequence[Tile]], title: str) -> Image.Image:
    """Rows of tiles below each other."""
    wide, high = _TILE + _GAP, _TILE + _CAPTION
    size = 2 * _MARGIN + max(map(len, rows)) * wide - _GAP, 2 * _MARGIN + _TITLE + len(rows) * high
    image = Image.new("RGB", size, "white")
    pen, width = ImageDraw.Draw(image), size[0] - 2 * _MARGIN
    write(pen, (_MARGIN, _MARGIN - 8), title, 20, _INK, width)
    write(pen, (_MARGIN, _MARGIN + 16), "Shows photos of the dataset: not for release", 13, _SOFT, width)
    for row, tiles in enumerate(rows):
        for number, (rgb, photo, caption) in enumerate(tiles):
            x, y = _MARGIN + number * wide, _MARGIN + _TITLE + row * high
            image.paste(Image.fromarray(square_view(rgb, photo.box.tolist(), _TILE, _ZOOM)), (x, y))
            write(pen, (x, y + _TILE + 2), caption, 13, _INK, _TILE)
    return image
