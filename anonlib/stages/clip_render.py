"""Render of a clip: one surrogate a track, checked before anything is encoded, then painted into every frame.

The file is read three times, a window at a time, so memory does not grow with its length: to fit a mesh to every face
of every frame, into a file of the temporary folder; to look at what comes out in some frames of each track; and to
paint and encode. A face that has no mesh in a frame is hidden there by the fallback.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anonlib.codes import Problem, Reason
from anonlib.config import JobConfig
from anonlib.errors import ImageProblem, contained
from anonlib.execution.base import current
from anonlib.faces.mesh import MIN_PRESENCE, FaceMesh
from anonlib.faces.regions import together
from anonlib.media.animation import AnimationWriter
from anonlib.media.clip import Frame, read_frames, read_parts
from anonlib.media.clip_writer import clip_writer, part_writer
from anonlib.methods.base import MAX_YAW
from anonlib.stages.clip_scan import Keep, file_of, npz
from anonlib.stages.render_state import ClipState, FaceState, ImageState, Pairs
from anonlib.stages.track_meshes import ROW, Floats, TrackMeshes
from anonlib.storage.local import as_sentence
from anonlib.storage.scratch import A_CLIP
from anonlib.synthesis.canonical import pose_of, shape_model
from anonlib.synthesis.compositor import light_of

Fitted = tuple[int, int, Floats]
"""The number of a track, a place in it, and its row (1, n) of TrackMeshes there."""

CHECKED = 0.5
"""Seconds between two frames of a track that are checked, beside its ends and its best."""
_EVERY = 3  # frames: after so many without a mesh a face is sought in every third


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

    def render(self, clip: ClipState, folder: Path, keep: Keep | None = None) -> Path | None:
        """The file of the released clip in `folder`; None and the clip's `problem` if there is none.

        `keep`: of each step of each part of a clip of several.
        """
        out = folder / "clip"
        keep = keep if clip.info.cuts else None
        try:
            with contained("rendering a clip") as failure:
                meshes = None
                if self.mesh:
                    meshes = TrackMeshes(folder / "meshes", clip.tracks, float(clip.info.rate))
                    for number in range(len(clip.info.parts)):
                        for track, place, row in self._fitted(clip, self.mesh, number, keep):
                            meshes.put(track, place, row)
                    meshes.finish()
                    self._check(clip, meshes, keep)
                self._encode(clip, meshes, out, keep)
            clip.problem = failure.problem(Reason.REPLACE_FAILED)
        except ImageProblem as problem:
            clip.problem = Problem(problem.reason, str(problem))
        return out if clip.problem is None else None

    def _frames(self, clip: ClipState, number: int) -> Iterator[Frame]:
        """The frames of a part."""
        part = clip.info.parts[number]
        return chain.from_iterable(read_frames(file_of(clip.sample).path, self.job.limits, part=part))

    def _fitted(self, clip: ClipState, mesh: FaceMesh, number: int, keep: Keep | None) -> Iterable[Fitted]:
        """The meshes of a part."""
        rows = self._fit(clip, mesh, number)
        if keep is None:
            return rows
        file = keep(f"meshes-{number}", lambda: _packed(rows))
        with np.load(file.path) as arrays:
            return zip(arrays["tracks"].tolist(), arrays["places"].tolist(), arrays["rows"], strict=True)

    def _fit(self, clip: ClipState, mesh: FaceMesh, part: int) -> Iterator[Fitted]:
        """Meshes of every frame of a part, looked for where the tracks have their landmarks."""
        mean = shape_model().mean
        replaced = [(number, track) for number, track in enumerate(clip.tracks) if clip.faces[number].tries]
        last: dict[int, tuple[Floats, int] | None] = {}
        missed = Counter[int]()
        # The frame that the plan knows the mesh of.
        planned = {number: track.nearest(clip.faces[number].box) for number, track in replaced}
        for frame in self._frames(clip, part):
            here = [(number, track) for number, track in replaced if frame.index in track.frames]
            if not here:
                continue
            with current().timed("describe"):
                regions = together([track.at(frame.index) for _, track in here])
                # A face that moves by half its width leaves the view around where it was.
                known = [
                    track.carried(*seen, frame.index) if (seen := last.get(number)) else None for number, track in here
                ]
                again = [
                    missed[number] < _EVERY or frame.index % _EVERY == 0 or frame.index == planned[number]
                    for number, _ in here
                ]
                found = mesh.follow(frame.rgb, regions, known, np.array(again))
            for (number, track), points, presence, eyes in zip(here, *found, strict=True):
                fits = presence >= MIN_PRESENCE
                last[number] = (points, frame.index) if fits else None
                missed[number] = 0 if fits else missed[number] + 1
                usable = fits and abs(pose_of(points, mean).angles()[0]) <= MAX_YAW
                if usable:
                    light = light_of(frame.rgb, points)
                    lit = [*light.coefficients.ravel(), light.spread, light.clarity]
                    row = np.concatenate([points.ravel(), lit, eyes]).astype(np.float32)
                    yield number, frame.index - track.first, row[None]

    def _check(self, clip: ClipState, meshes: TrackMeshes, keep: Keep | None) -> None:
        """Give each face the first of its surrogates that no checked frame of its track refuses, or none."""
        if keep is None:
            self._choose(clip, meshes)
            return

        def chosen() -> bytes:
            self._choose(clip, meshes)
            told = [[len(face.tries), face.why, face.findings, face.detected_again] for face in clip.faces]
            return json.dumps(told).encode()

        told = json.loads(keep("checked", chosen).content[:])
        for face, (left, *found) in zip(clip.faces, told, strict=True):
            face.tries = face.tries[len(face.tries) - left :]
            face.why, face.findings, face.detected_again = found

    def _choose(self, clip: ClipState, meshes: TrackMeshes) -> None:
        checked = [self._checked(clip, meshes, number) for number in range(len(clip.faces))]
        waiting = {number for number, face in enumerate(clip.faces) if face.tries and checked[number]}
        while waiting:
            failed: dict[int, str] = {}
            for number in waiting:
                clip.faces[number].findings, clip.faces[number].detected_again = [], None
            frames = frozenset().union(*(checked[number] for number in waiting))
            for window in read_parts(file_of(clip.sample).path, clip.info, self.job.limits, frames):
                shown = [(frame.index, *self._shown(clip, meshes, frame)) for frame in window if frame.index in frames]
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
        every = shown[:: max(round(CHECKED * meshes.rate), 1)]
        return frozenset([*every.tolist(), *shown[-1:].tolist(), *best])

    def _encode(self, clip: ClipState, meshes: TrackMeshes | None, out: Path, keep: Keep | None) -> None:
        """Paint every frame and write the clip; each face learns what became of it."""
        became: dict[int, Became] = {}
        frames = 0
        with clip_writer(out, clip.info, file_of(clip.sample).path, self.job.clip, self.job.limits) as writer:
            for number in range(len(clip.info.parts)):
                if keep is None or isinstance(writer, AnimationWriter):
                    painted, more = self._paint(clip, meshes, number, writer)
                else:
                    file = keep(
                        f"painted-{number}", partial(self._painted, clip, meshes, number, out.with_name("part"))
                    )
                    with file.path.open("rb") as part:
                        painted, more = json.loads(part.readline())
                        writer.append(part)
                frames += painted
                for track, *row in more:
                    became[track] = Became(*row).after(became.get(track))
        if frames != clip.frames:
            raise ImageProblem(Reason.CHANGED)
        for number, (face, track) in enumerate(zip(clip.faces, clip.tracks, strict=True)):
            face.method, face.digest, face.coverage, face.fallback, face.reason, hidden = became[number]
            boxes = np.rint(track.boxes).astype(np.int32).ravel()
            face.of_clip = {"first": track.first, "last": track.last, "boxes": boxes}
            face.of_clip["hidden"] = hidden if face.digest else 0

    def _painted(self, clip: ClipState, meshes: TrackMeshes | None, number: int, file: Path) -> Path:
        """A part's packets in a file, behind a line of what `_paint` says."""
        packets = file.with_name("packets")
        with part_writer(packets, clip.info, number, self.job.clip) as writer:
            told = self._paint(clip, meshes, number, writer)
        with as_sentence("write", A_CLIP), file.open("wb") as whole, packets.open("rb") as part:
            whole.write(json.dumps(told).encode() + b"\n")
            shutil.copyfileobj(part, whole)
        return file

    def _paint(
        self, clip: ClipState, meshes: TrackMeshes | None, number: int, writer: Any
    ) -> tuple[int, list[list[Any]]]:
        """Paint the frames of a part; how many these are, and of each face in them its number and what became of it."""
        became: dict[int, Became] = {}
        count = 0
        for frame in self._frames(clip, number):
            image, faces = self._shown(clip, meshes, frame)
            self.paint([(image, face) for face in faces.values()])
            if left := [face for face in faces.values() if face.digest and face.still_shown(image.rgb, image.out)]:
                for face in left:
                    self._hide(face, "its px were left in this frame")
                image.out = image.rgb.copy()
                self.paint([(image, face) for face in faces.values()])
            if image.problem is not None:
                raise ImageProblem(image.problem.reason, str(image.problem))
            for track, face in faces.items():
                coverage = None if face.coverage is None else float(face.coverage)
                known = face.method, face.digest, coverage, face.fallback, face.reason
                became[track] = Became(*known, int(face.digest is None)).after(became.get(track))
            with current().timed("encode"):
                writer.write(image.out, frame.time, image.leveled.alpha)
            count += 1
        return count, [[track, *row] for track, row in became.items()]

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


class Became(NamedTuple):
    """What became of a face: see FaceState; `hidden`: in how many frames it has no surrogate."""

    method: str
    digest: str | None
    coverage: float | None
    fallback: str | None
    reason: str | None
    hidden: int

    def after(self, before: Became | None) -> Became:
        """That of more frames: one with its surrogate says more than one in which it is hidden."""
        if before is None:
            return self
        hidden = before.hidden + self.hidden
        if self.digest and before.digest:
            return before._replace(coverage=min(before.coverage or 0.0, self.coverage or 0.0), hidden=hidden)
        return (self if self.digest and not before.digest else before)._replace(hidden=hidden)


def _packed(rows: Iterable[Fitted]) -> bytes:
    tracks, places, held = [*zip(*rows, strict=True)] or ((), (), [np.zeros((0, ROW), np.float32)])
    return npz(tracks=np.array(tracks, int), places=np.array(places, int), rows=np.stack(held))


def _remember(face: FaceState, of_frame: FaceState) -> None:
    """What was found in a frame of a face's track: the greatest likeness of all, and whether any shows a face."""
    known = {finding["recognizer"]: finding["to_source"] for finding in face.findings}
    face.findings = [
        finding | {"to_source": max(finding["to_source"], known.get(finding["recognizer"], -1.0))}
        for finding in of_frame.findings
    ]
    face.detected_again = bool(face.detected_again) or bool(of_frame.detected_again)
