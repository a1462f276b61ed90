"""Text in whole images by PP-OCR's detection network, which marks the cores of lines as DB does (Liao et al. 2020,
arXiv 1911.08947)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from anonlib.faces.centerface import CenterFaceDetector, Maps
from anonlib.faces.regions import Regions

_CORE = 0.3
"""Probability from which a px belongs to the core of a line."""
_UNCLIP = 2.0  # a line reaches over its core by so many times area / perimeter
_ROOM = 1.0  # px around a line
_LEAST = 3  # px: the shorter side of a core


class TextDetector(CenterFaceDetector):
    """Lines of text, upright boxes around slanted ones; `score`: least mean probability of a core."""

    def read(self, maps: Sequence[Maps]) -> Regions:
        """One image's map (1, h, w) -> its lines of text."""
        text = (1 + np.tanh(maps[0][0] / 2)) / 2  # the logistic function, which overflows nowhere
        count, labels, places, _ = cv2.connectedComponentsWithStats((text > _CORE).astype(np.uint8))
        sums = np.bincount(labels.ravel(), weights=text.ravel(), minlength=count)
        scores = (sums / places[:, cv2.CC_STAT_AREA]).astype(np.float32)
        sizes = places[:, 2:4].astype(np.float32)
        good = (scores > self.score) & (sizes.min(axis=1) >= _LEAST)
        good[0] = False  # the background
        low, sizes, scores = places[good, :2].astype(np.float32), sizes[good], scores[good]
        room = _UNCLIP * sizes.prod(axis=1) / (2 * sizes.sum(axis=1)) + _ROOM
        boxes = np.concatenate([low - room[:, None], low + sizes + room[:, None]], axis=1)
        order = np.argsort(-scores, kind="stable")
        return Regions.of_kind("text", boxes[order], scores[order])
