"""Pages to look at: the same photos by every source side by side, and what one identity can be told to look like.

They show photos of the dataset, so they are as restricted as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from anonlib.audit.generators.cast import YAWS, Participants, RequestedLook
from anonlib.audit.generators.scanned import ScannedPhoto
from anonlib.audit.generators.sources import DecodedSource, FaceSource, worn
from anonlib.audit.sheet import square_view, write
from anonlib.faces.mesh import mouth_opening
from anonlib.synthesis.textures.ksame_net import MOODS, MoodTexture, NetworkDecoder
from anonlib.workspace.schemas import EXPRESSIONS

AGES = (22.0, 38.0, 54.0, 70.0)
ROWS_A_PAGE = 10

_TILE = 240
_ZOOM = 1.9
_CAPTION, _TITLE, _MARGIN, _GAP = 22, 44, 20, 4
_INK, _SOFT = (25, 25, 28), (110, 110, 116)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Strip:
    """A row of tiles: views (side, side, 3) with a caption each."""

    views: list[Pixels]
    captions: list[str]


def compared(
    cast: Participants, sources: Sequence[FaceSource], *, faces: int = 40, seed: int = 0
) -> Iterator[Image.Image]:
    """Pages of ROWS_A_PAGE photos each, drawn by lot: each source's version, of the donors that figures are of."""
    lot = np.random.default_rng(seed)
    donors = np.sort(lot.permutation(len(cast))[:faces])
    strips = [_compared(cast, sources, int(donor), int(cast.first[donor])) for donor in donors]
    for start in range(0, len(strips), ROWS_A_PAGE):
        some = strips[start : start + ROWS_A_PAGE]
        yield page(some, f"photos {start + 1} to {start + len(some)} of {len(strips)}, by lot (seed {seed})")


def control(cast: Participants, source: DecodedSource, *, donor: int = 0) -> Image.Image:
    """One person's identity in seven expressions, four ages of two genders, and five yaw angles.

    Expression and yaw are those of photos of people of the identity's gender, which stand above; age and gender are
    asked of the decoder, in one photo, and so are the expressions of a network, which a job would not ask for.
    """
    own = cast.looks[donor]
    stage = cast.stages[own.female >= 0.5]
    face = source.face(donor, own)

    def told(photos: Sequence[ScannedPhoto], captions: list[str]) -> list[Strip]:
        before = Strip([_view(photo.rgb, photo) for photo in photos], captions)
        after = [_view(worn(photo, face).image, photo) for photo in photos]
        return [before, Strip(after, [f"{source.name}, {caption}" for caption in captions])]

    strips = told(stage.expressions, list(EXPRESSIONS))
    if isinstance(source.decoder, NetworkDecoder):
        strips.append(_asked_for(stage.plain, source, source.decoder, donor, own))
    for female, word in ((1.0, "woman"), (0.0, "man")):
        faces = [worn(stage.plain, source.face(donor, RequestedLook(female, age))).image for age in AGES]
        strips.append(Strip([_view(one, stage.plain) for one in faces], [f"{word}, {age:g} years" for age in AGES]))
    strips += told(
        stage.turns, [f"yaw {photo.yaw:+.0f} (wanted {wanted:+.0f})" for photo, wanted in _turned(stage.turns)]
    )
    return page(strips, f"{source.name}: one identity, told what to look like")


def _asked_for(
    photo: ScannedPhoto, source: DecodedSource, network: NetworkDecoder, donor: int, own: RequestedLook
) -> Strip:
    """One photo, whose geometry stays as it is, with the texture of every expression."""
    assert source.targets is not None
    views = []
    for expression in EXPRESSIONS:
        look = network.look(own.female, own.age, expression, mouth_opening(photo.mesh))
        detail, shape = network.answer(source.targets.vectors[donor], look)
        face = MoodTexture(shape, dict.fromkeys(MOODS, detail).__getitem__)
        views.append(_view(worn(photo, face).image, photo))
    return Strip(views, [f"asked for: {expression}" for expression in EXPRESSIONS])


def page(strips: Sequence[Strip], title: str) -> Image.Image:
    """Strips of tiles below each other."""
    wide, high = _TILE + _GAP, _TILE + _CAPTION
    columns = max(len(strip.views) for strip in strips)
    size = 2 * _MARGIN + columns * wide - _GAP, 2 * _MARGIN + _TITLE + len(strips) * high
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    write(pen, (_MARGIN, _MARGIN - 8), title, 20, _INK, size[0] - 2 * _MARGIN)
    write(
        pen, (_MARGIN, _MARGIN + 16), "Shows photos of the dataset: not for release", 13, _SOFT, size[0] - 2 * _MARGIN
    )
    for row, strip in enumerate(strips):
        for column, (view, caption) in enumerate(zip(strip.views, strip.captions, strict=True)):
            x, y = _MARGIN + column * wide, _MARGIN + _TITLE + row * high
            image.paste(Image.fromarray(view), (x, y))
            write(pen, (x, y + _TILE + 2), caption, 13, _INK, _TILE)
    return image


def _compared(cast: Participants, sources: Sequence[FaceSource], donor: int, host: int) -> Strip:
    photo = cast.scenes[host]
    images = [source.paint(photo, source.wish(donor, host)).image for source in sources]
    return Strip([_view(image, photo) for image in images], [source.name for source in sources])


def _turned(photos: Sequence[ScannedPhoto]) -> Iterator[tuple[ScannedPhoto, float]]:
    return zip(photos, YAWS, strict=True)


def _view(rgb: Pixels, photo: ScannedPhoto) -> Pixels:
    return square_view(rgb, photo.box.tolist(), _TILE, _ZOOM)
