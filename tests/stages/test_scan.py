"""The scan describes every face once, and every image has a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from anonlib.faces.centerface import CenterFaceDetector
from anonlib.faces.regions import Regions
from anonlib.workspace.schemas import FACES, IMAGES
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


def test_a_redaction_keeps_no_biometrics(one_shard: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together: list[int] = []
    detect = CenterFaceDetector.detect

    def counted(detector: CenterFaceDetector, images: Any, *more: Any) -> list[Regions]:
        together.append(len(images))
        return detect(detector, images, *more)

    monkeypatch.setattr(CenterFaceDetector, "detect", counted)
    run = run_job(one_shard.input, tmp_path, method={"name": "solid"}, limits={"memory_mib": 1})
    assert set(together) == {1} and len(together) == run.summary.images
    for path in run.workspace.glob("scan/*/faces/*.parquet"):
        table = pq.read_table(path)
        for column in ("embedding", "second", "crop", "mesh", "age", "female"):
            assert table.column(column).null_count == table.num_rows > 0
