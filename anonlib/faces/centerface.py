"""Faces in whole images, by CenterFace (Xu et al. 2019, arXiv 1911.03599) and YuNet, many images a call.

Images are shrunk, padded to a multiple of 32 and batched by padded shape, which depends on the images alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.faces.regions import Images, Regions, Sizes, non_maximum
from anonlib.models.runtime import Backend, Engine, Placement, is_narrow, load_engine

Maps = NDArray[np.float32]
_STRIDE, _MULTIPLE, _MAX_BATCH = 4, 32, 8
_IOU, _YUFACE_IOU, _MARGIN_SIDES = 0.3, 0.45, 0.5
_RATIOS = (9 / 16, 2 / 3, 3 / 4)
"""Sides of the photos of cameras and phones, whose shapes the network is compiled for."""


class CenterFaceDetector:
    """`side`: longer side in px that images are shrunk to (never enlarged); `score`: least score of a face."""

    needs_file: ClassVar[bool] = False

    def __init__(self, engine: Engine, *, side: int, score: float) -> None:
        self.engine, self.side, self.score = engine, side, score

    @classmethod
    def open(cls, data: bytes, *, side: int, score: float, where: Placement) -> Self:
        """See Detector."""
        short = {_padded(round(side * ratio)) for ratio in _RATIOS}
        sizes = {size for one in short for size in ((one, _padded(side)), (_padded(side), one))}
        # On a CPU without AVX-512 onnxruntime takes three quarters of the time of OpenVINO for this network.
        backend: Backend = "onnxruntime" if where.device == "cpu" and is_narrow() else "auto"
        return cls(load_engine(data, backend=backend, **vars(where), sizes=sizes), side=side, score=score)

    def detect(self, images: Images, full_sizes: Sizes | None = None) -> list[Regions]:
        """See Finder."""
        full = [(image.shape[0], image.shape[1]) for image in images] if full_sizes is None else list(full_sizes)
        sizes: list[tuple[int, int]] = []
        by_shape: dict[tuple[int, int], list[int]] = {}
        for index, size in enumerate(full):
            scale = min(1.0, self.side / max(size))
            sizes.append((max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))
            padded = (_padded(sizes[-1][0]), _padded(sizes[-1][1]))
            by_shape.setdefault(padded, []).append(index)
        found: dict[int, Regions] = {}
        for (height, width), members in by_shape.items():
            for start in range(0, len(members), _MAX_BATCH):
                part = members[start : start + _MAX_BATCH]
                batch = np.zeros((len(part), height, width, 3), np.uint8)
                for row, index in enumerate(part):
                    h, w = sizes[index]
                    image = images[index]
                    if image.shape[:2] != (h, w):
                        image = np.asarray(cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA), np.uint8)
                    batch[row, :h, :w] = image
                outputs = self.engine(np.ascontiguousarray(batch.transpose(0, 3, 1, 2), dtype=np.float32))
                for row, index in enumerate(part):
                    faces = self.read([output[row] for output in outputs])
                    found[index] = _to_image(faces, full[index], sizes[index])
        return [found[index] for index in range(len(images))]

    def read(self, maps: Sequence[Maps]) -> Regions:
        """One image's maps -> its faces, in px of what the network was shown."""
        heat, scale, offset, points = maps
        return decode(heat[0], scale, offset, points, self.score)


class YuFaceDetector(CenterFaceDetector):
    """YuNet (Wu et al. 2023), small and with weights of its own: it finds faces that CenterFace misses, and misses
    others."""

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
        keep = non_maximum(boxes, scores, _YUFACE_IOU)
        return Regions(boxes[keep], scores[keep], points[keep])


def _padded(length: int) -> int:
    return -(-length // _MULTIPLE) * _MULTIPLE


def decode(heat: Maps, scale: Maps, offset: Maps, points: Maps, score: float) -> Regions:
    """One image's maps, stride 4: heat (h, w), scale (2, h, w) log px/4, offset (2, h, w), points (10, h, w)."""
    rows, columns = np.nonzero(heat > score)
    scores = heat[rows, columns]
    size = np.exp(scale[:, rows, columns]) * _STRIDE
    centre_y = (rows + offset[0, rows, columns] + 0.5) * _STRIDE
    centre_x = (columns + offset[1, rows, columns] + 0.5) * _STRIDE
    left, top = centre_x - size[1] / 2, centre_y - size[0] / 2
    boxes = np.stack([left, top, left + size[1], top + size[0]], axis=1).astype(np.float32)
    raw = points[:, rows, columns].reshape(5, 2, -1).transpose(2, 0, 1)
    x, y = raw[:, :, 1] * size[1][:, None] + left[:, None], raw[:, :, 0] * size[0][:, None] + top[:, None]
    landmarks = np.stack([x, y], axis=2)
    keep = non_maximum(boxes, scores, _IOU)
    return Regions(boxes[keep], scores[keep].astype(np.float32), landmarks[keep].astype(np.float32))


def _to_image(faces: Regions, full: tuple[int, ...], shrunk: tuple[int, int]) -> Regions:
    """Back to the image's own px; what lies wholly outside it (the padding) goes, boxes may overhang by half."""
    limit = np.array([full[1], full[0]], np.float32)
    factor = np.array([full[1] / shrunk[1], full[0] / shrunk[0]], np.float32)
    boxes = faces.boxes * np.tile(factor, 2)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = np.asarray(((centre >= 0) & (centre <= limit)).all(axis=1))
    extent = (boxes[:, 2:] - boxes[:, :2]) * _MARGIN_SIDES
    low, high = np.maximum(boxes[:, :2], -extent), np.minimum(boxes[:, 2:], limit + extent)
    boxes = np.concatenate([low, high], axis=1).astype(np.float32)
    return replace(faces, boxes=boxes, landmarks=faces.landmarks * factor).rows(inside)
