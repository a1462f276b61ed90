"""A face that moves through a clip is one row of FACES, with its place in every frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anonlib.errors import ImageProblem
from anonlib.faces.regions import MOST_REGIONS, Regions
from anonlib.faces.track import Track
from anonlib.media.clip import clip_info
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import FACE_MODELS
from anonlib.stages.clip_scan import ClipScanner
from anonlib.synthesis.describe import Describer
from anonlib.workspace import tables
from anonlib.workspace.schemas import EMBEDDING_DIM, FACES
from tests.support import clips, runs

FRAMES = 12


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips.moving_face(tmp_path_factory.mktemp("clip") / "clip.mp4", FRAMES)


def test_a_moving_face_is_one_row_and_its_track_follows_it(moving: Path, tmp_path: Path) -> None:
    job = runs.job(moving.parent, tmp_path)
    models = {name: model_bytes(name) for name in ("centerface", *FACE_MODELS)}
    scanner = ClipScanner(job, models, Describer(job, models))
    (face,), frames = scanner.scan(moving, clip_info(moving, job.limits), "Ada")
    track = Track.of(face["track"])
    assert frames == FRAMES and (track.first, track.last) == (0, FRAMES - 1)
    middle = (track.boxes[:, 0] + track.boxes[:, 2]) / 2
    np.testing.assert_allclose(middle, clips.FACE_AT + clips.FACE_STEP * np.arange(FRAMES), atol=6)
    assert face["label"] == "Ada" and face["presence"] > 0.9
    assert len(face["embedding"]) == EMBEDDING_DIM and np.linalg.norm(face["embedding"]) == pytest.approx(1, abs=1e-4)
    (again,) = tables.from_bytes(tables.to_bytes([face | {"key": "k", "face_id": "f"}], FACES)).to_pylist()
    np.testing.assert_array_equal(Track.of(again["track"]).boxes, track.boxes)


def test_a_redaction_needs_boxes_alone(moving: Path, tmp_path: Path) -> None:
    job = runs.job(moving.parent, tmp_path, method={"name": "solid"})
    scanner = ClipScanner(job, {"centerface": model_bytes("centerface")}, None)
    (face,), _ = scanner.scan(moving, clip_info(moving, job.limits), None)
    assert face["label"] is None and "embedding" not in face


def test_a_clip_of_too_many_regions_is_refused(moving: Path, tmp_path: Path) -> None:
    job = runs.job(moving.parent, tmp_path, method={"name": "solid"})
    boxes = np.tile(np.array([0, 0, 9, 9], np.float32), (MOST_REGIONS + 1, 1))
    given = Regions.of_kind("sign", boxes, np.zeros(len(boxes), np.float32))
    with pytest.raises(ImageProblem, match="more than 4,000"):
        ClipScanner(job, {"centerface": model_bytes("centerface")}, None).scan(
            moving, clip_info(moving, job.limits), None, given
        )
