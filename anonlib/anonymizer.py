"""Anonymize images in a pipeline of your own: a callable for Ray Data's `map_batches`, without a job or a plan.

Each image stands alone, so only methods that need no plan of persons are offered, and nothing is certified. It fails
closed: an image that cannot be treated comes back without a px of its own. This file imports no Ray.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anonlib.config import DetectorConfig
from anonlib.errors import ConfigError, contained
from anonlib.faces.regions import FACE
from anonlib.methods import METHODS, method_of, settings_of
from anonlib.methods.redaction import fallback_of
from anonlib.synthesis.redact import GREY
from anonlib.workspace.schemas import FILLS, NO_FACE, QUARANTINED, RELEASED

if TYPE_CHECKING:
    from anonlib.faces.detect import Finder
    from anonlib.models.runtime import Precision

Pixels = NDArray[np.uint8]
_LEAST_SIDE = 8


class Anonymizer:
    """Hides every face of a batch of images, by a method that is a redaction; raises ConfigError for other methods.

    `detector`: keys of the job file's `detector`; it computes in `precision`, f32 or bf16. `accept_licences` is the job
    file's, too: ConfigError is raised for a network of yours that cannot be used, or whose terms need to be accepted.
    A batch is a mapping with a column `image`, an array (n, h, w, 3) or a sequence of arrays (h, w, 3), RGB uint8. It
    comes back with these anonymized, in the same kind of column, with `status` (n,), released, no_face or quarantined,
    and with `boxes`, of each image (f, 4) float32, x0 y0 x1 y1 px of the faces that were hidden. A quarantined image is
    grey all over, and 8 x 8 px if it was no RGB image.
    """

    def __init__(
        self,
        method: str = "solid",
        *,
        detector: Mapping[str, Any] | None = None,
        precision: Precision = "f32",
        accept_licences: Collection[str] = (),
    ) -> None:
        from anonlib.faces.detect import detector_file
        from anonlib.models.requirements import own_terms

        if method not in METHODS or METHODS[method].synthesis:
            alone = ", ".join(name for name, kind in METHODS.items() if not kind.synthesis)
            raise ConfigError(
                f"{method} needs a plan of all persons, or is no method: run a job, or use one of {alone}"
            )
        nothing_planned: Any = None  # a redaction asks for no surrogate
        self.fill = method_of(settings_of({"name": method})).replacement(method, nothing_planned)
        self.fallback = fallback_of(method, FILLS[0])
        self.detector, self.precision = DetectorConfig.model_validate(dict(detector or {})), precision
        if own := detector_file(self.detector):
            own_terms(*own, accept_licences)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        images = batch["image"]
        treated = [self._anonymized(image) for image in images]
        pixels: Any = [image for image, _, _ in treated]
        if isinstance(images, np.ndarray):
            pixels = np.stack(pixels) if images.dtype != object and pixels else _column(pixels)
        status, boxes = _column([status for _, status, _ in treated]), _column([boxes for _, _, boxes in treated])
        return {**batch, "image": pixels, "status": status, "boxes": boxes}

    def _anonymized(self, image: Any) -> tuple[Pixels, str, NDArray[np.float32]]:
        """The image to release, its status and the boxes of its faces."""
        none = np.zeros((0, 4), np.float32)
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            shape = getattr(image, "shape", ())
            hidden = np.full(shape if len(shape) == 3 else (_LEAST_SIDE, _LEAST_SIDE, 3), GREY, np.uint8)
            return hidden, QUARANTINED, none
        with contained("anonymizing an image") as failure:
            found = _detector(self.detector, self.precision).detect([image])[0]
            out = image.copy()
            for number, kind in enumerate(found.kinds):
                # No mesh is fitted to a face that stands alone.
                beside = np.delete(found.boxes, number, axis=0)
                region: Any = SimpleNamespace(box=found.boxes[number], others=beside)
                (self.fill if kind == FACE else self.fallback).apply(out, region)
        if failure.error is not None:
            return np.full_like(image, GREY), QUARANTINED, none
        return out, RELEASED if len(found) else NO_FACE, found.boxes


@cache  # a process has one detector, and a pickled Anonymizer none
def _detector(config: DetectorConfig, precision: Precision) -> Finder:
    import cv2

    from anonlib.faces.detect import open_detector
    from anonlib.models.runtime import Placement

    cv2.setNumThreads(1)
    return open_detector(config, where=Placement(precision=precision))


def _column(values: list[Any]) -> NDArray[np.object_]:
    """Values of any shapes as a column."""
    column = np.empty(len(values), object)
    for row, value in enumerate(values):
        column[row] = value
    return column
