"""Faces in whole images by YuNet (Wu et al. 2023), small and with weights of its own: it finds some that CenterFace
misses, and misses others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anonlib.faces.centerface import CenterFaceDetector, Maps
from anonlib.faces.regions import Regions, non_maximum

_IOU = 0.45


class YuFaceDetector(CenterFaceDetector):
    """`side`, `score`: see CenterFaceDetector, whose way with images this is."""

    def read(self, maps: Sequence[Maps]) -> Regions:
        """One image's maps (15, h, w) of the strides 8, 16 and 32 (catalog.toml) -> its faces."""
        found: list[tuple[Maps, Maps, Maps]] = []
        for level in maps:
            stride = 8 << len(found)
            rows, columns = np.nonzero(level[0] > self.score)
            values, cells = level[:, rows, columns].T, np.stack([columns, rows], axis=1)
            centres, sides = (values[:, 1:3] + cells) * stride, np.exp(values[:, 3:5]) * stride
            points = (values[:, 5:].reshape(-1, 5, 2) + cells[:, None]) * stride
            boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
            found.append((boxes, values[:, 0], points))
        boxes, scores, points = (np.concatenate(part).astype(np.float32) for part in zip(*found, strict=True))
        keep = non_maximum(boxes, scores, _IOU)
        return Regions(boxes[keep], scores[keep], points[keep])
