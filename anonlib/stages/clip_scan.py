"""Scan of a clip: its regions followed over all frames, and each track described by the frames that show it best.

A track is one row of FACES, with its place in each frame, so that the plan treats a clip like a photo and no track is
two persons. The file is read twice, a window at a time: once to detect and follow, and once for the frames that are
described, so no px are held, and of every frame 70 bytes a region.
"""

from __future__ import annotations

import io
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.codes import Reason
from anonlib.config import JobConfig
from anonlib.datasets import Sample
from anonlib.errors import ImageProblem
from anonlib.execution.base import current
from anonlib.faces.detect import detect_as_shown, open_detector
from anonlib.faces.given import IGNORE, OTHER
from anonlib.faces.hidden import Kind, least_score, open_hidden
from anonlib.faces.mesh import MIN_PRESENCE
from anonlib.faces.regions import FACE, MOST_REGIONS, NO_REGIONS, Regions, labelled_face, together
from anonlib.faces.track import WEAK, Detections, Shots, Track, link
from anonlib.media.clip import ClipInfo, Part, read_frames, read_parts
from anonlib.models.requirements import ModelBytes, placement
from anonlib.storage.scratch import SpooledFile
from anonlib.synthesis.describe import Describer

Row = dict[str, Any]
Keep = Callable[[str, Callable[[], bytes | Path]], SpooledFile]
"""Gives what is kept under a name, which is made where nothing is (workspace/layout.py)."""
_THUMBNAIL = (16, 9)
BEST, APART = 5, 0.3
"""Frames that a track is described by, and seconds that are between two of them."""


class Seen(NamedTuple):
    """What was seen in frames: regions by frame, those of each other kind, small pictures (n, h, w, 3), times in s."""

    found: Iterable[Regions]
    other: Mapping[Kind, Iterable[Regions]]
    small: NDArray[np.uint8]
    times: Iterable[float]


def _packed(windows: Iterable[Seen], kinds: Sequence[str]) -> bytes:
    held, small, times = {kind: Detections() for kind in kinds}, list[NDArray[np.uint8]](), array("d")
    for seen in windows:
        for kind, regions in [(FACE, seen.found), *seen.other.items()]:
            held[kind].add(regions)
        small.append(seen.small)
        times.extend(seen.times)
    arrays = {f"{kind}.{name}": values for kind, of in held.items() for name, values in of.arrays.items()}
    return npz(**arrays, small=np.concatenate(small), times=np.array(times))


def _unpacked(file: Path, kinds: Sequence[Kind]) -> Seen:
    with np.load(file) as arrays:
        of = {
            kind: Detections.of({name: arrays[f"{kind}.{name}"] for name in ("ends", "values", "kinds")})
            for kind in (FACE, *kinds)
        }
        return Seen(of[FACE], {kind: of[kind] for kind in kinds}, arrays["small"], arrays["times"].tolist())


def npz(**arrays: NDArray[Any]) -> bytes:
    """Named arrays as a file, which np.load reads."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def file_of(sample: Sample) -> SpooledFile:
    """The local file of a clip."""
    if sample.spooled is None:
        raise TypeError(f"{sample.key} is no clip")
    return sample.spooled


def clip_row(sample: Sample, info: ClipInfo) -> Row:
    """What IMAGES say of a clip that can be read."""
    digest = file_of(sample).sha256
    known = {"height": info.height, "width": info.width, "digest": digest, "format": info.container, "exact": False}
    return known | {"stripped": info.stripped, "notes": info.notes, "frames": info.frames}


class ClipScanner:
    """Holds the detector at the low scores that tracks need; `describer` as in a ScanStage."""

    def __init__(self, job: JobConfig, models: ModelBytes, describer: Describer | None) -> None:
        self.job, self.describer = job, describer
        low = job.detector.model_copy(update={"score": WEAK * job.detector.score})
        self.detector = open_detector(low, models, where=placement(job))
        self.hidden = open_hidden(job, models, weak=WEAK)

    def scan(
        self, path: Path, info: ClipInfo, name: str | None, given: Regions = NO_REGIONS, keep: Keep | None = None
    ) -> tuple[list[Row], int]:
        """Rows of FACES of a clip, a track each, without their keys; and how many frames it has. Raises ImageProblem.

        `name`: its label. What is `given` is hidden in every frame; an area to ignore is not ignored in a clip. `keep`:
        of what is seen in each part of a clip of several.
        """
        found, shots, times = Detections(), Shots(), array("d")
        other: dict[Kind, Detections] = {kind: Detections() for kind in self.hidden}
        for number in range(len(info.parts)):
            for seen in self.look(path, info, number, keep):
                found.add(seen.found)
                for kind, of_kind in seen.other.items():
                    other[kind].add(of_kind)
                shots.add(seen.small)
                times.extend(seen.times)
            if number < len(info.cuts) and len(found) != info.cuts[number][1]:
                raise ImageProblem(
                    Reason.CLIP_FORMAT,
                    "a part of the clip has frames in another part of its file; leave clip.segment out",
                )
        # Half of the frames are shown no longer than this; one that is held for seconds shortens no gap of the others.
        step = np.median(np.diff(times)) if len(times) > 1 else 0.0
        rate = max(float(info.rate), 1 / float(step)) if step > 0 else float(info.rate)
        tracks = link(found, shots.begins, rate, self.job.detector.score)
        for kind, of_kind in other.items():
            tracks += link(of_kind, shots.begins, rate, least_score(self.job, kind))
        tracks += [
            Track.still(box, len(found), kind if kind in self.hidden else OTHER)
            for box, kind in zip(given.boxes, given.kinds, strict=True)
            if kind != IGNORE
        ]
        _check_few(len(tracks))
        described = self._describe(path, info, tracks, rate, self.describer) if self.describer else [{}] * len(tracks)
        size = {"height": info.height, "width": info.width}
        labelled = labelled_face(together([track.at(track.surest) for track in tracks]), (info.height, info.width))
        faces = []
        for index, (track, description) in enumerate(zip(tracks, described, strict=True)):
            surest = track.at(track.surest)
            known = {
                "index": index,
                "label": name if index == labelled else None,
                "kind": None if track.kind == FACE else track.kind,
                "score": float(surest.scores[0]),
                "track": track.columns,
            }
            faces.append(size | known | _place(surest) | description)
        return faces, len(found)

    def look(self, path: Path, info: ClipInfo, number: int, keep: Keep | None) -> Iterable[Seen]:
        """What is seen in a part of a clip, window by window; of a clip of several it is kept."""
        windows = self._look(path, info.parts[number])
        if keep is None or not info.cuts:
            return windows
        kept = keep(f"seen-{number}", lambda: _packed(windows, [FACE, *self.hidden]))
        return [_unpacked(kept.path, list(self.hidden))]

    def _look(self, path: Path, part: Part) -> Iterator[Seen]:
        for window in read_frames(path, self.job.limits, part=part):
            with current().timed("detect"):
                shown = [frame.picture for frame in window]
                found = detect_as_shown(self.detector, shown)
                other = {kind: detect_as_shown(finder, shown) for kind, finder in self.hidden.items()}
            _check_few(max(len(regions) for of in (found, *other.values()) for regions in of))
            shrunk = [cv2.resize(frame.rgb, _THUMBNAIL, interpolation=cv2.INTER_AREA) for frame in window]
            small = np.stack(shrunk).astype(np.uint8, copy=False)
            yield Seen(found, other, small, [float(frame.time) for frame in window])

    def _describe(
        self, path: Path, info: ClipInfo, tracks: Sequence[Track], rate: float, describer: Describer
    ) -> list[Row]:
        """Columns of FACES of each track: of the best of its frames that a mesh fits, with their mean vectors."""
        wanted: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for number, track in enumerate(tracks):
            for rank, best_frame in enumerate(
                track.best(BEST, max(round(APART * rate), 1)) if track.kind == FACE else ()
            ):
                wanted[best_frame].append((rank, number))
        best: list[tuple[tuple[bool, int], Row]] = [((True, BEST), {})] * len(tracks)
        fitting: list[list[Row]] = [[] for _ in tracks]
        for window in read_parts(path, info, self.job.limits, wanted):
            shown = [frame for frame in window if frame.index in wanted]
            places = [[tracks[number].at(frame.index) for _, number in wanted[frame.index]] for frame in shown]
            if not shown:
                continue
            with current().timed("describe"):
                described = describer.describe([frame.rgb for frame in shown], [together(of) for of in places])
            for frame, of_frame, rows in zip(shown, places, described, strict=True):
                for (rank, number), place, row in zip(wanted[frame.index], of_frame, rows, strict=True):
                    fits = row["presence"] >= MIN_PRESENCE
                    if fits:
                        fitting[number].append({name: row[name] for name in ("embedding", "second")})
                    if (not fits, rank) < best[number][0]:
                        best[number] = (not fits, rank), row | _place(place)
        return [row | _mean(rows) for (_, row), rows in zip(best, fitting, strict=True)]


def _check_few(regions: int) -> None:
    if regions > MOST_REGIONS:
        raise ImageProblem(Reason.TOO_MANY_REGIONS)


def _place(region: Regions) -> Row:
    """Columns of FACES of a region by itself."""
    return {"box": region.boxes[0], "landmarks": region.landmarks[0].ravel()}


def _mean(rows: Sequence[Row]) -> Row:
    """The direction in which vectors of some frames lie, by their columns of FACES; nothing of no frame."""
    sums = {name: np.sum([row[name] for row in rows], axis=0, dtype=np.float32) for name in (rows[0] if rows else ())}
    unit = {name: total / max(float(np.linalg.norm(total)), 1e-12) for name, total in sums.items()}
    return {name: vector.astype(rows[0][name].dtype) for name, vector in unit.items()}
