"""The second look at an output: is a face still there, and is it still the source's?

By recognizers that the method did not use, at cosine thresholds of FAR 1e-3. The source is embedded from the
original pixels at the same five points, so that the two differ in the face alone.

For a method that claims k or epsilon the answer is written down in the workspace and changes nothing: a face that is
refused because it looks like its surrogate would tell, by being refused, that it does. What such a method is held
against instead is a renderer that fails: the px of the source must be gone, whoever the surrogate looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.config import JobConfig
from anonlib.faces import align
from anonlib.faces.detect import open_detector
from anonlib.faces.embed import THRESHOLDS, Recognizer
from anonlib.faces.mesh import five_points
from anonlib.methods.base import Method
from anonlib.models.catalog import PIPELINE_RECOGNIZER, VERIFIERS
from anonlib.models.requirements import ModelBytes, device_of, load
from anonlib.stages.render_state import FaceState, ImageState, RecheckResult
from anonlib.workspace.layout import PlanStore
from anonlib.workspace.tables import matrix

_VIEW = 160
_VIEW_SIDES = 2.0
_SAME_PLACE = 0.35
_MIDDLE, _MIDDLE_SIDE = 0.25, 32
KEPT_PX = 0.97
"""Correlation of the grey levels in the middle of a face, before and after, from which the source is still there.

Of 5,138 replaced faces of LFW none was above .911, of re-encoded originals none below .993."""


def keeps_source(before: NDArray[np.uint8], after: NDArray[np.uint8], box: NDArray[np.float32]) -> bool:
    """Whether the middle of a face with `box` (4,) px shows the same in two images (H, W, 3)."""
    x0, y0, x1, y1 = box.tolist()
    dx, dy = _MIDDLE * (x1 - x0), _MIDDLE * (y1 - y0)
    rows = slice(max(int(y0 + dy), 0), max(int(y1 - dy), int(y0 + dy) + 1))
    columns = slice(max(int(x0 + dx), 0), max(int(x1 - dx), int(x0 + dx) + 1))
    seen = []
    for image in (before, after):
        middle = image[rows, columns]
        if middle.size == 0:
            return False
        grey = cv2.cvtColor(middle, cv2.COLOR_RGB2GRAY)
        seen.append(cv2.resize(grey, (_MIDDLE_SIDE, _MIDDLE_SIDE), interpolation=cv2.INTER_AREA).astype(np.float64))
    first, second = (grey - grey.mean() for grey in seen)
    spread = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return spread > 0 and float((first * second).sum()) / spread >= KEPT_PX


class OutputRecheck:
    """Verifying recognizers and the detector, loaded once."""

    def __init__(self, job: JobConfig, models: ModelBytes) -> None:
        self.recognizers = [Recognizer(name, load(models, name, job)) for name in VERIFIERS]
        weights = models.get(job.detector.name)
        self.detector = open_detector(job.detector, weights, side=_VIEW, device=device_of(job))

    def check(self, faces: Sequence[tuple[ImageState, FaceState]]) -> list[tuple[ImageState, FaceState]]:
        """Fill in each face's findings; returns those that still match their source."""
        points = [five_points(face.mesh) for _, face in faces]
        for _, face in faces:
            face.findings = []
        for recognizer in self.recognizers:
            before = recognizer.embed([photo.rgb for photo, _ in faces], points)
            after = recognizer.embed([photo.out for photo, _ in faces], points)
            for (_, face), similarity in zip(faces, (before * after).sum(axis=1), strict=True):
                face.findings.append(RecheckResult(recognizer.name, float(similarity), THRESHOLDS[recognizer.name]))
        for (_, face), seen in zip(faces, self._seen(faces), strict=True):
            face.detected_again = seen
        return [(photo, face) for photo, face in faces if any(finding.matches for finding in face.findings)]

    def _seen(self, faces: Sequence[tuple[ImageState, FaceState]]) -> list[bool]:
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


class NearSubjectCheck:
    """The method's own condition on outputs, which are described by the recognizer of the scan."""

    def __init__(self, near: Callable[[NDArray[np.float32]], NDArray[np.bool_]], recognizer: Recognizer) -> None:
        self._near, self.recognizer = near, recognizer

    @classmethod
    def of(cls, job: JobConfig, models: ModelBytes, method: Method, plan: PlanStore) -> NearSubjectCheck | None:
        """None where the method has no such condition."""
        near = method.output_check(lambda: matrix(plan.subjects(["template"]), "template"))
        return near and cls(near, Recognizer(PIPELINE_RECOGNIZER, load(models, PIPELINE_RECOGNIZER, job)))

    def near(self, faces: Sequence[tuple[ImageState, FaceState]]) -> NDArray[np.bool_]:
        """(n,) Whether an output comes near any subject, its own included."""
        outputs = [photo.out for photo, _ in faces]
        return self._near(self.recognizer.embed(outputs, [five_points(face.mesh) for _, face in faces]))
