"""Decoders of faces compared: the faces of labelled people, painted into photos of others, judged by networks.

A person has two photos here: a `scene`, which another person's face is painted into, and a `gallery` photo, which is
never painted and by which a recognizer knows the person. Identity, gender and age that are asked of a decoder come from
a person's photos without the gallery photo. The audit's networks judge, and a held-out reader of gender and age.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from anonlib.audit.attacks.similarity import rank_one
from anonlib.audit.evidence.evidence import Look
from anonlib.audit.evidence.observe import Observer
from anonlib.audit.findings import Figure
from anonlib.audit.sheet import arrange, square_view
from anonlib.audit.statistics import rate
from anonlib.audit.utility.kept import SURE, age_bands, expressions, genders, same_kind
from anonlib.config import no_job
from anonlib.datasets import Dataset
from anonlib.errors import ConfigError, ImageProblem, JobError, ModelUnusable
from anonlib.execution.base import UnitResult
from anonlib.faces.embed import model_input
from anonlib.faces.mesh import MIN_PRESENCE, five_points
from anonlib.media.prefetch import try_to_read
from anonlib.methods.base import MAX_YAW
from anonlib.privacy.clustering import by_label, templates
from anonlib.privacy.strata import stratum_of
from anonlib.storage import Storage
from anonlib.synthesis.base import FaceDecoder, IdentityDraw
from anonlib.synthesis.compositor import render
from anonlib.synthesis.describe import happiness
from anonlib.synthesis.textures import TEXTURES, TextureEntry
from anonlib.training.data import Floats, Pixels, Report, Rows
from anonlib.workspace.layout import scans_of
from anonlib.workspace.schemas import MESH_POINTS
from anonlib.workspace.tables import column, matrix

COLUMNS = ("face_id", "key", "label", "embedding", "mesh", "box", "presence", "yaw", "female", "age", "expression")
STANDING = {"fr-feature": "held out", "faceres": "held out", "mobileface": "may have trained it"}
"""The recognizers, and what each may have had to do with a decoder."""
TWO_TASKS = "faceres"  # the recognizer that also reads gender and age; no decoder is trained by it
PAIRS = 150  # people whose face is painted a second time, into another photo

_VIEW_SIDES, _VIEW_PX = 5.0, 640  # side of a view in sides of the face's box, and to how many px it is shrunk
_LEAST_A_GENDER = 3  # a face is painted into two other people
_AGES = np.arange(1, 101, dtype=np.float32)
_CHUNK, _TILE = 32, 176


@dataclass(frozen=True)
class ScannedPhoto:
    """The view around one face: `rgb` (h, w, 3), its `mesh` (468, 3) and `box` (4,) px; `expression` (7,)."""

    face_id: str
    rgb: Pixels
    mesh: Floats
    box: Floats
    expression: Floats


@dataclass(frozen=True)
class Participants:
    """n people: `templates` (n, d) unit, `looks` (n, 2) female 0-1 and age in years, a scene and a gallery photo each.

    `hosts` (2, n): into whose scenes a person's face is painted: two other people of the same gender.
    """

    templates: Floats
    looks: NDArray[np.float64]
    scenes: list[ScannedPhoto]
    gallery: list[ScannedPhoto]
    hosts: Rows

    def __len__(self) -> int:
        return len(self.templates)


def scan_faces(workspace: Storage, scan: str | None, columns: Sequence[str]) -> pa.Table:
    """The FACES `columns` of a workspace's one scan, or of the one named; raises JobError if there is no such scan."""
    scans = {name: store for name, store in scans_of(workspace).items() if scan in (None, name) and store.done()}
    if not scans:
        raise JobError("there is no scan in this workspace; run `anonlib scan` or a job first")
    if len(scans) > 1:
        raise JobError(f"this workspace has several scans; name one by --scan: {', '.join(scans)}")
    return pa.concat_tables([store.faces(shard, columns) for store in scans.values() for shard in sorted(store.done())])


def assemble(faces: pa.Table, dataset: Dataset, *, people: int, seed: int = 0) -> Participants:
    """Draw at most `people` people with a sure gender and two photos whose face a job would replace, and read these.

    `faces`: rows of COLUMNS. Raises JobError if too few people are left.
    """
    random = np.random.default_rng(seed)
    fits = (column(faces, "presence") >= MIN_PRESENCE) & (np.abs(column(faces, "yaw")) <= MAX_YAW)
    faces = faces.filter(pa.array(fits & ~faces.column("label").is_null().to_numpy()))
    of_face, labels = by_label(faces.column("label").to_pylist())
    rows = [random.permutation(np.flatnonzero(of_face == person)) for person in range(len(labels))]
    # One photo is for the gallery; identity, gender and age are those of the others.
    female_age = np.stack([column(faces, "female"), column(faces, "age")], axis=1)
    looks = np.array([female_age[row[1:]].mean(axis=0) if len(row) > 1 else (np.nan, np.nan) for row in rows]).reshape(
        -1, 2
    )
    able = np.array([len(row) > 1 and stratum_of(*look)[0] != "unsure" for row, look in zip(rows, looks, strict=True)])
    drawn = [person for person in random.permutation(len(labels)) if able[person]][:people]
    women = looks[:, 0] >= 0.5
    chosen = [person for person in drawn if (women[drawn] == women[person]).sum() >= _LEAST_A_GENDER]
    if not chosen:
        raise JobError(
            f"an evaluation needs {_LEAST_A_GENDER} people of one gender with two usable photos each, and it is "
            f"{len(drawn)} people who have them"
        )
    wanted = [int(row) for place in (0, 1) for row in (rows[person][place] for person in chosen)]
    photos = read_photos(dataset, faces.take(pa.array(wanted)).to_pylist())
    used = np.concatenate([rows[person][1:] for person in chosen])
    number = np.repeat(np.arange(len(chosen)), [len(rows[person]) - 1 for person in chosen])
    hosts = np.empty((2, len(chosen)), np.int64)
    for gender in (False, True):
        same = np.flatnonzero(women[chosen] == gender)
        hosts[:, same] = np.roll(same, -1), np.roll(same, -2)
    vectors = templates(matrix(faces, "embedding")[used], number, len(chosen))
    return Participants(vectors, looks[chosen], photos[len(chosen) :], photos[: len(chosen)], hosts)


def read_photos(dataset: Dataset, rows: Sequence[Mapping[str, Any]]) -> list[ScannedPhoto]:
    """The photos of FACES rows; raises JobError if the dataset does not hold them all."""
    wanted: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        wanted[row["face_id"].partition("/")[0], row["key"]].append(number)
    photos: dict[int, ScannedPhoto] = {}
    for shard in dataset.shards():
        keys = {key for name, key in wanted if name == shard.shard_id}
        for sample in dataset.read(shard) if keys else ():
            picture = try_to_read(sample, no_job()) if sample.key in keys else None
            if picture is not None and not isinstance(picture, ImageProblem):
                photos |= {n: _view_of(picture.rgb, rows[n]) for n in wanted[shard.shard_id, sample.key]}
    if len(photos) < len(rows):
        lacking = len(rows) - len(photos)
        raise JobError(f"the dataset lacks {lacking} of the faces; give the one that was scanned by --input")
    return [photos[number] for number in range(len(rows))]


def _view_of(rgb: Pixels, row: Mapping[str, Any]) -> ScannedPhoto:
    """The view of a photo (H, W, 3) around the face of its FACES row, so that photos of any size fit into memory."""
    box, size = np.array(row["box"], np.float32), np.array(rgb.shape[1::-1])
    reach, centre = _VIEW_SIDES / 2 * float((box[2:] - box[:2]).max()), (box[:2] + box[2:]) / 2
    x0, y0 = np.clip(np.floor(centre - reach), 0, size - 1).astype(int)
    x1, y1 = np.clip(np.ceil(centre + reach), [x0 + 1, y0 + 1], size).astype(int)
    view = rgb[y0:y1, x0:x1]
    scale = min(1.0, _VIEW_PX / max(view.shape[:2]))
    if scale < 1.0:
        view = np.asarray(cv2.resize(view, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    mesh = np.array(row["mesh"], np.float32).reshape(MESH_POINTS, 3) - np.array([x0, y0, 0], np.float32)
    box = (box - np.array([x0, y0, x0, y0], np.float32)) * scale
    expression = np.array(row["expression"], np.float32)
    return ScannedPhoto(row["face_id"], np.ascontiguousarray(view), mesh * scale, box, expression)


def read_decoder(spec: str) -> FaceDecoder | None:
    """The decoder of `linear:FILE`, `bank:FILE` or `ksame-net[:FILE]`; None of `clear`. Raises ConfigError."""
    kind, _, path = spec.partition(":")
    entry = TEXTURES.get(kind, TextureEntry())
    if spec == "clear":
        return None
    if entry.decoder is None or not (path or entry.ships):
        raise ConfigError(f"{spec} is no decoder; it is linear:FILE, bank:FILE, ksame-net or ksame-net:FILE")
    try:
        return entry.load().from_bytes(Path(path).read_bytes() if path else entry.load().shipped())
    except (OSError, ModelUnusable) as error:
        raise ConfigError(f"{spec} cannot be used: {error}") from None


def painted(people: Participants, decoder: FaceDecoder, k: int, donor: int, host: int) -> Pixels:
    """The host's scene with the donor's face; a bank mixes `k` faces."""
    photo = people.scenes[host]
    female, age = people.looks[donor].tolist()
    face = decoder.face(IdentityDraw(decoder.identity(people.templates[donor][None])[0], female, age), k)
    image = photo.rgb.copy()
    render(image, photo.mesh, happiness(photo.expression.tolist()), face).paste(image)
    return image


def sheet(people: Participants, decoder: FaceDecoder, k: int, faces: int, seed: int) -> Image.Image:
    """Photos before and after, of `faces` people at random; as restricted as the dataset."""
    cells = []
    for donor in np.sort(np.random.default_rng(seed).permutation(len(people))[:faces]).tolist():
        photo, host = people.scenes[people.hosts[0, donor]], int(people.hosts[0, donor])
        image, box = painted(people, decoder, k, donor, host), photo.box.tolist()
        cells.append((square_view(photo.rgb, box, _TILE), square_view(image, box, _TILE), "", "", False))
    return arrange(cells, "Photos, and other people's faces in them", f"at random, seed {seed}; not for release")


def evaluate(
    people: Participants,
    decoders: Mapping[str, FaceDecoder | None],
    k: int = 5,
    report: Report = lambda stage, outcome, units: None,
) -> dict[str, dict[str, Figure]]:
    """By decoder: each face into another person's photo, and those of the first PAIRS into a third person's too.

    Where the decoder is None photos are taken as they are, and should be recognized as their own people.
    """
    observer, host, count = Observer(no_job()), people.hosts[0], len(people)
    chunks = [people.gallery[start : start + _CHUNK] for start in range(0, count, _CHUNK)]
    known = [observer.vectors([p.rgb for p in chunk], np.stack([p.mesh for p in chunk])) for chunk in chunks]
    pairs = [*enumerate(host.tolist()), *enumerate(people.hosts[1, :PAIRS].tolist())]
    before = np.stack([people.scenes[number].expression for number in host])
    figures: dict[str, dict[str, Figure]] = {}
    for name, decoder in decoders.items():
        looks, seconds = list[Look](), 0.0
        for start in range(0, len(pairs), _CHUNK):
            began, chunk = time.monotonic(), pairs[start : start + _CHUNK]
            images = [painted(people, decoder, k, *pair) if decoder else people.scenes[pair[1]].rgb for pair in chunk]
            seconds += time.monotonic() - began
            looks.append(_judged(observer, [people.scenes[host] for _, host in chunk], images))
            outcome = UnitResult(str(start), images=len(chunk), faces=len(chunk), seconds=time.monotonic() - began)
            report(name, outcome, -(-len(pairs) // _CHUNK))
        seen, donor = Look.joined(looks), np.arange(count) if decoder else host
        figures[name] = {}
        for recognizer in STANDING:
            first, second = np.split(seen.vectors[recognizer], [count])
            gallery = np.concatenate([part[recognizer] for part in known])
            found = identity(first, second if decoder else second[:0], donor, host, gallery)
            figures[name] |= {f"{recognizer}, {what}": figure for what, figure in found.items()}
        seen = seen.taken(np.arange(len(pairs)) < count)
        female, age = people.looks[donor].T.astype(np.float32)
        asked = replace(seen, female=female, age=age, expression=before)
        readable, sure = np.isin(expressions(asked), ("neutral", "happy")), (female > SURE) | (female < 1 - SURE)
        expression = np.where(readable, same_kind(expressions(asked), expressions(seen)), np.nan)
        gender = np.where(sure, same_kind(genders(asked), genders(seen)), np.nan)
        shares = {
            "face found again": seen.found.astype(np.float64),
            "expression kept (happy, neutral)": expression,
            "gender as asked": gender,
            "age band as asked": same_kind(age_bands(asked), age_bands(seen)),
            "ms to paint a face": np.full(count, 1000 * seconds / len(pairs)),
        }
        figures[name] |= {what: rate(values, host) for what, values in shares.items()}
    return figures


def _judged(observer: Observer, photos: Sequence[ScannedPhoto], images: Sequence[Pixels]) -> Look:
    """What is seen of `images` made of `photos`; gender and age by TWO_TASKS."""
    before = np.stack([photo.mesh[:, :2] for photo in photos])
    look = observer.changed(images, [{"box": photo.box} for photo in photos], before)
    points = [five_points(mesh) for mesh in np.where(np.isnan(look.mesh), before, look.mesh)]
    engine = next(recognizer.engine for recognizer in observer.recognizers if recognizer.name == TWO_TASKS)
    _, ages, male = engine(model_input(TWO_TASKS, images, points))
    unread = np.where(np.isnan(look.female), np.nan, 0.0).astype(np.float32)
    return replace(look, female=1 - male.reshape(len(images)) + unread, age=ages @ _AGES + unread)


def identity(first: Floats, second: Floats, donor: Rows, host: Rows, gallery: Floats) -> dict[str, Figure]:
    """By one recognizer, of unit vectors of paintings, `first` (m, d), and of the same faces in other photos, `second`.

    `donor` and `host` (m,): the person whose face it should be and the one of the photo, by their places in `gallery`
    (n, d). `second` (p, d) are the first p faces.
    """
    everyone, chance = np.arange(len(gallery)), 1 / len(gallery)
    together = (first[: len(second)] * second).sum(axis=1).astype(np.float64)
    return {
        "cosine to the target": rate((first * gallery[donor]).sum(axis=1).astype(np.float64), donor),
        "target at rank 1": rate(rank_one(first, donor, gallery, everyone), donor, chance=chance),
        "photo's person at rank 1": rate(rank_one(first, host, gallery, everyone), host, chance=chance),
        "one identity in two photos, cosine": rate(together, donor[: len(second)]),
    }
