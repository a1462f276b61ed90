"""A job with boxes of the dataset's own: hidden beside a detector and without one, ignored only where a job says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anonlib.audit.leaks.scan import LEFT, scan_leaks
from anonlib.job import Job
from anonlib.storage import open_storage
from anonlib.terminal import claim_rows
from anonlib.verification.release import verify
from tests.support import photos
from tests.support.runs import Run, by_key, reasons, run_job

pytestmark = pytest.mark.job
FACE = photos.ASTRONAUT_FACE.tolist()
FLAG = [20.0, 20.0, 140.0, 200.0]


def put(folder: Path, boxes: dict[str, Any]) -> Path:
    """A photo of the astronaut for each key, with these boxes beside it; None: no sidecar; bytes: the whole sidecar."""
    folder.mkdir()
    for key, value in boxes.items():
        (folder / f"{key}.png").write_bytes(photos.encoded(photos.astronaut(), "PNG"))
        if value is not None:
            sidecar = value if isinstance(value, bytes) else json.dumps({"boxes": value}).encode()
            (folder / f"{key}.json").write_bytes(sidecar)
    return folder


def run(tmp_path: Path, boxes: dict[str, Any], detector: str = "centerface", **keys: Any) -> Run:
    source = put(tmp_path / "input", boxes)
    changes = {"input": {"uri": str(source), "boxes_field": "boxes"} | keys, "detector": {"name": detector}}
    return run_job(source, tmp_path, **({"method": {"name": "solid"}} | changes))


def changed(output: Path, key: str) -> np.ndarray[Any, Any]:
    """(H, W) where a released photo is not the astronaut any more."""
    return (photos.decoded((output / "data" / f"{key}.png").read_bytes()) != photos.astronaut()).any(axis=2)


def middle(mask: np.ndarray[Any, Any], box: list[float]) -> bool:
    return bool(mask[int(box[1] + box[3]) // 2, int(box[0] + box[2]) // 2])


def test_boxes_are_hidden_beside_what_the_detector_finds(tmp_path: Path) -> None:
    boxes = [{"box": FLAG, "kind": "flag"}]
    found = run(tmp_path, {"flagged": boxes, "bare": None, "wrong": [[900, 900, 950, 950]], "torn": b'{"boxes": [[2'})
    rows = by_key(found.output)
    flagged = changed(found.output, "flagged")
    assert middle(flagged, FLAG) and middle(flagged, FACE) and len(rows["flagged.png"]["faces"]) == 2
    bare = changed(found.output, "bare")
    assert not middle(bare, FLAG) and middle(bare, FACE)
    for key in ("wrong.png", "torn.png"):
        assert (rows[key]["status"], rows[key]["reason"]) == ("quarantined", "bad-boxes")
    assert "number 1 has no px in the 512 x 512 px image" in reasons(found.workspace)["wrong.png"]
    assert verify(open_storage(str(found.output))).certificate.counts.images == 4


def test_without_a_detector_boxes_alone_are_hidden_and_an_image_without_any_is_quarantined(tmp_path: Path) -> None:
    many = [[number % 64 * 8, number // 64 * 8, number % 64 * 8 + 2, number // 64 * 8 + 2] for number in range(4001)]
    found = run(tmp_path, {"flagged": [FLAG], "empty": [], "bare": None, "many": many}, "none")
    rows = by_key(found.output)
    assert (rows["many.png"]["status"], rows["many.png"]["reason"]) == ("quarantined", "too-many-regions")
    flagged = changed(found.output, "flagged")
    assert middle(flagged, FLAG) and not middle(flagged, FACE)
    assert rows["empty.png"]["status"] == "no_face" and not changed(found.output, "empty").any()
    assert (rows["bare.png"]["status"], rows["bare.png"]["reason"]) == ("quarantined", "no-boxes")


@pytest.mark.parametrize("ignore", [False, True])
def test_a_detection_in_an_ignore_area_stays_only_if_the_job_says_so(ignore: bool, tmp_path: Path) -> None:
    area = [{"box": [100, 0, 350, 300], "kind": "crowd"}]
    keys = {"boxes_kinds": {"crowd": "ignore"}, "boxes_ignore": ignore}
    found = run(tmp_path, {"crowd": area}, **keys)
    (face,) = by_key(found.output)["crowd.png"]["faces"]
    counts = verify(open_storage(str(found.output))).certificate.counts
    assert middle(changed(found.output, "crowd"), FACE) == (not ignore)
    expected = ("kept", "ignored") if ignore else ("solid", None)
    assert (face["method"], face["fallback"], counts.ignored) == (*expected, int(ignore))
    told = claim_rows(verify(open_storage(str(found.output))).certificate)
    assert any("1 faces stay as they are" in text for _, text in told) == ignore
    leaks = {line.name: line for line in scan_leaks(Job(found.config))}
    assert leaks[LEFT].checked == (not ignore) and not any(line.found for line in leaks.values())


def test_a_column_of_coco_boxes_is_replaced_by_the_method(tmp_path: Path) -> None:
    x0, y0, x1, y1 = FACE
    objects = {"bbox": [[x0, y0, x1 - x0, y1 - y0]], "category": [0]}
    table = pa.table({"key": ["a"], "image": [{"bytes": photos.jpeg(photos.astronaut())}], "objects": [objects]})
    (tmp_path / "input").mkdir()
    pq.write_table(table, tmp_path / "input" / "a.parquet")
    keys = {"boxes_field": "objects", "boxes_format": "xywh", "boxes_kinds": {0: "face"}}
    found = run_job(
        tmp_path / "input",
        tmp_path,
        input={"uri": str(tmp_path / "input"), **keys},
        detector={"name": "none"},
        method={"name": "dp-uniform", "texture": "gallery"},
    )
    (face,) = by_key(found.output)["a"]["faces"]
    assert face["method"] == "dp-uniform" and face["fallback"] is None and face["detected_again"]
