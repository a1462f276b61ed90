"""What else than faces a job hides, and what finds it: one detector a kind, and one line in KINDS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anonlib.config import JobConfig
from anonlib.errors import ConfigError, ModelUnusable
from anonlib.faces.detect import Detector, Finder
from anonlib.faces.person import PersonDetector
from anonlib.faces.plate import PlateDetector
from anonlib.faces.regions import Regions
from anonlib.faces.text import TextDetector
from anonlib.models.catalog import REGION_MODELS
from anonlib.models.requirements import placement
from anonlib.models.runtime import ON_ONE_CORE


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
    low, high = np.maximum(found.boxes[:, :2], box[:2]), np.minimum(found.boxes[:, 2:], box[2:])
    common = np.clip(high - low, 0, None).prod(axis=1)
    return bool((common > _MOST * (found.boxes[:, 2:] - found.boxes[:, :2]).prod(axis=1)).any())


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
