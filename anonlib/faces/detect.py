"""The detectors: what finds the regions of an image that a job must hide. One file each, and one line in DETECTORS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol, Self

from anonlib.config import DetectorConfig
from anonlib.errors import ConfigError, ModelUnusable, suggestion
from anonlib.faces.centerface import CenterFaceDetector
from anonlib.faces.regions import Images, Regions, Sizes
from anonlib.faces.scrfd import ScrfdDetector
from anonlib.media.codec import Picture
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import Precision


class Detector(Protocol):
    """A loaded detector. Its name in DETECTORS is that of its weights in the catalogue, if they are there."""

    needs_file: ClassVar[bool]  # whether it runs the user's own file at `detector.path`

    @classmethod
    def open(cls, data: bytes, *, side: int, score: float, device: str, precision: Precision) -> Self:
        """The detector of these weights (none: empty); `side`, `score`: see DetectorConfig. Raises ModelUnusable."""
        ...

    def detect(self, images: Images, full_sizes: Sizes | None = None) -> list[Regions]:
        """RGB images (H, W, 3) of any sizes -> the regions of each, best first, in its own px.

        `full_sizes`: (H, W) of the photos, in whose px regions then are, where the images are smaller views of them.
        """
        ...


DETECTORS: dict[str, type[Detector]] = {"centerface": CenterFaceDetector, "scrfd": ScrfdDetector}


def detect_as_shown(detector: Detector, pictures: Sequence[Picture]) -> list[Regions]:
    """The regions of each picture, in px of its `size`: those of its colours, then those that show over black or white.

    On a background between the two a picture has no other edges than on these.
    """
    found = detector.detect([picture.rgb for picture in pictures], [picture.size for picture in pictures])
    for number, picture in enumerate(pictures):
        if picture.alpha is not None:
            for shown in detector.detect([picture.over(0), picture.over(255)], [picture.size] * 2):
                found[number] = found[number].with_new(shown)
    return found


def detector_file(settings: DetectorConfig) -> bytes | None:
    """The user's own file of a detector that runs one, else None.

    Raises ConfigError if the detector is unknown, or its file is not given, cannot be read or cannot be used.
    """
    if settings.name not in DETECTORS:
        raise ConfigError(f"there is no detector '{settings.name}'; {suggestion(settings.name, DETECTORS)}")
    if not DETECTORS[settings.name].needs_file:
        if settings.path is not None:
            raise ConfigError(f"detector.path belongs to detectors of your own files; the detector is {settings.name}")
        return None
    if settings.path is None:
        raise ConfigError(f"the detector {settings.name} needs detector.path, the .onnx file or pack that you have")
    path = Path(settings.path)
    # A pack is a folder of several networks; its detector is called det_10g.onnx, det_500m.onnx, ...
    files = sorted(path.glob("det_*.onnx")) if path.is_dir() else [path]
    if len(files) != 1:
        raise ConfigError(f"detector.path: {path} has {len(files)} files det_*.onnx; give the path of one")
    try:
        data = files[0].read_bytes()
        open_detector(settings, data, precision=settings.precision)
    except OSError as error:
        raise ConfigError(f"detector.path: {files[0]} cannot be read: {error.strerror}") from None
    except ModelUnusable as error:
        raise ConfigError(f"detector.path: {files[0]} is not usable: {error}") from None
    return data


def open_detector(
    config: DetectorConfig,
    data: bytes | None = None,
    *,
    side: int = 0,
    device: str = "cpu",
    precision: Precision = "f32",
) -> Detector:
    """The detector that a job names, at another `side` if given; `data`: its weights. Errors: see detector_file."""
    data = data or detector_file(config) or (model_bytes(config.name) if config.name in MODELS else b"")
    detector = DETECTORS[config.name]
    return detector.open(data, side=side or config.side, score=config.score, device=device, precision=precision)
