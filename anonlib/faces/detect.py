"""The detectors: what finds the regions of an image that a job must hide. One class each, and one line in DETECTORS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import ClassVar, Protocol, Self

from anonlib.config import NO_DETECTOR, DetectorConfig
from anonlib.errors import ConfigError, ModelUnusable, suggestion
from anonlib.faces.centerface import CenterFaceDetector, YuFaceDetector
from anonlib.faces.regions import NO_REGIONS, Images, Regions, Sizes
from anonlib.faces.scrfd import ScrfdDetector
from anonlib.media.codec import Picture
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import ON_ONE_CORE, Placement


class Finder(Protocol):
    """What a job finds regions with: a detector, or several."""

    def detect(self, images: Images, full_sizes: Sizes | None = None) -> list[Regions]:
        """RGB images (H, W, 3) of any sizes -> the regions of each, best first, in its own px.

        `full_sizes`: (H, W) of the photos, in whose px regions then are, where the images are smaller views of them.
        """
        ...


class Detector(Finder, Protocol):
    """A loaded detector. Its name in DETECTORS is that of its weights in the catalogue, if they are there."""

    needs_file: ClassVar[bool]  # whether it runs the user's own file at `detector.path`

    @classmethod
    def open(cls, data: bytes, *, side: int, score: float, where: Placement) -> Self:
        """The detector of these weights (none: empty); `side`, `score`: see DetectorConfig. Raises ModelUnusable."""
        ...


class NoDetector:
    """Finds nothing: a job hides the boxes that its dataset brings."""

    needs_file: ClassVar[bool] = False

    @classmethod
    def open(cls, data: bytes, *, side: int, score: float, where: Placement) -> Self:
        """See Detector."""
        return cls()

    def detect(self, images: Images, full_sizes: Sizes | None = None) -> list[Regions]:
        """See Finder."""
        return [NO_REGIONS] * len(images)


DETECTORS: dict[str, type[Detector]] = {
    "centerface": CenterFaceDetector,
    NO_DETECTOR: NoDetector,
    "scrfd": ScrfdDetector,
    "yuface": YuFaceDetector,
}


SAME_FACE, SAME_IN_ALPHA = 0.3, 0.5
"""Intersection over union from which two boxes are of one face: of two detectors, and of colours and a background."""


def detect_as_shown(detector: Finder, pictures: Sequence[Picture]) -> list[Regions]:
    """The regions of each picture, in px of its `size`: those of its colours, then those that show over black or white.

    On a background between the two a picture has no other edges than on these.
    """
    found = detector.detect([picture.rgb for picture in pictures], [picture.size for picture in pictures])
    for number, picture in enumerate(pictures):
        if picture.alpha is not None:
            for shown in detector.detect([picture.over(0), picture.over(255)], [picture.size] * 2):
                found[number] = found[number].with_new(shown.in_alpha(), SAME_IN_ALPHA)
    return found


class _Union:
    """Several detectors: what the first finds, and of each other what is in no place of those before."""

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self.detectors = detectors

    def detect(self, images: Images, full_sizes: Sizes | None = None) -> list[Regions]:
        """See Finder."""
        several = [detector.detect(images, full_sizes) for detector in self.detectors]
        return [
            reduce(lambda one, other: one.with_new(other, SAME_FACE), found) for found in zip(*several, strict=True)
        ]


def detector_file(settings: DetectorConfig) -> tuple[str, bytes] | None:
    """The detector that runs the user's own file, and the file, if there is one.

    Raises ConfigError if a detector is unknown, or its file is not given, cannot be read or cannot be used.
    """
    for name in settings.names:
        if name not in DETECTORS:
            raise ConfigError(f"there is no detector '{name}'; {suggestion(name, DETECTORS)}")
    of_file = [name for name in settings.names if DETECTORS[name].needs_file]
    if not of_file:
        if settings.path is not None:
            raise ConfigError(f"detector.path belongs to detectors of your own files; the detector is {settings.name}")
        return None
    if len(of_file) > 1:
        raise ConfigError(f"detector.path is one file, but {' and '.join(of_file)} need one each")
    if settings.path is None:
        raise ConfigError(f"the detector {of_file[0]} needs detector.path, the .onnx file or pack that you have")
    path = Path(settings.path)
    # A pack is a folder of several networks; its detector is called det_10g.onnx, det_500m.onnx, ...
    files = sorted(path.glob("det_*.onnx")) if path.is_dir() else [path]
    if len(files) != 1:
        raise ConfigError(f"detector.path: {path} has {len(files)} files det_*.onnx; give the path of one")
    try:
        data = files[0].read_bytes()
        DETECTORS[of_file[0]].open(data, side=settings.side, score=settings.score, where=ON_ONE_CORE)
    except OSError as error:
        raise ConfigError(f"detector.path: {files[0]} cannot be read: {error.strerror}") from None
    except ModelUnusable as error:
        raise ConfigError(f"detector.path: {files[0]} is not usable: {error}") from None
    return of_file[0], data


def open_detector(
    config: DetectorConfig,
    models: Mapping[str, bytes] | None = None,
    *,
    side: int = 0,
    where: Placement = ON_ONE_CORE,
) -> Finder:
    """What a job finds regions with, at another `side` if given; `models`: weights by name. Errors: see
    detector_file."""
    weights = dict(models or ())
    if not all(name in weights for name in config.names) and (own := detector_file(config)):
        weights.setdefault(*own)
    detectors = [
        DETECTORS[name].open(
            weights[name] if name in weights else model_bytes(name) if name in MODELS else b"",
            side=side or config.side,
            score=config.score,
            where=where.of(name),
        )
        for name in config.names
    ]
    return detectors[0] if len(detectors) == 1 else _Union(detectors)
