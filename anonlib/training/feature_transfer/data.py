"""Aligned faces to train on, all in memory: crops, where they may change, and how two recognizers read them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from anonlib.faces import align
from anonlib.faces.mesh import five_points
from anonlib.models.requirements import PIPELINE_RECOGNIZER
from anonlib.privacy.clustering import normalized
from anonlib.privacy.sphere import cosine_beyond
from anonlib.synthesis.crops import alpha_in_crop
from anonlib.synthesis.feature_transfer import POINTS, SIDE
from anonlib.training.generator.faces import SECOND_RECOGNIZER, VIEW
from anonlib.training.generator.faces import PreparedFaces as Prepared

OTHER_ANGLE = 75.0
"""Degrees that a donor keeps from the face, as in a job."""
_TRIES = 8
_MASK = 64
_MIRRORED = (1, 0, 2, 4, 3)


@dataclass(frozen=True)
class CropSet:
    """n aligned faces, each of a person of its own as far as known.

    `crops` (n, s, s, 3) RGB; `masks` (n, m, m) 0-255: how far a px may change; `points` (n, 5, 2) px of the crop;
    `vectors`: of each recognizer (n, d) unit rows, the pipeline's first; `female` 0-1 and `age` years (n,).
    """

    crops: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    points: NDArray[np.float32]
    vectors: dict[str, NDArray[np.float32]]
    female: NDArray[np.float32]
    age: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.crops)

    @classmethod
    def of(cls, prepared: Prepared) -> CropSet:
        """Prepared faces, cut as the method cuts them."""
        matrix = align.similarity(np.array(VIEW.landmarks(), np.float32), POINTS)
        depth = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        meshes = [
            np.concatenate([align.apply(matrix, one[:, :2]), depth * one[:, 2:]], axis=1) for one in prepared.mesh
        ]
        masks = [cv2.resize(alpha_in_crop(mesh), (_MASK, _MASK), interpolation=cv2.INTER_AREA) for mesh in meshes]
        return cls(
            np.stack([align.crop(view, matrix, SIDE) for view in prepared.view]),
            np.rint(255 * np.stack(masks)).astype(np.uint8),
            np.stack([five_points(mesh) for mesh in meshes]),
            {PIPELINE_RECOGNIZER: prepared.vector, SECOND_RECOGNIZER: prepared.second},
            prepared.female,
            prepared.age,
        )

    def centres(self) -> dict[str, NDArray[np.float32]]:
        """The mean of each recognizer's vectors (d,)."""
        return {name: vectors.mean(axis=0) for name, vectors in self.vectors.items()}

    def centred(self) -> dict[str, NDArray[np.float32]]:
        """Each recognizer's vectors (n, d) as points about that mean, unit rows."""
        return {name: normalized(vectors - vectors.mean(axis=0)) for name, vectors in self.vectors.items()}


@dataclass(frozen=True)
class Batch:
    """`crop` (n, 3, s, s) 0-1, `alpha` (n, 1, s, s), `points` (n, 5, 2) px, `female` (n, 1) -1 to 1.

    `own` and `donor`: (n, d) a recognizer.
    """

    crop: Tensor
    alpha: Tensor
    points: Tensor
    female: Tensor
    own: dict[str, Tensor]
    donor: dict[str, Tensor]

    def part(self, rows: slice) -> Batch:
        """Some of the faces."""
        own, donor = ({name: one[rows] for name, one in ends.items()} for ends in (self.own, self.donor))
        return Batch(self.crop[rows], self.alpha[rows], self.points[rows], self.female[rows], own, donor)

    @property
    def direction(self) -> Tensor:
        """(n, d) From each face to its donor, as the pipeline's recognizer sees them."""
        first = next(iter(self.own))
        return self.donor[first] - self.own[first]


class Batches:
    """Draws batches of `size` of the first `among` faces, with donors of the same gender."""

    def __init__(self, faces: CropSet, size: int, among: int, device: str = "cpu") -> None:
        self.faces, self.size, self.among, self.device = faces, size, among, device
        self.centred = faces.centred()
        self.first = next(iter(self.centred.values()))
        self.of_gender = [np.flatnonzero((faces.female >= 0.5) == gender) for gender in (False, True)]

    def draw(self, rng: np.random.Generator) -> Batch:
        """Random faces and donors."""
        rows = rng.integers(0, self.among, self.size)
        return self.of(rows, self.donors(rows, rng), rng.random(self.size) < 0.5)

    def donors(self, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """A random donor for each face: of its gender, and far enough away where a few tries find one."""
        return np.array([self._donor(row, rng) for row in rows], np.int64)

    def of(self, rows: NDArray[np.int64], donors: NDArray[np.int64], flipped: NDArray[np.bool_]) -> Batch:
        """These rows with these donors, mirrored where `flipped`."""
        side = self.faces.crops.shape[1]
        crops = torch.from_numpy(self.faces.crops[rows]).to(self.device).permute(0, 3, 1, 2).float() / 255
        masks = torch.from_numpy(self.faces.masks[rows]).to(self.device)[:, None].float() / 255
        alpha = F.interpolate(masks, size=(side, side), mode="bilinear", align_corners=False)
        points = self.faces.points[rows].copy()
        points[flipped] = points[flipped][:, _MIRRORED] * np.array([-1, 1]) + np.array([side - 1, 0])
        turn = torch.from_numpy(flipped).to(self.device)[:, None, None, None]
        return Batch(
            torch.where(turn, crops.flip(3), crops),
            torch.where(turn, alpha.flip(3), alpha),
            torch.from_numpy(points.astype(np.float32)).to(self.device),
            torch.from_numpy(2 * self.faces.female[rows, None] - 1).to(self.device),
            {name: torch.from_numpy(vectors[rows]).to(self.device) for name, vectors in self.centred.items()},
            {name: torch.from_numpy(vectors[donors]).to(self.device) for name, vectors in self.centred.items()},
        )

    def _donor(self, row: int, rng: np.random.Generator) -> int:
        candidates = self.of_gender[int(self.faces.female[row] >= 0.5)]
        limit = cosine_beyond(OTHER_ANGLE)
        chosen = candidates[rng.integers(0, len(candidates), _TRIES)]
        far = chosen[self.first[chosen] @ self.first[row] <= limit]
        return int(far[0] if len(far) else chosen[0])
