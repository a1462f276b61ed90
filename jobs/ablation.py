"""What does a new face that everybody shares tell of who wore it, and which part of the renderer tells it?

    python jobs/ablation.py JOB.yaml [--photos 1500] [--without light tone] [--seeds 2] [--out ablation.json]

The job needs labels and a finished scan and plan. Into its photos the audit's control `one-face` is drawn again and
again, each time without one thing that the renderer takes over from a photo, and the audit's trained recognizer attacks
each set as it attacks a release: half of the people are learned from, the other half is asked. Rank-1 is in percent,
with its difference from the renderer as it is, paired by photo. `expression` and `gender` say what is kept.
People are drawn at random until they have about `--photos` photos; of each the first `--each` are held in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from anonlib import load_job
from anonlib.audit import statistics
from anonlib.audit.evidence.evidence import HIDDEN, SIDE, frame
from anonlib.audit.evidence.gather import Controls, drawn, share_of
from anonlib.audit.evidence.observe import Observer, Vectors, main_of
from anonlib.audit.trained.data import NETWORK, AttackerData, recover, split, teachers
from anonlib.audit.trained.networks import TrainedAttacker
from anonlib.audit.trained.suite import STEPS
from anonlib.faces import align
from anonlib.faces.embed import read_attributes
from anonlib.faces.mesh import five_points
from anonlib.job import Job
from anonlib.media.prefetch import read_image
from anonlib.models.cache import model_bytes
from anonlib.privacy.classes import stratum_of
from anonlib.synthesis import compositor
from anonlib.synthesis.base import FaceTexture, Floats, Pixels
from anonlib.synthesis.canonical import sampled
from anonlib.synthesis.describe import happiness
from anonlib.synthesis.light import SHADE, STEP, shadings
from anonlib.synthesis.matte import mixed
from anonlib.synthesis.redact import redact
from anonlib.workspace import layout
from anonlib.workspace.schemas import EXPRESSIONS, MESH_POINTS
from anonlib.workspace.tables import Row

MOODS = [EXPRESSIONS.index(name) for name in ("neutral", "happy")]

# ---- the renderer without one thing ---------------------------------------------------------------------------------


def _flat(composite: compositor.Composite, detail: Floats, happy: float, age: float) -> compositor.Rendered:
    """Grey in the place of a face: what is left is where it ends, and what lies around it."""
    patch, alpha = composite.ground.copy(), composite.alpha[composite.part]
    patch[composite.part] = mixed(patch[composite.part], np.full((*alpha.shape, 3), 128, np.uint8), alpha)
    return compositor.Rendered(patch, composite.alpha, composite.origin, composite.coverage)


PAINT = compositor.Composite.paint
SKIN = np.log(np.array([184.0, 144.0, 124.0], np.float32))
"""Log of a middle tone of skin."""


def _in_plane_light(composite: compositor.Composite, *looks: Any) -> compositor.Rendered:
    """Painted in a light that is a plane of brightness and one colour, the nearest to the photo's, and the shading that
    faces have in the mean."""
    height, width = composite.alpha.shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32) / height
    basis = np.stack([np.ones_like(rows), rows, columns], axis=-1)
    where = composite.alpha > 0.5
    if not where.any():
        return PAINT(composite, *looks)
    shading = sampled(shadings().mean, composite.skin_grid, STEP)[..., None] * SHADE
    photo = composite.light - shading
    colour, grey = photo[where].mean(axis=0), photo.mean(axis=2)
    numbers = np.linalg.lstsq(basis[where], grey[where] - colour.mean(), rcond=None)[0]
    light = np.asarray((basis @ numbers)[..., None] + colour + shading, np.float32)
    return PAINT(replace(composite, light=light), *looks)


def _in_even_light(composite: compositor.Composite, *looks: Any) -> compositor.Rendered:
    """Painted in one light and colour, the same for every photo."""
    return PAINT(replace(composite, light=np.broadcast_to(SKIN, composite.light.shape)), *looks)


PAINTS = {"flat": _flat, "plane": _in_plane_light, "even": _in_even_light}

Changes = dict[str, Any]
"""Names of compositor.py and what stands in their place."""

EXPRESSION: Changes = {"_EXPRESSION": 0}
LIPS: Changes = {"with_lips": lambda shape, source, happy: shape}
LIDS: Changes = {"with_lids": lambda shape, source, gaze: shape}
TONE: Changes = {"tone_of": lambda residual, spread: np.zeros_like(residual)}
SHADING: Changes = {"shading_of": lambda shades: shadings().mean}
SHADOWS: Changes = {"shade_of": lambda residual: SHADE}
OUTLINE: Changes = {"as_large": lambda shape, source: shape}
SHARPNESS: Changes = {
    "as_sharp": lambda pixels, grain, skin, relief, seed: pixels,
    "as_strong": lambda pixels, grain, features: pixels,
}
FACE = EXPRESSION | LIPS | LIDS
LIGHT = TONE | SHADING | SHADOWS
KNOBS: Mapping[str, tuple[Changes, str]] = {
    "nothing": ({}, ""),
    "expression": (EXPRESSION, ""),
    "lips": (LIPS, ""),
    "lids": (LIDS, ""),
    "gaze": ({}, "gaze"),
    "mood": ({}, "mood"),
    "expression, lips, lids, gaze, mood": (FACE, "gaze mood"),
    "tone": (TONE, ""),
    "shading": (SHADING, ""),
    "tone, shading, colour of shadows": (LIGHT, ""),
    "light, but a plane and one colour": ({}, "plane"),
    "light": (SHADOWS, "even"),
    "outline": (OUTLINE, ""),
    "sharpness": (SHARPNESS, ""),
    "all of these": (FACE | LIGHT | OUTLINE | SHARPNESS, "gaze mood even"),
    "hair (region wide)": ({}, "wide"),
    "hair (region wide), light but a plane and one colour": ({}, "wide plane"),
    "hair (region wide), light but a plane, expression, lips, lids, gaze, mood": (FACE, "wide plane gaze mood"),
    "the face: grey in its place": ({}, "flat"),
    "the face: grey in its place, region wide": ({}, "flat wide"),
    "the face: a flat ellipse": ({}, "ellipse"),
}
"""What is not taken over from the photo -> changes of the compositor, and of how it is asked."""


@dataclass(frozen=True)
class Photos:
    """n photos: the `images`, the FACES rows of the faces that are looked at (`mains`), their `meshes` (n, 468, 3) px,
    the `vectors` that recognizers have of them, `frames` (n, SIDE, SIDE, 3) around them, and numbers of `people`."""

    images: Sequence[Pixels]
    mains: Sequence[Row]
    meshes: Floats
    vectors: Vectors
    frames: Pixels
    people: NDArray[np.int64]


def photos_of(job: Job, most: int, each: int, observer: Observer) -> Photos:
    """The first `each` photos of people drawn at random, as an audit draws them, of `most` photos in all."""
    store, share = layout.scan_store(job.stores, job.scan_key), share_of(job, most)
    images, mains, counts = [], [], Counter[str]()
    for shard in job.shards:
        rows: dict[str, list[Row]] = {}
        for row in store.faces(shard.shard_id).to_pylist():
            rows.setdefault(row["key"], []).append(row)
        chosen = {key: main for key, faces in rows.items() if (main := main_of(faces, True)) is not None}
        for sample in job.dataset.read(shard):
            main = chosen.get(sample.key)
            if main is None or not drawn(main, share) or counts[main["label"]] == each:
                continue
            counts[main["label"]] += 1
            image = read_image(sample, job.config).rgb.copy()
            for row in rows[sample.key]:
                if row["face_id"] != main["face_id"]:
                    redact(image, np.array(row["box"], np.float32), HIDDEN)
            images.append(image)
            mains.append(main)
    meshes = np.array([main["mesh"] for main in mains], np.float32).reshape(-1, MESH_POINTS, 3)
    vectors = observer.vectors(images, meshes)
    people = np.unique([main["label"] for main in mains], return_inverse=True)[1]
    return Photos(images, mains, meshes, vectors, frames_of(images, mains), people.astype(np.int64))


def frames_of(images: Sequence[Pixels], mains: Sequence[Row]) -> Pixels:
    """What an attacker learns from (n, SIDE, SIDE, 3): the surroundings of each face's box."""
    pairs = zip(images, mains, strict=True)
    return np.array([align.crop(image, frame(np.array(main["box"], np.float32)), SIDE) for image, main in pairs])


@contextmanager
def without(changes: Changes, how: str) -> Iterator[None]:
    """The renderer with these changes."""
    with ExitStack() as stack:
        for name, change in changes.items():
            stack.enter_context(patch.object(compositor, name, change))
        for name, paint in PAINTS.items():
            if name in how:
                stack.enter_context(patch.object(compositor.Composite, "paint", paint))
        yield


def pictures(photos: Photos, controls: Controls, how: str) -> list[Pixels]:
    """The photos with the control's faces; a face that the method refuses is under an ellipse."""
    refused = controls.refused(photos.mains)

    def draw(number: int) -> Pixels:
        image, main = photos.images[number].copy(), photos.mains[number]
        kind = controls.strata.get(main["face_id"]) or stratum_of(main["female"], main["age"], main["tone"])
        if "ellipse" in how or refused[number] is not None:
            redact(image, np.array(main["box"], np.float32), HIDDEN)
            return image
        texture: FaceTexture = controls.face(kind)
        happy = 0.0 if "mood" in how else happiness(main["expression"])
        looks = None if "gaze" in how else np.array(main["gaze"], np.float32)
        extent = "wide" if "wide" in how else controls.extent
        compositor.render(image, photos.meshes[number], happy, texture, extent, looks).paste(image)
        return image

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(draw, range(len(photos.images))))


def kept(photos: Photos, images: Sequence[Pixels], observer: Observer) -> dict[str, float]:
    """Shares of photos whose expression (neutral or happy) and gender are read as before."""
    points = [five_points(mesh) for mesh in photos.meshes]
    _, female, expression = read_attributes(*observer.attributes, images, points)
    before = np.array([main["expression"] for main in photos.mains])
    asked = np.isin(before.argmax(axis=1), MOODS)
    same = before[:, MOODS].argmax(axis=1) == np.asarray(expression)[:, MOODS].argmax(axis=1)
    was = np.array([main["female"] for main in photos.mains])
    return {
        "expression": float(same[asked].mean()),
        "gender": float(((was > 0.5) == (np.asarray(female) > 0.5)).mean()),
    }


def attacked(photos: Photos, images: Sequence[Pixels], observer: Observer, seed: int) -> dict[str, NDArray[np.float64]]:
    """(n,) whether the person of a photo is named first, NaN where it is not asked: by it alone, by all together."""
    boxes = np.array([main["box"] for main in photos.mains], np.float32)
    matrices = [frame(box) for box in boxes]
    corners = [align.apply(to, box.reshape(2, 2)).ravel() for to, box in zip(matrices, boxes, strict=True)]
    points = [align.apply(to, five_points(mesh)) for to, mesh in zip(matrices, photos.meshes, strict=True)]
    learn, choose, attack = split(photos.people, seed)
    data = AttackerData(
        clear=photos.frames,
        released=frames_of(images, photos.mains),
        boxes=np.array(corners, np.float32),
        points=np.array(points, np.float32),
        people=photos.people,
        classes=np.full(len(images), -1),
        vectors=photos.vectors,
        learn=learn,
        choose=choose,
        attack=attack,
        seen=np.concatenate(list(observer.vectors(images, photos.meshes).values()), axis=1),
    )
    clear = teachers(data)
    answers = TrainedAttacker(model_bytes(NETWORK), data, "cpu", seed).recognize(clear, STEPS)
    found = {"photo": recover(data, answers, clear)[0], "together": recover(data, answers, clear, together=True)[0]}
    return {name: np.where(np.isnan(place), place, place <= 1) for name, place in found.items()}


def main() -> None:
    """Print a line of each knob, and write all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    parser.add_argument("--photos", type=int, default=1500)
    parser.add_argument("--each", type=int, default=3, help="photos of a person, at most")
    parser.add_argument(
        "--without", nargs="*", choices=KNOBS, default=list(KNOBS), metavar="KNOB", help=", ".join(KNOBS)
    )
    parser.add_argument("--seeds", type=int, default=1, help="attackers that are trained on each set")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    job = load_job(asked.job)
    observer, controls = Observer(job.config), Controls(job)
    photos = photos_of(job, asked.photos, asked.each, observer)
    print(f"{len(photos.images)} photos of {len(np.unique(photos.people))} people", flush=True)
    whole: dict[str, list[NDArray[np.float64]]] = {}
    table = []
    for name in dict.fromkeys(["nothing", *asked.without]):
        began, (changes, how) = time.monotonic(), KNOBS[name]
        with without(changes, how):
            images = pictures(photos, controls, how)
        runs = [attacked(photos, images, observer, seed) for seed in range(asked.seeds)]
        row: dict[str, Any] = {"without": name, **kept(photos, images, observer)}
        for title in ("photo", "together"):
            named = [run[title] for run in runs]
            whole.setdefault(title, named)
            people = np.tile(photos.people, asked.seeds)
            row[title] = statistics.rate(np.concatenate(named), people).model_dump()
            row[f"{title}, less"] = statistics.difference(
                np.concatenate(named), np.concatenate(whole[title]), people
            ).model_dump()
        table.append(row | {"seconds": time.monotonic() - began})
        print(line(table[-1]), flush=True)
        if asked.out:
            asked.out.write_text(json.dumps(table, indent=1) + "\n")


def line(row: Mapping[str, Any]) -> str:
    """A row of the table in docs/results.md."""
    figures = [
        "{:.1f} [{:.1f} {:.1f}]".format(*(100 * row[name][part] for part in ("value", "low", "high")))
        for name in ("photo", "photo, less", "together", "together, less")
    ]
    shares = [f"{100 * row[name]:.1f}" for name in ("expression", "gender")]
    return "| " + " | ".join([row["without"], *figures, *shares]) + f" | ({row['seconds']:.0f} s)"


if __name__ == "__main__":
    main()
