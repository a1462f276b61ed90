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

from anonlib.codes import Reason
from anonlib.config import JobConfig
from anonlib.datasets import Dataset, Sample, Shard, label
from anonlib.errors import ImageProblem, contained, kind_and_message
from anonlib.execution.base import UnitResult
from anonlib.execution.stopwatch import current
from anonlib.faces import align
from anonlib.faces.attributes import AttributeReader
from anonlib.faces.detect import CenterFaceDetector, Faces
from anonlib.faces.embed import Recognizer
from anonlib.faces.mesh import FaceMesh, Meshes, eye_opening, five_points, mouth_opening
from anonlib.media.codec import Picture
from anonlib.media.prefetch import chunks_ahead, sample_bytes
from anonlib.media.sandbox import decode_apart
from anonlib.models.requirements import PIPELINE_RECOGNIZER, SECOND_RECOGNIZER, ModelBytes, load
from anonlib.synthesis.canonical import pose_of, shape_model, with_rings
from anonlib.synthesis.glasses import STEP as GLASSES_STEP
from anonlib.synthesis.glasses import glasses
from anonlib.synthesis.light import STEP
from anonlib.synthesis.occlusion import bare
from anonlib.synthesis.textures.average import detail_of
from anonlib.workspace import tables
from anonlib.workspace.layout import JobStores, StageStore, scan_store, sha256
from anonlib.workspace.schemas import FACES, IMAGES

CROP_SIDE = 384
_CROP_QUALITY = 92
_CROP_MARGIN = 0.04


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
        self.store: StageStore = scan_store(stores, key)
        self.detector = CenterFaceDetector(
            load(models, "centerface", job, job.detector.precision),
            side=job.detector.side,
            score=job.detector.score,
        )
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
        face_bytes, image_bytes = tables.to_bytes(faces, FACES), tables.to_bytes(images, IMAGES)
        self.store.storage.publish(self.store.path("faces", f"{shard.shard_id}.parquet"), face_bytes)
        self.store.storage.publish(self.store.path("images", f"{shard.shard_id}.parquet"), image_bytes)
        current().written += len(face_bytes) + len(image_bytes)
        self.store.commit(
            shard.shard_id,
            {
                "shard": shard.shard_id,
                "etag": shard.etag,
                "images": len(images),
                "faces": len(faces),
                "unreadable": sum("reason" in row for row in images),
                "faces_sha256": sha256(face_bytes),
                "images_sha256": sha256(image_bytes),
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
            for one in chunk:
                yield from self._describe([one], images)
            return
        row = next(row for row in reversed(images) if row["key"] == chunk[0].sample.key)
        row |= {"reason": Reason.SCAN_FAILED, "problem": f"scanning failed: {kind_and_message(failure.error)}"}

    def _rows(self, chunk: list[Decoded]) -> list[list[dict[str, Any]]]:
        pixels = [one.rgb for one in chunk]
        with current().timed("detect"):
            found = self.detector.detect(pixels, [one.size for one in chunk])
        with current().timed("describe"):
            described = self.describer.describe(pixels, found) if self.describer else [[{}] * len(f) for f in found]
        rows = []
        for one, faces, extras in zip(chunk, found, described, strict=True):
            labelled = labelled_face(faces, one.size)
            name = label(one.sample, self.job.input.subject_field) if self.job.input.subject_field else None
            rows.append(
                [
                    {
                        "key": one.sample.key,
                        "index": index,
                        "height": one.size[0],
                        "width": one.size[1],
                        "label": name if index == labelled else None,
                        "score": float(faces.scores[index]),
                        "box": faces.boxes[index],
                        "landmarks": faces.landmarks[index].ravel(),
                        **extras[index],
                    }
                    for index in range(len(faces))
                ]
            )
        return rows


class Describer:
    """Mesh, embeddings, attributes, pose and crop of detected faces."""

    def __init__(self, job: JobConfig, models: ModelBytes) -> None:
        self.mesh = FaceMesh(load(models, "facemesh", job))
        self.recognizer = Recognizer(PIPELINE_RECOGNIZER, load(models, PIPELINE_RECOGNIZER, job))
        self.second = Recognizer(SECOND_RECOGNIZER, load(models, SECOND_RECOGNIZER, job))
        self.reader = AttributeReader(load(models, "age-gender", job), load(models, "expression", job))

    def describe(self, pixels: list[NDArray[np.uint8]], found: list[Faces]) -> list[list[dict[str, Any]]]:
        """For each image, one dict of FACES columns a face."""
        fitted = self.mesh.fit(pixels, found)
        owners = [image for image, meshes in zip(pixels, fitted, strict=True) for _ in range(len(meshes))]
        points = [five_points(mesh) for meshes in fitted for mesh in meshes.points]
        embeddings = self.recognizer.embed(owners, points)
        second = self.second.embed(owners, points).astype(np.float16)
        attributes = self.reader.read(owners, points)
        described: list[list[dict[str, Any]]] = []
        face = 0
        for image, meshes in zip(pixels, fitted, strict=True):
            rows = []
            for one in range(len(meshes)):
                rows.append(
                    _geometry(image, meshes, one)
                    | {
                        "embedding": embeddings[face],
                        "second": second[face],
                        "age": float(attributes.age[face]),
                        "female": float(attributes.female[face]),
                        "expression": attributes.expression[face],
                    }
                )
                face += 1
            described.append(rows)
        return described


def _geometry(image: NDArray[np.uint8], meshes: Meshes, one: int) -> dict[str, Any]:
    mesh = meshes.points[one]
    pose = pose_of(mesh, shape_model().mean)
    yaw, pitch, roll = pose.angles()
    vertices = pose.apply(with_rings(pose.undo(mesh)))
    low, high = vertices[:, :2].min(axis=0), vertices[:, :2].max(axis=0)
    margin = _CROP_MARGIN * float((high - low).max())
    x0, y0 = np.clip(np.floor(low - margin), 0, [image.shape[1] - 1, image.shape[0] - 1]).astype(int)
    x1, y1 = np.clip(np.ceil(high + margin), [x0 + 1, y0 + 1], [image.shape[1], image.shape[0]]).astype(int)
    crop = image[y0:y1, x0:x1]
    scale = min(1.0, CROP_SIDE / max(crop.shape[:2]))
    size = max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale))
    if scale < 1.0:
        crop = np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), np.uint8)
    sx, sy = size[0] / (x1 - x0), size[1] / (y1 - y0)
    detail, light = detail_of(image[y0:y1, x0:x1], vertices - np.array([x0, y0, 0], np.float32), GLASSES_STEP)
    return {
        "mesh": mesh.ravel(),
        "presence": float(meshes.presence[one]),
        "crop": encode_crop(crop),
        "crop_from_image": np.array([sx, 0, -x0 * sx, 0, sy, -y0 * sy], np.float32),
        "yaw": yaw,
        "pitch": pitch,
        "roll": roll,
        "sharpness": sharpness(image, mesh),
        "clarity": light.clarity,
        "bare": bare(np.ascontiguousarray(detail[:: STEP // GLASSES_STEP, :: STEP // GLASSES_STEP]), light.spread),
        "glasses": glasses(detail),
        "mouth_open": mouth_opening(mesh),
        "eyes_open": eye_opening(mesh),
    }


def encode_crop(crop: NDArray[np.uint8]) -> bytes:
    """A crop (H, W, 3) RGB as JPEG for the workspace."""
    import simplejpeg

    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(crop), quality=_CROP_QUALITY, colorsubsampling="444"))


def sharpness(image: NDArray[np.uint8], mesh: NDArray[np.float32]) -> float:
    """Spread of the Laplacian of the face at 96 px, in grey levels: blur and smallness both lower it."""
    side = 1.1 * float(np.ptp(mesh[:, :2], axis=0).max())
    grey = cv2.cvtColor(
        align.crop(image, align.square(mesh[:, :2].mean(axis=0), side, 0.0, 96), 96), cv2.COLOR_RGB2GRAY
    )
    return float(cv2.Laplacian(grey, cv2.CV_32F).std())


def labelled_face(faces: Faces, size: tuple[int, ...]) -> int:
    """Which face a photo's person label means: large and central; -1 where there is none."""
    if len(faces) == 0:
        return -1
    centre = np.array([size[1] / 2, size[0] / 2])
    extent = faces.boxes[:, 2:] - faces.boxes[:, :2]
    distance = np.linalg.norm((faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2 - centre, axis=1) / max(size[0], size[1])
    return int(np.argmax(np.sqrt(np.prod(np.maximum(extent, 0), axis=1)) * np.exp(-((3 * distance) ** 2))))


def main_face(faces: Faces, size: tuple[int, ...]) -> Faces:
    """The face that a photo is of, or none."""
    row = labelled_face(faces, size)
    chosen = slice(row, row + 1) if row >= 0 else slice(0, 0)
    return Faces(faces.boxes[chosen], faces.scores[chosen], faces.landmarks[chosen])


def read_image(sample: Sample, job: JobConfig, least_side: int | None = None) -> Picture:
    """The decoded Picture of a sample (see `decode`); raises ImageProblem."""
    if sample.problem is not None:
        raise ImageProblem(sample.problem.reason, str(sample.problem))
    if sample.image is None:
        raise ImageProblem(Reason.NO_IMAGE)
    if len(sample.image) > job.limits.image_mib * (1 << 20):
        over = f"the file is over the limit of {job.limits.image_mib:g} MiB (limits.image_mib)"
        raise ImageProblem(Reason.TOO_LARGE, over)
    limits = job.limits
    return decode_apart(sample.image, max_mpx=limits.image_mpx, seconds=limits.image_seconds, least_side=least_side)


def try_to_read(sample: Sample, job: JobConfig, least_side: int | None = None) -> Picture | ImageProblem:
    """`read_image`, its problem as an answer."""
    try:
        return read_image(sample, job, least_side)
    except ImageProblem as problem:
        return problem
