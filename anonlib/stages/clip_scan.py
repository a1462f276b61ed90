"""Scan of a clip: its regions followed over all frames, and each track described by the frames that show it best.

A track is one row of FACES, with its place in each frame, so that the plan treats a clip like a photo and no track is
two persons. The file is read twice, a window at a time: once to detect and follow, and once for the frames that are
described, so no px are held but a small picture of each frame.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from anonlib.faces.track import WEAK, Track, cuts, link
from anonlib.media.clip import ClipInfo, read_frames
from anonlib.models.requirements import ModelBytes, placement
from anonlib.storage.scratch import SpooledFile
from anonlib.synthesis.describe import Describer

Row = dict[str, Any]
_THUMBNAIL = (16, 9)
BEST, APART = 5, 0.3
"""Frames that a track is described by, and seconds that are between two of them."""


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

    def scan(self, path: Path, info: ClipInfo, name: str | None, given: Regions = NO_REGIONS) -> tuple[list[Row], int]:
        """Rows of FACES of a clip, a track each, without their keys; and how many frames it has. Raises ImageProblem.

        `name`: its label. What is `given` is hidden in every frame; an area to ignore is not ignored in a clip.
        """
        found: list[Regions] = []
        other: dict[Kind, list[Regions]] = {kind: [] for kind in self.hidden}
        small: list[NDArray[np.uint8]] = []
        times: list[float] = []
        for window in read_frames(path, self.job.limits):
            with current().timed("detect"):
                shown = [frame.picture for frame in window]
                found += detect_as_shown(self.detector, shown)
                for kind, finder in self.hidden.items():
                    other[kind] += detect_as_shown(finder, shown)
            _check_few(max(len(frame) for of in (found, *other.values()) for frame in of[-len(window) :]))
            times += [float(frame.time) for frame in window]
            shrunk = [cv2.resize(frame.rgb, _THUMBNAIL, interpolation=cv2.INTER_AREA) for frame in window]
            small.append(np.stack(shrunk).astype(np.uint8, copy=False))
        begins = cuts(np.concatenate(small)) if small else np.zeros(0, np.bool_)
        # Half of the frames are shown no longer than this; one that is held for seconds shortens no gap of the others.
        step = np.median(np.diff(times)) if len(times) > 1 else 0.0
        rate = max(float(info.rate), 1 / float(step)) if step > 0 else float(info.rate)
        tracks = link(found, begins, rate, self.job.detector.score)
        for kind, of_kind in other.items():
            tracks += link(of_kind, begins, rate, least_score(self.job, kind))
        tracks += [
            Track.still(box, len(found), kind if kind in self.hidden else OTHER)
            for box, kind in zip(given.boxes, given.kinds, strict=True)
            if kind != IGNORE
        ]
        _check_few(len(tracks))
        described = self._describe(path, tracks, rate, self.describer) if self.describer else [{}] * len(tracks)
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

    def _describe(self, path: Path, tracks: Sequence[Track], rate: float, describer: Describer) -> list[Row]:
        """Columns of FACES of each track: of the best of its frames that a mesh fits, with their mean vectors."""
        wanted: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for number, track in enumerate(tracks):
            for rank, best_frame in enumerate(
                track.best(BEST, max(round(APART * rate), 1)) if track.kind == FACE else ()
            ):
                wanted[best_frame].append((rank, number))
        best: list[tuple[tuple[bool, int], Row]] = [((True, BEST), {})] * len(tracks)
        fitting: list[list[Row]] = [[] for _ in tracks]
        for window in read_frames(path, self.job.limits):
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
