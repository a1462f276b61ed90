"""What else than faces a job hides, and what finds it: one detector a kind, and one line in KINDS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.config import JobConfig
from anonlib.errors import ConfigError, ModelUnusable
from anonlib.faces.centerface import CenterFaceDetector, Maps
from anonlib.faces.detect import Detector, Finder
from anonlib.faces.regions import Images, Regions, Sizes, non_maximum, share_inside, widened
from anonlib.models.catalog import REGION_MODELS
from anonlib.models.requirements import input_size, placement
from anonlib.models.runtime import ON_ONE_CORE, Placement, onnxruntime_call

_CORE = 0.3
"""Probability from which a px belongs to the core of a line."""
_UNCLIP = 2.0  # a line reaches beyond its core by this many times the core's area over its perimeter
_ROOM = 1.0  # px around a line
_LEAST = 3  # px: the shorter side of a core
_STRIDE, _PERSON_IOU = 4, 0.6
_PERSON = 0  # among COCO's classes
_GREY, _PLATE_IOU = 114, 0.5
_FEW = 1000  # rows of a YOLO: fewer are what is left when doubles are suppressed


class TextDetector(CenterFaceDetector):
    """Lines of text, upright boxes around slanted ones, by PP-OCR's detection network, which marks the cores of lines
    as DB does (Liao et al. 2020, arXiv 1911.08947); `score`: least mean probability of a core."""

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


class PersonDetector(CenterFaceDetector):
    """Persons by CenterNet (Zhou et al. 2019, arXiv 1904.07850) on MobileNetV3, trained on COCO. `score`: the least."""

    def read(self, maps: Sequence[Maps]) -> Regions:
        """One image's maps (80, h, w) and (4, h, w) of stride 4 (catalog.toml) -> its persons."""
        heat, sides = maps[0][_PERSON], maps[1]
        rows, columns = np.nonzero(heat > self.score)
        left, top, right, bottom = sides[:, rows, columns]
        x, y = columns * _STRIDE, rows * _STRIDE
        boxes = widened(np.stack([x - left, y - top, x + right, y + bottom], axis=1).astype(np.float32))
        scores = heat[rows, columns]
        keep = non_maximum(boxes, scores, _PERSON_IOU)
        return Regions.of_kind("person", boxes[keep], scores[keep])


class PlateDetector:
    """Number plates, or whatever it was trained on, by a YOLO network of the user's, image by image (docs/models.md).

    `side`: longer side in px that images are shrunk to, or the network's own; `score`: least score of a plate.
    """

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
        keep = good[non_maximum(boxes[good], scores[good], _PLATE_IOU)]
        factor = np.array([full[1] / width, full[0] / height] * 2, np.float32)
        return Regions.of_kind("plate", widened(np.asarray(boxes[keep] * factor, np.float32)), scores[keep])

    def _rows(self, canvas: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Corners (n, 4) px of the canvas (H, W, 3) and scores (n,) of all rows that the network answers with.

        Three layouts are in use, in rows, of n classes: x, y, w, h, n scores (YOLOv8 and later, turned); x, y, w, h,
        objectness, n scores (YOLOv5, v7); and x0, y0, x1, y1, score, class, where doubles are suppressed.
        """
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


class _Kind(NamedTuple):
    """`side`: the longer side of an image, in px, that the detector sees; `score`: the least score, where a job gives
    none."""

    detector: type[Detector]
    side: int
    score: float


Kind = Literal["text", "person", "plate"]
KINDS: dict[Kind, _Kind] = {
    "text": _Kind(TextDetector, 960, 0.4),
    "person": _Kind(PersonDetector, 512, 0.2),
    "plate": _Kind(PlateDetector, 1280, 0.25),
}


_MOST = 0.5
"""Share of a region that lies in a hidden one, from which it is found again there."""


def network_of(kind: Kind) -> str:
    """The name under which a job has the network of a kind: the catalogue's, or that of the user's own file."""
    return REGION_MODELS.get(kind, kind)


def least_score(job: JobConfig, kind: Kind) -> float:
    """The least score of a region of this kind."""
    return job.hide[kind].score or KINDS[kind].score


def least_side(job: JobConfig, hidden: Mapping[Kind, Finder]) -> int:
    """The longer side, in px, that all detectors of a job are served with; a network of plates has its own size."""
    sides = (max(of.size) if isinstance(of, PlateDetector) else KINDS[kind].side for kind, of in hidden.items())
    return max([job.detector.side, *sides])


def own_networks(job: JobConfig) -> dict[str, bytes]:
    """The user's own files by the name of their network; raises ConfigError for one that cannot be read or used."""
    files = {}
    for kind, how in job.hide.items():
        if how.path is None:
            continue
        try:
            files[network_of(kind)] = data = Path(how.path).read_bytes()
            KINDS[kind].detector.open(data, side=KINDS[kind].side, score=0.5, where=ON_ONE_CORE)
        except OSError as error:
            raise ConfigError(f"hide.{kind}.path: {how.path} cannot be read: {error.strerror}") from None
        except ModelUnusable as error:
            raise ConfigError(f"hide.{kind}.path: {how.path} is not usable: {error}") from None
    return files


def seen_in(box: NDArray[np.float32], found: Regions) -> bool:
    """Whether one of the regions found lies with most of its area in a box (4,)."""
    return bool((share_inside(found.boxes, box[None]) > _MOST).any())


def open_hidden(job: JobConfig, models: Mapping[str, bytes], *, weak: float = 1.0) -> dict[Kind, Finder]:
    """What finds the kinds that a job hides beside faces, from `weak` times their least scores on."""
    where = placement(job)
    return {
        kind: KINDS[kind].detector.open(
            models[network_of(kind)],
            side=KINDS[kind].side,
            score=weak * least_score(job, kind),
            where=where.of(network_of(kind)),
        )
        for kind in job.hide
    }
