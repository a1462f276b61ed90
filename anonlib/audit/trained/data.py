"""What a trained attacker holds, clear and released faces in one frame, and how what they recover is counted.

Of half of the people the attacker has both versions of every photo (the usual assumption, as in arXiv 2506.12344); the
other half is attacked. A few of the first half are kept aside, to choose between what was trained. No person is in two
of these parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks.similarity import FAR, accepted_at, first_of_each, genuine_similarities, threshold_at_far
from anonlib.audit.evidence.evidence import SIDE
from anonlib.faces import align
from anonlib.privacy.clustering import normalized

NETWORK = "mobileface"
"""What the trained recognizer starts from, and what helps to train the U-Net."""
ATTACKED, KEPT_ASIDE = 0.5, 0.07
"""Shares of the people who are attacked, and who are kept aside to choose by."""

Pixels = NDArray[np.uint8]
Points = NDArray[np.float32]
Rows = NDArray[np.int64]
Shares = NDArray[np.float64]
Vectors = NDArray[np.float32]
Anonymize = Callable[[Pixels, NDArray[np.float32]], None]
"""Anonymizes the face with a box (4,) px in a picture (h, w, 3), in place, as the release did; it needs no secret."""

_SHIFT, _TURN, _SCALE = 0.02, 0.05, 0.05


@dataclass(frozen=True)
class AttackerData:
    """n faces: `clear`, `released` (n, SIDE, SIDE, 3); `boxes` (n, 4) and five `points` (n, 5, 2) of the clear face in
    px of the frame; `people` (n,) numbers; `vectors`: recognizer -> unit rows (n, d) of the clear photos.

    Raises ValueError if they are not of one length and size.
    """

    clear: Pixels
    released: Pixels
    boxes: Points
    points: Points
    people: Rows
    vectors: Mapping[str, Vectors]

    def __post_init__(self) -> None:
        n = len(self.people)
        fits = self.clear.shape == self.released.shape == (n, SIDE, SIDE, 3) and self.boxes.shape == (n, 4)
        if not fits or self.points.shape != (n, 5, 2) or any(len(vectors) != n for vectors in self.vectors.values()):
            raise ValueError(f"an attacker needs frames of {SIDE} px, boxes, points and vectors of the same {n} faces")


@dataclass(frozen=True)
class DataSplit:
    """Rows of AttackerData: what is learnt from, what is chosen by, and what is attacked."""

    learn: Rows
    choose: Rows
    attack: Rows


def split(people: Rows, seed: int) -> DataSplit:
    """Who is learnt from, chosen by and attacked; raises ValueError if there are too few people to learn anything."""
    names = np.random.default_rng(seed).permutation(np.unique(people))
    attacked = round(ATTACKED * len(names))
    aside = attacked + max(2, round(KEPT_ASIDE * len(names)))
    if len(names) < aside + 2 or attacked < 2:
        raise ValueError(f"an attacker cannot learn from {len(names)} people; eight or more are needed")
    attack, choose, learn = (np.flatnonzero(np.isin(people, part)) for part in np.split(names, [attacked, aside]))
    return DataSplit(learn, choose, attack)


# ---- pairs to learn from ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BatchDraw:
    """m pairs: frames (m, SIDE, SIDE, 3), boxes (m, 4) and points (m, 5, 2) of the clear ones, and the rows drawn."""

    released: Pixels
    clear: Pixels
    boxes: Points
    points: Points
    rows: Rows


class TrainingPairs:
    """Clear and released frames of an attacker's own people, moved and mirrored so that a few become many.

    With `anonymize` the moved clear frame is anonymized anew, so that box and face lie otherwise to each other, as they
    do from photo to photo; without, both are moved alike.
    """

    def __init__(self, data: AttackerData, anonymize: Anonymize | None) -> None:
        self.data, self.anonymize = data, anonymize

    def draw(self, rows: Rows, random: np.random.Generator) -> BatchDraw:
        """Each of `rows`, moved."""
        data = self.data
        released, clear = data.released[rows].copy(), data.clear[rows].copy()
        points, boxes = data.points[rows].copy(), data.boxes[rows].copy()
        for index in range(len(rows)):
            matrix, mirrored = _motion(random)
            clear[index] = _moved(clear[index], matrix)
            points[index] = align.apply(matrix, points[index])
            if mirrored:
                points[index] = points[index][[1, 0, 2, 4, 3]]
                boxes[index, [0, 2]] = SIDE - boxes[index, [2, 0]]
            if self.anonymize is None:
                released[index] = _moved(released[index], matrix)
            else:
                released[index] = clear[index]
                self.anonymize(released[index], boxes[index])
        return BatchDraw(released, clear, boxes, points, rows)

    def many(self, rows: Rows, times: int, random: np.random.Generator) -> BatchDraw:
        """All `rows` as they are, and moved `times`."""
        data = self.data
        plain = BatchDraw(data.released[rows], data.clear[rows], data.boxes[rows], data.points[rows], rows)
        draws = [plain, *(self.draw(rows, random) for _ in range(times))]
        names = [field.name for field in fields(BatchDraw)]
        return BatchDraw(*(np.concatenate([getattr(draw, name) for draw in draws]) for name in names))


def _motion(random: np.random.Generator) -> tuple[align.Affine, bool]:
    """Frame px -> frame px: a small turn, shift and scale, mirrored or not."""
    turn, scale = float(random.normal(0, _TURN)), float(np.exp(random.normal(0, _SCALE)))
    shift, mirrored = random.normal(0, _SHIFT * SIDE, 2), bool(random.random() < 0.5)
    matrix = align.square(np.full(2, SIDE / 2, np.float32), SIDE / scale, turn, SIDE)
    matrix[:, 2] += shift
    if mirrored:
        matrix = matrix @ np.array([[-1, 0, SIDE], [0, 1, 0], [0, 0, 1]], np.float32)
    return matrix, mirrored


def _moved(picture: Pixels, matrix: align.Affine) -> Pixels:
    moved = cv2.warpAffine(picture, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)


# ---- what is recovered ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recovered:
    """What n photos give away; `ranks` (n,) is the place of the right person, 1 the first, and NaN where a photo is not
    asked: of people not attacked, and the photo of each that stands in the gallery.

    `accepted` (n,): whether the cosine to the own gallery photo reaches `threshold`, at which a share FAR of the pairs
    of the people kept aside passes. `people` are in the gallery, so guessing gives `chance`.
    """

    ranks: Shares
    accepted: Shares
    threshold: float
    people: int

    @property
    def chance(self) -> float:
        """Rank-one by guessing."""
        return 1 / self.people

    def hits(self, within: int = 1) -> Shares:
        """(n,) 1 where the right person is among the first `within`, 0 where not, NaN where the photo is not asked."""
        return np.where(np.isnan(self.ranks), np.nan, self.ranks <= within)


def recover(probes: Vectors, gallery: Vectors, people: Rows, parts: DataSplit) -> Recovered:
    """Each attacked person's first row of `gallery` (n, d) is enrolled, and the other rows of `probes` (n, d) asked."""
    impostors = _compared(probes, gallery, people, parts.choose)[2]
    threshold = threshold_at_far(impostors, FAR) if len(impostors) else 1.0
    ranks, accepted = np.full(len(people), np.nan), np.full(len(people), np.nan)
    probed, genuine, _ = _compared(probes, gallery, people, parts.attack)
    ranks[probed] = placed(probes, gallery, people, parts.attack)
    accepted[probed] = accepted_at(genuine, threshold)
    return Recovered(ranks, accepted, threshold, len(np.unique(people[parts.attack])))


def placed(probes: Vectors, gallery: Vectors, people: Rows, rows: Rows) -> Shares:
    """Places of the right person for each photo in `rows` that is no gallery photo; in a tie the middle place."""
    first = first_of_each(people[rows])
    enrolled, probed = rows[first], rows[~first]
    similarity = normalized(probes[probed]) @ normalized(gallery[enrolled]).T
    same = people[probed, None] == people[None, enrolled]
    right = similarity[same][:, None]
    above, tied = (similarity > right).sum(axis=1), ((similarity == right) & ~same).sum(axis=1)
    return np.asarray(1 + above + tied / 2, np.float64)


def mean_reciprocal(probes: Vectors, gallery: Vectors, people: Rows, rows: Rows) -> float:
    """The mean of one over the right person's place, which moves before rank-one does."""
    return float((1 / placed(probes, gallery, people, rows)).mean())


def _compared(probes: Vectors, gallery: Vectors, people: Rows, rows: Rows) -> tuple[Rows, Shares, Vectors]:
    """The rows asked, their cosines to their own gallery photo, and all cosines of two people."""
    first = first_of_each(people[rows])
    enrolled, probed = rows[first], rows[~first]
    pair = normalized(probes[probed]), people[probed], normalized(gallery[enrolled]), people[enrolled]
    impostors = people[probed, None] != people[None, enrolled]
    return probed, genuine_similarities(*pair), (pair[0] @ pair[2].T)[impostors]
