"""The second look at an output: is a face still there, and is it still the source's?

By recognizers that the method did not use, at cosine thresholds of FAR 1e-3. The source is embedded from the
original pixels at the same five points, so that the two differ in the face alone.

For a method that claims k or epsilon the answer is written down in the workspace and changes nothing: a face that is
refused because it looks like its surrogate would tell, by being refused, that it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from anonlib.config import JobConfig
from anonlib.faces import align
from anonlib.faces.detect import CenterFaceDetector
from anonlib.faces.embed import THRESHOLDS, Recognizer
from anonlib.faces.mesh import five_points
from anonlib.pipeline.engines import VERIFIERS, ModelBytes, load

_VIEW = 160
_VIEW_SIDES = 2.0
_SAME_PLACE = 0.35


@dataclass(frozen=True)
class Finding:
    """One recognizer's cosine of output to source, and its threshold."""

    recognizer: str
    similarity: float
    threshold: float

    @property
    def matches(self) -> bool:
        return self.similarity >= self.threshold


class CheckedFace(Protocol):
    """A face with a place to put what was found."""

    findings: list[Finding]
    detected_again: bool | None

    @property
    def box(self) -> NDArray[np.float32]: ...

    @property
    def mesh(self) -> NDArray[np.float32]: ...


class CheckedPhoto(Protocol):
    """A photo before and after."""

    out: NDArray[np.uint8]

    @property
    def rgb(self) -> NDArray[np.uint8]: ...


_P = TypeVar("_P", bound=CheckedPhoto)
_F = TypeVar("_F", bound=CheckedFace)


class Checker:
    """Verifying recognizers and the detector, loaded once."""

    def __init__(self, job: JobConfig, models: ModelBytes) -> None:
        self.recognizers = [Recognizer(name, load(models, name, job)) for name in VERIFIERS]
        self.detector = CenterFaceDetector(load(models, "centerface", job), side=_VIEW, score=job.detector.score)

    def check(self, faces: Sequence[tuple[_P, _F]]) -> list[tuple[_P, _F]]:
        """Fill in each face's findings; returns those that still match their source."""
        points = [five_points(face.mesh) for _, face in faces]
        for _, face in faces:
            face.findings = []
        for recognizer in self.recognizers:
            before = recognizer.embed([photo.rgb for photo, _ in faces], points)
            after = recognizer.embed([photo.out for photo, _ in faces], points)
            for (_, face), similarity in zip(faces, (before * after).sum(axis=1), strict=True):
                face.findings.append(Finding(recognizer.name, float(similarity), THRESHOLDS[recognizer.name]))
        for (_, face), seen in zip(faces, self._seen(faces), strict=True):
            face.detected_again = seen
        return [(photo, face) for photo, face in faces if any(one.matches for one in face.findings)]

    def _seen(self, faces: Sequence[tuple[_P, _F]]) -> list[bool]:
        """Whether the detector finds a face where the replaced one is, in a view of twice its box."""
        views = []
        for photo, face in faces:
            side = _VIEW_SIDES * float((face.box[2:] - face.box[:2]).max())
            centre_of_box = ((face.box[:2] + face.box[2:]) / 2).astype(np.float32)
            matrix = align.square(centre_of_box, side, 0.0, _VIEW)
            views.append(align.crop(photo.out, matrix, _VIEW))
        centre, reach = np.array([_VIEW / 2, _VIEW / 2]), _SAME_PLACE * _VIEW / _VIEW_SIDES
        return [
            bool((np.abs((found.boxes[:, :2] + found.boxes[:, 2:]) / 2 - centre).max(axis=1) < reach).any())
            if len(found)
            else False
            for found in self.detector.detect(views)
        ]
