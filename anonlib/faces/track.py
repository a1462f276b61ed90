"""The same region followed over the frames of a clip, so that it is hidden in every frame and gets one surrogate.

Detections are linked frame by frame: each track says where it goes on, and an assignment takes the pairs that overlap
most. As in ByteTrack (Zhang et al. 2022, arXiv 2110.06864) what scores low is no face of its own but leads a track on;
boxes are widened before they are compared, for fast and small faces (C-BIoU, Yang et al. 2023, arXiv 2211.14317). The
whole clip is known, so gaps are filled afterwards, ends are stretched, and all smoothing has zero phase.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from anonlib.faces.regions import FACE, Regions, overlaps

Floats = NDArray[np.float32]

WEAK = 0.4
"""Of the detector's least score: what a region needs at least to carry a track on."""
GAP, STRETCH, PERSISTS = 1.0, 0.5, 0.5
"""Seconds: of a gap that is bridged, that ends are stretched by, and of low scores that are a track by themselves."""
_WIDER = 0.5  # sides that boxes are widened by, each way, before they are compared
_LEAST_OVERLAP = 0.15  # of widened boxes
_RATIO = 2.0  # how many times larger or smaller a region may become from one detection to the next
_DAMPING, _MEMORY = 0.9, 0.6  # of a speed: what is left of it a frame later, and after each detection
_TAKEN = 0.3  # overlap with another track's detection from which a place without one belongs to that
_CUT, _CUT_SHARE = 12.0, 0.35
"""Grey levels by which a small picture changes at a cut, and of its contrast."""
_ORDER = 2  # of the polynomial that smooths


@dataclass(frozen=True)
class Track:
    """A region in the frames `first`, `first` + 1, ...: `boxes` (n, 4) px; `landmarks` (n, 5, 2) px; `scores` (n,), 0
    where nothing was found and its place is interpolated or stretched; its `kind`."""

    first: int
    boxes: Floats
    landmarks: Floats
    scores: Floats
    kind: str = FACE

    @classmethod
    def still(cls, box: Floats, frames: int, kind: str = FACE) -> Self:
        """One box (4,) in the first `frames` frames."""
        boxes, landmarks = np.tile(box, (frames, 1)).astype(np.float32), np.full((frames, 5, 2), np.nan, np.float32)
        return cls(0, boxes, landmarks, np.zeros(frames, np.float32), kind)

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def last(self) -> int:
        """Its last frame."""
        return self.first + len(self) - 1

    @property
    def frames(self) -> range:
        return range(self.first, self.first + len(self))

    @property
    def surest(self) -> int:
        """The frame with the greatest score."""
        return self.first + int(self.scores.argmax())

    def nearest(self, box: Floats) -> int:
        """The frame in which its box is most like one (4,)."""
        return self.first + int(np.abs(self.boxes - np.asarray(box)).sum(axis=1).argmin())

    @property
    def columns(self) -> dict[str, Any]:
        """What tables keep of it (schemas.TRACK): arrays as bytes, since Arrow takes tens of bytes for a number of a
        list while it writes one."""
        return {"first": self.first} | {
            name: getattr(self, name).astype("<f4").tobytes() for name in ("boxes", "landmarks", "scores")
        }

    @classmethod
    def of(cls, columns: Mapping[str, Any], kind: str | None = None) -> Self:
        """The track that tables keep so."""
        boxes, landmarks, scores = (np.frombuffer(columns[name], "<f4") for name in ("boxes", "landmarks", "scores"))
        return cls(columns["first"], boxes.reshape(-1, 4), landmarks.reshape(-1, 5, 2), scores, kind or FACE)

    def is_beside(self, other: Track) -> bool:
        """Whether both were found in one frame, in places that do not overlap."""
        start, stop = max(self.first, other.first), min(self.last, other.last) + 1
        if start >= stop:
            return False
        (boxes, sure), (others, more) = (
            (of.boxes[start - of.first : stop - of.first], of.scores[start - of.first : stop - of.first])
            for of in (self, other)
        )
        return bool(((sure > 0) & (more > 0) & (overlaps(boxes, others) == 0)).any())

    def at(self, frame: int) -> Regions:
        """The region in one of its frames."""
        place = slice(frame - self.first, frame - self.first + 1)
        return Regions(self.boxes[place], self.scores[place], self.landmarks[place], (self.kind,))

    def carried(self, points: Floats, before: int, frame: int) -> Floats:
        """Points (n, 3) px of the frame `before` as they would be in `frame`, had they moved and grown with the box."""
        boxes = self.boxes[[before - self.first, frame - self.first]]
        old, new = (boxes[:, :2] + boxes[:, 2:]) / 2
        sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
        grown = np.float32(sides[1] / max(float(sides[0]), 1e-6))
        moved = np.asarray(points * grown, np.float32)
        moved[:, :2] += new - old * grown
        return moved

    def best(self, count: int, apart: int) -> list[int]:
        """At most `count` frames, best first and `apart` frames from each other, in which it shows best: found surely,
        large, and turned to the camera."""
        eyes, nose = self.landmarks[:, :2], self.landmarks[:, 2]
        reach = np.linalg.norm(eyes - nose[:, None], axis=2)
        frontal = np.nan_to_num(reach.min(axis=1) / np.maximum(reach.max(axis=1), 1e-6), nan=1.0)
        size = np.sqrt(np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1))
        chosen: list[int] = []
        for place in np.argsort(-self.scores * size * frontal, kind="stable").tolist():
            if len(chosen) == count or self.scores[place] == 0:
                break
            if all(abs(place - other) >= apart for other in chosen):
                chosen.append(place)
        return [self.first + place for place in chosen]


class Detections:
    """The regions of every frame of a clip, packed: 70 bytes each, whatever the clip's length."""

    def __init__(self) -> None:
        self._ends, self._values, self._kinds = array("q", [0]), array("f"), list[str]()

    def add(self, several: Iterable[Regions]) -> None:
        """The regions of the next frames."""
        for regions in several:
            _pack(self._values, regions.boxes, regions.landmarks, regions.scores)
            self._kinds += regions.kinds
            self._ends.append(self._ends[-1] + len(regions))

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it, to be kept."""
        return {"ends": np.array(self._ends), "values": np.array(self._values), "kinds": np.array(self._kinds, str)}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Those that have these `arrays`."""
        new = cls()
        new._ends, new._values = array("q", arrays["ends"]), array("f", arrays["values"])
        new._kinds = arrays["kinds"].tolist()
        return new

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[Regions]:
        values = np.frombuffer(self._values, np.float32)
        for start, stop in zip(self._ends, self._ends[1:], strict=False):
            boxes, landmarks, scores = _unpacked(values[_NUMBERS * start : _NUMBERS * stop])
            yield Regions(boxes, scores, landmarks, tuple(self._kinds[start:stop]))


_NUMBERS = 15


def _pack(values: array[float], boxes: Floats, landmarks: Floats, scores: Floats) -> None:
    """Append regions (n, 4), (n, 5, 2), (n,) to packed ones."""
    rows = np.concatenate([boxes, landmarks.reshape(-1, 10), scores[:, None]], axis=1)
    values.frombytes(rows.astype(np.float32, copy=False).tobytes())


def _unpacked(values: Floats) -> tuple[Floats, Floats, Floats]:
    rows = values.reshape(-1, _NUMBERS)
    return rows[:, :4], rows[:, 4:14].reshape(-1, 5, 2), rows[:, 14]


class Shots:
    """Which frames begin a shot, by small pictures (n, h, w, 3) of all that come in order; the last few are held."""

    def __init__(self) -> None:
        self._last: NDArray[np.uint8] | None = None
        self._begins = bytearray()

    def add(self, small: NDArray[np.uint8]) -> None:
        """The next pictures."""
        before = small[:0] if self._last is None else self._last[-3:]
        self._last = np.concatenate([before, small])
        del self._begins[-1:]  # what follows the last frame is known now
        self._begins += cuts(self._last)[max(len(before) - 1, 0) :].tobytes()

    @property
    def begins(self) -> NDArray[np.bool_]:
        """(n,) as `cuts` of all pictures."""
        return np.frombuffer(self._begins, np.bool_)


def cuts(thumbnails: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which frames (n,) begin a shot, by small pictures (n, h, w, 3) of all. A flash begins none: the frames around a
    cut differ two by two."""
    small = thumbnails.reshape(len(thumbnails), -1)
    begins = np.zeros(len(small), np.bool_)
    for frame in range(1, len(small)):
        before, after = (
            small[of].astype(np.float32) for of in (slice(max(frame - 2, 0), frame), slice(frame, frame + 2))
        )
        change = np.abs(before[:, None] - after[None]).mean(axis=2).min()
        begins[frame] = change > max(_CUT, _CUT_SHARE * float(min(before[-1].std(), after[0].std())))
    return begins


def link(found: Iterable[Regions], begins: NDArray[np.bool_], rate: float, score: float) -> list[Track]:
    """The tracks of a clip, in the order of their first frames; filled, and stretched within their shots.

    `found`: the regions of each frame, of a score of at least WEAK * `score`; `begins` (n,): the frames that begin a
    shot; `rate`: frames a second. A track has a region of at least `score`, or low ones for PERSISTS seconds.
    """
    linked: list[_Open] = []
    active: list[_Open] = []
    reach = max(round(GAP * rate), 1)
    for frame, regions in enumerate(found):
        active = [] if begins[frame] else [track for track in active if frame - track.frames[-1] <= reach]
        sure = regions.scores >= score
        free = np.arange(len(regions))
        for wanted in (sure, ~sure):
            rows = free[wanted[free]]
            waiting = [track for track in active if track.frames[-1] < frame]
            taken = _assigned(waiting, regions, rows, frame)
            for number, row in taken:
                waiting[number].add(frame, regions, row)
            free = np.setdiff1d(free, [row for _, row in taken])
        started = [_Open(regions.kinds[row]) for row in free]
        for track, row in zip(started, free.tolist(), strict=True):
            track.add(frame, regions, row)
        linked += started
        active += started
    kept = [track for track in linked if track.best >= score or len(track.frames) >= PERSISTS * rate]
    return _stretched([track.filled() for track in kept], begins, max(round(STRETCH * rate), 1))


@dataclass
class _Open:
    """A track that may go on: what was found, packed, the last `box` (4,), the `best` score, and how far it moves a
    frame (`speed` (2,), px)."""

    kind: str
    frames: array[int] = field(default_factory=lambda: array("i"))
    values: array[float] = field(default_factory=lambda: array("f"))
    box: Floats = field(default_factory=lambda: np.zeros(4, np.float32))
    best: float = 0.0
    speed: Floats = field(default_factory=lambda: np.zeros(2, np.float32))

    def add(self, frame: int, regions: Regions, row: int) -> None:
        box = regions.boxes[row]
        if self.frames:
            moved = (_centre(box) - _centre(self.box)) / (frame - self.frames[-1])
            self.speed = (_MEMORY * self.speed + (1 - _MEMORY) * moved).astype(np.float32)
        self.frames.append(frame)
        _pack(self.values, box[None], regions.landmarks[row][None], regions.scores[row : row + 1])
        self.box, self.best = box.copy(), max(self.best, float(regions.scores[row]))

    def expected(self, frame: int) -> Floats:
        """The box (4,) at a later frame, at a speed that fades."""
        return self.box + np.tile(self.speed, 2) * _way(frame - self.frames[-1])

    def filled(self) -> Track:
        """The track with what is between two detections interpolated."""
        every, found = np.arange(self.frames[0], self.frames[-1] + 1), np.array(self.frames)
        at_boxes, at_landmarks, at_scores = _unpacked(np.frombuffer(self.values, np.float32))
        scores = np.zeros(len(every), np.float32)
        scores[found - self.frames[0]] = at_scores
        boxes, landmarks = (_between(every, found, of) for of in (at_boxes, at_landmarks))
        return Track(self.frames[0], boxes, landmarks, scores, self.kind)


def _assigned(tracks: Sequence[_Open], regions: Regions, rows: NDArray[np.int64], frame: int) -> list[tuple[int, int]]:
    """Pairs (track, row of the regions) that overlap most, all in all; of one kind and about one size."""
    if not tracks or not len(rows):
        return []
    expected = np.stack([track.expected(frame) for track in tracks])
    overlap = overlaps(_widened(expected)[:, None], _widened(regions.boxes[rows]))
    sizes = [
        np.log(np.maximum(np.prod(of[:, 2:] - of[:, :2], axis=1), 1e-6)) / 2 for of in (expected, regions.boxes[rows])
    ]
    alike = np.abs(sizes[0][:, None] - sizes[1][None]) <= np.log(_RATIO)
    alike &= np.array([[track.kind == regions.kinds[row] for row in rows] for track in tracks])
    overlap = np.where(alike & (overlap >= _LEAST_OVERLAP), overlap, 0)
    from scipy.optimize import linear_sum_assignment

    chosen = zip(*linear_sum_assignment(overlap, maximize=True), strict=True)
    return [(int(track), int(rows[column])) for track, column in chosen if overlap[track, column] > 0]


def _stretched(tracks: Sequence[Track], begins: NDArray[np.bool_], reach: int) -> list[Track]:
    """The tracks with both ends stretched by `reach` frames, at the speed that they end with: within their shot, and
    not to where another track was found."""
    firsts, lasts = np.array([track.first for track in tracks]), np.array([track.last for track in tracks])

    def taken(box: Floats, frame: int) -> bool:
        here = [tracks[number].at(frame) for number in np.flatnonzero((firsts <= frame) & (frame <= lasts)).tolist()]
        seen = [region.boxes[0] for region in here if region.scores[0]]
        return bool(seen) and bool(overlaps(box, np.stack(seen)).max() > _TAKEN)

    longer = []
    for track in tracks:
        for step in (-1, 1):
            end, inner = (
                (track.first, track.boxes[:reach]) if step < 0 else (track.last, track.boxes[: -reach - 1 : -1])
            )
            speed = (_centre(inner[0]) - _centre(inner[-1])) / max(len(inner) - 1, 1)
            added: list[Floats] = []
            for away in range(1, reach + 1):
                frame = end + step * away
                if not 0 <= frame < len(begins) or begins[frame if step > 0 else frame + 1]:
                    break
                shift = (speed * _way(away)).astype(np.float32)
                if taken(inner[0] + np.tile(shift, 2), frame):
                    break
                added.append(shift)
            track = _with_end(track, added, step)
        longer.append(track)
    return sorted(longer, key=lambda track: (track.first, track.last, *track.boxes[0].tolist()))


def _with_end(track: Track, shifts: Sequence[Floats], step: int) -> Track:
    """A track with its first (`step` -1) or last frame repeated, moved by each of `shifts` (2,) px."""
    if not shifts:
        return track
    order, end = (slice(None, None, step), 0 if step < 0 else -1)
    moves = np.stack(shifts)[order]
    more = track.boxes[end] + np.tile(moves, 2), track.landmarks[end] + moves[:, None], np.zeros(len(moves), np.float32)
    parts = [
        (new, own) if step < 0 else (own, new)
        for new, own in zip(more, (track.boxes, track.landmarks, track.scores), strict=True)
    ]
    boxes, landmarks, scores = (np.concatenate(part).astype(np.float32) for part in parts)
    return replace(track, first=track.first - len(moves) * (step < 0), boxes=boxes, landmarks=landmarks, scores=scores)


def smoothing(count: int, place: int, frames: float) -> tuple[slice, Floats]:
    """Which of `count` values over frames say what the one at `place` is without its jitter, about `frames` of them,
    and their weights (n,): a polynomial is fitted around it (Savitzky and Golay 1964), which delays nothing."""
    window = min(2 * round(frames / 2) + 1, count - 1 + count % 2)
    if window <= _ORDER:
        return slice(place, place + 1), np.ones(1, np.float32)
    start = min(max(place - window // 2, 0), count - window)
    from scipy.signal import savgol_coeffs

    weights = savgol_coeffs(window, _ORDER, pos=place - start, use="dot")
    return slice(start, start + window), np.asarray(weights, np.float32)


def _centre(box: Floats) -> Floats:
    return np.asarray((box[:2] + box[2:]) / 2, np.float32)


def _widened(boxes: Floats) -> Floats:
    room = _WIDER * (boxes[:, 2:] - boxes[:, :2])
    return np.concatenate([boxes[:, :2] - room, boxes[:, 2:] + room], axis=1)


def _way(frames: int) -> float:
    """Px that a speed of 1 px a frame leads in a number of frames, as it fades."""
    return (1 - _DAMPING**frames) / (1 - _DAMPING)


def _between(every: NDArray[np.int64], frames: NDArray[np.int64], values: Floats) -> Floats:
    """Values (k, ...) at some frames, interpolated at `every` (n,) of them: (n, ...)."""
    flat = values.reshape(len(values), -1)
    columns = [np.interp(every, frames, column) for column in flat.T]
    return np.stack(columns, axis=1).reshape(len(every), *values.shape[1:]).astype(np.float32)
