"""Sources of faces, measured: identity, likeness to the photo's person, gender, age, expression, shape and realism.

Each source paints the same photos of the same people, and the audit's networks judge them, one attacker more (the
pipeline's own recognizer) and a held-out reader of gender and age beside them. The distance between painted and real
faces is Frechet's for two Gaussians (Dowson and Landau 1982; Heusel et al. 2017 for networks' features), in a
recognizer's feature space. It falls with the size of the samples, so two figures can be compared only if both come from
as many faces, held against the same real ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from anonlib.audit.attacks.similarity import rank_one
from anonlib.audit.evidence.evidence import Look
from anonlib.audit.evidence.observe import Observer, joined
from anonlib.audit.findings import Figure
from anonlib.audit.statistics import Shares, rate
from anonlib.audit.utility.kept import expression_kept, mesh_error
from anonlib.config import no_job
from anonlib.execution.base import UnitResult
from anonlib.faces.embed import Recognizer, model_input
from anonlib.faces.mesh import five_points
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import PIPELINE_RECOGNIZER
from anonlib.models.runtime import load_engine
from anonlib.privacy.strata import stratum_of
from anonlib.training.evaluate.participants import Numbers, Participants, ScannedPhoto, Vectors
from anonlib.training.evaluate.sources import NO_TARGET, FaceSource, Request
from anonlib.workspace.schemas import MESH_POINTS

STANDING = {
    "fr-feature": "held out",
    "faceres": "held out",
    "mobileface": "may have trained it",
    PIPELINE_RECOGNIZER: "the vector's own",
}
"""The recognizers, and what each may have had to do with a generator."""
REALISM = "fr-feature"
"""In whose feature space painted faces are held against real ones."""
TWO_TASKS = "faceres"
"""The recognizer that also reads gender and age; no source is trained or asked by it."""
PAIRS = 150
"""Donors whose face is painted a second time, into another photo, if a source gives it the same identity there."""
FRONTAL = 20.0
"""Degrees."""

_AGES = np.arange(1, 101, dtype=np.float32)
_CHUNK = 32

Report = Callable[[str, UnitResult, int], None]


class Identity(BaseModel):
    """By one recognizer. `to_target`: cosine of a painted face to what it should be; `to_others`: mean to others.

    `rank_one`: the target is nearest of all, and `rank_one_frontal` in photos of faces turned FRONTAL degrees or less;
    `naive`: the person of the photo is nearest of all; `consistency`: cosine of one identity in two people's photos;
    `different`: mean cosine of two identities in two people's photos.
    """

    model_config = ConfigDict(frozen=True)
    to_target: Figure
    to_others: float | None
    rank_one: Figure
    rank_one_frontal: Figure
    naive: Figure
    consistency: Figure
    different: float | None


class Looks(BaseModel):
    """What a painted face keeps of the photo and gets of the request; mesh errors in distances of the eyes.

    `age_off`: years that it looks older than requested, negative if younger. `mesh_meant`: to the mesh it was meant to
    have; `mesh_source`: to that of the photo's own face; `frechet`: to real faces of other people.
    """

    model_config = ConfigDict(frozen=True)
    found: Figure
    expression: Figure
    gender: Figure
    gender_held_out: Figure
    age_band: Figure
    age_band_held_out: Figure
    age_off: Figure
    age_off_held_out: Figure
    mesh_meant: Figure
    mesh_source: Figure
    frechet: float | None


class Measured(BaseModel):
    """A source's figures: `identity` by recognizer, and `looks`."""

    model_config = ConfigDict(frozen=True)
    identity: dict[str, Identity]
    looks: Looks


@dataclass(frozen=True)
class Judgement:
    """A Look at n painted faces, with the vectors of all of STANDING; `female` and `age` (n,) by TWO_TASKS."""

    look: Look
    vectors: dict[str, Vectors]
    female: NDArray[np.float32]
    age: NDArray[np.float32]


class Judges:
    """Holds the models."""

    def __init__(self) -> None:
        self.observer = Observer(no_job())
        first = Recognizer(PIPELINE_RECOGNIZER, load_engine(model_bytes(PIPELINE_RECOGNIZER)))
        self.recognizers = {recognizer.name: recognizer for recognizer in (*self.observer.recognizers, first)}

    def judge(self, photos: Sequence[ScannedPhoto], images: Sequence[NDArray[np.uint8]]) -> Judgement:
        """`images` that were made of `photos`: where is the face now, and whose does it look like?"""
        before = np.stack([photo.mesh[:, :2] for photo in photos])
        look = self.observer.changed(images, [{"box": photo.box} for photo in photos], before)
        points = [five_points(mesh) for mesh in np.where(np.isnan(look.mesh), before, look.mesh)]
        first = self.recognizers[PIPELINE_RECOGNIZER].embed(images, points)
        _, ages, male = self.recognizers[TWO_TASKS].engine(model_input(TWO_TASKS, images, points))
        unseen = np.where(np.isnan(look.female), np.nan, 0.0).astype(np.float32)
        vectors = {**look.vectors, PIPELINE_RECOGNIZER: first}
        return Judgement(look, vectors, 1 - male.reshape(len(images)) + unseen, ages @ _AGES + unseen)

    def know(self, photos: Sequence[ScannedPhoto], names: Sequence[str]) -> dict[str, Vectors]:
        """Unit vectors (n, d) of photos as they are, the faces where the scan found them, by the recognizers named."""
        images, points = [photo.rgb for photo in photos], [five_points(photo.mesh) for photo in photos]
        return {name: self.recognizers[name].embed(images, points) for name in names}


class Evaluation:
    """Knows the people by the judges; `measure` paints and judges one source."""

    def __init__(
        self, participants: Participants, judges: Judges, report: Report = lambda stage, outcome, units: None
    ) -> None:
        self.participants, self.judges, self.report = participants, judges, report
        self.gallery = self._known("people", participants.gallery, tuple(STANDING))
        self.real = self._known("others", participants.strangers, (REALISM,))[REALISM]

    def measure(self, source: FaceSource) -> Measured:
        """Each face into another person's photo, and those of the first PAIRS into a third person's too."""
        people, count = self.participants, len(self.participants)
        requests = [source.request(*pair) for pair in enumerate(people.first.tolist())]
        second = [source.request(*pair) for pair in enumerate(people.second[:PAIRS].tolist())]
        repeated = np.array(
            [row for row, other in enumerate(second) if other.target == requests[row].target != NO_TARGET], np.int64
        )
        hosts = np.concatenate([people.first, people.second[repeated]])
        seen, meant = self._judged(source, [people.scenes[host] for host in hosts],
                                   [*requests, *(second[row] for row in repeated)])  # fmt: skip
        target = np.array([request.target for request in requests], np.int64)
        yaw = np.array([people.scenes[host].yaw for host in people.first])
        identities = {}
        for name in STANDING:
            vectors, clear = seen.vectors[name], self.gallery[name]
            gallery = clear, source.of_person
            if source.targets is None:
                gallery = clear[:0], source.of_person[:0]
            elif name == PIPELINE_RECOGNIZER:
                vectors, clear = source.identity(vectors), source.identity(clear)
                gallery = source.targets, np.arange(len(source.targets))
            identities[name] = identity(vectors, target, hosts, repeated, yaw, gallery, clear)
        photos = [people.scenes[host] for host in people.first]
        return Measured(
            identity=identities, looks=looks(seen, photos, requests, people.first, meant[:count], self.real)
        )

    def _judged(
        self, source: FaceSource, photos: Sequence[ScannedPhoto], requests: Sequence[Request]
    ) -> tuple[Judgement, NDArray[np.float32]]:
        """What judges see of the painted photos, and the meshes (n, 468, 3) that were meant, NaN where unknown."""
        parts, meant = [], np.full((len(photos), MESH_POINTS, 3), np.nan, np.float32)
        for start in range(0, len(photos), _CHUNK):
            began, chunk = time.monotonic(), photos[start : start + _CHUNK]
            images = []
            for row, photo in enumerate(chunk, start):
                image, mesh = source.paint(photo, requests[row])
                images.append(image)
                meant[row] = np.nan if mesh is None else mesh
            parts.append(self.judges.judge(chunk, images))
            self._say(source.name, start, len(chunk), len(photos), began)
        look = joined([part.look for part in parts])
        vectors = {name: np.concatenate([part.vectors[name] for part in parts]) for name in STANDING}
        female, age = (np.concatenate([getattr(part, name) for part in parts]) for name in ("female", "age"))
        return Judgement(look, vectors, female, age), meant

    def _known(self, what: str, photos: Sequence[ScannedPhoto], names: Sequence[str]) -> dict[str, Vectors]:
        """The vectors of photos as they are, by the recognizers named."""
        parts = [self.judges.know([], names)]
        for start in range(0, len(photos), _CHUNK):
            began, chunk = time.monotonic(), photos[start : start + _CHUNK]
            parts.append(self.judges.know(chunk, names))
            self._say(what, start, len(chunk), len(photos), began)
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def _say(self, stage: str, start: int, done: int, of: int, began: float) -> None:
        outcome = UnitResult(str(start), images=done, faces=done, seconds=time.monotonic() - began)
        self.report(stage, outcome, -(-of // _CHUNK))


def identity(
    vectors: Vectors,
    target: Numbers,
    host: Numbers,
    repeated: Numbers,
    yaw: NDArray[np.floating],
    gallery: tuple[Vectors, Numbers],
    clear: Vectors,
) -> Identity:
    """By one recognizer, whose unit `vectors` (m + p, d) of m paintings, and of p repeated ones, are given.

    `target` (m,): which identity a painting should have, NO_TARGET for none; `host` (m + p,): the person of the photo;
    `repeated` (p,): which painting is repeated in another photo; `yaw` (m,) degrees of the photos. `gallery`: vectors
    (g, d) among which targets are sought, and the target (g,) that each is part of. `clear` (n, d): a photo a person.
    """
    first, second = vectors[: len(target)], vectors[len(target) :]
    wanted = target >= 0
    same = target[:, None] == gallery[1][None, :]
    similarity = (first @ gallery[0].T).astype(np.float64)
    counts = same.sum(axis=1)
    to_target = np.where(counts > 0, (similarity * same).sum(axis=1) / np.maximum(counts, 1), np.nan)
    chance = 1 / max(len(np.unique(gallery[1][gallery[1] >= 0])), 1)
    hits = np.where(wanted, rank_one(first, target, *gallery), np.nan)
    frontal = np.where(np.abs(yaw) <= FRONTAL, hits, np.nan)
    first_host, second_host = host[: len(target)], host[len(target) :]
    naive = rank_one(first, first_host, clear, np.arange(len(clear)))
    apart = target[repeated, None] != target[None, repeated]
    apart &= first_host[repeated, None] != second_host[None, :]
    return Identity(
        to_target=rate(to_target, target),
        to_others=_mean(similarity[wanted[:, None] & ~same]),
        rank_one=rate(hits, target, chance=chance),
        rank_one_frontal=rate(frontal, target, chance=chance),
        naive=rate(naive, first_host, chance=1 / max(len(clear), 1)),
        consistency=rate((first[repeated] * second).sum(axis=1).astype(np.float64), target[repeated]),
        different=_mean((first[repeated] @ second.T)[apart]),
    )


def looks(
    seen: Judgement,
    photos: Sequence[ScannedPhoto],
    requests: Sequence[Request],
    host: Numbers,
    meant: NDArray[np.float32],
    real: Vectors,
) -> Looks:
    """Of the first m faces that are `seen`, against the m `photos`, of the people `host` (m,), and `requests`.

    `meant` (m, 468, 3): the meshes that were meant, NaN where unknown; `real` (r, d): features of real faces.
    """
    count, look = len(photos), seen.look
    women = np.array([request.female >= 0.5 for request in requests])
    years = np.array([request.age for request in requests], np.float64)
    meshes = look.mesh[:count]

    def of(values: Shares) -> Figure:
        return rate(values, host)

    def gender(female: NDArray[np.float32]) -> Figure:
        """Whether probabilities of female (n,) lie on the side that was requested."""
        same = (female[:count] >= 0.5) == women
        return of(np.where(np.isnan(female[:count]), np.nan, same.astype(np.float64)))

    def band(age: NDArray[np.float32]) -> Figure:
        """Whether ages (n,) lie in the band that was requested."""
        bands = [np.nan if np.isnan(value) else float(stratum_of(1.0, float(value))[1] == stratum_of(1.0, wanted)[1])
                 for value, wanted in zip(age[:count], years.tolist(), strict=True)]  # fmt: skip
        return of(np.array(bands))

    return Looks(
        found=of(look.found[:count].astype(np.float64)),
        expression=of(expression_kept(np.stack([photo.expression for photo in photos]), look.expression[:count])),
        gender=gender(look.female),
        gender_held_out=gender(seen.female),
        age_band=band(look.age),
        age_band_held_out=band(seen.age),
        age_off=of(look.age[:count] - years),
        age_off_held_out=of(seen.age[:count] - years),
        mesh_meant=of(mesh_error(meant, meshes)),
        mesh_source=of(mesh_error(np.stack([photo.mesh for photo in photos]), meshes)),
        frechet=frechet(seen.vectors[REALISM][:count], real),
    )


def frechet(painted: Vectors, real: Vectors) -> float | None:
    """The squared Frechet distance of two samples' Gaussians, (n, d) and (m, d); None if either has fewer than two.

    The trace of the root of C1 C2 is the nuclear norm of A1 A2', where Ci = Ai' Ai: no root of a matrix is taken.
    """
    if min(len(painted), len(real)) < 2:
        return None
    means = [rows.mean(axis=0, dtype=np.float64) for rows in (painted, real)]
    a, b = ((rows - mean) / np.sqrt(len(rows) - 1) for rows, mean in zip((painted, real), means, strict=True))
    shared = float(np.linalg.svd(a @ b.T, compute_uv=False).sum())
    return float(((means[0] - means[1]) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * shared)


def _mean(values: NDArray[np.floating]) -> float | None:
    return float(values.mean()) if len(values) else None
