"""The data of a trained attacker, the linear maps that restore faces from it, and how recovered faces are counted.

Of half of the people the attacker has both versions of every photo (the usual assumption, as in arXiv 2506.12344); the
other half is attacked, and a few of the first are kept aside to choose by. A blur is linear, and so is a mosaic: the
best linear inverse under noise is a ridge regression from what is left to what was there, found from pairs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks.similarity import FAR, accepted_at, first_of_each, threshold_at_far
from anonlib.audit.evidence.evidence import SIDE
from anonlib.faces import align
from anonlib.privacy.clustering import normalized

NETWORK = "mobileface"
"""What the trained recognizer starts from, and what helps to train the U-Net."""
ATTACKED, KEPT_ASIDE = 0.5, 0.07
"""Shares of the people who are attacked, and who are kept aside to choose by."""

COARSE, FINE = 24, 48
"""Sides of the pictures that linear maps read and draw; nothing finer survives a redaction."""
PENALTIES = tuple(10.0**power for power in range(-8, 1))

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Points = NDArray[np.float32]
Rows = NDArray[np.int64]
Shares = NDArray[np.float64]
Anonymize = Callable[[Pixels, NDArray[np.float32]], None]
"""Anonymizes the face with a box (4,) px in a picture (h, w, 3), in place, as the release did; it needs no secret."""

_SHIFT, _TURN, _SCALE = 0.02, 0.05, 0.05


class Pairs(NamedTuple):
    """m pairs: frames (m, SIDE, SIDE, 3), boxes (m, 4) and points (m, 5, 2) of the clear ones, and the rows drawn."""

    released: Pixels
    clear: Pixels
    boxes: Points
    points: Points
    rows: Rows


@dataclass(frozen=True)
class AttackerData:
    """n faces: `clear`, `released` (n, SIDE, SIDE, 3); `boxes` (n, 4) and five `points` (n, 5, 2) of the clear face in
    px of the frame; `people` (n,) numbers and their `classes`, -1 for none; `vectors`: recognizer -> unit rows (n, d)
    of the clear photos; rows to `learn` from, to `choose` settings by and to `attack`, as of `split`; `seen` (n, e):
    all that recognizers say of the released ones, if it is known. With `anonymize` a clear frame that was moved is
    anonymized anew; without, both frames are moved alike.
    """

    clear: Pixels
    released: Pixels
    boxes: Points
    points: Points
    people: Rows
    vectors: Mapping[str, Floats]
    classes: Rows
    learn: Rows
    choose: Rows
    attack: Rows
    seen: Floats | None = None
    anonymize: Anonymize | None = None

    def pairs(self, rows: Rows, times: int, random: np.random.Generator) -> Pairs:
        """All `rows` as they are, and moved and mirrored `times`, so that a few become many."""
        plain = Pairs(self.released[rows], self.clear[rows], self.boxes[rows], self.points[rows], rows)
        draws = [plain, *(self._moved(plain, random) for _ in range(times))]
        return Pairs(*(np.concatenate(parts) for parts in zip(*draws, strict=True)))

    def _moved(self, plain: Pairs, random: np.random.Generator) -> Pairs:
        released, clear = plain.released.copy(), plain.clear.copy()
        boxes, points = plain.boxes.copy(), plain.points.copy()
        for index in range(len(plain.rows)):
            # Frame px -> frame px: a small turn, shift and scale, mirrored or not.
            turn, scale = float(random.normal(0, _TURN)), float(np.exp(random.normal(0, _SCALE)))
            shift, mirrored = random.normal(0, _SHIFT * SIDE, 2), bool(random.random() < 0.5)
            matrix = align.square(np.full(2, SIDE / 2, np.float32), SIDE / scale, turn, SIDE)
            matrix[:, 2] += shift
            if mirrored:
                matrix = matrix @ np.array([[-1, 0, SIDE], [0, 1, 0], [0, 0, 1]], np.float32)
            clear[index] = warped(clear[index], matrix)
            points[index] = align.apply(matrix, points[index])
            if mirrored:
                points[index] = points[index][[1, 0, 2, 4, 3]]
                boxes[index, [0, 2]] = SIDE - boxes[index, [2, 0]]
            if self.anonymize is None:
                released[index] = warped(released[index], matrix)
            else:
                released[index] = clear[index]
                self.anonymize(released[index], boxes[index])
        return Pairs(released, clear, boxes, points, plain.rows)


def warped(picture: Pixels, matrix: align.Affine) -> Pixels:
    """A frame moved by a transform of its px; edges are drawn out."""
    moved = cv2.warpAffine(picture, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)


def split(people: Rows, seed: int) -> tuple[Rows, Rows, Rows]:
    """Rows to learn from, to choose settings by and to attack, by people; raises ValueError if these are too few."""
    names = np.random.default_rng(seed).permutation(np.unique(people))
    attacked = round(ATTACKED * len(names))
    aside = attacked + max(2, round(KEPT_ASIDE * len(names)))
    if len(names) < aside + 2 or attacked < 2:
        raise ValueError(f"an attacker cannot learn from {len(names)} people; eight or more are needed")
    attack, choose, learn = (np.flatnonzero(np.isin(people, part)) for part in np.split(names, [attacked, aside]))
    return learn, choose, attack


def teachers(data: AttackerData) -> Floats:
    """The recognizers' vectors of the clear photos side by side (n, d), of unit length, each about its known mean."""
    centred = [normalized(vectors - vectors[data.learn].mean(axis=0)) for vectors in data.vectors.values()]
    return normalized(np.concatenate(centred, axis=1))


def recover(
    data: AttackerData, probes: Floats, gallery: Floats, *, together: bool = False, planned: bool = False
) -> Shares:
    """(2, n) What n photos give away: the right person's place, 1 the first, and whether the cosine to their own
    gallery photo reaches the threshold at which a share FAR of the pairs of the people kept aside passes. The first row
    of each attacked person in `gallery` (n, d) is enrolled, their others of `probes` (n, d) are asked, the rest is NaN.

    `together`: the mean of a person's photos is asked, in the row of the first of them. `planned`: an attacker who has
    read the plan looks among the people of the photo's class alone, of whom those learned from are enrolled, too.
    """
    people = data.people
    _, similarity, same = _compared(probes, gallery, people, data.choose)
    threshold = threshold_at_far(similarity[~same], FAR) if not same.all() else 1.0
    found = np.full((2, len(people)), np.nan)
    rows = np.arange(len(people)) if planned else data.attack
    if together:
        asked = rows[~first_of_each(people[rows])]
        first, probes = first_of_each(people[asked]), probes.copy()
        sums = np.zeros((int(people.max()) + 1, probes.shape[1]), np.float32)
        np.add.at(sums, people[asked], normalized(probes[asked]))
        probes[asked], rows = sums[people[asked]], np.sort(np.concatenate([np.setdiff1d(rows, asked), asked[first]]))
    probed, similarity, same = _compared(probes, gallery, people, rows)
    if planned:
        enrolled = rows[first_of_each(people[rows])]
        similarity[data.classes[probed, None] != data.classes[None, enrolled]] = -np.inf
    found[0, probed] = _places(similarity, same)
    found[1, probed] = accepted_at(similarity[same].astype(np.float64), threshold)
    found[:, ~np.isin(np.arange(len(people)), data.attack)] = np.nan
    return found


def standing(probes: Floats, gallery: Floats, people: Rows, rows: Rows) -> float:
    """The mean of 1 / place of the right person, and a tenth of how many standard deviations above the others they
    stand: it is finer than rank-1, and does not stop where a few people are all found."""
    _, similarity, same = _compared(probes, gallery, people, rows)
    above = (similarity[same] - similarity.mean(axis=1)) / np.maximum(similarity.std(axis=1), 1e-6)
    return float((1 / _places(similarity, same)).mean() + above.mean() / 10)


def _compared(probes: Floats, gallery: Floats, people: Rows, rows: Rows) -> tuple[Rows, Floats, NDArray[np.bool_]]:
    """Of these rows those asked (p,), their cosines (p, g) to the gallery's photos, and which of these are genuine."""
    first = first_of_each(people[rows])
    enrolled, probed = rows[first], rows[~first]
    similarity = normalized(probes[probed]) @ normalized(gallery[enrolled]).T
    return probed, similarity, people[probed, None] == people[None, enrolled]


def _places(similarity: Floats, same: NDArray[np.bool_]) -> Shares:
    """(p,) In a tie the middle place."""
    right = similarity[same][:, None]
    above, tied = (similarity > right).sum(axis=1), ((similarity == right) & ~same).sum(axis=1)
    return np.asarray(1 + above + tied / 2, np.float64)


# ---- linear maps --------------------------------------------------------------------------------------------------

Ridge = tuple[Floats, Floats, Floats]
"""A map of x (n, a) to y (n, b): the mean of x, weights (a, b) and the mean of y."""


def mapped(x: Floats, ridge: Ridge) -> Floats:
    """What a map makes of x (n, a)."""
    x_mean, weights, y_mean = ridge
    return np.asarray((x - x_mean) @ weights + y_mean, np.float32)


def ridge(x: Floats, y: Floats, aside: Floats, score: Callable[[Floats], float]) -> Ridge:
    """The regression of y (n, b) on x (n, a) with the penalty, per row, whose answers to `aside` (m, a) score highest.

    `score` is given the answers (m, b).
    """
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    # In single precision the directions that a blur nearly wipes out drown in rounding.
    a, b = (x - x_mean).astype(np.float64), y - y_mean
    wide = x.shape[1] > len(x)
    # Of both ways to write it down, the smaller system.
    values, vectors = np.linalg.eigh(a @ a.T if wide else a.T @ a)
    turned = vectors.T @ (b if wide else a.T @ b)
    basis = a.T @ vectors if wide else vectors
    seen = (aside - x_mean) @ basis

    def shrunk(penalty: float) -> NDArray[np.float64]:
        return np.asarray(turned / (np.maximum(values, 0) + penalty * len(x))[:, None], np.float64)

    best = max(PENALTIES, key=lambda penalty: score((seen @ shrunk(penalty) + y_mean).astype(np.float32)))
    return x_mean, (basis @ shrunk(best)).astype(np.float32), y_mean


def ridge_near(x: Floats, y: Floats, aside: Floats, meant: Floats) -> Ridge:
    """The same, with the penalty whose answers to `aside` (m, a) are nearest to `meant` (m, b)."""
    return ridge(x, y, aside, lambda answers: -float(np.square(answers - meant).mean()))


def stretch(boxes: Points) -> list[align.Affine]:
    """Frame px -> px of a picture in which every box has the same two sides, so that every ellipse is one circle."""
    sides = boxes[:, 2:] - boxes[:, :2]
    grow = sides.max(axis=1, keepdims=True) / np.maximum(sides, 1e-3)
    half = SIDE / 2
    return [np.array([[x, 0, half - half * x], [0, y, half - half * y]], np.float32) for x, y in grow]


def small(frames: Pixels, boxes: Points, side: int) -> Floats:
    """Frames (n, SIDE, SIDE, 3), stretched, as (n, side, side, 3) in 0-1."""
    shrunk = np.zeros((len(frames), side, side, 3), np.float32)
    for index, (picture, matrix) in enumerate(zip(frames, stretch(boxes), strict=True)):
        wide = warped(picture, matrix).astype(np.float32)
        shrunk[index] = cv2.resize(wide, (side, side), interpolation=cv2.INTER_AREA)
    return shrunk / np.float32(255)


def flat(pictures: Floats) -> Floats:
    """(n, s, s, c) -> (n, s * s * c)."""
    return pictures.reshape(len(pictures), -1)


def _planes(pictures: Floats) -> Floats:
    """(n, s, s, 3) -> (n * 3, s * s), colour by colour."""
    return pictures.transpose(0, 3, 1, 2).reshape(len(pictures) * 3, -1)


class Restorer:
    """Restores clear frames and their five points by linear maps, fitted on `learn`, with penalties chosen on
    `choose`."""

    def __init__(self, learn: Pairs, choose: Pairs) -> None:
        coarse, lost, points = zip(*map(self._known, (learn, choose)), strict=True)
        self.pixels = ridge_near(_planes(coarse[0]), lost[0], _planes(coarse[1]), lost[1])
        self.points = ridge_near(self._grey(coarse[0]), points[0], self._grey(coarse[1]), points[1])

    @staticmethod
    def _known(pairs: Pairs) -> tuple[Floats, Floats, Floats]:
        """Coarse released pictures, what the clear ones have more than they, and points in the stretched frame."""
        lost = small(pairs.clear, pairs.boxes, FINE) - small(pairs.released, pairs.boxes, FINE)
        points = [align.apply(matrix, five) for matrix, five in zip(stretch(pairs.boxes), pairs.points, strict=True)]
        return small(pairs.released, pairs.boxes, COARSE), _planes(lost), flat(np.array(points, np.float32))

    @staticmethod
    def _grey(pictures: Floats) -> Floats:
        return flat(pictures.mean(axis=3, keepdims=True))

    def __call__(self, released: Pixels, boxes: Points) -> Pixels:
        """Frames (n, SIDE, SIDE, 3) -> frames of the same size; each colour is restored by the same map."""
        changes = mapped(_planes(small(released, boxes, COARSE)), self.pixels)
        changes = changes.reshape(-1, 3, FINE, FINE).transpose(0, 2, 3, 1)
        restored = released.copy()
        for index, (change, matrix) in enumerate(zip(changes, stretch(boxes), strict=True)):
            grown = cv2.resize(np.ascontiguousarray(change), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            back = cv2.warpAffine(grown, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
            restored[index] = np.clip(np.rint(restored[index] + 255 * back), 0, 255)
        return restored

    def find(self, released: Pixels, boxes: Points) -> Points:
        """Five points (n, 5, 2) in px of the frame."""
        stretched = mapped(self._grey(small(released, boxes, COARSE)), self.points).reshape(-1, 5, 2)
        pairs = zip(stretch(boxes), stretched, strict=True)
        return np.array([align.apply(align.inverse(matrix), points) for matrix, points in pairs])
