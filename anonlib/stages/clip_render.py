"""Render of a clip: one surrogate a track, checked before anything is encoded, then painted into every frame.

The file is read three times, a window at a time, so memory does not grow with its length: to fit a mesh to every face
of every frame, into a file of the temporary folder; to look at what comes out in some frames of each track; and to
paint and encode. A face that has no mesh in a frame is hidden there by the fallback.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.codes import Problem, Reason
from anonlib.config import JobConfig
from anonlib.errors import ImageProblem, contained
from anonlib.execution.base import current
from anonlib.faces.mesh import MIN_PRESENCE, FaceMesh, five_points, lies_on
from anonlib.faces.regions import together
from anonlib.faces.track import Track, smoothing
from anonlib.media.clip import Frame, clip_writer, read_frames
from anonlib.methods.base import MAX_YAW
from anonlib.stages.clip_scan import file_of
from anonlib.stages.render_state import ClipState, FaceState, ImageState, Pairs
from anonlib.storage.local import as_sentence
from anonlib.storage.scratch import A_CLIP
from anonlib.synthesis.canonical import pose_of, shape_model
from anonlib.synthesis.compositor import light_of
from anonlib.synthesis.light import Light
from anonlib.workspace.schemas import EYES, MESH_POINTS

Floats = NDArray[np.float32]

CHECKED = 0.5
"""Seconds between two frames of a track that are checked, beside its ends and its best."""
_BRIDGED = 0.25  # seconds without a mesh that are interpolated, and with one that are too few to be shown
_SMOOTH, _JITTER = (0.7, 0.4, 0.2), 0.025
"""Seconds that a mesh is smoothed over: the most that moves it by no more than jitter does, of its width."""
_EVERY = 3  # frames: after so many without a mesh a face is sought in every third
_MESH, _LIGHT = MESH_POINTS * 3, 32
_ROW = _MESH + _LIGHT + EYES


class TrackMeshes:
    """Mesh, gaze and light of each face in each frame of its track, in a file; smoothed when they are read.

    A row is NaN where a face has none: no mesh fits, or it is turned too far away to be replaced.
    """

    def __init__(self, file: Path, tracks: Sequence[Track], rate: float) -> None:
        self.tracks, self.rate = tracks, rate
        self._starts = [0, *accumulate(len(track) for track in tracks)]
        shape = max(self._starts[-1], 1), _ROW
        with as_sentence("write", A_CLIP), file.open("wb") as opened:
            # A page of a sparse file that the disk has no room for would end the process.
            os.posix_fallocate(opened.fileno(), 0, 4 * shape[0] * shape[1])
        self._rows = np.memmap(file, np.float32, "r+", shape=shape)
        self._runs: list[NDArray[np.int64]] = []

    def of(self, number: int) -> NDArray[np.float32]:
        """The rows (n, _ROW) of a track: mesh, light and gaze."""
        return self._rows[self._starts[number] : self._starts[number + 1]]

    def finish(self) -> None:
        """Interpolate short gaps, and leave out what shows too shortly, but the longest: the plan counts on it."""
        most = max(round(_BRIDGED * self.rate), 1)
        for number in range(len(self.tracks)):
            rows = self.of(number)
            shown = np.isfinite(rows[:, 0])
            for start, stop in runs(~shown):
                if stop - start <= most and start > 0 and stop < len(rows):
                    share = (np.arange(start, stop) - start + 1)[:, None] / np.float32(stop - start + 1)
                    rows[start:stop] = rows[start - 1] + share * (rows[stop] - rows[start - 1])
                    shown[start:stop] = True
            run_of = np.full((len(rows), 2), -1)
            longest = max((stop - start for start, stop in runs(shown)), default=0)
            for start, stop in runs(shown):
                if stop - start > most or stop - start == longest:
                    run_of[start:stop] = start, stop
            self._runs.append(run_of)

    def shown(self, number: int) -> list[int]:
        """The frames in which a face has a mesh."""
        return (np.flatnonzero(self._runs[number][:, 0] >= 0) + self.tracks[number].first).tolist()

    def at(self, number: int, frame: int) -> dict[str, Any] | None:
        """`mesh` (468, 3) px, `gaze` (8,) and `light` of a face in a frame, None where it has none."""
        place = frame - self.tracks[number].first
        start, stop = self._runs[number][place].tolist()
        if start < 0:
            return None
        rows, here = self.of(number)[start:stop], place - start
        for seconds in _SMOOTH:
            nearby, fit = smoothing(len(rows), here, seconds * self.rate)
            mesh = (fit @ rows[nearby, :_MESH]).reshape(MESH_POINTS, 3)
            away = np.linalg.norm((mesh - rows[here, :_MESH].reshape(mesh.shape))[:, :2], axis=1).mean()
            if away <= _JITTER * np.ptp(mesh[:, 0]):
                break
        else:
            mesh = rows[here, :_MESH].reshape(MESH_POINTS, 3).copy()
        region = self.tracks[number].at(frame)
        # Between two meshes the face may have been elsewhere, and then it would stay beside its surrogate.
        if not lies_on(mesh, region.boxes[0], region.landmarks[0] if region.scores[0] else five_points(mesh)):
            return None
        part, weights = smoothing(len(rows), here, _SMOOTH[0] * self.rate)
        _, lights, eyes = np.split(rows[part], [_MESH, _MESH + _LIGHT], axis=1)
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


class ClipRenderer:
    """Renders clips with what a RenderStage has: `paint` replaces faces of frames, each by its next surrogate or the
    redaction `hide`; `refused` says whose surrogate must not stay. `mesh`: of a method that needs one."""

    def __init__(
        self,
        job: JobConfig,
        mesh: FaceMesh | None,
        hide: str,
        paint: Callable[[Pairs], None],
        refused: Callable[[Pairs], Pairs],
    ) -> None:
        self.job, self.mesh, self.hide, self.paint, self.refused = job, mesh, hide, paint, refused

    def render(self, clip: ClipState, folder: Path) -> Path | None:
        """The file of the released clip in `folder`; None and the clip's `problem` if there is none."""
        out = folder / "clip"
        try:
            with contained("rendering a clip") as failure:
                meshes = self._fit(clip, self.mesh, folder / "meshes") if self.mesh else None
                if meshes is not None:
                    self._check(clip, meshes)
                self._encode(clip, meshes, out)
            clip.problem = failure.problem(Reason.REPLACE_FAILED)
        except ImageProblem as problem:
            clip.problem = Problem(problem.reason, str(problem))
        return out if clip.problem is None else None

    def _windows(self, clip: ClipState) -> Iterator[list[Frame]]:
        return read_frames(file_of(clip.sample).path, self.job.limits)

    def _fit(self, clip: ClipState, mesh: FaceMesh, file: Path) -> TrackMeshes:
        """Meshes of every frame, looked for where the tracks have their landmarks."""
        meshes, mean = TrackMeshes(file, clip.tracks, float(clip.info.rate)), shape_model().mean
        replaced = [(number, track) for number, track in enumerate(clip.tracks) if clip.faces[number].tries]
        last: dict[int, Floats | None] = {}
        missed = Counter[int]()
        # The frame that the plan knows the mesh of.
        planned = {number: track.nearest(clip.faces[number].box) for number, track in replaced}
        for frame in chain.from_iterable(self._windows(clip)):
            here = [(number, track) for number, track in replaced if frame.index in track.frames]
            if not here:
                continue
            with current().timed("describe"):
                regions = together([track.at(frame.index) for _, track in here])
                known = [last.get(number) for number, _ in here]
                again = [
                    missed[number] < _EVERY or frame.index % _EVERY == 0 or frame.index == planned[number]
                    for number, _ in here
                ]
                found = mesh.follow(frame.rgb, regions, known, np.array(again))
            for (number, track), points, presence, eyes in zip(here, *found, strict=True):
                fits = presence >= MIN_PRESENCE
                last[number] = points if fits else None
                missed[number] = 0 if fits else missed[number] + 1
                usable = fits and abs(pose_of(points, mean).angles()[0]) <= MAX_YAW
                if not usable:
                    meshes.of(number)[frame.index - track.first] = np.nan
                    continue
                light = light_of(frame.rgb, points)
                lit = [*light.coefficients.ravel(), light.spread, light.clarity]
                meshes.of(number)[frame.index - track.first] = np.concatenate([points.ravel(), lit, eyes])
        meshes.finish()
        return meshes

    def _check(self, clip: ClipState, meshes: TrackMeshes) -> None:
        """Give each face the first of its surrogates that no checked frame of its track refuses, or none."""
        checked = [self._checked(clip, meshes, number) for number in range(len(clip.faces))]
        waiting = {number for number, face in enumerate(clip.faces) if face.tries and checked[number]}
        while waiting:
            failed: dict[int, str] = {}
            for number in waiting:
                clip.faces[number].findings, clip.faces[number].detected_again = [], None
            for window in self._windows(clip):
                shown = [
                    (frame.index, *self._shown(clip, meshes, frame))
                    for frame in window
                    if any(frame.index in checked[number] for number in waiting)
                ]
                self.paint([(image, face) for _, image, faces in shown for face in faces.values()])
                looked = [
                    (number, image, face)
                    for index, image, faces in shown
                    for number, face in faces.items()
                    if number in waiting and index in checked[number] and face.tries
                ]
                number_of = {id(face): number for number, _, face in looked}
                refused = self.refused([(image, face) for _, image, face in looked])
                failed |= {number_of[id(face)]: face.why for _, face in refused}
                for number, _, face in looked:
                    _remember(clip.faces[number], face)
                for problem in (image.problem for _, image, _ in shown if image.problem is not None):
                    raise ImageProblem(problem.reason, str(problem))
            for number, why in failed.items():
                clip.faces[number].tries.pop(0)
                clip.faces[number].why = why
            waiting = {number for number in failed if clip.faces[number].tries}

    def _checked(self, clip: ClipState, meshes: TrackMeshes, number: int) -> frozenset[int]:
        """The frames of a track in which its surrogate is checked."""
        shown = meshes.shown(number)
        best = [frame for frame in clip.tracks[number].best(1, 1) if frame in shown]
        return frozenset([*shown[:: max(round(CHECKED * meshes.rate), 1)], *shown[-1:], *best])

    def _encode(self, clip: ClipState, meshes: TrackMeshes | None, out: Path) -> None:
        """Paint every frame and write the clip; each face learns what became of it."""
        outcomes: dict[int, FaceState] = {}
        hidden = Counter[int]()
        last = -1
        with clip_writer(out, clip.info, file_of(clip.sample).path, self.job.clip, self.job.limits) as writer:
            for frame in chain.from_iterable(self._windows(clip)):
                image, faces = self._shown(clip, meshes, frame)
                self.paint([(image, face) for face in faces.values()])
                if left := [face for face in faces.values() if face.digest and face.still_shown(image.rgb, image.out)]:
                    for face in left:
                        self._hide(face, "its px were left in this frame")
                    image.out = image.rgb.copy()
                    self.paint([(image, face) for face in faces.values()])
                if image.problem is not None:
                    raise ImageProblem(image.problem.reason, str(image.problem))
                for number, face in faces.items():
                    outcomes[number] = _outcome(outcomes.get(number), face)
                    hidden[number] += face.digest is None
                with current().timed("encode"):
                    writer.write(image.out, frame.time, image.leveled.alpha)
                last = frame.index
        if last + 1 != clip.frames:
            raise ImageProblem(Reason.CHANGED)
        for number, (face, track) in enumerate(zip(clip.faces, clip.tracks, strict=True)):
            outcome = outcomes[number]
            face.method, face.digest, face.coverage = outcome.method, outcome.digest, outcome.coverage
            face.fallback, face.reason = outcome.fallback, outcome.reason
            boxes = np.rint(track.boxes).astype(np.int32).ravel()
            face.of_clip = {"first": track.first, "last": track.last, "boxes": boxes}
            face.of_clip["hidden"] = hidden[number] if face.digest else 0

    def _shown(
        self, clip: ClipState, meshes: TrackMeshes | None, frame: Frame
    ) -> tuple[ImageState, dict[int, FaceState]]:
        """A frame as an image, and its faces by their numbers in the clip."""
        faces = {}
        for number, (track, face) in enumerate(zip(clip.tracks, clip.faces, strict=True)):
            if frame.index not in track.frames:
                continue
            place = {"box": track.at(frame.index).boxes[0]}
            found = meshes.at(number, frame.index) if meshes and face.tries else None
            place |= found or {}
            of_frame = replace(face, planned=face.planned | place, tries=list(face.tries), findings=[])
            if meshes and face.tries and found is None:
                self._hide(of_frame, "no mesh fits in this frame")
            faces[number] = of_frame
        reaches = np.array([face.reach for face in faces.values()], np.float32).reshape(-1, 4)
        for row, of_frame in enumerate(faces.values()):
            of_frame.reaches, of_frame.number = reaches, row
        out = frame.rgb.copy() if faces else frame.rgb
        return ImageState(clip.sample, frame.picture, list(faces.values()), out), faces

    def _hide(self, face: FaceState, why: str) -> None:
        """Leave a face of one frame to the redaction."""
        face.method, face.tries, face.digest = self.hide, [], None
        face.fallback, face.reason = self.hide, why


def _outcome(before: FaceState | None, face: FaceState) -> FaceState:
    """What became of a face, by one more frame: a frame with its surrogate says more than one in which it is hidden."""
    if before is None or (face.digest and not before.digest):
        return face
    if face.digest:
        before.coverage = min(before.coverage or 0.0, face.coverage or 0.0)
    return before


def _remember(face: FaceState, of_frame: FaceState) -> None:
    """What was found in a frame of a face's track: the greatest likeness of all, and whether any shows a face."""
    known = {finding["recognizer"]: finding["to_source"] for finding in face.findings}
    face.findings = [
        finding | {"to_source": max(finding["to_source"], known.get(finding["recognizer"], -1.0))}
        for finding in of_frame.findings
    ]
    face.detected_again = bool(face.detected_again) or bool(of_frame.detected_again)
