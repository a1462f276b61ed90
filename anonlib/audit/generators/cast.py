"""Who takes part in the evaluation of a generator: people, and the photos of each.

A person has two photos here: one that somebody else's face is painted into (`scenes`), and one that is never painted
and by which a recognizer knows the person (`gallery`). What is asked of a generator (identity, gender, age) comes from
a person's photos without the gallery photo, so likeness to that one is likeness to a photo that nobody used. Everybody
wears the face of another person of the same gender. Photos are drawn by lot among those that a job would replace, not
picked by quality.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.audit.generators.scanned import ScannedPhoto, read_photos
from anonlib.datasets import Dataset
from anonlib.errors import JobError
from anonlib.faces.mesh import MIN_PRESENCE
from anonlib.methods.base import MAX_YAW
from anonlib.privacy.clustering import by_label, templates
from anonlib.privacy.strata import Stratum, stratum_of
from anonlib.stages.people import best_portraits, donor_faces_of
from anonlib.workspace.schemas import EXPRESSIONS
from anonlib.workspace.tables import column, matrix

COLUMNS = (
    "face_id", "key", "label", "embedding", "mesh", "box", "landmarks", "presence", "yaw", "pitch", "sharpness",
    "clarity", "glasses", "female", "age", "expression", "crop", "crop_from_image",
)  # fmt: skip
YAWS = (-45.0, -22.0, 0.0, 22.0, 45.0)
_FRONTAL, _SURE, _ADULT = 20.0, 0.1, 25.0
_LEAST_A_GENDER = 3  # a face is painted into two other people

Numbers = NDArray[np.int64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class RequestedLook:
    """A gender (probability of female) and an age in years."""

    female: float
    age: float

    @property
    def stratum(self) -> Stratum:
        """Gender and age band, as classes are formed by."""
        return stratum_of(self.female, self.age)


@dataclass(frozen=True)
class StagedPhotos:
    """Photos in which a generator shows what it can be told: `expressions` (7), `turns` (at YAWS) and a `plain` one."""

    expressions: list[ScannedPhoto]
    turns: list[ScannedPhoto]
    plain: ScannedPhoto


@dataclass(frozen=True)
class Participants:
    """n people: `templates` (n, d) unit, what each looks like, a photo of each for `scenes` and for `gallery`.

    `first` and `second` (n,): into whose scene a person's face is painted; never his own. `strangers`: faces of people
    who are not in the cast; `centre` (d,): mean vector of those. `portraits`: FACES rows of a person that are good
    enough to be averaged, if any. `stages`: by gender, female or not.
    """

    templates: Vectors
    looks: list[RequestedLook]
    scenes: list[ScannedPhoto]
    gallery: list[ScannedPhoto]
    first: Numbers
    second: Numbers
    strangers: list[ScannedPhoto]
    centre: NDArray[np.float32]
    portraits: list[list[dict[str, Any]]]
    stages: dict[bool, StagedPhotos]

    def __len__(self) -> int:
        return len(self.looks)


def usable(faces: pa.Table) -> pa.Table:
    """The labelled rows of COLUMNS whose face a job would replace."""
    known = np.array([label is not None for label in faces.column("label").to_pylist()], bool)
    fits = column(faces, "presence") >= MIN_PRESENCE
    return faces.filter(pa.array(known & fits & (np.abs(column(faces, "yaw")) <= MAX_YAW)))


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
    lot = np.random.default_rng(seed)
    of_face, labels = by_label(faces.column("label").to_pylist())
    photos = [lot.permutation(np.flatnonzero(of_face == person)) for person in range(len(labels))]
    # One photo is for the gallery; what a person looks like is said of the others.
    female, age = column(faces, "female"), column(faces, "age")
    looks = [
        RequestedLook(float(female[own[1:]].mean()), float(age[own[1:]].mean())) if len(own) > 1 else None
        for own in photos
    ]
    drawn: list[int] = []
    for person in lot.permutation(len(labels)).tolist():
        look = looks[person]
        fits = look is not None and look.stratum[0] != "unsure" and labels[person] not in without
        drawn += [person] if fits and len(drawn) < people else []
    chosen = _with_company(drawn, looks)
    own = [photos[person] for person in chosen]
    outside = np.flatnonzero(~np.isin(of_face, drawn))
    rest = lot.permutation(outside)[:strangers].tolist()
    used = np.concatenate([rows[1:] for rows in own])
    number = np.repeat(np.arange(len(own)), [len(rows) - 1 for rows in own])
    embeddings = matrix(faces, "embedding")
    said = [look for person in chosen if (look := looks[person]) is not None]
    stages = {gender: _staged(faces, female, gender) for gender in {one.female >= 0.5 for one in said}}
    wanted = {int(row) for rows in own for row in rows[:2]} | set(rest)
    wanted |= {row for rows in stages.values() for row in rows}
    seen = read_photos(dataset, [faces.slice(row, 1).to_pylist()[0] for row in sorted(wanted)])
    ids = faces.column("face_id").to_pylist()
    photo = {row: seen[ids[row]] for row in wanted}
    first, second = (_others([one.female >= 0.5 for one in said], step) for step in (1, 2))
    return Participants(
        templates(embeddings[used], number, len(own)),
        said,
        scenes=[photo[int(rows[1])] for rows in own],
        gallery=[photo[int(rows[0])] for rows in own],
        first=first,
        second=second,
        strangers=[photo[row] for row in rest],
        centre=np.asarray(embeddings[rest if rest else used].mean(axis=0), np.float32),
        portraits=_portraits(faces.take(pa.array(used)), number, len(own)),
        stages={
            gender: StagedPhotos([photo[row] for row in rows[: len(EXPRESSIONS)]],
                          [photo[row] for row in rows[len(EXPRESSIONS) : -1]], photo[rows[-1]])
            for gender, rows in stages.items()
        },
    )  # fmt: skip


def _with_company(drawn: list[int], looks: list[RequestedLook | None]) -> list[int]:
    """Those of the drawn people whose gender is not left with fewer than three."""
    gender = {person: look.female >= 0.5 for person in drawn if (look := looks[person]) is not None}
    counts = {one: list(gender.values()).count(one) for one in (True, False)}
    kept = [person for person in drawn if counts[gender[person]] >= _LEAST_A_GENDER]
    if not kept:
        raise JobError(
            f"an evaluation needs {_LEAST_A_GENDER} people of one gender with two usable photos each, and it is "
            f"{len(drawn)} people who have them"
        )
    return kept


def _others(female: list[bool], step: int) -> Numbers:
    """(n,) For each person the one `step` places on among those of the same gender."""
    found = np.empty(len(female), np.int64)
    for gender in set(female):
        same = np.flatnonzero(np.array(female) == gender)
        found[same] = np.roll(same, -step)
    return found


def _staged(faces: pa.Table, female: NDArray[Any], gender: bool) -> list[int]:
    """Rows of a Stage among a gender's faces: the strongest of each expression, the nearest to each yaw, a plain one.

    Frontal where it is not about yaw, and from photos that are good enough for a donor if there are any.
    """
    yaw, expression = column(faces, "yaw"), matrix(faces, "expression")
    good = np.zeros(len(yaw), bool)
    good[donor_faces_of(faces)] = True
    fault = 10.0 * (np.abs(female - gender) > _SURE) + 3.0 * (column(faces, "age") < _ADULT)
    frontal = fault + 2.0 * (np.abs(yaw) > _FRONTAL) + 1.0 * ~good
    clear = fault + (1 - column(faces, "clarity")) + 2.0 * (column(faces, "glasses") > 0)
    rows = [int(np.argmin(frontal - expression[:, number])) for number in range(len(EXPRESSIONS))]
    rows += [int(np.argmin(10 * clear + np.abs(yaw - wanted))) for wanted in YAWS]
    plain = frontal - expression[:, EXPRESSIONS.index("neutral")] + np.abs(yaw) / _FRONTAL
    return [*rows, int(np.argmin(plain))]


def _portraits(faces: pa.Table, person: Numbers, people: int) -> list[list[dict[str, Any]]]:
    """The rows of each of `people` that a class would average; `person` (rows,) says whose a row is."""
    best = best_portraits(faces, person, donor_faces_of(faces))
    return [faces.take(pa.array(best.get(one, []), pa.int64())).to_pylist() for one in range(people)]
