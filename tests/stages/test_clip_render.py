"""Meshes follow the faces of a clip, and where people cross the nearest covers the others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.faces.mesh import FaceMesh, five_points
from anonlib.media.clip import clip_info
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import MESH_MODELS
from anonlib.models.runtime import load_engine
from anonlib.stages.clip_render import ClipRenderer
from anonlib.stages.clip_scan import ClipScanner
from anonlib.stages.render import RenderStage
from anonlib.stages.render_state import ClipState, FaceState
from anonlib.workspace.schemas import MESH_POINTS
from tests.support import clips
from tests.support import runs as jobs


def test_a_mesh_keeps_up_with_a_face_that_moves_by_half_its_width_a_frame(tmp_path: Path) -> None:
    face = cv2.resize(clips.walking(0)[8:, :184], (110, 110), interpolation=cv2.INTER_AREA)

    def running(number: int) -> NDArray[np.uint8]:
        wall = np.tile(np.linspace(0, 255, 640).astype(np.uint8)[:, None], (360, 1, 3))
        wall[100:210, 20 * number : 20 * number + 110] = face
        return wall

    path = clips.make(tmp_path / "a.mp4", 12, size=(640, 360), rate=12, picture=running)
    job = jobs.job(path, tmp_path / "run")
    models = {name: model_bytes(name) for name in ("centerface", *MESH_MODELS)}
    info = clip_info(path, job.limits)
    found, frames = ClipScanner(job, models, None).scan(path, info, None)
    faces = [FaceState({"box": face["box"], "track": face["track"]}, "k-diff", ["a"]) for face in found]
    clip = ClipState(cast("Any", SimpleNamespace(spooled=SimpleNamespace(path=path))), info, faces, frames)
    mesh = FaceMesh(*(load_engine(models[name]) for name in MESH_MODELS))
    renderer = ClipRenderer(job, mesh, "fill", cast("Any", None), cast("Any", None))
    away: list[float] = []
    for number, place, (row,) in renderer._fit(clip, mesh, 0):
        track = clip.tracks[number]
        region = track.at(track.first + place)
        side = float(np.sqrt(np.prod(region.boxes[0, 2:] - region.boxes[0, :2])))
        if region.scores[0]:
            points = five_points(row[: 3 * MESH_POINTS].reshape(MESH_POINTS, 3)) - region.landmarks[0]
            away.append(float(np.linalg.norm(points, axis=1).mean()) / side)
    assert len(away) >= 8 and max(away) < 0.06, away


def test_where_people_cross_the_nearest_is_painted_last() -> None:
    sides, painted = [30, 60, 45], []
    faces = [FaceState({"box": [0, 0, side, side]}, "k-diff", ["a"] * (side == 45)) for side in sides]
    stage = SimpleNamespace(_replace=lambda photo, face, surrogates: painted.append(face.box[2]))
    for depth, order in ((True, [30, 45, 60]), (False, [45, 30, 60])):
        RenderStage._paint(cast("Any", stage), [(cast("Any", None), face) for face in faces], None, depth=depth)
        assert painted == order
        painted.clear()
