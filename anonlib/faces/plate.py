"""Number plates, or whatever it was trained on, by a YOLO network of the user's, image by image (docs/models.md).

Three layouts of outputs are in use, in rows, of a network with n classes: x, y, w, h, n scores (YOLOv8 and later,
turned); x, y, w, h, objectness, n scores (YOLOv5, v7); and x0, y0, x1, y1, score, class, where doubles are suppressed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.errors import ModelUnusable
from anonlib.faces.regions import Images, Regions, Sizes, non_maximum, widened
from anonlib.models.requirements import input_size
from anonlib.models.runtime import Placement, onnxruntime_call

_MULTIPLE, _GREY, _IOU = 32, 114, 0.5
_FEW = 1000  # rows: fewer are what is left when doubles are suppressed


class PlateDetector:
    """`side`: longer side in px that images are shrunk to, or the network's own; `score`: least score of a plate."""

    needs_file: ClassVar[bool] = True

    def __init__(self, data: bytes, *, side: int, score: float, device: str = "cpu") -> None:
        self.size, self.score = input_size(data, "YOLO") or (side, side), score
        self._call = onnxruntime_call(data, device)
        try:
            self._rows(np.zeros((*self.size, 3), np.uint8))
        except (ValueError, RuntimeError) as error:
            raise ModelUnusable(f"it does not answer to an image: {error}") from None

    @classmethod
    def open(cls, data: bytes, *, side: int, score: float, where: Placement) -> Self:
        """See Detector; raises ModelUnusable if the network is no YOLO."""
        return cls(data, side=side, score=score, device=where.device)

    def detect(self, images: Images, full_sizes: Sizes | None = None) -> list[Regions]:
        """See Finder."""
        full = [(image.shape[0], image.shape[1]) for image in images] if full_sizes is None else list(full_sizes)
        return [self._detect(image, size) for image, size in zip(images, full, strict=True)]

    def _detect(self, image: NDArray[np.uint8], full: Sequence[int]) -> Regions:
        scale = min(self.size[0] / full[0], self.size[1] / full[1], 1.0)
        height, width = (max(1, round(length * scale)) for length in full)
        canvas = np.full((*self.size, 3), _GREY, np.uint8)
        canvas[:height, :width] = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
        boxes, scores = self._rows(canvas)
        good = np.flatnonzero(scores > self.score)
        keep = good[non_maximum(boxes[good], scores[good], _IOU)]
        factor = np.array([full[1] / width, full[0] / height] * 2, np.float32)
        return Regions.of_kind("plate", widened(np.asarray(boxes[keep] * factor, np.float32)), scores[keep])

    def _rows(self, canvas: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Corners (n, 4) px of the canvas (H, W, 3) and scores (n,) of all rows that the network answers with."""
        batch = np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        out = self._call(batch)[0]
        if out.ndim != 3 or out.shape[0] != 1 or min(out.shape[1:]) < 5:
            raise ModelUnusable(f"it is no YOLO: its first output has the shape {out.shape}, not (1, n, 5 or more)")
        turned = out.shape[1] < out.shape[2]
        rows = out[0].T if turned else out[0]
        if not turned and rows.shape[1] == 6 and len(rows) <= _FEW:
            return rows[:, :4], rows[:, 4]
        scores = rows[:, 4:].max(axis=1) if turned else rows[:, 4] * rows[:, 5:].max(axis=1, initial=0)
        if not turned and rows.shape[1] == 5:
            scores = rows[:, 4]
        return np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], axis=1), scores
