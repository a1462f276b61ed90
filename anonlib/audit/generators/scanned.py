"""A finished scan, read where it lies: the rows of its faces, and views of single faces from the photos themselves.

For evaluations that need no release. Of a photo only the view around the wanted face is kept, so that a thousand
photos of any size fit into memory.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.config import no_job
from anonlib.datasets import Dataset
from anonlib.errors import ImageProblem, JobError, NotFound
from anonlib.faces.mesh import five_points
from anonlib.media.prefetch import try_to_read
from anonlib.storage import Storage
from anonlib.workspace import tables
from anonlib.workspace.layout import INVENTORY_NOTE
from anonlib.workspace.schemas import MESH_POINTS

VIEW_SIDES = 5.0
"""Side of the view, in longer sides of the face's box."""
VIEW_PX = 640
"""A larger view is shrunk to this side, which is what a detector sees of a photo by default."""


@dataclass(frozen=True)
class ScannedPhoto:
    """The view around one face: `rgb` (h, w, 3), its `mesh` (468, 3) and `box` (4,) in px of the view.

    `expression` (7,) probabilities and `yaw` in degrees, as the scan saw them.
    """

    face_id: str
    rgb: NDArray[np.uint8]
    mesh: NDArray[np.float32]
    box: NDArray[np.float32]
    expression: NDArray[np.float32]
    yaw: float

    @property
    def points(self) -> NDArray[np.float32]:
        """Eye centres, nose tip and mouth corners (5, 2) px."""
        return five_points(self.mesh)


def scan_faces(storage: Storage, scan: str | None, columns: Sequence[str]) -> pa.Table:
    """The FACES `columns` of a workspace's one scan, or of the one named; raises JobError if there is no such scan."""
    paths = sorted(entry.path for entry in storage.list("scan/") if entry.path.endswith(".parquet"))
    paths = [path for path in paths if path.split("/")[2:3] == ["faces"] and scan in (None, path.split("/")[1])]
    scans = sorted({path.split("/")[1] for path in paths})
    if not scans:
        raise JobError("there is no scan in this workspace; run `anonlib scan` or a job first")
    if len(scans) > 1:
        raise JobError(f"this workspace has several scans; name one by --scan: {', '.join(scans)}")
    return pa.concat_tables([tables.from_bytes(storage.read(path), columns) for path in paths])


def scanned_dataset(storage: Storage) -> str:
    """The URI of the dataset that a workspace was made for."""
    try:
        return str(json.loads(storage.read(INVENTORY_NOTE))["input"])
    except NotFound:
        raise JobError("this workspace has no inventory; is it that of a job?") from None


def read_photos(dataset: Dataset, rows: Iterable[Mapping[str, Any]]) -> dict[str, ScannedPhoto]:
    """face_id -> the Photo of each FACES row; raises JobError if the dataset does not hold them all."""
    wanted: dict[str, dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    ids: set[str] = set()
    for row in rows:
        ids.add(row["face_id"])
        wanted[row["face_id"].partition("/")[0]][row["key"]].append(row)
    found: dict[str, ScannedPhoto] = {}
    job = no_job()
    for shard in dataset.shards():
        keys = wanted.pop(shard.shard_id, {})
        for sample in dataset.read(shard) if keys else ():
            if sample.key not in keys:
                continue
            picture = try_to_read(sample, job)
            if not isinstance(picture, ImageProblem):
                found |= {row["face_id"]: view_of(picture.rgb, row) for row in keys[sample.key]}
    missing = ids - found.keys()
    if missing:
        raise JobError(f"the dataset lacks {len(missing)} of the faces; give the one that was scanned by --input")
    return found


def view_of(rgb: NDArray[np.uint8], row: Mapping[str, Any]) -> ScannedPhoto:
    """The view of a photo (H, W, 3) around the face of its FACES row."""
    box = np.array(row["box"], np.float32)
    reach = VIEW_SIDES / 2 * float((box[2:] - box[:2]).max())
    centre = (box[:2] + box[2:]) / 2
    x0, y0 = np.clip(np.floor(centre - reach), 0, [rgb.shape[1] - 1, rgb.shape[0] - 1]).astype(int)
    x1, y1 = np.clip(np.ceil(centre + reach), [x0 + 1, y0 + 1], [rgb.shape[1], rgb.shape[0]]).astype(int)
    view = rgb[y0:y1, x0:x1]
    scale = min(1.0, VIEW_PX / max(view.shape[:2]))
    if scale < 1.0:
        view = np.asarray(cv2.resize(view, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    mesh = np.array(row["mesh"], np.float32).reshape(MESH_POINTS, 3)
    return ScannedPhoto(
        row["face_id"],
        np.ascontiguousarray(view),
        (mesh - np.array([x0, y0, 0], np.float32)) * np.float32(scale),
        (box - np.array([x0, y0, x0, y0], np.float32)) * np.float32(scale),
        np.array(row["expression"], np.float32),
        float(row["yaw"]),
    )
