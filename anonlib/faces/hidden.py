"""What else than faces a job hides, and what finds it: one detector a kind, and one line in KINDS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.config import JobConfig
from anonlib.errors import ConfigError, ModelUnusable
from anonlib.faces.centerface import CenterFaceDetector, Maps
from anonlib.faces.detect import Detector, Finder
from anonlib.faces.plate import PlateDetector
from anonlib.faces.regions import Regions, non_maximum, share_inside, widened
from anonlib.models.catalog import REGION_MODELS
from anonlib.models.requirements import placement
from anonlib.models.runtime import ON_ONE_CORE

_CORE = 0.3
"""Probability from which a px belongs to the core of a line."""
_UNCLIP = 2.0  # a line reaches beyond its core by this many times the core's area over its perimeter
_ROOM = 1.0  # px around a line
_LEAST = 3  # px: the shorter side of a core
_STRIDE, _PERSON_IOU = 4, 0.6
_PERSON = 0  # among COCO's classes


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
