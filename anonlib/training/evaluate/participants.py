"""The people of an evaluation, out of a finished scan, and the photos of each.

A person has two photos here: a `scene`, which another person's face is painted into, and a `gallery` photo, which is
never painted and by which a recognizer knows the person. What is requested of a source (identity, gender, age) comes
from a person's photos without the gallery photo, so likeness to that photo is likeness to a photo that nothing rests
on. Photos are drawn at random among those that a job would replace, not picked by quality. Of a photo only the view
around the face is kept, so that a thousand photos of any size fit into memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.config import no_job
from anonlib.datasets import Dataset
from anonlib.errors import ImageProblem, JobError
from anonlib.faces.mesh import MIN_PRESENCE
from anonlib.media.prefetch import try_to_read
from anonlib.methods.base import MAX_YAW
from anonlib.privacy.clustering import by_label, normalized, templates
from anonlib.privacy.strata import stratum_of
from anonlib.stages.people import best_portraits, donor_faces_of
from anonlib.storage import Storage
from anonlib.synthesis.base import FaceDecoder
from anonlib.synthesis.textures.linear import Decoder
from anonlib.workspace.inventory import read_note
from anonlib.workspace.layout import scans_of
from anonlib.workspace.schemas import EXPRESSIONS, MESH_POINTS
from anonlib.workspace.tables import column, matrix

COLUMNS = (
    "face_id", "key", "label", "embedding", "mesh", "box", "landmarks", "presence", "yaw", "pitch", "sharpness",
    "clarity", "glasses", "female", "age", "expression", "crop", "crop_from_image",
)  # fmt: skip
YAWS = (-45.0, -22.0, 0.0, 22.0, 45.0)
RESEMBLES = 0.945
"""dlib cosine: above it lie half of the pairs of photos of one person of LFW, and one in 11,000 pairs of strangers."""

_VIEW_SIDES = 5.0
"""Side of a view, in longer sides of the face's box."""
VIEW_PX = 640
"""A larger view is shrunk to this side, which is what a detector sees of a photo by default."""
_FRONTAL, _SURE, _ADULT = 20.0, 0.1, 25.0
_LEAST_A_GENDER = 3  # a face is painted into two other people
_ROWS = 1024

Numbers = NDArray[np.int64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class ScannedPhoto:
    """The view around one face: `rgb` (h, w, 3), its `mesh` (468, 3) and `box` (4,) in px of the view.

    `expression` (7,) probabilities and `yaw` in degrees, as the scan saw them.
    """

    face_id: str
    rgb: NDArray[np.uint8]
    mesh: NDArray[np.float32]
    box: NDArray[np.float32]
    expression: NDArray[np.float32]
    yaw: float


@dataclass(frozen=True)
class Participants:
    """n people: `templates` (n, d) unit, `female` (n,) 0-1, `age` (n,) years, a scene and a gallery photo of each.

    `first` and `second` (n,): into whose scene a person's face is painted: two other people of the same gender.
    `strangers`: faces of other people; `centre` (d,): their mean vector. `portraits`: FACES rows of a person that are
    good enough to be averaged, if any. `models`: by gender, female or not, photos for EXPRESSIONS, for YAWS, and plain.
    """

    templates: Vectors
    female: NDArray[np.float64]
    age: NDArray[np.float64]
    scenes: list[ScannedPhoto]
    gallery: list[ScannedPhoto]
    first: Numbers
    second: Numbers
    strangers: list[ScannedPhoto]
    centre: Vectors
    portraits: list[list[dict[str, Any]]]
    models: dict[bool, list[ScannedPhoto]]

    def __len__(self) -> int:
        return len(self.templates)


def assemble(
    faces: pa.Table,
    dataset: Dataset,
    *,
    people: int,
    strangers: int,
    without: frozenset[str] = frozenset(),
    seed: int = 0,
) -> Participants:
    """Draw at most `people` people of `usable` rows with two photos and a sure gender, and read their photos.

    `without`: labels of people who take no part. Raises JobError if too few people are left.
    """
    random = np.random.default_rng(seed)
    of_face, labels = by_label(faces.column("label").to_pylist())
    rows = [random.permutation(np.flatnonzero(of_face == person)) for person in range(len(labels))]
    # One photo is for the gallery; gender and age are those of the others.
    means = {
        name: np.array(
            [column(faces, name)[of_person[1:]].mean() if len(of_person) > 1 else np.nan for of_person in rows]
        )
        for name in ("female", "age")
    }
    drawn: list[int] = []
    for person in random.permutation(len(labels)).tolist():
        female, age = float(means["female"][person]), float(means["age"][person])
        fits = len(rows[person]) > 1 and stratum_of(female, age)[0] != "unsure" and labels[person] not in without
        drawn += [person] if fits and len(drawn) < people else []
    women = means["female"] >= 0.5
    chosen = [person for person in drawn if (women[drawn] == women[person]).sum() >= _LEAST_A_GENDER]
    if not chosen:
        raise JobError(
            f"an evaluation needs {_LEAST_A_GENDER} people of one gender with two usable photos each, and it is "
            f"{len(drawn)} people who have them"
        )
    others = random.permutation(np.flatnonzero(~np.isin(of_face, drawn)))[:strangers].tolist()
    used = np.concatenate([rows[person][1:] for person in chosen])
    number = np.repeat(np.arange(len(chosen)), [len(rows[person]) - 1 for person in chosen])
    models = {gender: _model_rows(faces, gender) for gender in set(women[chosen].tolist())}
    wanted = {int(row) for person in chosen for row in rows[person][:2]} | set(others)
    wanted |= {row for of_gender in models.values() for row in of_gender}
    photo = dict(
        zip(sorted(wanted), read_photos(dataset, faces.take(pa.array(sorted(wanted))).to_pylist()), strict=True)
    )
    embeddings = matrix(faces, "embedding")
    best = best_portraits(faces.take(pa.array(used)), number, donor_faces_of(faces.take(pa.array(used))))
    return Participants(
        templates(embeddings[used], number, len(chosen)),
        means["female"][chosen],
        means["age"][chosen],
        scenes=[photo[int(rows[person][1])] for person in chosen],
        gallery=[photo[int(rows[person][0])] for person in chosen],
        first=_places_on(women[chosen], 1),
        second=_places_on(women[chosen], 2),
        strangers=[photo[row] for row in others],
        centre=np.asarray(embeddings[others if others else used].mean(axis=0), np.float32),
        portraits=[
            faces.take(pa.array(used[best.get(person, [])], pa.int64())).to_pylist() for person in range(len(chosen))
        ],
        models={gender: [photo[row] for row in of_gender] for gender, of_gender in models.items()},
    )


def usable(faces: pa.Table) -> pa.Table:
    """The labelled rows of COLUMNS whose face a job would replace."""
    known = np.array([label is not None for label in faces.column("label").to_pylist()], bool)
    fits = column(faces, "presence") >= MIN_PRESENCE
    return faces.filter(pa.array(known & fits & (np.abs(column(faces, "yaw")) <= MAX_YAW)))


def _places_on(women: NDArray[np.bool_], step: int) -> Numbers:
    """(n,) For each person the one `step` places on among those of the same gender."""
    others = np.empty(len(women), np.int64)
    for gender in (False, True):
        same = np.flatnonzero(women == gender)
        others[same] = np.roll(same, -step)
    return others


def _model_rows(faces: pa.Table, gender: bool) -> list[int]:
    """Rows of a gender's faces: the strongest of each expression, the nearest to each of YAWS, a plain one.

    Frontal where it is not about yaw, and from photos that are good enough for a donor if there are any.
    """
    yaw, expression = column(faces, "yaw"), matrix(faces, "expression")
    good = np.zeros(len(yaw), bool)
    good[donor_faces_of(faces)] = True
    fault = 10.0 * (np.abs(column(faces, "female") - gender) > _SURE) + 3.0 * (column(faces, "age") < _ADULT)
    frontal = fault + 2.0 * (np.abs(yaw) > _FRONTAL) + 1.0 * ~good
    clear = fault + (1 - column(faces, "clarity")) + 2.0 * (column(faces, "glasses") > 0)
    costs = [frontal - expression[:, number] for number in range(len(EXPRESSIONS))]
    costs += [10 * clear + np.abs(yaw - wanted) for wanted in YAWS]
    costs += [frontal - expression[:, EXPRESSIONS.index("neutral")] + np.abs(yaw) / _FRONTAL]
    return [int(np.argmin(cost)) for cost in costs]


# ---- people a source may have learned from --------------------------------------------------------------------


def learned_from(
    faces: pa.Table, decoders: Iterable[FaceDecoder], prepared: Mapping[str, Vectors]
) -> tuple[frozenset[str], list[str]]:
    """Labels of FACES rows whose people may have been learned from, and in words what was checked.

    By likeness, since training faces have no names: a person is left out where any photo resembles any face of the
    training. The bar is far below certainty, so it leaves out some strangers too, and misses people whose two photos
    look less alike than that. Checked are the banks of linear `decoders`, which hold part of what those were fitted on,
    and the unit vectors (m, d) of faces `prepared` for training, by folder. A network holds no person's vector.
    """
    checks, learned = [], {f"the faces prepared in {folder}": vectors for folder, vectors in prepared.items()}
    for decoder in decoders:
        checks.append(f"a decoder says that it was fitted on {decoder.about.fitted_on}")
        if isinstance(decoder, Decoder):
            learned[f"{len(decoder.bank):,} of a decoder's {decoder.about.faces:,} faces"] = bank_faces(decoder)
    embeddings, labels = matrix(faces, "embedding"), np.array(faces.column("label").to_pylist())
    without: set[str] = set()
    for what, vectors in learned.items():
        blocks = [embeddings[start : start + _ROWS] for start in range(0, len(embeddings), _ROWS)]
        nearest = np.concatenate([(block @ vectors.T).max(axis=1, initial=-1.0) for block in blocks])
        similar = set(labels[nearest >= RESEMBLES].tolist())
        checks.append(
            f"{len(similar)} people who resemble any of {what} take no part (dlib cosine {RESEMBLES:g} or more)"
        )
        without |= similar
    none = "no source says what it was trained on, and no faces of a training were given"
    return frozenset(without), checks or [none]


def bank_faces(decoder: Decoder) -> Vectors:
    """The recognizer's unit vectors (m, d) of the faces in a decoder's bank, out of its identity space.

    A point u of that space is normalize(v - c), so v = c + s u with the s > 0 that makes v a unit vector.
    """
    points, centre = decoder.bank.vectors, decoder.centre
    along = points @ centre
    reach = np.sqrt(np.maximum(along**2 + 1 - float(centre @ centre), 0)) - along
    return normalized(centre + reach[:, None] * points)


# ---- a finished scan ------------------------------------------------------------------------------------------


def scan_faces(workspace: Storage, scan: str | None, columns: Sequence[str]) -> pa.Table:
    """The FACES `columns` of a workspace's one scan, or of the one named; raises JobError if there is no such scan."""
    scans = {name: store for name, store in scans_of(workspace).items() if scan in (None, name) and store.done()}
    if not scans:
        raise JobError("there is no scan in this workspace; run `anonlib scan` or a job first")
    if len(scans) > 1:
        raise JobError(f"this workspace has several scans; name one by --scan: {', '.join(scans)}")
    return pa.concat_tables([store.faces(shard, columns) for store in scans.values() for shard in sorted(store.done())])


def scanned_dataset(workspace: Storage) -> str:
    """The URI of the dataset that a workspace was made for."""
    note = read_note(workspace)
    if note is None:
        raise JobError("this workspace has no inventory; is it that of a job?")
    return str(note["input"])


def read_photos(dataset: Dataset, rows: Sequence[Mapping[str, Any]]) -> list[ScannedPhoto]:
    """The photos of FACES rows; raises JobError if the dataset does not hold them all."""
    wanted: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, row in enumerate(rows):
        wanted[row["face_id"].partition("/")[0]][row["key"]].append(number)
    photos: dict[int, ScannedPhoto] = {}
    job = no_job()
    for shard in dataset.shards():
        keys = wanted.get(shard.shard_id, {})
        for sample in dataset.read(shard) if keys else ():
            picture = try_to_read(sample, job) if sample.key in keys else None
            if picture is not None and not isinstance(picture, ImageProblem):
                photos |= {number: view_of(picture.rgb, rows[number]) for number in keys[sample.key]}
    if len(photos) < len(rows):
        raise JobError(
            f"the dataset lacks {len(rows) - len(photos)} of the faces; give the one that was scanned by --input"
        )
    return [photos[number] for number in range(len(rows))]


def view_of(rgb: NDArray[np.uint8], row: Mapping[str, Any]) -> ScannedPhoto:
    """The view of a photo (H, W, 3) around the face of its FACES row."""
    box = np.array(row["box"], np.float32)
    reach = _VIEW_SIDES / 2 * float((box[2:] - box[:2]).max())
    centre = (box[:2] + box[2:]) / 2
    x0, y0 = np.clip(np.floor(centre - reach), 0, [rgb.shape[1] - 1, rgb.shape[0] - 1]).astype(int)
    x1, y1 = np.clip(np.ceil(centre + reach), [x0 + 1, y0 + 1], [rgb.shape[1], rgb.shape[0]]).astype(int)
    view = rgb[y0:y1, x0:x1]
    scale = min(1.0, VIEW_PX / max(view.shape[:2]))
    if scale < 1.0:
        view = np.asarray(cv2.resize(view, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    mesh = np.array(row["mesh"], np.float32).reshape(MESH_POINTS, 3)
    return ScannedPhoto(
        row["face_id"],
        np.ascontiguousarray(view),
        (mesh - np.array([x0, y0, 0], np.float32)) * np.float32(scale),
        (box - np.array([x0, y0, x0, y0], np.float32)) * np.float32(scale),
        np.array(row["expression"], np.float32),
        float(row["yaw"]),
    )
