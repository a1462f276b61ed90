"""Faces in whole images, by CenterFace (Xu et al. 2019, arXiv 1911.03599), many images a call.

Images are shrunk so that their longer side is `side` px, padded to a multiple of 32 and batched by
padded shape: shapes depend on the images alone, so the same shard gives the same numbers anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.models.runtime import Engine

_STRIDE = 4
_MULTIPLE = 32
_MAX_BATCH = 8
_IOU = 0.3
_MARGIN_SIDES = 0.5


@dataclass(frozen=True)
class Faces:
    """`boxes` (N, 4) x0 y0 x1 y1 px, `scores` (N,), `landmarks` (N, 5, 2) px: eyes, nose, mouth corners."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.boxes)
        if self.boxes.shape != (n, 4) or self.scores.shape != (n,) or self.landmarks.shape != (n, 5, 2):
            raise ValueError(
                f"faces need boxes (N,4), scores (N,), landmarks (N,5,2); got {self.boxes.shape}, "
                f"{self.scores.shape}, {self.landmarks.shape}"
            )

    def __len__(self) -> int:
        return len(self.boxes)


class CenterFaceDetector:
    """`side`: longer side in px that images are shrunk to (never enlarged); `score`: least score of a face."""

    def __init__(self, engine: Engine, *, side: int, score: float) -> None:
        self.engine = engine
        self.side = side
        self.score = score

    def detect(
        self, images: Sequence[NDArray[np.uint8]], full_sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[Faces]:
        """RGB images (H, W, 3) of any sizes -> their faces, best first, in each image's own px.

        `full_sizes` are the (H, W) of the photos where the images are smaller views of them, with longer sides of
        at least `side`: faces are then in the photos' px.
        """
        full = [(image.shape[0], image.shape[1]) for image in images] if full_sizes is None else list(full_sizes)
        sizes = [_shrunk(size, min(1.0, self.side / max(size))) for size in full]
        by_shape: dict[tuple[int, int], list[int]] = {}
        for index, (height, width) in enumerate(sizes):
            by_shape.setdefault((_padded(height), _padded(width)), []).append(index)
        found: list[Faces | None] = [None] * len(images)
        for (height, width), members in by_shape.items():
            for start in range(0, len(members), _MAX_BATCH):
                part = members[start : start + _MAX_BATCH]
                batch = np.zeros((len(part), height, width, 3), np.uint8)
                for row, index in enumerate(part):
                    h, w = sizes[index]
                    batch[row, :h, :w] = _resize(images[index], h, w)
                outputs = self.engine(np.ascontiguousarray(batch.transpose(0, 3, 1, 2), dtype=np.float32))
                heat, scale, offset, points = outputs[:4]
                for row, index in enumerate(part):
                    faces = decode(heat[row, 0], scale[row], offset[row], points[row], self.score)
                    found[index] = _to_image(faces, full[index], sizes[index])
        return [faces for faces in found if faces is not None]


def decode(
    heat: NDArray[np.float32],
    scale: NDArray[np.float32],
    offset: NDArray[np.float32],
    points: NDArray[np.float32],
    score: float,
) -> Faces:
    """One image's maps, stride 4: heat (h, w), scale (2, h, w) log px/4, offset (2, h, w), points (10, h, w)."""
    rows, columns = np.nonzero(heat > score)
    scores = heat[rows, columns]
    order = np.argsort(-scores, kind="stable")
    rows, columns, scores = rows[order], columns[order], scores[order]
    size = np.exp(scale[:, rows, columns]) * _STRIDE
    centre_y = (rows + offset[0, rows, columns] + 0.5) * _STRIDE
    centre_x = (columns + offset[1, rows, columns] + 0.5) * _STRIDE
    left, top = centre_x - size[1] / 2, centre_y - size[0] / 2
    boxes = np.stack([left, top, left + size[1], top + size[0]], axis=1).astype(np.float32)
    raw = points[:, rows, columns].reshape(5, 2, -1).transpose(2, 0, 1)
    landmarks = np.stack(
        [raw[:, :, 1] * size[1][:, None] + left[:, None], raw[:, :, 0] * size[0][:, None] + top[:, None]],
        axis=2,
    )
    keep = non_maximum(boxes)
    return Faces(boxes[keep], scores[keep].astype(np.float32), landmarks[keep].astype(np.float32))


def non_maximum(boxes: NDArray[np.float32]) -> list[int]:
    """Indices kept of boxes (N, 4) sorted best first: none overlaps a better one by IoU over 0.3."""
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
        alive &= common <= _IOU * (areas + areas[index] - common)
    return keep


def _to_image(faces: Faces, full: tuple[int, ...], shrunk: tuple[int, int]) -> Faces:
    """Back to the image's own px; what lies wholly outside it (the padding) goes, boxes may overhang by half."""
    factor = np.array([full[1] / shrunk[1], full[0] / shrunk[0]], np.float32)
    boxes = faces.boxes * np.tile(factor, 2)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centre >= 0) & (centre <= np.array([full[1], full[0]]))).all(axis=1)
    extent = (boxes[:, 2:] - boxes[:, :2]) * _MARGIN_SIDES
    limit = np.array([full[1], full[0]], np.float32)
    boxes = np.concatenate(
        [np.maximum(boxes[:, :2], -extent), np.minimum(boxes[:, 2:], limit + extent)], axis=1
    ).astype(np.float32)
    return Faces(boxes[inside], faces.scores[inside], (faces.landmarks * factor)[inside])


def _shrunk(shape: tuple[int, ...], scale: float) -> tuple[int, int]:
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _padded(length: int) -> int:
    return -(-length // _MULTIPLE) * _MULTIPLE


def _resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def labelled_face(faces: Faces, size: tuple[int, ...]) -> int:
    """Which face a photo's person label means: large and central; -1 where there is none."""
    if len(faces) == 0:
        return -1
    centre = np.array([size[1] / 2, size[0] / 2])
    extent = faces.boxes[:, 2:] - faces.boxes[:, :2]
    distance = np.linalg.norm((faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2 - centre, axis=1) / max(size[0], size[1])
    return int(np.argmax(np.sqrt(np.prod(np.maximum(extent, 0), axis=1)) * np.exp(-((3 * distance) ** 2))))


def main_face(faces: Faces, size: tuple[int, ...]) -> Faces:
    """The face that a photo is of, or none."""
    row = labelled_face(faces, size)
    chosen = slice(row, row + 1) if row >= 0 else slice(0, 0)
    return Faces(faces.boxes[chosen], faces.scores[chosen], faces.landmarks[chosen])
