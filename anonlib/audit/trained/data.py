"""What an attacker who learns holds: faces in one frame, clear and released, and who is known to him.

The frame is set by the face's box and not by five points: on a blurred face a detector's points are noise, while the
outline of what was painted over is plain to see and gives the box away. Of half of the people he has both versions of
every photo (the usual assumption, as in arXiv 2506.12344); the other half he goes after. A few of his own half he keeps
aside, to choose between what he has trained. Nobody is in two of these parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.faces import align

SIDE = 96
"""Pixels of a frame's side."""
REACH = 1.5
"""Side of the frame in longer sides of the box: the ellipse of a redaction takes nine tenths of it."""
ATTACKED, KEPT_ASIDE = 0.5, 0.07
"""Shares of the people who are attacked, and who are kept aside to choose by."""

Pixels = NDArray[np.uint8]
Points = NDArray[np.float32]
Rows = NDArray[np.int64]
Again = Callable[[Pixels, NDArray[np.float32]], None]
"""Anonymizes the face with a box (4,) px in a picture (h, w, 3), in place: what the release did, if anybody can."""

_SHIFT, _TURN, _SCALE = 0.02, 0.05, 0.05


@dataclass(frozen=True)
class AttackerData:
    """n faces: `clear`, `released` (n, SIDE, SIDE, 3); `boxes` (n, 4) and five `points` (n, 5, 2) of the clear face in
    px of the frame; `people` (n,) numbers; `vectors`: recognizer -> unit rows (n, d) of the clear photos.

    Raises ValueError if they are not of one length and size.
    """

    clear: Pixels
    released: Pixels
    boxes: Points
    points: Points
    people: Rows
    vectors: Mapping[str, NDArray[np.float32]]

    def __post_init__(self) -> None:
        n = len(self.people)
        frames = (n, SIDE, SIDE, 3)
        fits = self.clear.shape == self.released.shape == frames and self.boxes.shape == (n, 4)
        if not fits or self.points.shape != (n, 5, 2) or any(len(one) != n for one in self.vectors.values()):
            raise ValueError(f"an attacker needs frames of {SIDE} px, boxes, points and vectors of the same {n} faces")


@dataclass(frozen=True)
class DataSplit:
    """Rows of a Held: what is learnt from, what is chosen by, and what is attacked."""

    learn: Rows
    choose: Rows
    attack: Rows


def frame(box: NDArray[np.float32]) -> align.Affine:
    """Image px -> px of the frame around a box (4,) px."""
    centre = np.asarray((box[:2] + box[2:]) / 2, np.float32)
    return align.square(centre, REACH * float((box[2:] - box[:2]).max()), 0.0, SIDE)


def framed(image: Pixels, box: NDArray[np.float32]) -> Pixels:
    """The frame (SIDE, SIDE, 3) around a box (4,) px of `image` (h, w, 3)."""
    return align.crop(image, frame(box), SIDE)


def split(people: Rows, seed: int) -> DataSplit:
    """Who is learnt from, chosen by and attacked; raises ValueError if there are too few people to learn anything."""
    names = np.random.default_rng(seed).permutation(np.unique(people))
    attacked = round(ATTACKED * len(names))
    aside = attacked + max(2, round(KEPT_ASIDE * len(names)))
    if len(names) < aside + 2 or attacked < 2:
        raise ValueError(f"an attacker cannot learn from {len(names)} people; he needs eight or more")
    parts = [np.flatnonzero(np.isin(people, some)) for some in np.split(names, [attacked, aside])]
    return DataSplit(learn=parts[2], choose=parts[1], attack=parts[0])


@dataclass(frozen=True)
class BatchDraw:
    """m pairs: frames (m, SIDE, SIDE, 3), boxes (m, 4) and points (m, 5, 2) of the clear ones, and the rows drawn."""

    released: Pixels
    clear: Pixels
    boxes: Points
    points: Points
    rows: Rows


_COLUMNS = tuple(one.name for one in fields(BatchDraw))


class TrainingPairs:
    """Clear and released frames of an attacker's own people, moved and mirrored so that a few become many.

    With `again` he anonymizes the moved clear frame himself, so that box and face lie otherwise to each other, as they
    do from photo to photo; without, both are moved alike.
    """

    def __init__(self, held: AttackerData, again: Again | None) -> None:
        self.held, self.again = held, again

    def draw(self, rows: Rows, random: np.random.Generator) -> BatchDraw:
        """Each of `rows`, moved."""
        held = self.held
        released, clear = held.released[rows].copy(), held.clear[rows].copy()
        points, boxes = held.points[rows].copy(), held.boxes[rows].copy()
        for place in range(len(rows)):
            matrix, mirrored = _motion(random)
            clear[place] = _moved(clear[place], matrix)
            points[place] = align.apply(matrix, points[place])
            if mirrored:
                points[place] = points[place][[1, 0, 2, 4, 3]]
                boxes[place, [0, 2]] = SIDE - boxes[place, [2, 0]]
            if self.again is None:
                released[place] = _moved(released[place], matrix)
            else:
                released[place] = clear[place]
                self.again(released[place], boxes[place])
        return BatchDraw(released, clear, boxes, points, rows)

    def many(self, rows: Rows, times: int, random: np.random.Generator) -> BatchDraw:
        """Every one of `rows` as it is, and `times` moved."""
        held = self.held
        plain = BatchDraw(held.released[rows], held.clear[rows], held.boxes[rows], held.points[rows], rows)
        drawn = [plain, *(self.draw(rows, random) for _ in range(times))]
        return BatchDraw(*(np.concatenate([getattr(one, name) for one in drawn]) for name in _COLUMNS))


def _motion(random: np.random.Generator) -> tuple[align.Affine, bool]:
    """Frame px -> frame px: a small turn, shift and scale, mirrored or not."""
    turn, scale = float(random.normal(0, _TURN)), float(np.exp(random.normal(0, _SCALE)))
    shift, mirrored = random.normal(0, _SHIFT * SIDE, 2), bool(random.random() < 0.5)
    matrix = align.square(np.full(2, SIDE / 2, np.float32), SIDE / scale, turn, SIDE)
    matrix[:, 2] += shift
    if mirrored:
        matrix = matrix @ np.array([[-1, 0, SIDE], [0, 1, 0], [0, 0, 1]], np.float32)
    return matrix, mirrored


def _moved(picture: Pixels, matrix: align.Affine) -> Pixels:
    moved = cv2.warpAffine(picture, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)
