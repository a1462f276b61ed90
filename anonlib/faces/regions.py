"""Regions of an image that a job must hide, as every detector gives them: faces, and whatever else it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Images = Sequence[NDArray[np.uint8]]
Sizes = Sequence[tuple[int, int]]
FACE = "face"  # the kind of a region that has landmarks and may be replaced; any other kind is hidden
MOST_REGIONS = 4000
"""Of a photo or frame, or tracks of a clip, each of which takes milliseconds to hide; what has more is quarantined."""
IN_ALPHA = "face in the alpha channel"
"""The kind of a face that shows on a background and not in the colours alone, so that none can be put in its place."""
_ROOM = 0.05  # of a box's sides, by which `widened` widens it each way


def why_hidden(kind: str) -> str:
    """Why a region that is no face is under the fallback."""
    return f"a {kind} is hidden and not replaced"


@dataclass(frozen=True)
class Regions:
    """Regions of one image, best first.

    `boxes` (N, 4) x0 y0 x1 y1 px; `scores` (N,); `landmarks` (N, 5, 2) px: eyes, nose, mouth corners, NaN without a
    face; `kinds`: N nouns, all FACE if not given.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.boxes)
        if not self.kinds:
            object.__setattr__(self, "kinds", (FACE,) * n)
        shapes = self.boxes.shape, self.scores.shape, self.landmarks.shape, len(self.kinds)
        if shapes != ((n, 4), (n,), (n, 5, 2), n):
            raise ValueError(f"regions need boxes (N,4), scores (N,), landmarks (N,5,2) and N kinds; got {shapes}")

    @classmethod
    def of_kind(cls, kind: str, boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> Self:
        """Regions of one kind without landmarks, by boxes (N, 4) and scores (N,)."""
        points = np.full((len(boxes), 5, 2), np.nan, np.float32)
        return cls(boxes.astype(np.float32), scores.astype(np.float32), points, (kind,) * len(boxes))

    def __len__(self) -> int:
        return len(self.boxes)

    def rows(self, chosen: NDArray[np.bool_] | slice) -> Regions:
        """The regions of a mask (N,) or slice."""
        kinds = tuple(np.array(self.kinds, object)[chosen])
        return Regions(self.boxes[chosen], self.scores[chosen], self.landmarks[chosen], kinds)

    def with_new(self, others: Regions, iou: float) -> Regions:
        """These, and behind them those of `others` that overlap none of them by more than `iou`."""
        apart = [bool((overlaps(box, self.boxes) <= iou).all()) for box in others.boxes]
        new = others.rows(np.array(apart, np.bool_))
        return Regions(
            np.concatenate([self.boxes, new.boxes]),
            np.concatenate([self.scores, new.scores]),
            np.concatenate([self.landmarks, new.landmarks]),
            (*self.kinds, *new.kinds),
        )

    def in_alpha(self) -> Regions:
        """These, as they show on a background: faces are IN_ALPHA."""
        kinds = tuple(IN_ALPHA if kind == FACE else kind for kind in self.kinds)
        return Regions(self.boxes, self.scores, np.full_like(self.landmarks, np.nan), kinds)

    @property
    def is_face(self) -> NDArray[np.bool_]:
        """(N,) Which of them are faces."""
        return np.array([kind == FACE for kind in self.kinds], np.bool_)

    @property
    def faces(self) -> Regions:
        """Those that are faces."""
        return self.rows(self.is_face)


NO_REGIONS = Regions(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))


def together(several: Sequence[Regions]) -> Regions:
    """Regions of several places as those of one image, in their order."""
    parts = [NO_REGIONS, *several]
    return Regions(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.landmarks for part in parts]),
        tuple(kind for part in parts for kind in part.kinds),
    )


def labelled_face(regions: Regions, size: tuple[int, ...]) -> int:
    """The row of the face that the label of an image of `size` (H, W, ...) means: large and central; -1 without one."""
    faces = regions.is_face
    if not faces.any():
        return -1
    centre = np.array([size[1] / 2, size[0] / 2])
    extent = regions.boxes[:, 2:] - regions.boxes[:, :2]
    middle = (regions.boxes[:, :2] + regions.boxes[:, 2:]) / 2
    distance = np.linalg.norm(middle - centre, axis=1) / max(size[0], size[1])
    prominence = np.sqrt(np.prod(np.maximum(extent, 0), axis=1)) * np.exp(-((3 * distance) ** 2))
    return int(np.argmax(np.where(faces, prominence, -1)))


def main_face(regions: Regions, size: tuple[int, ...]) -> Regions:
    """The face that an image of `size` (H, W, ...) is of, or none."""
    row = labelled_face(regions, size)
    return regions.rows(slice(row, row + 1) if row >= 0 else slice(0, 0))


def non_maximum(boxes: NDArray[np.float32], scores: NDArray[np.float32], iou: float) -> NDArray[np.int64]:
    """Rows of boxes (N, 4), best first by `scores` (N,): none overlaps a better one by more than `iou`."""
    keep: list[int] = []
    alive = np.argsort(-scores, kind="stable")
    while len(alive):
        best, alive = alive[0], alive[1:]
        keep.append(int(best))
        alive = alive[overlaps(boxes[best], boxes[alive]) <= iou]
    return np.array(keep, np.int64)


def widened(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Boxes (N, 4) with a little room each way, for a network whose boxes are tight."""
    room = _ROOM * (boxes[:, 2:] - boxes[:, :2])
    return np.concatenate([boxes[:, :2] - room, boxes[:, 2:] + room], axis=1)


def overlaps(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) Intersection over union of a box (4,) with each of `boxes` (N, 4); (M, N) of boxes (M, 1, 4)."""
    low, high = np.maximum(box[..., :2], boxes[..., :2]), np.minimum(box[..., 2:], boxes[..., 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1) + np.prod(box[..., 2:] - box[..., :2], axis=-1)
    return np.asarray(common / np.maximum(areas - common, 1e-6), np.float32)


def share_inside(
    boxes: NDArray[np.float32], areas: NDArray[np.float32], grow: Sequence[float] = (1.0, 1.0)
) -> NDArray[np.float32]:
    """(N,) The greatest share of each box (N, 4) inside one of `areas` (M, 4), whose sides are `grow` times as long."""
    centre, half = (areas[:, :2] + areas[:, 2:]) / 2, (areas[:, 2:] - areas[:, :2]) / 2 * np.array(grow, np.float32)
    low = np.maximum(boxes[:, None, :2], (centre - half)[None])
    high = np.minimum(boxes[:, None, 2:], (centre + half)[None])
    common = np.clip(high - low, 0, None).prod(axis=2)
    area = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-6)
    return np.asarray((common / area[:, None]).max(axis=1, initial=0), np.float32)
