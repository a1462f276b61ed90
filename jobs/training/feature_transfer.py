"""What the network of `embedding` is trained for: that recognizers read the donor, while the photo is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from anonlib.faces import align
from anonlib.faces.mesh import five_points
from anonlib.models.catalog import PIPELINE_RECOGNIZER
from anonlib.privacy.clustering import normalized
from anonlib.privacy.knn import cosine_beyond
from anonlib.synthesis.base import DecoderNotes
from anonlib.synthesis.feature_transfer import POINTS, SIDE, alpha_in_crop

from .data import RECOGNIZERS, VIEW, Floats, Pixels, PreparedFaces, Rows, keep_identities, load
from .feature_transfer_network import FeatureTransferNet, applied, begin, moved_points
from .recognizers import EARLY_LAYERS, CropReader
from .trainer import EMBEDDING, Critic, Objective, TrainingSettings

HELD_OUT = 128  # faces at the end of the data that are measured and shown, and not trained on; of few faces a fifth
OTHER_ANGLE = 75.0  # degrees that a donor keeps from the face, as in a job

_TRIES, _MASK, _MEASURED_SEED = 8, 64, 5
_MIRRORED = (1, 0, 2, 4, 3)  # left for right
_LOOKS_SHARE = 0.25  # share of the steps that ask the expression network: it costs as much as a recognizer
_FIRST_SHARE = 0.5  # share of the steps that ask the first recognizer, which costs three times the second
_LINEAR_RATE = 0.1  # how fast the linear map learns, which begins where it may stay, beside the rest
_HARD = 10.0  # how much faster than in proportion a tint costs
_CRITIC_FROM = 0.02  # share of the run after which the critic counts: before, the outputs are the photos


def train_embedding(
    faces: Path, folder: Path, settings: TrainingSettings, about: DecoderNotes, *, batch: int = 8
) -> dict[str, Any]:
    """Train in `folder` on prepared `faces` until the settings' seconds are spent, all pieces together; the record."""
    learned = load(faces)
    keep_identities(learned, folder)
    crops = CropSet.of(learned)
    objective = FeatureTransferObjective(crops, settings, batch)
    return objective.train(folder, replace(about, faces=len(crops)), network=EMBEDDING, batch=batch)


@dataclass(frozen=True)
class CropSet:
    """n aligned faces, each of another person as far as known.

    `crops` (n, s, s, 3) RGB; `masks` (n, m, m) 0-255: how far a px may change; `points` (n, 5, 2) px of the crop;
    `vectors`: of each recognizer (n, d) unit rows, the pipeline's first; `female` 0-1 and `age` years (n,).
    """

    crops: Pixels
    masks: Pixels
    points: Floats
    vectors: Mapping[str, Floats]
    female: Floats
    age: Floats

    def __len__(self) -> int:
        return len(self.crops)

    @classmethod
    def of(cls, faces: PreparedFaces) -> CropSet:
        """Prepared faces, cut as the method cuts them."""
        matrix = align.similarity(np.array(VIEW.landmarks(), np.float32), POINTS)
        depth = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        meshes = [np.c_[align.apply(matrix, mesh[:, :2]), depth * mesh[:, 2:]] for mesh in faces.mesh]
        masks = [cv2.resize(alpha_in_crop(mesh), (_MASK, _MASK), interpolation=cv2.INTER_AREA) for mesh in meshes]
        return cls(
            np.stack([align.crop(view, matrix, SIDE) for view in faces.view]),
            np.rint(255 * np.stack(masks)).astype(np.uint8),
            np.stack([five_points(mesh) for mesh in meshes]),
            dict(zip(RECOGNIZERS, (faces.vector, faces.second), strict=True)),
            faces.female,
            faces.age,
        )

    @cached_property
    def centred(self) -> dict[str, Floats]:
        """Each recognizer's vectors (n, d) as points about their mean, unit rows."""
        return {name: normalized(vectors - vectors.mean(axis=0)) for name, vectors in self.vectors.items()}

    def donors(self, rows: Rows, random: np.random.Generator) -> Rows:
        """A random donor for each face: of its gender, and far enough away where a few tries find one."""
        points, women = self.centred[PIPELINE_RECOGNIZER], self.female >= 0.5
        of_gender = {gender: np.flatnonzero(women == gender) for gender in (False, True)}
        donors = np.empty(len(rows), np.int64)
        for number, row in enumerate(rows):
            candidates = of_gender[bool(women[row])]
            tried = candidates[random.integers(0, len(candidates), _TRIES)]
            far = tried[points[tried] @ points[row] <= cosine_beyond(OTHER_ANGLE)]
            donors[number] = far[0] if len(far) else tried[0]
        return donors

    def batch(self, rows: Rows, donors: Rows, device: str, flipped: NDArray[np.bool_] | None = None) -> CropBatch:
        """These rows with these donors, mirrored where `flipped`."""
        side, points = self.crops.shape[1], self.points[rows].copy()
        flipped = np.zeros(len(rows), np.bool_) if flipped is None else flipped
        crops = torch.from_numpy(self.crops[rows]).to(device).permute(0, 3, 1, 2).float() / 255
        masks = torch.from_numpy(self.masks[rows]).to(device)[:, None].float() / 255
        alpha = F.interpolate(masks, size=(side, side), mode="bilinear", align_corners=False)
        points[flipped] = points[flipped][:, _MIRRORED] * np.array([-1, 1]) + np.array([side - 1, 0])
        turn = torch.from_numpy(flipped).to(device)[:, None, None, None]
        source, donor = (
            {name: torch.from_numpy(points[chosen]).to(device) for name, points in self.centred.items()}
            for chosen in (rows, donors)
        )
        return CropBatch(
            torch.where(turn, crops.flip(3), crops),
            torch.where(turn, alpha.flip(3), alpha),
            torch.from_numpy(points.astype(np.float32)).to(device),
            torch.from_numpy(2 * self.female[rows, None] - 1).to(device),
            source,
            donor,
        )


@dataclass(frozen=True)
class CropBatch:
    """`crop` (n, 3, s, s) 0-1, `alpha` (n, 1, s, s), `points` (n, 5, 2) px, `female` (n, 1) -1 to 1.

    `source` and `donor`: (n, d) a recognizer.
    """

    crop: Tensor
    alpha: Tensor
    points: Tensor
    female: Tensor
    source: dict[str, Tensor]
    donor: dict[str, Tensor]

    @property
    def direction(self) -> Tensor:
        """(n, d) From each face to its donor, as the pipeline's recognizer sees them."""
        return self.donor[PIPELINE_RECOGNIZER] - self.source[PIPELINE_RECOGNIZER]


class FeatureTransferObjective(Objective):
    """Of aligned faces, the last of which are not trained on."""

    weights: ClassVar = {
        "donor": 0.8, "source": 3.0, "change": 2.0, "tint": 3.0, "colour": 10.0, "shift": 0.015, "looks": 0.3,
        "critic": 0.8,
    }  # fmt: skip

    def __init__(self, faces: CropSet, settings: TrainingSettings, batch: int = 8) -> None:
        self.faces, self.batch = faces, batch
        self.held_out = min(HELD_OUT, len(faces) // 5)
        torch.manual_seed(settings.seed)
        net = FeatureTransferNet()
        begin(net, faces.crops, faces.centred[PIPELINE_RECOGNIZER])
        linear = [*net.rank.parameters(), *net.draw.parameters()]
        rest = [parameter for parameter in net.parameters() if all(parameter is not other for other in linear)]
        groups = [{"params": rest}, {"params": linear, "scale": _LINEAR_RATE}]
        super().__init__(settings, net, Critic(claims=1), groups, 0.9)
        self.looks, *readers = (
            reader.to(settings.device, memory_format=torch.channels_last)
            for reader in (CropReader("expression", EARLY_LAYERS), *map(CropReader, faces.vectors))
        )
        self.readers = dict(zip(faces.vectors, readers, strict=True))
        self.centres = {
            name: torch.from_numpy(vectors.mean(axis=0)).to(settings.device) for name, vectors in faces.vectors.items()
        }

    def step(self, random: np.random.Generator, progress: float) -> dict[str, float]:
        """One batch; returns the parts of the loss and how near the outputs are to donor and source."""
        rows = random.integers(0, len(self.faces) - self.held_out, self.batch)
        donors = self.faces.donors(rows, random)
        batch = self.faces.batch(rows, donors, self.settings.device, random.random(self.batch) < 0.5)
        out, moved, tints = self._changed(self.networks["generator"], batch)
        parts = self._costs(batch, out, moved, tints, random.random() < _LOOKS_SHARE)
        if progress >= _CRITIC_FROM:
            parts["critic"] = self.unreal(_for_critic(out), batch.female)
        figures = {name: float(value.detach()) for name, value in parts.items()}
        loss = torch.stack([self.weights[name] * value for name, value in parts.items()]).sum()
        points, names = moved_points(batch.points, moved), list(self.readers)
        for name in names if random.random() < _FIRST_SHARE else names[1:]:
            with self.autocast():
                vectors = self._vectors(name, out, points, random)
            to_donor, to_source = ((vectors * end[name]).sum(dim=1) for end in (batch.donor, batch.source))
            loss = loss + self.weights["donor"] * (1 - to_donor).mean()
            loss = loss + self.weights["source"] * F.relu(to_source).mean()
            figures |= {f"{name} to donor": float(to_donor.detach().mean())}
            figures |= {f"{name} to source": float(to_source.detach().mean())}
        self.descend(loss, 1.0)
        photo, drawn = (self.criticized(_for_critic(images), batch.female) for images in (batch.crop, out.detach()))
        return figures | {"hinge": self.teach_critic(photo, drawn)}

    def measure(self, generator: nn.Module) -> dict[str, float]:
        """Cosines to source and donor, each about the recognizer's centre, and how much of the photo is kept."""
        figures: dict[str, list[float]] = {}
        rows = np.arange(len(self.faces) - self.held_out, len(self.faces))
        donors = self.faces.donors(rows, np.random.default_rng(_MEASURED_SEED))
        for start, stop in pairwise([*range(0, self.held_out, self.batch), self.held_out]):
            batch = self.faces.batch(rows[start:stop], donors[start:stop], self.settings.device)
            out, moved, _ = self._changed(generator, batch)
            points = moved_points(batch.points, moved)
            error = (batch.alpha * (out - batch.crop).square()).mean(dim=(1, 2, 3)) / batch.alpha.mean(dim=(1, 2, 3))
            figures.setdefault("dB", []).extend((-10 * error.clamp(min=1e-8).log10()).tolist())
            for name in self.readers:
                vectors = self._vectors(name, out, points, None)
                for end, known in (("source", batch.source), ("donor", batch.donor)):
                    figures.setdefault(f"{name} to {end}", []).extend((vectors * known[name]).sum(dim=1).tolist())
        return {name: float(np.mean(values)) for name, values in figures.items()}

    def _vectors(self, name: str, crops: Tensor, points: Tensor, random: np.random.Generator | None) -> Tensor:
        """A recognizer's unit vectors (n, d) about its centre, of crops (n, 3, s, s), 0-1, with points (n, 5, 2) px."""
        vectors = F.normalize(self.readers[name](crops, points, random)[0].float(), dim=1)
        return F.normalize(vectors - self.centres[name], dim=1)

    def _changed(self, generator: nn.Module, batch: CropBatch) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs, where their px were moved, and how they were tinted."""
        with self.autocast():
            tints, shifts = generator(batch.crop.contiguous(memory_format=torch.channels_last), batch.direction)
        out, moved = applied(batch.crop, batch.alpha, tints.float(), shifts.float())
        return out, moved, batch.alpha * tints.float()

    def _costs(
        self, batch: CropBatch, out: Tensor, moved: Tensor, tints: Tensor, with_looks: bool
    ) -> dict[str, Tensor]:
        """What a change costs, by the names of the weights."""
        share = batch.alpha.mean()
        costs = {
            "change": (tints.abs() + _HARD * tints.square()).mean() / share,
            "colour": (tints - tints.mean(dim=1, keepdim=True)).abs().mean() / share,
            "tint": F.avg_pool2d(tints, 16).abs().mean() / share,
            "shift": moved.square().sum(dim=1).mean() / share,
        }
        if with_looks:
            with self.autocast():
                before, after = (self.looks(image, batch.points) for image in (batch.crop, out))
            looks = [(a - b).abs().mean() / b.abs().mean() for a, b in zip(after, before, strict=True)]
            costs["looks"] = torch.stack(looks).sum() / _LOOKS_SHARE
        return costs


def _for_critic(crops: Tensor) -> Tensor:
    return (crops - 0.5).contiguous(memory_format=torch.channels_last)
