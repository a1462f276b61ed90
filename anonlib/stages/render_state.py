"""A photo and its faces on their way through `render`: what to do, what was done, what was found; and what replaces
them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.codes import Problem
from anonlib.datasets import Sample
from anonlib.errors import NotFound
from anonlib.media.codec import Picture
from anonlib.methods.base import Method, Replacement, released_digest
from anonlib.privacy.keys import Keyring
from anonlib.synthesis.base import IdentityDraw
from anonlib.synthesis.describe import happiness
from anonlib.verification.certificate import NONE, Claim
from anonlib.workspace.layout import PlanStore
from anonlib.workspace.schemas import MESH_POINTS

METHOD_VERSION = "4"
MATCHED = "still matched the source"
_HELD = 64
_MISSING = "its surrogate is missing from the workspace"


@dataclass(frozen=True)
class RecheckResult:
    """One recognizer's cosine of output to source, and its threshold."""

    recognizer: str
    similarity: float
    threshold: float

    @property
    def matches(self) -> bool:
        return self.similarity >= self.threshold


@dataclass
class FaceState:
    """One face of the plan on its way through: what to do, what was done, what was found."""

    planned: dict[str, Any]
    method: str
    tries: list[str]
    digest: str | None = None
    coverage: float | None = None
    fallback: str | None = None
    reason: str | None = None
    why: str = MATCHED
    findings: list[RecheckResult] = field(default_factory=list)
    detected_again: bool | None = None

    @property
    def box(self) -> NDArray[np.float32]:
        return np.array(self.planned["box"], np.float32)

    @property
    def mesh(self) -> NDArray[np.float32]:
        return np.array(self.planned["mesh"], np.float32).reshape(MESH_POINTS, 3)

    @property
    def happy(self) -> float:
        return happiness(self.planned["expression"])

    def row(self, claim: Claim) -> dict[str, Any]:
        """The MANIFEST_FACE of this face under the method's claim: what its surrogate's faces share, and its place."""
        claim = claim if self.fallback is None else Claim(NONE)
        return {
            "box": [round(side) for side in self.planned["box"]],
            "method": self.method,
            "method_version": METHOD_VERSION,
            "k": claim.k,
            "epsilon": claim.epsilon,
            "surrogate_digest": self.digest,
            "detected_again": self.detected_again,
            "fallback": self.fallback,
        }

    def figures(self, key: str) -> dict[str, Any]:
        """The RENDERED row of this face in the released image `key`: what was measured and why, for the workspace."""
        return {
            "face_id": self.planned.get("face_id"),
            "key": key,
            "box": self.planned["box"],
            "method": self.method,
            "fallback": self.fallback,
            "reason": self.reason,
            "coverage": self.coverage,
            "similarity": [
                {"recognizer": result.recognizer, "to_source": result.similarity, "threshold": result.threshold}
                for result in self.findings
            ],
            "detected_again": self.detected_again,
        }


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


class Replacements:
    """A method's replacements by name, the last few held for all threads of a worker."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self._held: OrderedDict[str, Replacement] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str, source: PlannedSurrogates) -> Replacement:
        """One that the plan named; raises LookupError if the workspace has none."""
        with self._lock:
            if name in self._held:
                self._held.move_to_end(name)
                return self._held[name]
        found = self.method.replacement(name, source)
        with self._lock:
            self._held[name] = found
            if len(self._held) > _HELD:
                self._held.popitem(last=False)
        return found
