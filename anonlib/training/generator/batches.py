"""Who is drawn and where: each training face is painted into somebody else's photo, as it is when a job runs.

A scene pairs an identity and a look with the photo of another person of the same gender and a like expression. Some
scenes draw nobody: an identity at random or the mean of a class, since that is what jobs ask for.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.clustering import normalized
from anonlib.synthesis.canonical import SIZE
from anonlib.synthesis.compositor import place
from anonlib.training.generator.faces import VIEW, PreparedFaces
from anonlib.training.generator.network import Linear
from anonlib.workspace.schemas import EXPRESSIONS

SIDE = VIEW.size[0] if VIEW.size else 0
NOBODY = -1
FREE = 0.25
"""Share of the scenes that draw nobody; half of them a random identity, half the mean of CLASS."""
CLASS = 5
LIGHT_STEP = 2


@dataclass(frozen=True)
class Scenes:
    """Columns of m scenes: `face` (m,): which face is drawn, or NOBODY, and `into` (m,) whose photo it goes into.

    `z` (m, d), `look` (m, LOOKS); `grid` (m, V, V, 2): where in the canonical frame, -1 to 1, each px of the view
    lies; `alpha` (m, V, V) 0-255; `light` (m, V / 2, V / 2, 3), log; `ground` (m, V, V, 3): the photo without its face.
    """

    face: NDArray[np.int64]
    into: NDArray[np.int64]
    z: NDArray[np.float32]
    look: NDArray[np.float32]
    grid: NDArray[np.float16]
    alpha: NDArray[np.uint8]
    light: NDArray[np.float16]
    ground: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.face)


def looks_of(faces: PreparedFaces) -> NDArray[np.float32]:
    """(n, LOOKS) of the faces as they are."""
    single = (faces.mouth, faces.eyes, faces.yaw)
    columns = [faces.female, faces.age, *faces.expression.T, *single]
    return np.stack(columns, axis=1).astype(np.float32)


def make_scenes(
    faces: PreparedFaces, rows: NDArray[np.int64], z: NDArray[np.float32], linear: Linear, seed: int, workers: int = 1
) -> Scenes:
    """A scene for each of `rows`, and the free ones; `z` (n, d) are the faces in the identity space."""
    random = np.random.default_rng(seed)
    look = looks_of(faces)
    into = _partners(faces, rows, random)
    free = random.choice(len(rows), int(FREE * len(rows)), replace=False)
    drawn = np.concatenate([z[rows], _nobodies(faces, rows, z, free, random)])
    asked = np.concatenate([look[rows], look[rows[free]]])
    face = np.concatenate([rows, np.full(len(free), NOBODY)])
    where = np.concatenate([into, into[free]])
    shapes = linear.shapes(drawn, asked[:, 0], asked[:, 1])
    # A face looks like its own photo's expression in the texture, and like the other photo's in the geometry.
    jobs = [(faces.view[j], faces.mesh[j], shape) for j, shape in zip(where, shapes, strict=True)]
    if workers == 1:
        placed = [_placed(*job) for job in jobs]
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            placed = list(pool.map(_placed_of, jobs, chunksize=64))
    return Scenes(face, where, drawn, asked, *(np.stack(column) for column in zip(*placed, strict=True)))


def _partners(faces: PreparedFaces, rows: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """For each row another one, of the same gender and with a like mouth and smile."""
    happy = faces.expression[rows, EXPRESSIONS.index("happy")]
    keys = (random.random(len(rows)), np.rint(2 * happy), np.rint(5 * faces.mouth[rows]), faces.female[rows] > 0.5)
    order = np.lexsort(keys)
    into = np.empty(len(rows), np.int64)
    into[order] = rows[np.roll(order, 1)]
    return into


def _nobodies(
    faces: PreparedFaces,
    rows: NDArray[np.int64],
    z: NDArray[np.float32],
    free: NDArray[np.int64],
    random: np.random.Generator,
) -> NDArray[np.float32]:
    """Identities of the free scenes, a class of the gender that is asked."""
    women = faces.female[rows] > 0.5
    crowds = {one: rows[women == one] for one in (False, True)}
    found = []
    for number, row in enumerate(free):
        if number % 2:
            found.append(random.standard_normal(z.shape[1]))
        else:
            found.append(z[random.choice(crowds[bool(women[row])], CLASS)].mean(axis=0))
    return normalized(np.stack(found).astype(np.float32)) if found else np.zeros((0, z.shape[1]), np.float32)


def _placed_of(
    job: tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]],
) -> tuple[NDArray[np.float16], NDArray[np.uint8], NDArray[np.float16], NDArray[np.uint8]]:
    cv2.setNumThreads(1)
    return _placed(*job)


def _placed(
    view: NDArray[np.uint8], mesh: NDArray[np.float32], shape: NDArray[np.float32]
) -> tuple[NDArray[np.float16], NDArray[np.uint8], NDArray[np.float16], NDArray[np.uint8]]:
    """`grid`, `alpha`, `light` and `ground` of a scene."""
    there = place(view, mesh, shape)
    (x, y), (height, width) = there.origin, there.alpha.shape
    inside = (slice(y, y + height), slice(x, x + width))
    grid = np.full((SIDE, SIDE, 2), -2, np.float16)
    # A canonical px is a point for the warp and a square for the sampler.
    grid[inside] = np.clip((2 * there.grid + 1) / SIZE - 1, -2, 2)
    alpha = np.zeros((SIDE, SIDE), np.uint8)
    alpha[inside] = np.rint(255 * there.alpha)
    light = np.zeros((SIDE, SIDE, 3), np.float32)
    light[inside] = there.light
    ground = view.copy()
    ground[inside] = there.ground
    coarse = cv2.resize(light, (SIDE // LIGHT_STEP, SIDE // LIGHT_STEP), interpolation=cv2.INTER_AREA)
    return grid, alpha, coarse.astype(np.float16), ground
