"""What a scan says of a face: mesh, vectors, attributes, pose, how well it shows, and the crop to average later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import cv2
import numpy as np
import simplejpeg

from anonlib.config import JobConfig
from anonlib.faces import align
from anonlib.faces.embed import Recognizer, read_attributes
from anonlib.faces.mesh import FaceMesh, eye_opening, five_points, mouth_opening
from anonlib.faces.regions import Regions
from anonlib.models.catalog import PIPELINE_RECOGNIZER, SECOND_RECOGNIZER
from anonlib.models.requirements import ModelBytes, load
from anonlib.synthesis.base import Floats, Pixels
from anonlib.synthesis.canonical import box_around, pose_of, shape_model, with_rings
from anonlib.synthesis.light import STEP
from anonlib.synthesis.occlusion import GLASSES_STEP, bare, glasses
from anonlib.synthesis.textures.average import detail_of
from anonlib.workspace.schemas import EXPRESSIONS, MESH_POINTS

CROP_SIDE = 640
_CROP_QUALITY = 92
_CROP_MARGIN = 0.04


class Describer:
    """Mesh, embeddings, attributes, pose and crop of detected faces."""

    def __init__(self, job: JobConfig, models: ModelBytes) -> None:
        self.mesh = FaceMesh(load(models, "facemesh", job), load(models, "iris", job))
        self.recognizer = Recognizer(PIPELINE_RECOGNIZER, load(models, PIPELINE_RECOGNIZER, job))
        self.second = Recognizer(SECOND_RECOGNIZER, load(models, SECOND_RECOGNIZER, job))
        self.attributes = load(models, "age-gender", job), load(models, "expression", job)

    def describe(self, pixels: list[Pixels], found: list[Regions]) -> list[list[dict[str, Any]]]:
        """For each image, one dict of FACES columns a face."""
        fitted = self.mesh.fit(pixels, found)
        faces = [
            (image, mesh, float(presence), eyes)
            for image, meshes in zip(pixels, fitted, strict=True)
            for mesh, presence, eyes in zip(*meshes, strict=True)
        ]
        owners, points = [image for image, *_ in faces], [five_points(mesh) for _, mesh, *_ in faces]
        embeddings = self.recognizer.embed(owners, points)
        second = self.second.embed(owners, points).astype(np.float16)
        ages, females, expressions = read_attributes(*self.attributes, owners, points)
        rows = iter(
            _geometry(image, mesh, presence)
            | {
                "embedding": embeddings[face],
                "second": second[face],
                "age": float(ages[face]),
                "female": float(females[face]),
                "expression": expressions[face],
                "gaze": eyes,
            }
            for face, (image, mesh, presence, eyes) in enumerate(faces)
        )
        return [list(islice(rows, len(meshes.points))) for meshes in fitted]


def _geometry(image: Pixels, mesh: Floats, presence: float) -> dict[str, Any]:
    pose = pose_of(mesh, shape_model().mean)
    vertices = pose.apply(with_rings(pose.undo(mesh)))
    x0, y0, x1, y1 = box_around(vertices[:, :2], image.shape, _CROP_MARGIN)
    view = crop = image[y0:y1, x0:x1]
    scale = min(1.0, CROP_SIDE / max(crop.shape[:2]))
    size = max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale))
    if scale < 1.0:
        crop = np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), np.uint8)
    sx, sy = size[0] / (x1 - x0), size[1] / (y1 - y0)
    detail, light = detail_of(view, vertices - np.array([x0, y0, 0], np.float32), GLASSES_STEP)
    return {
        "mesh": mesh.ravel(),
        "presence": presence,
        "crop": encode_crop(crop),
        "crop_from_image": np.array([sx, 0, -x0 * sx, 0, sy, -y0 * sy], np.float32),
        **dict(zip(("yaw", "pitch", "roll"), pose.angles(), strict=True)),
        "sharpness": sharpness(image, mesh),
        "clarity": light.clarity,
        "bare": bare(np.ascontiguousarray(detail[:: STEP // GLASSES_STEP, :: STEP // GLASSES_STEP]), light),
        "glasses": glasses(detail),
        "tone": light.tone,
        "mouth_open": mouth_opening(mesh),
        "eyes_open": eye_opening(mesh),
    }


def encode_crop(crop: Pixels) -> bytes:
    """A crop (H, W, 3) RGB as JPEG for the workspace."""
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(crop), quality=_CROP_QUALITY, colorsubsampling="444"))


def sharpness(image: Pixels, mesh: Floats) -> float:
    """Spread of the Laplacian of the face at 96 px, in grey levels: blur and smallness both lower it."""
    side = 1.1 * float(np.ptp(mesh[:, :2], axis=0).max())
    view = align.crop(image, align.square(mesh[:, :2].mean(axis=0), side, 0.0, 96), 96)
    grey = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_32F).std())


def happiness(expression: Sequence[float]) -> float:
    """How much of a smile a face's expression probabilities (7,) hold."""
    return float(expression[EXPRESSIONS.index("happy")])


def crop_and_mesh(row: Mapping[str, Any]) -> tuple[Pixels, Floats]:
    """The crop (h, w, 3) of a FACES row and its mesh (468, 3) in the crop's px."""
    matrix = np.array(row["crop_from_image"], np.float32).reshape(2, 3)
    mesh = np.array(row["mesh"], np.float32).reshape(MESH_POINTS, 3)
    flat = align.apply(matrix, mesh[:, :2])
    depth = mesh[:, 2:] * np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    crop = np.asarray(simplejpeg.decode_jpeg(row["crop"], colorspace="RGB"))
    return crop, np.concatenate([flat, depth], axis=1).astype(np.float32)
