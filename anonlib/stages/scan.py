"""Scan: every image once, find its faces and describe them, into the workspace.

A sample that cannot be read becomes a row with the reason. A redaction needs boxes alone, so the other networks do not
run for one.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import cv2

from anonlib.codes import Problem, Reason
from anonlib.config import JobConfig
from anonlib.datasets import Dataset, Sample, Shard, label
from anonlib.errors import ImageProblem, StorageError, contained
from anonlib.execution.base import UnitResult, current
from anonlib.faces.detect import open_detector
from anonlib.faces.regions import FACE, labelled_face
from anonlib.media.codec import Picture
from anonlib.media.prefetch import chunks_ahead, sample_bytes, try_to_read
from anonlib.models.requirements import ModelBytes, device_of
from anonlib.synthesis.describe import Describer
from anonlib.workspace.layout import JobStores, ScanStore, scan_store, sha256

Row = dict[str, Any]
Photo = tuple[Sample, Picture, Row]
"""A readable photo, maybe decoded smaller than it is, and its row of IMAGES."""


class ScanStage:
    """Holds the models; `run(shard)` writes faces/SHARD and images/SHARD and claims the marker."""

    name = "scan"

    def __init__(self, job: JobConfig, dataset: Dataset, stores: JobStores, key: str, models: ModelBytes) -> None:
        cv2.setNumThreads(1)
        self.job, self.dataset = job, dataset
        self.store: ScanStore = scan_store(stores, key)
        weights = models.get(job.detector.name)
        self.detector = open_detector(job.detector, weights, device=device_of(job), precision=job.detector.precision)
        self.describer = Describer(job, models) if "facemesh" in models else None
        self.least_side = None if self.describer else job.detector.side

    def run(self, shard: Shard) -> UnitResult:
        """Scan one shard; safe to repeat and to race."""
        images: list[Row] = []
        faces: list[Row] = []
        current().read += shard.bytes
        read = partial(try_to_read, job=self.job, least_side=self.least_side)
        cost = partial(sample_bytes, job=self.job, least_side=self.least_side)
        bounds = {"most": self.job.limits.chunk, "budget": self.job.shard_bytes}
        for chunk in chunks_ahead(read, self.dataset.read(shard), cost, timed=current().timed, **bounds):
            faces += self._describe(self._readable(chunk, images))
        order = {row["key"]: row["position"] for row in images}
        faces.sort(key=lambda row: (order[row["key"]], row["index"]))
        for face in faces:
            face["face_id"] = f"{shard.shard_id}/{face['key']}#{face['index']}"
        counts = Counter(face["key"] for face in faces)
        for row in images:
            row["faces"] = counts[row["key"]]
        with current().timed("publish"):
            digests = self.store.write(shard.shard_id, faces, images)
            unreadable = sum("reason" in row for row in images)
            self.store.commit(shard.shard_id, _marker(shard, len(images), len(faces), unreadable) | digests)
        return UnitResult(shard.shard_id, images=len(images), faces=len(faces))

    def _readable(self, chunk: list[tuple[Sample, Picture | ImageProblem]], images: list[Row]) -> list[Photo]:
        """The readable photos of a chunk; every sample gets its row."""
        readable = []
        for sample, picture in chunk:
            row: Row = {"key": sample.key, "position": len(images), "faces": 0}
            images.append(row)
            if isinstance(picture, ImageProblem):
                row |= {"reason": picture.reason, "problem": str(picture)}
            else:
                row["height"], row["width"] = picture.size
                row |= {"digest": sha256(sample.image or b""), "format": picture.format, "exact": picture.is_exact}
                row |= {"orientation": picture.orientation, "space": picture.space}
                row |= {"stripped": picture.stripped, "notes": picture.notes}
                readable.append((sample, picture, row))
        return readable

    def _describe(self, photos: list[Photo]) -> list[Row]:
        """Face rows of a chunk; if the chunk fails as one, image by image, so that only the culprit is lost."""
        with contained("scanning") as failure:
            return self._faces(photos)
        if len(photos) > 1:
            return [face for photo in photos for face in self._describe([photo])]
        if problem := failure.problem(Reason.SCAN_FAILED):
            photos[0][2].update(reason=problem.reason, problem=str(problem))
        return []

    def _faces(self, photos: list[Photo]) -> list[Row]:
        pixels = [picture.rgb for _, picture, _ in photos]
        with current().timed("detect"):
            found = self.detector.detect(pixels, [picture.size for _, picture, _ in photos])
        faces = [regions.faces for regions in found]
        with current().timed("describe"):
            described = self.describer.describe(pixels, faces) if self.describer else [[{}] * len(f) for f in faces]
        rows = []
        for (sample, picture, _), regions, of_faces in zip(photos, found, described, strict=True):
            labelled, descriptions = labelled_face(regions, picture.size), iter(of_faces)
            name = label(sample, self.job.input.subject_field) if self.job.input.subject_field else None
            for index, kind in enumerate(regions.kinds):
                row = {
                    "key": sample.key,
                    "index": index,
                    "height": picture.size[0],
                    "width": picture.size[1],
                    "label": name if index == labelled else None,
                    "kind": None if kind == FACE else kind,
                    "score": float(regions.scores[index]),
                    "box": regions.boxes[index],
                    "landmarks": regions.landmarks[index].ravel(),
                }
                rows.append(row | (next(descriptions) if kind == FACE else {}))
        return rows


def _marker(shard: Shard, images: int, faces: int, unreadable: int) -> dict[str, Any]:
    counts = {"images": images, "faces": faces, "unreadable": unreadable}
    return {"shard": shard.shard_id, "etag": shard.etag, **counts}


def lose(shard: Shard, why: str, scan: ScanStore) -> None:
    """Commit the scan of a shard that could not be scanned, with no face; safe to repeat.

    It is not known which images it has, so one row stands for all of them. Raises StorageError if another driver has
    scanned it meanwhile, whose tables this one has replaced.
    """
    if scan.committed(shard.shard_id) is not None:
        return
    problem = Problem(Reason.SHARD_UNSCANNED)
    key = f"{shard.shard_id}#unscanned"
    row = {"key": key, "position": 0, "reason": problem.reason, "problem": str(problem), "faces": 0}
    marker = _marker(shard, 1, 0, 1) | scan.write(shard.shard_id, [], [row])
    if not scan.commit(shard.shard_id, marker) and scan.committed(shard.shard_id) != marker:
        raise StorageError(
            f"Another driver scanned shard {shard.shard_id} while this one gave it up; delete "
            f"{scan.marker(shard.shard_id)} in {scan.storage.uri} and run the job again."
        )
    # Last, so that what a killed driver did not give up is scanned again. Without it the shard is rendered in vain.
    scan.lose(shard.shard_id, why)
