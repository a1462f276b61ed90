"""What the network is trained for, and how well it does on people it does not learn from.

Of a real person: the canonical texture (L1), what the recognizer's activations make of it in a photo, the identity by
two recognizers, the look by readers of age, gender and expression, and a critic that knows photographs. Of nobody: all
but the texture. The residual on the linear decoder starts at none, so a run can only move away from it if that pays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from anonlib.faces import topology
from anonlib.models.requirements import PIPELINE_RECOGNIZER
from anonlib.synthesis.canonical import canonical_frame
from anonlib.synthesis.textures.face_space import SIDE as STORED
from anonlib.synthesis.textures.face_space import region
from anonlib.synthesis.textures.linear import Decoder
from anonlib.training.generator.batches import NOBODY, Scenes, looks_of, make_scenes
from anonlib.training.generator.faces import SECOND_RECOGNIZER, PreparedFaces
from anonlib.training.generator.judges import Glance, Opinion, TrainingJudges, painted
from anonlib.training.generator.network import Critic, Generator, Linear, zone_of
from anonlib.training.loop import Settings, autocast, grid_of
from anonlib.workspace.schemas import EXPRESSIONS

JUDGED = 200
"""Faces that are kept from training, to measure on; of few faces a fifth."""

_OPEN = 0.12
"""How open a mouth must be to show an inside that can be learned."""
_CRITIC_FROM = 0.04
_MARKED = 2.5
_SHOWN, _TILE = 8, 160
_PIECE = 20


@dataclass(frozen=True)
class GeneratorLossWeights:
    """How much each part of the objective counts."""

    texture: float = 4.0
    features: float = 1.0
    identity: float = 1.5
    second: float = 1.0
    gender: float = 0.1
    age: float = 0.01
    mood: float = 0.05
    critic: float = 0.2


@dataclass(frozen=True)
class _Batch:
    """Rows of scenes on the device; `known` (n,): whether a real person is drawn, `face` (n,) who (else 0)."""

    rows: NDArray[np.int64]
    known: Tensor
    z: Tensor
    look: Tensor
    grid: Tensor
    alpha: Tensor
    light: Tensor
    ground: Tensor
    real: Tensor
    weight: Tensor
    mouth: Tensor
    second: Tensor


class GeneratorTraining:
    """The Task of training.loop for this network."""

    def __init__(
        self,
        faces: PreparedFaces,
        decoder: Decoder,
        settings: Settings,
        size: int = 128,
        batch: int = 16,
        workers: int = 1,
        weights: GeneratorLossWeights = GeneratorLossWeights(),
    ) -> None:
        self.faces, self.settings, self.batch, self.weights = faces, settings, batch, weights
        order = np.random.default_rng(0).permutation(len(faces))
        judged = min(JUDGED, len(faces) // 5)
        self.z = decoder.identity(faces.vector)
        linear = Linear.of(decoder)
        self.judged = make_scenes(faces, np.sort(order[:judged]), self.z, linear, 1, workers)
        self.scenes = make_scenes(faces, np.sort(order[judged:]), self.z, linear, settings.seed + 2, workers)
        look = looks_of(faces)
        self.centre = torch.from_numpy(decoder.centre)
        generator = Generator(linear, look.mean(axis=0), look.std(axis=0) + 1e-3, size)
        self.networks: Mapping[str, nn.Module] = {
            name: network.to(settings.device, memory_format=torch.channels_last)
            for name, network in (("generator", generator), ("critic", Critic()))
        }
        self.judges = TrainingJudges().to(settings.device)
        self.optimizers: Mapping[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(network.parameters(), settings.rate, betas=(0.5, 0.99))
            for name, network in self.networks.items()
        }
        self.size = size
        self._draw = torch.compile(generator) if settings.compiled else generator
        self._mean = self._spread_out(torch.from_numpy(decoder.space.detail_mean)[None])
        self._zone = torch.from_numpy(zone_of(size))[None, None].to(settings.device)
        self._telling = torch.from_numpy(_telling(size))[None, None].to(settings.device)
        lips = cv2.GaussianBlur(canonical_frame().polygon(topology.LIPS_INNER, 1.1).astype(np.float32), (0, 0), 1.5)
        lips = cv2.resize(lips, (size, size), interpolation=cv2.INTER_AREA)
        self._lips = torch.from_numpy(np.asarray(lips))[None, None].to(settings.device)

    def step(self, random: np.random.Generator, progress: float) -> dict[str, float]:
        batch = self._batch(self.scenes, np.sort(random.choice(len(self.scenes), self.batch, replace=False)))
        generator, critic = self.networks["generator"], self.networks["critic"]
        with autocast(self.settings):
            drawn = self._draw(batch.z, batch.look).float()
        real = self._with_mouth(batch, batch.real, drawn.detach())
        losses = self._faithful(batch, drawn, real, random)
        use_critic = progress >= _CRITIC_FROM
        if use_critic:
            critic.requires_grad_(False)
            with autocast(self.settings):
                losses["critic"] = -critic(drawn * self._zone).float().mean()
            critic.requires_grad_(True)
        total = sum(getattr(self.weights, name) * loss for name, loss in losses.items())
        self.optimizers["generator"].zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(generator.parameters(), 5.0)
        self.optimizers["generator"].step()
        figures = {name: float(loss.detach()) for name, loss in losses.items()}
        if progress >= _CRITIC_FROM / 2:
            self.optimizers["critic"].zero_grad(set_to_none=True)
            with autocast(self.settings):
                yes = critic((real * self._zone)[batch.known]).float()
                no = critic(drawn.detach() * self._zone).float()
            hinge = F.relu(1 - yes).mean() + F.relu(1 + no).mean()
            hinge.backward()
            self.optimizers["critic"].step()
            figures["hinge"] = float(hinge.detach())
        return figures

    def _faithful(self, batch: _Batch, fake: Tensor, real: Tensor, random: np.random.Generator) -> dict[str, Tensor]:
        """The losses of a drawing that need no critic."""
        known = batch.known
        view = painted(fake, batch.grid, batch.alpha, batch.light, batch.ground)
        glance = Glance.at_random(view, random)
        with torch.no_grad():
            true = painted(real, batch.grid, batch.alpha, batch.light, batch.ground)
            with autocast(self.settings):
                wanted = self.judges.features(glance(true))
        with autocast(self.settings):
            seen = self.judges(glance(view))
        weight = batch.weight * known[:, None, None, None]
        texture = (weight * (fake - real).abs()).sum() / (3 * weight.sum()).clamp(min=1)
        features = sum(
            (a.float() - b.float()).abs().mean(dim=(1, 2, 3)) / b.float().abs().mean(dim=(1, 2, 3)).clamp(min=1e-3)
            for a, b in zip(seen.features, wanted, strict=True)
        )
        losses = {
            "texture": texture,
            "features": features[known].mean(),
            "identity": (1 - self._own(batch, seen)).mean(),
            "second": (1 - (seen.vectors[SECOND_RECOGNIZER] * batch.second).sum(dim=1))[known].mean(),
        }
        female = batch.look[:, :1]
        asked = torch.cat([female, 1 - female], dim=1)
        losses["gender"] = -(asked * (seen.gender + 1e-4).log()).sum(dim=1).mean()
        losses["age"] = (seen.age - batch.look[:, 1]).abs().mean()
        mood = batch.look[:, 2 : 2 + len(EXPRESSIONS)]
        losses["mood"] = -(mood * seen.mood).sum(dim=1)[known].mean()
        return losses

    def _own(self, batch: _Batch, seen: Opinion) -> Tensor:
        """Cosine (n,) of what is seen to the identity that was asked, in the identity space."""
        vectors = F.normalize(seen.vectors[PIPELINE_RECOGNIZER] - self.centre.to(batch.z.device), dim=1)
        return (vectors * batch.z).sum(dim=1)

    def measure(self, generator: nn.Module) -> dict[str, float]:
        """On the judged faces: `cosine` to the identity, and of the linear decoder; `rank1` among them; losses."""
        known = np.flatnonzero(self.judged.face != NOBODY)
        ours, theirs, l1, l1_linear = (list[Tensor]() for _ in range(4))
        random = np.random.default_rng(0)
        for start in range(0, len(known), _PIECE):
            batch = self._batch(self.judged, known[start : start + _PIECE])
            own, _ = generator.condition(batch.z, batch.look)
            base = generator.base(own, batch.look)
            linear = F.interpolate(base, size=(self.size, self.size), mode="bilinear", align_corners=False)
            glance = Glance.at_random(batch.ground, random)
            for detail, vectors, errors in ((generator(batch.z, batch.look), ours, l1), (linear, theirs, l1_linear)):
                view = painted(detail.float(), batch.grid, batch.alpha, batch.light, batch.ground)
                found = self.judges(glance(view)).vectors[PIPELINE_RECOGNIZER]
                vectors.append(F.normalize(found - self.centre.to(found.device), dim=1))
                error = (batch.weight * (detail - batch.real).abs()).sum(dim=(1, 2, 3)) / (
                    3 * batch.weight.sum((1, 2, 3))
                )
                errors.append(error)
        z = torch.from_numpy(self.judged.z[known]).to(self.settings.device)
        figures = {}
        for name, vectors, errors in (("", ours, l1), ("linear_", theirs, l1_linear)):
            cosines = torch.cat(vectors) @ z.T
            figures[f"{name}cosine"] = float(cosines.diagonal().mean())
            figures[f"{name}rank1"] = float((cosines.argmax(1) == torch.arange(len(z), device=z.device)).float().mean())
            figures[f"{name}l1"] = float(torch.cat(errors).mean())
        return figures

    def sheet(self, generator: nn.Module) -> NDArray[np.uint8]:
        """Judged people: their texture, the linear one, ours; then where ours goes, before and after; and nobodies."""
        known = np.flatnonzero(self.judged.face != NOBODY)
        known = known[:: max(1, len(known) // _SHOWN)][:_SHOWN]
        free = np.flatnonzero(self.judged.face == NOBODY)[: _SHOWN // 2]
        batch = self._batch(self.judged, np.concatenate([known, free]))
        own, _ = generator.condition(batch.z, batch.look)
        base = F.interpolate(generator.base(own, batch.look), size=(self.size, self.size), mode="bilinear")
        ours = generator(batch.z, batch.look)
        after = painted(ours, batch.grid, batch.alpha, batch.light, batch.ground)
        before = torch.from_numpy(self.faces.view[self.judged.into[batch.rows]]).permute(0, 3, 1, 2)
        true = torch.from_numpy(self.faces.view[np.maximum(self.judged.face[batch.rows], 0)]).permute(0, 3, 1, 2)
        true[len(known) :] = 0
        columns = [true, *(_visible(one) for one in (batch.real, base, ours)), after, before]
        pictures = [
            F.interpolate(one.float().cpu(), size=(_TILE, _TILE), mode="bilinear", align_corners=False).clamp(0, 255)
            for one in columns
        ]
        cells = [one.permute(0, 2, 3, 1).byte().numpy() for one in pictures]
        return grid_of([[column[row] for column in cells] for row in range(len(batch.rows))])

    def _batch(self, scenes: Scenes, rows: NDArray[np.int64]) -> _Batch:
        device, faces = self.settings.device, self.faces
        face = np.maximum(scenes.face[rows], 0)
        own = self._spread_out(torch.from_numpy(faces.detail[face]).float().to(device))
        seen = torch.from_numpy(faces.seen[face]).float().to(device)[:, None] / 255
        seen = F.interpolate(seen, size=(self.size, self.size), mode="bilinear", align_corners=False)
        real = self._mean + self._zone * seen * (own - self._mean)
        mouth = torch.from_numpy((faces.mouth[face] / _OPEN).clip(0, 1).astype(np.float32)).to(device)
        weight = self._telling * seen * (1 - self._lips * (1 - mouth[:, None, None, None]))

        def pixels(array: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(array[rows]).to(device).float().permute(0, 3, 1, 2)

        return _Batch(
            rows,
            torch.from_numpy(scenes.face[rows] != NOBODY).to(device),
            torch.from_numpy(scenes.z[rows]).to(device),
            torch.from_numpy(scenes.look[rows]).to(device),
            torch.from_numpy(scenes.grid[rows]).to(device).float(),
            torch.from_numpy(scenes.alpha[rows]).to(device).float()[:, None] / 255,
            pixels(scenes.light),
            pixels(scenes.ground),
            real,
            weight,
            mouth,
            torch.from_numpy(faces.second[face]).to(device),
        )

    def _with_mouth(self, batch: _Batch, real: Tensor, drawn: Tensor) -> Tensor:
        """Real textures with the drawing's mouth where the photo's is shut and has no inside."""
        shut = self._lips * (1 - batch.mouth[:, None, None, None])
        return real + shut * (drawn - real)

    def _spread_out(self, packed: Tensor) -> Tensor:
        """(n, p) -> (n, 3, size, size), zero outside the region."""
        full = torch.zeros(len(packed), STORED * STORED, 3, device=packed.device)
        full[:, torch.from_numpy(region().ravel()).to(packed.device)] = packed.reshape(len(packed), -1, 3)
        square = full.reshape(-1, STORED, STORED, 3).permute(0, 3, 1, 2)
        return F.interpolate(square, size=(self.size, self.size), mode="bilinear", antialias=True).to(
            self.settings.device
        )


def _telling(side: int) -> NDArray[np.float32]:
    """How much a texture's px (side, side) count: eyes, brows and lips more than skin."""
    frame = canonical_frame()
    parts = (topology.LEFT_EYE, topology.RIGHT_EYE, topology.LEFT_BROW, topology.RIGHT_BROW, topology.LIPS_OUTER)
    marked = np.max([frame.polygon(part, 1.3) for part in parts], axis=0).astype(np.float32)
    marked = np.asarray(cv2.GaussianBlur(marked, (0, 0), 2), np.float32)
    return zone_of(side) * (1 + (_MARKED - 1) * cv2.resize(marked, (side, side), interpolation=cv2.INTER_AREA))


def _visible(detail: Tensor) -> Tensor:
    """A detail (n, 3, s, s), log, on plain skin, 0-255."""
    skin = torch.tensor([205.0, 160.0, 140.0], device=detail.device).reshape(1, 3, 1, 1)
    return skin * detail.exp()
