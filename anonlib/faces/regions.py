"""Regions of an image that a job must hide, as every detector gives them: faces, and whatever else it finds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FACE = "face"
"""The kind of a region that has landmarks and may be replaced; any other kind is hidden by a flat ellipse."""


@dataclass(frozen=True)
class Regions:
    """Regions of one image, best first.

    `boxes` (N, 4) x0 y0 x1 y1 px; `scores` (N,); `landmarks` (N, 5, 2) px: eyes, nose, mouth corners, NaN where the
    region is no face; `kinds`: N nouns, all FACE if not given; `source`: the name of the detector.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    kinds: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        n = len(self.boxes)
        if self.boxes.shape != (n, 4) or self.scores.shape != (n,) or self.landmarks.shape != (n, 5, 2):
            raise ValueError(
                f"regions need boxes (N,4), scores (N,), landmarks (N,5,2); got {self.boxes.shape}, "
                f"{self.scores.shape}, {self.landmarks.shape}"
            )
        if not self.kinds:
            object.__setattr__(self, "kinds", (FACE,) * n)
        if len(self.kinds) != n:
            raise ValueError(f"{n} regions cannot have {len(self.kinds)} kinds")

    def __len__(self) -> int:
        return len(self.boxes)

    def rows(self, chosen: NDArray[np.bool_] | slice) -> Regions:
        """The regions of a mask (N,) or slice."""
        kinds = tuple(np.array(self.kinds, object)[chosen])
        return Regions(self.boxes[chosen], self.scores[chosen], self.landmarks[chosen], kinds, self.source)

    @property
    def is_face(self) -> NDArray[np.bool_]:
        """(N,) Which of them are faces."""
        return np.array([kind == FACE for kind in self.kinds], np.bool_)

    @property
    def faces(self) -> Regions:
        """Those that are faces."""
        return self.rows(self.is_face)


def labelled_face(regions: Regions, size: tuple[int, ...]) -> int:
    """Which face of an image of `size` (H, W, ...) its person label means: large and central; -1 where there is none.

    Returns its row among all regions.
    """
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


def non_maximum(boxes: NDArray[np.float32], iou: float) -> list[int]:
    """Indices kept of boxes (N, 4) sorted best first: none overlaps a better one by more than `iou`."""
    keep: list[int] = []
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    alive = np.ones(len(boxes), bool)
    for index in range(len(boxes)):
        if not alive[index]:
            continue
        keep.append(index)
        low = np.maximum(boxes[index, :2], boxes[:, :2])
        high = np.minimum(boxes[index, 2:], boxes[:, 2:])
        common = np.prod(np.clip(high - low, 0, None), axis=1)
        alive &= common <= iou * (areas + areas[index] - common)
    return keep
