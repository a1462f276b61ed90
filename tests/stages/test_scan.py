"""The scan describes every face once, and every image has a row."""

from __future__ import annotations

import json
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import simplejpeg

from anonlib.faces.centerface import CenterFaceDetector
from anonlib.faces.regions import Regions
from anonlib.synthesis.describe import CROP_SIDE, encode_crop
from anonlib.workspace.schemas import EMBEDDING_DIM, FACES, IMAGES, MESH_POINTS, SECOND_DIM
from tests.support import photos
from tests.support.runs import Run, images, run_job


def test_every_image_has_a_row_and_its_faces_are_counted(finished: Run) -> None:
    for path in finished.workspace.glob("scan/*/images/*.parquet"):
        rows = pq.read_table(path).to_pylist()
        faces = pq.read_table(path.parent.parent / "faces" / path.name).to_pylist()
        names = [name.partition(".")[0] for name in images(finished.input / f"{path.stem}.tar") if ".jpg" in name]
        assert [row["key"] for row in rows] == names
        assert [row["position"] for row in rows] == list(range(len(rows)))
        for row in rows:
            assert row["faces"] == sum(face["key"] == row["key"] for face in faces)
            assert row["problem"] is None and row["height"] > 0 and row["width"] > 0
        assert pq.read_schema(path).equals(IMAGES)
        assert pq.read_schema(path.parent.parent / "faces" / path.name).equals(FACES)


def test_faces_are_described_in_px_of_the_upright_image(finished: Run) -> None:
    for path in finished.workspace.glob("scan/*/faces/*.parquet"):
        for face in pq.read_table(path).to_pylist():
            assert face["face_id"] == f"{path.stem}/{face['key']}#{face['index']}"
            mesh = np.array(face["mesh"]).reshape(MESH_POINTS, 3)
            assert -0.5 * face["width"] < mesh[:, 0].min() and mesh[:, 0].max() < 1.5 * face["width"]
            for name, size in (("embedding", EMBEDDING_DIM), ("second", SECOND_DIM)):
                vector = np.array(face[name], np.float32)
                assert vector.shape == (size,) and abs(np.linalg.norm(vector) - 1) < 2e-3
            assert 0 <= face["female"] <= 1 and abs(sum(face["expression"]) - 1) < 1e-2


def test_a_crop_is_the_part_of_the_photo_that_its_matrix_says(finished: Run) -> None:
    originals = {
        name.partition(".")[0]: data
        for path in finished.input.glob("*.tar")
        for name, data in images(path).items()
        if name.endswith(".jpg")
    }
    path = sorted(finished.workspace.glob("scan/*/faces/*.parquet"))[0]
    for face in pq.read_table(path).to_pylist()[:4]:
        crop = np.asarray(simplejpeg.decode_jpeg(face["crop"], colorspace="RGB"))
        assert max(crop.shape) <= CROP_SIDE
        matrix = np.array(face["crop_from_image"], np.float32).reshape(2, 3)
        expected = cv2.warpAffine(photos.decoded(originals[face["key"]]), matrix, crop.shape[1::-1])
        assert np.abs(expected.astype(int) - crop).mean() < 4


@pytest.fixture(scope="module")
def redacted(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[int]]:
    """A redaction by a worker that may hold 1 MiB, and how many photos were detected in at once."""
    together: list[int] = []
    detect = CenterFaceDetector.detect

    def counted(detector: CenterFaceDetector, images: Any, *more: Any) -> list[Regions]:
        together.append(len(images))
        return detect(detector, images, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CenterFaceDetector, "detect", counted)
        how = {"method": {"name": "solid"}, "limits": {"memory_mib": 1}}
        return run_job(finished.input, tmp_path_factory.mktemp("redacted"), **how), together


def test_a_worker_with_little_memory_takes_photos_one_by_one(redacted: tuple[Run, list[int]]) -> None:
    run, together = redacted
    assert set(together) == {1} and len(together) == run.summary.images


def test_a_redaction_keeps_no_biometrics(redacted: tuple[Run, list[int]]) -> None:
    for path in redacted[0].workspace.glob("scan/*/faces/*.parquet"):
        table = pq.read_table(path)
        for column in ("embedding", "second", "crop", "mesh", "age", "female"):
            assert table.column(column).null_count == table.num_rows > 0


def test_the_marker_counts_what_the_tables_hold(finished: Run) -> None:
    for path in finished.workspace.glob("scan/*/commits/*.json"):
        marker = json.loads(path.read_text())
        table = pq.read_table(path.parent.parent / "faces" / f"{marker['shard']}.parquet")
        assert marker["faces"] == table.num_rows and marker["unreadable"] == 0


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 400, 3), (64, 64, 3)])
def test_a_crop_of_any_shape_is_encoded(shape: tuple[int, ...]) -> None:
    crop = np.zeros(shape, np.uint8)[:, ::-1]
    assert simplejpeg.decode_jpeg(encode_crop(crop), colorspace="RGB").shape == shape
