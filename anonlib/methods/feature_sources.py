"""Where donors come from, and what puts their features into a face: anonlib's public bank, or a user's photos.

Of a user's photos the large and central face is taken. Small, turned and hidden faces make bad donors and are left out.
"""

from __future__ import annotations

import hashlib
import io
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.config import JobConfig
from anonlib.datasets import open_dataset
from anonlib.errors import ConfigError, DatasetError, ImageProblem, StorageError
from anonlib.faces import align
from anonlib.faces.detect import Detector, open_detector
from anonlib.faces.mesh import MIN_PRESENCE, five_points
from anonlib.faces.regions import main_face
from anonlib.media.prefetch import try_to_read
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import ARCFACE_POINTS, FACE_MODELS
from anonlib.models.packs import RECOGNIZER_SIZE, Embed, Swap, open_swapper
from anonlib.models.requirements import device_of
from anonlib.models.runtime import locked_cached_property
from anonlib.privacy.gallery import Gallery
from anonlib.privacy.strata import Stratum, stratum_of
from anonlib.synthesis.base import IdentityDraw
from anonlib.synthesis.compositor import Rendered
from anonlib.synthesis.crops import swapped
from anonlib.synthesis.describe import Describer
from anonlib.synthesis.feature_transfer import FeatureTransferNetwork
from anonlib.workspace.schemas import MESH_POINTS

_MAX_YAW, _LEAST_EYES = 35.0, 24.0


class EmbeddingFeatures:
    """Donors of the shipped public bank: points of the network's identity space."""

    tries: tuple[tuple[int, float], ...] = tuple((donor, 1.0) for donor in range(5))
    """Which of a person's donors is put in how strongly: at first, and then where the output still matches.

    Each once: the network learnt no longer ways, and beyond them faces go dark.
    """

    def __init__(self, data: bytes, device: str = "cpu") -> None:
        self.network = FeatureTransferNetwork.from_bytes(data, device)

    @property
    def digest(self) -> str:
        """Names donors and network: 64 hex digits."""
        return self.network.digest

    @cached_property
    def gallery(self) -> Gallery:
        return Gallery(self.network.donors, _strata(self.network.female, self.network.age))

    def identity(self, templates: NDArray[np.float32]) -> NDArray[np.float32]:
        """Templates (n, d), unit rows, as points of the donors' space."""
        return self.network.identity(templates)

    def vector(self, person: NDArray[np.float32], row: int, strength: float) -> NDArray[np.float32]:
        """What a draw of donor `row` for a person (d,) holds, (d,)."""
        return np.asarray(strength * (self.network.donors[row] - person), np.float32)

    def render(self, image: NDArray[np.uint8], mesh: NDArray[np.float32], draw: IdentityDraw) -> Rendered:
        """The face with `mesh` (468, 3) px of a photo (H, W, 3), with a donor's features."""
        return self.network.render(image, mesh, draw.vector)


class SwapFeatures:
    """The same of the user's photos, in the space of the pipeline's recognizer, without a centre."""

    tries: tuple[tuple[int, float], ...] = ((0, 1.0), (1, 1.0), (2, 1.0))

    def __init__(self, swapper: bytes, donors: bytes) -> None:
        self._data = swapper
        self.digest = hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in (swapper, donors))).hexdigest()
        with np.load(io.BytesIO(donors), allow_pickle=False) as arrays:
            self.gallery = Gallery(arrays["vectors"], _strata(arrays["female"], arrays["age"]))
            self._donors = arrays["lent"]

    @locked_cached_property
    def swap(self) -> Swap:
        """Opened where it is first used."""
        return open_swapper(self._data)

    def identity(self, templates: NDArray[np.float32]) -> NDArray[np.float32]:
        return templates

    def vector(self, person: NDArray[np.float32], row: int, strength: float) -> NDArray[np.float32]:
        return np.asarray(self.gallery.vectors[row], np.float32)

    def render(self, image: NDArray[np.uint8], mesh: NDArray[np.float32], draw: IdentityDraw) -> Rendered:
        return swapped(image, mesh, self._donors[draw.rows[0]], self.swap)


FeatureSource = EmbeddingFeatures | SwapFeatures


def embed_donors(job: JobConfig, uri: str, embed: Embed) -> bytes:
    """The faces of a dataset or folder as npz, in its order.

    `vectors` (n, 128) of the pipeline's recognizer and `lent` (n, 512) of the swapper's, unit rows; `female`, `age`
    (n,). Raises ConfigError if it cannot be read or shows no face that can be lent.
    """
    detector = open_detector(job.detector, device=device_of(job))
    describer = Describer(job, {name: model_bytes(name) for name in FACE_MODELS})
    rows: list[dict[str, Any]] = []
    photos = 0
    try:
        dataset = open_dataset(uri, options=job.storage.options)
        for shard in dataset.shards():
            for sample in dataset.read(shard):
                photos += 1
                picture = try_to_read(sample, job)
                if not isinstance(picture, ImageProblem):
                    rows += _donor_face(picture.rgb, detector, describer, embed)
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


def _donor_face(
    image: NDArray[np.uint8], detector: Detector, describer: Describer, embed: Embed
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
    (features,) = embed(align.crop(image, matrix, RECOGNIZER_SIZE)[None])
    return [{"vectors": face["embedding"], "lent": features, "female": face["female"], "age": face["age"]}]


def _strata(female: NDArray[np.float32], age: NDArray[np.float32]) -> list[Stratum]:
    return [stratum_of(float(share), float(years)) for share, years in zip(female, age, strict=True)]
