"""Labels of a release for other tools, from its manifests alone: where each face is, and what became of it.

coco: `instances.json` (Lin et al. 2014), a category a method, with the ellipse that a redaction fills as segmentation.
yolo: `labels/KEY.txt` (class, centre and size as shares of the image) and `data.yaml`. masks: `masks/KEY.png`, 8 bits a
px, the number of the face whose ellipse a px lies in, 0 outside. csv: `faces.csv`, a row a face, and one an image
without any. Boxes are those of the upright image. The release is not checked here; `verify` does that.
"""

from __future__ import annotations

import csv
import json
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anonlib.datasets.names import is_media
from anonlib.errors import ConfigError, require, suggestion
from anonlib.storage import Storage
from anonlib.storage.scratch import scratch
from anonlib.verification import parsing
from anonlib.verification.data_files import whole
from anonlib.workspace.schemas import CLIP, GROW, MANIFEST_FACE, QUARANTINED, RUN_NOTE

Row = dict[str, Any]
Rows = Callable[[], Iterator[Row]]
"""Reads a release's MANIFEST rows, of any version, from the first on; raises VerificationError."""
C2PA = "c2pa"
"""What is exported with credentials.py."""
_CORNERS = 32
"""Of the polygon that stands for an ellipse."""
_OF_IMAGE = ("key", "status", "reason", "path", "height", "width")
_OF_FACE = (*(field.name for field in MANIFEST_FACE if field.name not in ("box", "boxes")), "kind")
_MOST_FACES = 255
"""A face behind these has this number in a mask, too."""


def export(release: Storage, into: Storage, target: str) -> Counter[str]:
    """Write what one of TARGETS means to `into`, where no other bytes may be; counts `images` and their `faces`;
    `left_out` have no picture, or are clips. Raises ConfigError, VerificationError, StorageError."""
    if target not in TARGETS:
        raise ConfigError(f"there is no export to '{target}'; {suggestion(target, (*TARGETS, C2PA))}")
    rows = manifests(release)[1]
    count = Counter(images=0, faces=0, left_out=0)
    with scratch() as folder:
        TARGETS[target](rows, count, into, folder)
    return count


def manifests(release: Storage) -> tuple[parsing.RunNote, Rows]:
    """What run.json says of a release, and its manifests' rows; raises VerificationError."""
    note = parsing.parsed(parsing.RunNote, whole(release, RUN_NOTE, parsing.MAX_NOTE), RUN_NOTE)
    known = note.schema_version in parsing.MANIFEST_OF
    require(known, f"the release is of schema version {note.schema_version}, which this anonlib does not know")

    def rows() -> Iterator[Row]:
        schema = parsing.manifest_of(note)
        for shard in parsing.shards_of(release, note.shards):
            yield from parsing.rows_of(shard.manifest, schema, f"the manifest of {shard.shard}", later="review")

    return note, rows


def _stills(rows: Rows, count: Counter[str]) -> Iterator[Row]:
    """The rows of stills with a picture, counted."""
    for row in rows():
        if row["status"] == QUARANTINED or row.get("media") == CLIP:
            count["left_out"] += 1
            continue
        count.update(images=1, faces=len(row["faces"] or ()))
        yield row


def _methods(rows: Rows) -> list[str]:
    return sorted({_category(face) for row in rows() for face in row["faces"] or ()})


def _coco(rows: Rows, count: Counter[str], into: Storage, folder: Path) -> None:
    methods, number = _methods(rows), 0
    with (folder / "coco").open("w") as file:
        categories = [{"id": at, "name": name, "supercategory": "face"} for at, name in enumerate(methods, 1)]
        file.write(f'{{"categories": {json.dumps(categories)},\n"images": [')
        for image, row in enumerate(_stills(rows, count), 1):
            named = {"id": image, "file_name": row["key"], "height": row["height"], "width": row["width"]}
            file.write(f"{',' * (image > 1)}\n{json.dumps(named)}")
        file.write('],\n"annotations": [')
        for image, row in enumerate(_stills(rows, Counter()), 1):
            for face in row["faces"] or ():
                x0, y0, x1, y1 = _clipped(row, face)
                number += 1
                about = {"id": number, "image_id": image, "category_id": 1 + methods.index(_category(face))}
                place = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
                place["segmentation"] = [_polygon(row, face)]
                told = {name: face[name] for name in _OF_FACE if name in face}
                file.write(f"{',' * (number > 1)}\n{json.dumps(about | place | {'attributes': told})}")
        file.write("]}\n")
    into.create("instances.json", folder / "coco")


def _yolo(rows: Rows, count: Counter[str], into: Storage, folder: Path) -> None:
    methods = _methods(rows)
    for row in _stills(rows, count):
        lines = ""
        for face in row["faces"] or ():
            x0, y0, x1, y1 = np.array(_clipped(row, face)) / ([row["width"], row["height"]] * 2)
            lines += f"{methods.index(_category(face))} "
            lines += f"{(x0 + x1) / 2:.6f} {(y0 + y1) / 2:.6f} {x1 - x0:.6f} {y1 - y0:.6f}\n"
        key = row["key"].rpartition(".")[0] if is_media(row["key"]) else row["key"]
        into.create(f"labels/{key}.txt", lines.encode())
    into.create("data.yaml", f"names: {json.dumps(dict(enumerate(methods)))}\n".encode())


def _masks(rows: Rows, count: Counter[str], into: Storage, folder: Path) -> None:
    for row in _stills(rows, count):
        mask = np.zeros((row["height"], row["width"]), np.uint8)
        y, x = np.ogrid[: row["height"], : row["width"]]
        for number, face in enumerate(row["faces"] or (), 1):
            (cx, cy), (a, b) = _ellipse(face)
            inside = ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 <= 1
            if face.get("kind"):
                x0, y0, x1, y1 = face["box"]
                inside = (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)
            mask[inside] = min(number, _MOST_FACES)
        into.create(f"masks/{row['key']}.png", _png(mask))


def _csv(rows: Rows, count: Counter[str], into: Storage, folder: Path) -> None:
    with (folder / "csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*_OF_IMAGE, "face", "x0", "y0", "x1", "y1", *_OF_FACE])
        for row in rows():
            count.update(images=1, faces=len(row["faces"] or ()))
            image = [row[name] for name in _OF_IMAGE]
            table.writerow(image) if not row["faces"] else table.writerows(
                [*image, number, *face["box"], *(face.get(name) for name in _OF_FACE)]
                for number, face in enumerate(row["faces"], 1)
            )
    into.create("faces.csv", folder / "csv")


TARGETS: dict[str, Callable[[Rows, Counter[str], Storage, Path], None]] = {
    "coco": _coco,
    "yolo": _yolo,
    "masks": _masks,
    "csv": _csv,
}


def _category(face: Row) -> str:
    """What a label calls it: a face by its method, another region by its kind."""
    return str(face.get("kind") or face["method"])


def _clipped(row: Row, face: Row) -> list[float]:
    """A face's box, as far as it lies in the image."""
    bounds = [row["width"], row["height"]] * 2
    return [min(max(side, 0), most) for side, most in zip(face["box"], bounds, strict=True)]


def _ellipse(face: Row) -> tuple[tuple[float, float], tuple[float, float]]:
    """The centre and the half axes of the ellipse that a redaction fills."""
    x0, y0, x1, y1 = face["box"]
    return ((x0 + x1) / 2, (y0 + y1) / 2), (max((x1 - x0) / 2 * GROW[0], 1), max((y1 - y0) / 2 * GROW[1], 1))


def _polygon(row: Row, face: Row) -> Sequence[float]:
    if face.get("kind"):
        x0, y0, x1, y1 = _clipped(row, face)
        return [x0, y0, x1, y0, x1, y1, x0, y1]
    (cx, cy), (a, b) = _ellipse(face)
    angles = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    points = np.stack([cx + a * np.cos(angles), cy + b * np.sin(angles)], axis=1)
    return [round(side, 1) for side in np.clip(points, 0, (row["width"], row["height"])).ravel().tolist()]


def _png(grey: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """A PNG of 8 bits a px, (H, W), without an image library."""
    height, width = grey.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), grey], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        file += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return file
