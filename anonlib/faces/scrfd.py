"""Faces by SCRFD (Guo et al. 2021, arXiv 2105.04714), from an .onnx file of the user's, image by image.

The networks of InsightFace's packs (det_10g.onnx, ...) are the field's usual baseline, but their weights are for
non-commercial research, so anonlib neither ships nor downloads them. Their outputs have no batch axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.faces.regions import Images, Regions, Sizes, non_maximum
from anonlib.models.requirements import input_size
from anonlib.models.runtime import Placement, onnxruntime_call

_STRIDES, _MULTIPLE, _IOU = (8, 16, 32), 32, 0.4
_MEAN, _SCALE = 127.5, 1 / 128


class ScrfdDetector:
    """`side`: longer side in px that images are shrunk to (never enlarged); `score`: least score of a face."""

    needs_file: ClassVar[bool] = True

    def __init__(self, data: bytes, *, side: int, score: float, device: str = "cpu") -> None:
        self.side, self.score = side, score
        self.fixed = input_size(data, "SCRFD with landmarks", outputs=9)
        self._call = onnxruntime_call(data, device)

    @classmethod
    def open(cls, data: bytes, *, side: int, score: float, where: Placement) -> Self:
        """See Detector; raises ModelUnusable if the network is no SCRFD with landmarks."""
        return cls(data, side=side, score=score, device=where.device)

    def detect(self, images: Images, full_sizes: Sizes | None = None) -> list[Regions]:
        """See Finder."""
        full = [(image.shape[0], image.shape[1]) for image in images] if full_sizes is None else list(full_sizes)
        found = []
        for image, (h, w) in zip(images, full, strict=True):
            scale = min(1.0, self.side / max(h, w))
            if self.fixed:
                scale = min(scale, self.fixed[0] / h, self.fixed[1] / w)
            height, width = (max(1, round(length * scale)) for length in (h, w))
            size = self.fixed or (-(-height // _MULTIPLE) * _MULTIPLE, -(-width // _MULTIPLE) * _MULTIPLE)
            canvas = np.zeros((*size, 3), np.float32)
            canvas[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            batch = np.ascontiguousarray(((canvas - _MEAN) * _SCALE).transpose(2, 0, 1)[None], np.float32)
            boxes, scores, landmarks = decode(self._call(batch), size, self.score)
            factor = np.array([w / width, h / height], np.float32)
            found.append(Regions(boxes * np.tile(factor, 2), scores, landmarks * factor))
        return found


def decode(
    outputs: Sequence[NDArray[np.float32]], size: tuple[int, int], score: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Boxes (n, 4), scores (n,) and landmarks (n, 5, 2) px of an input of `size` (H, W), best first.

    `outputs`: scores (a, 1) of the three strides, then boxes (a, 4), then landmarks (a, 10). A row is an anchor, cell
    by cell; boxes are distances to left, top, right and bottom, landmarks offsets, all in units of the stride.
    """
    parts = []
    for level, stride in enumerate(_STRIDES):
        scores = outputs[level].reshape(-1)
        distances, offsets = (outputs[level + 3 * kind].reshape(len(scores), -1) for kind in (1, 2))
        rows, columns = size[0] // stride, size[1] // stride
        y, x = np.divmod(np.arange(len(scores)) // (len(scores) // (rows * columns)), columns)
        anchors = (np.stack([x, y], axis=1) * stride).astype(np.float32)
        good = np.flatnonzero(scores >= score)
        low, high = anchors[good] - distances[good, :2] * stride, anchors[good] + distances[good, 2:] * stride
        five = anchors[good, None] + offsets[good].reshape(-1, 5, 2) * stride
        parts.append((np.concatenate([low, high], axis=1), scores[good], five))
    boxes, scores, landmarks = (np.concatenate(column).astype(np.float32) for column in zip(*parts, strict=True))
    keep = non_maximum(boxes, scores, _IOU)
    return boxes[keep], scores[keep], landmarks[keep]
