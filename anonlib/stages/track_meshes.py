"""The meshes of a clip's faces in every frame of their tracks: in a file, bridged over short gaps, and smoothed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from anonlib.faces.mesh import five_points, lies_on
from anonlib.faces.track import Track, smoothing
from anonlib.storage.local import as_sentence
from anonlib.storage.scratch import A_CLIP
from anonlib.synthesis.light import Light
from anonlib.workspace.schemas import EYES, MESH_POINTS

Floats = NDArray[np.float32]

_BRIDGED = 0.25  # seconds without a mesh that are interpolated, and with one that are too few to be shown
_SMOOTH, _JITTER = (0.7, 0.4, 0.2), 0.025
"""Seconds that a mesh is smoothed over: the most that moves it by no more than jitter does, of its width."""
_MESH, _LIGHT = MESH_POINTS * 3, 32
ROW = _MESH + _LIGHT + EYES
"""Numbers of a face in a frame: its mesh, its light and its gaze."""


class TrackMeshes:
    """Mesh, gaze and light of each face in each frame of its track, in a file; smoothed when they are read.

    A row is NaN where a face has none: no mesh fits, or it is turned too far away to be replaced.
    """

    def __init__(self, file: Path, tracks: Sequence[Track], rate: float) -> None:
        self.tracks, self.rate = tracks, rate
        self._starts = [0, *accumulate(len(track) for track in tracks)]
        self._shown = np.zeros(self._starts[-1], np.bool_)
        self._runs: list[NDArray[np.int32]] = []
        self._file = file.open("w+b", buffering=0)  # a mapping's pages would be held until others need them
        finalize(self, self._file.close)

    def put(self, number: int, place: int, rows: NDArray[np.float32]) -> None:
        """The rows (n, ROW) of a track from its frame `place` on, of mesh, light and gaze."""
        start = self._starts[number] + place
        self._shown[start : start + len(rows)] = True
        with as_sentence("write", A_CLIP):
            self._file.seek(4 * ROW * start)
            data = memoryview(rows.astype(np.float32, copy=False).tobytes())
            while data:
                data = data[self._file.write(data) :]

    def rows(self, number: int, start: int, stop: int) -> NDArray[np.float32]:
        """(n, ROW) What was put into the places `start` to `stop` of a track."""
        with as_sentence("read", A_CLIP):
            self._file.seek(4 * ROW * (self._starts[number] + start))
            return np.frombuffer(self._file.read(4 * ROW * (stop - start)), np.float32).reshape(-1, ROW)

    def finish(self) -> None:
        """Interpolate short gaps, and leave out what shows too shortly, but the longest: the plan counts on it."""
        most = max(round(_BRIDGED * self.rate), 1)
        for number, track in enumerate(self.tracks):
            shown = self._shown[self._starts[number] : self._starts[number + 1]]
            for start, stop in runs(~shown):
                if stop - start <= most and start > 0 and stop < len(shown):
                    share = (np.arange(start, stop) - start + 1)[:, None] / np.float32(stop - start + 1)
                    before, after = (self.rows(number, place, place + 1) for place in (start - 1, stop))
                    self.put(number, start, before + share * (after - before))
            run_of = np.full((len(track), 2), -1, np.int32)
            longest = max((stop - start for start, stop in runs(shown)), default=0)
            for start, stop in runs(shown):
                if stop - start > most or stop - start == longest:
                    run_of[start:stop] = start, stop
            self._runs.append(run_of)

    def shown(self, number: int) -> NDArray[np.int64]:
        """The frames (n,) in which a face has a mesh."""
        return np.flatnonzero(self._runs[number][:, 0] >= 0) + self.tracks[number].first

    def at(self, number: int, frame: int) -> dict[str, Any] | None:
        """`mesh` (468, 3) px, `gaze` (8,) and `light` of a face in a frame, None where it has none."""
        place = frame - self.tracks[number].first
        start, stop = self._runs[number][place].tolist()
        if start < 0:
            return None
        here, count = place - start, stop - start
        widest, weights = smoothing(count, here, _SMOOTH[0] * self.rate)
        rows = self.rows(number, start + widest.start, start + widest.stop)
        own = rows[here - widest.start, :_MESH].reshape(MESH_POINTS, 3)
        for seconds in _SMOOTH:
            nearby, fit = smoothing(count, here, seconds * self.rate)
            part = slice(nearby.start - widest.start, nearby.stop - widest.start)
            mesh = (fit @ rows[part, :_MESH]).reshape(MESH_POINTS, 3)
            if np.linalg.norm((mesh - own)[:, :2], axis=1).mean() <= _JITTER * np.ptp(mesh[:, 0]):
                break
        else:
            mesh = own.copy()
        region = self.tracks[number].at(frame)
        # Between two meshes the face may have been elsewhere, and then it would stay beside its surrogate.
        if not lies_on(mesh, region.boxes[0], region.landmarks[0] if region.scores[0] else five_points(mesh)):
            return None
        _, lights, eyes = np.split(rows, [_MESH, _MESH + _LIGHT], axis=1)
        seen = np.abs(weights)[:, None] * np.isfinite(eyes)  # an eye that is hidden in some of the frames
        gaze = (seen * np.nan_to_num(eyes)).sum(axis=0) / np.where(seen.any(axis=0), seen.sum(axis=0), np.nan)
        even = np.abs(weights) / np.abs(weights).sum()  # light changes more slowly than a face moves
        *coefficients, spread, clarity = (even @ lights).tolist()
        light = Light(np.array(coefficients).reshape(-1, 3), spread, clarity)
        return {"mesh": mesh, "gaze": gaze.astype(np.float32), "light": light}


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where a mask (n,) is true without a break: (start, stop) of each run."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
