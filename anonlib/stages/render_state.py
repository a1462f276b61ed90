"""A photo and its faces on their way through `render`, and the second look at what came out.

The look is by a recognizer that the method did not use, at its cosine threshold of FAR 1e-3; the scan has seen the
source with it, at the same five points. For a method that claims k or epsilon its answer is only written down: a
face that is refused for looking like its surrogate would tell, by being refused, that it does. Such a method is held
against a renderer that fails instead: the px of the source must be gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.codes import Problem
from anonlib.config import JobConfig
from anonlib.datasets import Sample
from anonlib.errors import NotFound
from anonlib.faces import align
from anonlib.faces.detect import open_detector
from anonlib.faces.embed import THRESHOLDS, Recognizer
from anonlib.faces.mesh import five_points
from anonlib.faces.original import face_core, is_original
from anonlib.faces.track import Track
from anonlib.media.clip import ClipInfo
from anonlib.media.codec import Picture
from anonlib.methods.base import released_digest
from anonlib.models.catalog import PIPELINE_RECOGNIZER, SECOND_RECOGNIZER
from anonlib.models.requirements import ModelBytes, load, placement
from anonlib.privacy.keys import Keyring
from anonlib.synthesis.base import IdentityDraw
from anonlib.synthesis.describe import happiness
from anonlib.synthesis.light import Light
from anonlib.synthesis.redact import around, level_alpha
from anonlib.verification.certificate import NONE, Claim
from anonlib.workspace.layout import PlanStore
from anonlib.workspace.schemas import KEPT, MESH_POINTS, SPARED

METHOD_VERSION = "8"
MATCHED = "still matched the source"
_MISSING = "its surrogate is missing from the workspace"
_VIEW = 160
_VIEW_SIDES = 2.0
_SAME_PLACE = 0.35


@dataclass
class FaceState:
    """One face of the plan on its way through: what to do, what was done, what was found (`findings`: see RENDERED);
    `reaches` (n, 4): what is painted of all faces of the photo, this one's at `number`; `of_clip`: its columns of
    OF_CLIP; `kind`: of a region that is no face and that the job hides."""

    planned: dict[str, Any]
    method: str
    tries: list[str]
    digest: str | None = None
    coverage: float | None = None
    fallback: str | None = None
    reason: str | None = None
    kind: str | None = None
    why: str = MATCHED
    findings: list[dict[str, Any]] = field(default_factory=list)
    detected_again: bool | None = None
    reaches: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    number: int = 0
    of_clip: dict[str, Any] = field(default_factory=dict)

    @property
    def box(self) -> NDArray[np.float32]:
        return np.array(self.planned["box"], np.float32)

    @property
    def area(self) -> float:
        """Px of its box."""
        return float(np.prod(self.box[2:] - self.box[:2]))

    @property
    def reach(self) -> NDArray[np.float32]:
        """The box (4,) whose ellipse holds all that is painted."""
        return self.box if self.kind is None else around(self.box[None])[0]

    @property
    def others(self) -> NDArray[np.float32]:
        """The boxes (n - 1, 4) of the photo's other faces."""
        return np.asarray(self.reaches[np.arange(len(self.reaches)) != self.number])

    @property
    def mesh(self) -> NDArray[np.float32]:
        return np.array(self.planned["mesh"], np.float32).reshape(MESH_POINTS, 3)

    @property
    def happy(self) -> float:
        return happiness(self.planned["expression"])

    @property
    def second(self) -> NDArray[np.float32]:
        """What SECOND_RECOGNIZER sees of the source, unit (d,)."""
        return np.array(self.planned["second"], np.float32)

    @property
    def gaze(self) -> NDArray[np.float32]:
        return np.array(self.planned["gaze"], np.float32)

    @property
    def light(self) -> Light | None:
        """The light on the face, smooth over the frames of a clip; None: that of the photo."""
        return self.planned.get("light")

    def still_shown(self, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> bool:
        """Whether an image (H, W, 3) made from another still has this face's px."""
        return is_original(before, after, face_core(before.shape[:2], self.box, self.mesh)) is True

    def row(self, claim: Claim) -> dict[str, Any]:
        """The MANIFEST_FACE of this face under the method's claim: what its surrogate's faces share, and its place."""
        claim = claim if self.fallback is None and self.kind is None else Claim(NONE)
        return {
            "box": [round(side) for side in self.planned["box"]],
            "method": self.method,
            "method_version": METHOD_VERSION,
            "k": claim.k,
            "epsilon": claim.epsilon,
            "surrogate_digest": self.digest,
            "detected_again": self.detected_again,
            "fallback": self.fallback,
            "consent": self.planned.get("consent") if self.fallback == SPARED else None,
            "kind": self.kind,
        } | self.of_clip

    def figures(self, key: str) -> dict[str, Any]:
        """The RENDERED row of this face in the released image `key`: what was measured and why, for the workspace."""
        copied = {name: getattr(self, name) for name in ("method", "fallback", "reason", "coverage", "detected_again")}
        place = {"face_id": self.planned.get("face_id"), "key": key, "box": self.planned["box"]}
        return place | copied | {"similarity": self.findings}


@dataclass
class ImageState:
    """One readable image on its way through; `out` becomes the release's pixels."""

    sample: Sample
    picture: Picture
    faces: list[FaceState]
    out: NDArray[np.uint8]
    problem: Problem | None = None

    @property
    def rgb(self) -> NDArray[np.uint8]:
        return self.picture.rgb

    @property
    def columns(self) -> dict[str, Any]:
        """Columns of MANIFEST that say what the file is."""
        picture = self.picture
        notes = [*picture.notes, *self.sample.notes]
        known = {"format": picture.format, "height": picture.size[0], "width": picture.size[1], "notes": notes}
        return known | {"orientation": picture.orientation, "metadata_stripped": list(picture.stripped)}

    @property
    def leveled(self) -> Picture:
        """The picture with an alpha that draws none of its faces."""
        if self.picture.alpha is None or not self.faces:
            return self.picture
        alpha, painted = self.picture.alpha.copy(), (self.out != self.rgb).any(axis=2)
        for face in self.faces:
            if face.method != KEPT:
                level_alpha(alpha, face.box, painted if face.digest else None, face.kind is not None)
        return replace(self.picture, alpha=alpha)


@dataclass
class ClipState:
    """One readable clip on its way through; `frames`: how many the scan saw."""

    sample: Sample
    info: ClipInfo
    faces: list[FaceState]
    frames: int
    problem: Problem | None = None

    @cached_property
    def tracks(self) -> list[Track]:
        """Where each face is; what a reviewer found is hidden throughout. Lists of a long clip's numbers are let go."""
        told = [face.planned.pop("track", None) for face in self.faces]
        return [
            Track.of(of) if of else Track.still(face.box, self.frames)
            for of, face in zip(told, self.faces, strict=True)
        ]

    @property
    def columns(self) -> dict[str, Any]:
        """Columns of MANIFEST that say what the file is."""
        info = self.info
        known = {"format": info.container, "height": info.height, "width": info.width, "frames": self.frames}
        rate = f"{info.rate.numerator}/{info.rate.denominator}"
        said = {"metadata_stripped": list(info.stripped), "notes": [*info.notes, *self.sample.notes]}
        return known | said | {"rate": rate, "seconds": info.duration}


Pairs = list[tuple[ImageState, FaceState]]


class PlannedSurrogates:
    """What the plan has for the faces of one shard: a SurrogateSource."""

    def __init__(self, plan: PlanStore, keyring: Keyring, shard_id: str) -> None:
        self.plan, self.keyring = plan, keyring
        self._draws = {row["surrogate"]: IdentityDraw.of_row(row["draw"]) for row in plan.draws(shard_id)}

    def draw(self, name: str) -> IdentityDraw:
        if name not in self._draws:
            raise LookupError(_MISSING)
        return self._draws[name]

    def texture(self, name: str) -> bytes:
        try:
            return self.plan.surrogate(name)
        except NotFound:
            raise LookupError(_MISSING) from None

    def digest(self, name: str) -> str:
        return released_digest(self.keyring, name)


class OutputRecheck:
    """SECOND_RECOGNIZER and the detector, loaded once; `near`: the method's own condition on outputs (n, d)."""

    def __init__(
        self, job: JobConfig, models: ModelBytes, near: Callable[[NDArray[np.float32]], NDArray[np.bool_]] | None = None
    ) -> None:
        self.recognizer = Recognizer(SECOND_RECOGNIZER, load(models, SECOND_RECOGNIZER, job))
        self.detector = open_detector(job.detector.searching, models, side=_VIEW, where=placement(job))
        self._near = near
        self._described_by = near and Recognizer(PIPELINE_RECOGNIZER, load(models, PIPELINE_RECOGNIZER, job))

    def check(self, faces: Pairs) -> Pairs:
        """Fill in each face's findings; returns those that still match their source."""
        name, threshold = self.recognizer.name, THRESHOLDS[self.recognizer.name]
        before = np.stack([face.second for _, face in faces])
        after = self.recognizer.embed([photo.out for photo, _ in faces], [five_points(face.mesh) for _, face in faces])
        alike = (before * after).sum(axis=1).tolist()
        for (_, face), seen, to_source in zip(faces, self._seen(faces), alike, strict=True):
            face.detected_again = seen
            face.findings = [{"recognizer": name, "to_source": to_source, "threshold": threshold}]
        return [pair for pair, to_source in zip(faces, alike, strict=True) if to_source >= threshold]

    def near_a_subject(self, faces: Pairs) -> Pairs:
        """The faces whose output comes near any subject, their own included, if the method rules that out."""
        if self._near is None or self._described_by is None or not faces:
            return []
        points = [five_points(face.mesh) for _, face in faces]
        near = self._near(self._described_by.embed([photo.out for photo, _ in faces], points))
        return [pair for pair, close in zip(faces, near, strict=True) if close]

    def _seen(self, faces: Sequence[tuple[ImageState, FaceState]]) -> list[bool]:
        """Whether the detector finds a face where the replaced one is, in a view of twice its box."""
        views = []
        for photo, face in faces:
            side = _VIEW_SIDES * float((face.box[2:] - face.box[:2]).max())
            centre_of_box = ((face.box[:2] + face.box[2:]) / 2).astype(np.float32)
            views.append(align.crop(photo.out, align.square(centre_of_box, side, 0.0, _VIEW), _VIEW))
        reach = _SAME_PLACE * _VIEW / _VIEW_SIDES
        seen = []
        for found in self.detector.detect(views):
            away = np.abs((found.boxes[:, :2] + found.boxes[:, 2:]) / 2 - _VIEW / 2)
            seen.append(bool((away.max(axis=1) < reach).any()))
        return seen
