"""Persons in whole images by CenterNet (Zhou et al. 2019, arXiv 1904.07850) on MobileNetV3, trained on COCO."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anonlib.faces.centerface import CenterFaceDetector, Maps
from anonlib.faces.regions import Regions, non_maximum, widened

_STRIDE = 4
_PERSON = 0  # among COCO's classes
_IOU = 0.6


class PersonDetector(CenterFaceDetector):
    """`score`: least score of a person."""

    def read(self, maps: Sequence[Maps]) -> Regions:
        """One image's maps (80, h, w) and (4, h, w) of stride 4 (catalog.toml) -> its persons."""
        heat, sides = maps[0][_PERSON], maps[1]
        rows, columns = np.nonzero(heat > self.score)
        left, top, right, bottom = sides[:, rows, columns]
        x, y = columns * _STRIDE, rows * _STRIDE
        boxes = np.stack([x - left, y - top, x + right, y + bottom], axis=1).astype(np.float32)
        boxes = widened(boxes)
        scores = heat[rows, columns]
        order = np.argsort(-scores, kind="stable")
        keep = order[non_maximum(boxes[order], _IOU)]
        return Regions.of_kind("person", boxes[keep], scores[keep])
