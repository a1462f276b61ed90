"""Scan: every image once, find its faces and describe them, into the workspace.

A sample that cannot be read becomes a row with the reason. A redaction needs boxes alone, so for those the
other networks do not run and the columns stay empty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.codes import Problem, Reason
from anonlib.config import JobConfig
from anonlib.datasets import Dataset, Sample, Shard, label
from anonlib.errors import ImageProblem, StorageError, contained, kind_and_message
from anonlib.execution.base import UnitResult, current
from anonlib.faces.detect import open_detector
from anonlib.faces.regions import FACE, labelled_face
from anonlib.media.codec import Picture
from anonlib.media.prefetch import chunks_ahead, sample_bytes, try_to_read
from anonlib.models.requirements import ModelBytes, device_of
from anonlib.synthesis.describe import Describer
from anonlib.workspace.layout import JobStores, ScanStore, scan_store


@dataclass(frozen=True)
class Decoded:
    """A readable photo of a chunk: its sample, upright RGB pixels (h, w, 3) and the photo's own (H, W).

    The two sizes differ where boxes are all that is wanted, for which a smaller decoding will do.
    """

    sample: Sample
    rgb: NDArray[np.uint8]
    size: tuple[int, int]


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
        images: list[dict[str, Any]] = []
        faces: list[dict[str, Any]] = []
        current().read += shard.bytes
        read = partial(try_to_read, job=self.job, least_side=self.least_side)
        cost = partial(sample_bytes, job=self.job, least_side=self.least_side)
        bounds = {"most": self.job.limits.chunk, "budget": self.job.shard_bytes}
        for chunk in chunks_ahead(read, self.dataset.read(shard), cost, timed=current().timed, **bounds):
            for rows in self._describe(self._readable(chunk, images), images):
                faces += rows
        images.sort(key=lambda row: row["position"])
        order = {row["key"]: row["position"] for row in images}
        faces.sort(key=lambda row: (order[row["key"]], row["index"]))
        for face in faces:
            face["face_id"] = f"{shard.shard_id}/{face['key']}#{face['index']}"
        counts = Counter(face["key"] for face in faces)
        for row in images:
            row["faces"] = counts[row["key"]]
        with current().timed("publish"):
            self._publish(shard, faces, images)
        return UnitResult(shard.shard_id, images=len(images), faces=len(faces))

    def _publish(self, shard: Shard, faces: list[dict[str, Any]], images: list[dict[str, Any]]) -> None:
        """Both tables, then the marker."""
        digests = self.store.write(shard.shard_id, faces, images)
        self.store.commit(
            shard.shard_id,
            {
                "shard": shard.shard_id,
                "etag": shard.etag,
                "images": len(images),
                "faces": len(faces),
                "unreadable": sum("reason" in row for row in images),
                **digests,
            },
        )

    def _readable(
        self, chunk: list[tuple[Sample, Picture | ImageProblem]], images: list[dict[str, Any]]
    ) -> list[Decoded]:
        """The readable photos of a chunk; every sample gets its row."""
        readable = []
        for sample, picture in chunk:
            row: dict[str, Any] = {"key": sample.key, "position": len(images), "faces": 0}
            images.append(row)
            if isinstance(picture, ImageProblem):
                row |= {"reason": picture.reason, "problem": str(picture)}
                continue
            row["height"], row["width"] = picture.size
            readable.append(Decoded(sample, picture.rgb, picture.size))
        return readable

    def _describe(self, chunk: list[Decoded], images: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        """Face rows of a chunk; if the chunk fails as one, image by image, so that only the culprit is lost."""
        with contained("scanning photos") as failure:
            yield from self._rows(chunk)
        if failure.error is None:
            return
        if len(chunk) > 1:
            for photo in chunk:
                yield from self._describe([photo], images)
            return
        row = next(row for row in reversed(images) if row["key"] == chunk[0].sample.key)
        row |= {"reason": Reason.SCAN_FAILED, "problem": f"scanning failed: {kind_and_message(failure.error)}"}

    def _rows(self, chunk: list[Decoded]) -> list[list[dict[str, Any]]]:
        pixels = [photo.rgb for photo in chunk]
        with current().timed("detect"):
            found = self.detector.detect(pixels, [photo.size for photo in chunk])
        faces = [regions.faces for regions in found]
        with current().timed("describe"):
            described = self.describer.describe(pixels, faces) if self.describer else [[{}] * len(f) for f in faces]
        rows = []
        for photo, regions, of_faces in zip(chunk, found, described, strict=True):
            labelled, described_faces = labelled_face(regions, photo.size), iter(of_faces)
            name = label(photo.sample, self.job.input.subject_field) if self.job.input.subject_field else None
            rows.append(
                [
                    {
                        "key": photo.sample.key,
                        "index": index,
                        "height": photo.size[0],
                        "width": photo.size[1],
                        "label": name if index == labelled else None,
                        "kind": None if kind == FACE else kind,
                        "score": float(regions.scores[index]),
                        "box": regions.boxes[index],
                        "landmarks": regions.landmarks[index].ravel(),
                        **(next(described_faces) if kind == FACE else {}),
                    }
                    for index, kind in enumerate(regions.kinds)
                ]
            )
        return rows


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
    marker: dict[str, Any] = {"shard": shard.shard_id, "etag": shard.etag, "images": 1, "faces": 0, "unreadable": 1}
    marker |= scan.write(shard.shard_id, [], [row])
    if not scan.commit(shard.shard_id, marker) and scan.committed(shard.shard_id) != marker:
        raise StorageError(
            f"Another driver scanned shard {shard.shard_id} while this one gave it up; delete "
            f"{scan.marker(shard.shard_id)} in {scan.storage.uri} and run the job again."
        )
    # Last, so that what a killed driver did not give up is scanned again. Without it the shard is rendered in vain.
    scan.lose(shard.shard_id, why)
