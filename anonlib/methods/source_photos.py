"""Photos of people who agreed to lend their faces, as a swapper wants them: an ArcFace vector each.

Of each photo the large and central face is taken. Small, turned or hidden ones lend badly, so they are left out.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.config import JobConfig
from anonlib.datasets import open_dataset
from anonlib.errors import ConfigError, DatasetError, ImageProblem, ModelUnusable, StorageError
from anonlib.faces import align
from anonlib.faces.detect import CenterFaceDetector
from anonlib.faces.mesh import MIN_PRESENCE, five_points
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import ARCFACE_POINTS
from anonlib.models.packs import RECOGNIZER_SIZE, SWAPPER_DIMENSIONS, PackRecognizer
from anonlib.models.requirements import load, scan_models
from anonlib.stages.scan import Describer, main_face, try_to_read
from anonlib.storage.scratch import scratch
from anonlib.workspace.layout import storage_options
from anonlib.workspace.schemas import MESH_POINTS

_MAX_YAW, _LEAST_EYES = 35.0, 24.0


def recognizer_of(data: bytes) -> PackRecognizer:
    """The ArcFace in an .onnx file's bytes; raises ModelUnusable if it is none that a swapper was made for."""
    # insightface reads files; it holds what it read
    with scratch() as folder:
        path = folder / "recognizer.onnx"
        path.write_bytes(data)
        recognizer = PackRecognizer(path)
    if recognizer.dimensions != SWAPPER_DIMENSIONS:
        raise ModelUnusable(
            f"it answers with {recognizer.dimensions} numbers, and a swapper takes {SWAPPER_DIMENSIONS}"
        )
    return recognizer


def embed_donors(job: JobConfig, uri: str, recognizer: PackRecognizer) -> bytes:
    """The faces of a dataset or folder as npz, in its order.

    `vectors` (n, 128) of the pipeline's recognizer and `lent` (n, 512) of the swapper's, unit rows; `female`, `age`
    (n,). Raises ConfigError if it cannot be read or shows no face that can be lent.
    """
    models = {name: model_bytes(name) for name in scan_models(job)}
    detector = CenterFaceDetector(load(models, "centerface", job), side=job.detector.side, score=job.detector.score)
    describer = Describer(job, models)
    rows: list[dict[str, Any]] = []
    photos = 0
    try:
        dataset = open_dataset(uri, options=storage_options(job))
        for shard in dataset.shards():
            for sample in dataset.read(shard):
                photos += 1
                picture = try_to_read(sample, job)
                if not isinstance(picture, ImageProblem):
                    rows += _lent(picture.rgb, detector, describer, recognizer)
    except (DatasetError, StorageError) as error:
        raise ConfigError(f"the donors {uri} cannot be read: {error}") from None
    if not rows:
        raise ConfigError(
            f"none of the {photos} photos of the donors {uri} shows a face that can be lent: "
            "frontal, and 24 px or more between the eyes"
        )
    buffer = io.BytesIO()
    stored: dict[str, Any] = {name: np.array([row[name] for row in rows], np.float32) for name in rows[0]}
    np.savez(buffer, **stored)
    return buffer.getvalue()


def _lent(
    image: NDArray[np.uint8], detector: CenterFaceDetector, describer: Describer, recognizer: PackRecognizer
) -> list[dict[str, Any]]:
    """The face that a photo (H, W, 3) is of, or none."""
    (found,) = detector.detect([image])
    chosen = main_face(found, image.shape)
    if not len(chosen):
        return []
    ((face,),) = describer.describe([image], [chosen])
    five = five_points(face["mesh"].reshape(MESH_POINTS, 3))
    eyes = float(np.linalg.norm(five[1] - five[0]))
    if face["presence"] < MIN_PRESENCE or abs(face["yaw"]) > _MAX_YAW or eyes < _LEAST_EYES:
        return []
    matrix = align.similarity(five, np.array(ARCFACE_POINTS, np.float32))
    aligned = align.crop(image, matrix, RECOGNIZER_SIZE)
    (lent,) = recognizer.embed(aligned[None])
    return [{"vectors": face["embedding"], "lent": lent, "female": face["female"], "age": face["age"]}]
