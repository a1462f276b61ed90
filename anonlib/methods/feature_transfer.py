"""embedding and inswapper: another person's features in the face's own crop. Neither claims anything.

One donor a subject, drawn with the job's secret, in all photos of the release: of anonlib's public bank, or from photos
of the user's. Networks are loaded where they are used.
"""

from __future__ import annotations

import hashlib
import io
import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from anonlib.config import JobConfig
from anonlib.errors import BackendMissing, ConfigError, DatasetError, ImageProblem, ModelUnusable, StorageError
from anonlib.methods.base import USERS_OWN, Method, MethodFile, Persons, Rendering, SurrogateSource, Vectors, appearance
from anonlib.models.runtime import locked_cached_property
from anonlib.privacy.gallery import PublicIdentities, donor, gallery_of
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.synthesis.base import IdentityDraw

if TYPE_CHECKING:
    from anonlib.models.packs import Embed, Swap
    from anonlib.synthesis.compositor import Rendered
    from anonlib.synthesis.feature_transfer import FeatureTransferNetwork

NETWORK, SWAPPER, RECOGNIZER, DONORS = "embedding", "swapper", "recognizer", "donors"  # files among a job's models
STILL_RECOGNIZED = "people can still recognize these faces"
"""What a job must say for `embedding`, which deceives machines alone."""
_MAX_YAW, _LEAST_EYES = 35.0, 24.0


class FeatureTransfer(Method):
    """One donor a person, and the way from the person to the donor; KeyError where its files are not there."""

    keys = ("own_angle", "accept")
    least_eyes = 16.0
    tries: ClassVar[int]  # donors of a person: the first is put in, the next ones where the output still matches

    @property
    @abstractmethod
    def gallery(self) -> PublicIdentities:
        """The donors, with strata."""

    @property
    @abstractmethod
    def file_digest(self) -> str:
        """Names its opened files, sha256 in hex."""

    @property
    def own_angle(self) -> float:
        """Degrees that a donor keeps from the person, in the donors' space."""
        return self.settings.own_angle

    def identity(self, templates: Vectors) -> Vectors:
        """Templates (n, d), unit rows, as points of the donors' space."""
        return templates

    def way(self, person: Vectors, row: int) -> Vectors:
        """What a draw of donor `row` for a person (d,) holds, (d,)."""
        return np.asarray(self.gallery.vectors[row], np.float32)

    @abstractmethod
    def render(self, image: NDArray[np.uint8], mesh: Vectors, draw: IdentityDraw) -> Rendered:
        """The face with `mesh` (468, 3) px of a photo (H, W, 3), with a donor's features."""

    def check(self) -> None:
        if self.settings.texture is not None:
            raise ValueError(f"{self.name} changes the face's own px and has no texture")

    def draws(self, persons: Persons, keyring: Keyring) -> list[list[IdentityDraw]]:
        points, gallery, strata = self.identity(persons.template), self.gallery, persons.strata
        names = [[f"{person} {turn}" if turn else person for person in persons.ids] for turn in range(self.tries)]
        try:
            rows = [donor(points, gallery, ids, keyring, self.own_angle, strata) for ids in names]
        except ValueError as error:
            raise ConfigError(f"{self.name} finds no donor: {error}") from None
        return [
            [IdentityDraw(self.way(point, row), *appearance(stratum), (row,), (1.0,)) for row in own]
            for point, own, stratum in zip(points, np.transpose(rows).tolist(), strata, strict=True)
        ]

    def draw_name(self, draw: IdentityDraw, keyring: Keyring) -> str:
        """See Method: of network, donors, donor and the way to it, which begins at the person's own vector."""
        way, row = np.asarray(draw.vector, "<f4").tobytes(), str(draw.rows[0])
        return keyring.digest(Purpose.LENT_FACE, self.file_digest, row, f"{draw.weights[0]:g}", way).hex()

    def replacement(self, name: str, source: SurrogateSource) -> Rendering:
        draw = source.draw(name)
        return Rendering(lambda picture, region: self.render(picture, region.mesh, draw), source.digest(name))


class Embedding(FeatureTransfer):
    """Donors of the shipped public bank, whose features recognizers read in the face."""

    required = ("accept",)
    tries = 5

    @locked_cached_property
    def network(self) -> FeatureTransferNetwork:
        from anonlib.synthesis.feature_transfer import FeatureTransferNetwork

        return FeatureTransferNetwork.from_bytes(self.files[NETWORK], self.device)

    @locked_cached_property
    def gallery(self) -> PublicIdentities:
        return gallery_of(self.network.donors, self.network.female, self.network.age)

    @property
    def file_digest(self) -> str:
        return self.network.digest

    def check(self) -> None:
        super().check()
        if self.settings.accept != STILL_RECOGNIZED:
            raise ValueError(
                "embedding deceives recognizers and not people, so it anonymizes nobody; "
                f'if that is what you want, say so by accept: "{STILL_RECOGNIZED}"'
            )

    def recognizers_used(self) -> frozenset[str]:
        from anonlib.synthesis.feature_transfer import TRAINED_AGAINST

        return super().recognizers_used() | set(TRAINED_AGAINST)

    def identity(self, templates: Vectors) -> Vectors:
        return self.network.identity(templates)

    def way(self, person: Vectors, row: int) -> Vectors:
        return np.asarray(self.network.donors[row] - person, np.float32)

    def render(self, image: NDArray[np.uint8], mesh: Vectors, draw: IdentityDraw) -> Rendered:
        return self.network.render(image, mesh, draw.vector)

    def read_files(self, job: JobConfig) -> dict[str, MethodFile]:
        from anonlib.synthesis import feature_transfer

        data = feature_transfer.shipped()
        about = feature_transfer.FeatureTransferNetwork.from_bytes(data).about
        if not about.commercial and NETWORK not in job.accept_licences:
            raise ConfigError(
                f"the network of embedding was trained on photos whose terms are: {about.terms}; "
                f"if that is allowed here, add {NETWORK} to accept_licences"
            )
        return {NETWORK: MethodFile(data, about.terms)}


class Inswapper(FeatureTransfer):
    """Donors from the user's photos, whose faces the user's swapper puts in; the space is the recognizer's own."""

    required = ("swapper", "recognizer", "donors")
    tries = 3

    @locked_cached_property
    def swap(self) -> Swap:
        from anonlib.models.packs import open_swapper

        return open_swapper(self.files[SWAPPER])

    @locked_cached_property
    def donors(self) -> dict[str, Vectors]:
        """The arrays of `embed_donors`."""
        with np.load(io.BytesIO(self.files[DONORS]), allow_pickle=False) as arrays:
            return dict(arrays)

    @locked_cached_property
    def gallery(self) -> PublicIdentities:
        return gallery_of(self.donors["vectors"], self.donors["female"], self.donors["age"])

    @locked_cached_property
    def file_digest(self) -> str:
        digests = [hashlib.sha256(self.files[name]).digest() for name in (SWAPPER, DONORS)]
        return hashlib.sha256(b"".join(digests)).hexdigest()

    @property
    def own_angle(self) -> float:
        """A few donors have no centre, so what tells two people apart is the recognizer's own threshold."""
        from anonlib.faces.embed import SAME_PERSON

        return math.degrees(math.acos(SAME_PERSON))

    def check(self) -> None:
        super().check()
        if not (self.settings.swapper and self.settings.recognizer and self.settings.donors):
            raise ValueError(
                "inswapper needs three things of yours: swapper and recognizer, the .onnx files of a swapper and of "
                "the ArcFace that it was made for, and donors, photos of people who agreed to lend it their faces"
            )

    def render(self, image: NDArray[np.uint8], mesh: Vectors, draw: IdentityDraw) -> Rendered:
        from anonlib.synthesis.feature_transfer import swapped

        return swapped(image, mesh, self.donors["lent"][draw.rows[0]], self.swap)

    def read_files(self, job: JobConfig) -> dict[str, MethodFile]:
        from anonlib.models.packs import open_recognizer, open_swapper
        from anonlib.storage import read_file

        files: dict[str, MethodFile] = {}
        opened: dict[str, Any] = {}
        for name, opener in ((SWAPPER, open_swapper), (RECOGNIZER, open_recognizer)):
            uri = getattr(self.settings, name)
            try:
                files[name] = MethodFile(read_file(uri, job.storage.options), USERS_OWN, travels=name != RECOGNIZER)
                opened[name] = opener(files[name].data)
            except (StorageError, ModelUnusable, BackendMissing) as error:
                raise ConfigError(f"the {name} {uri} cannot be used: {error}") from None
        donors = embed_donors(job, self.settings.donors or "", opened[RECOGNIZER])
        return files | {DONORS: MethodFile(donors, "photos of people who agreed, as the user says")}


def embed_donors(job: JobConfig, uri: str, embed: Embed) -> bytes:
    """The main faces of a dataset's photos that can be lent as npz; raises ConfigError if there are none.

    `vectors` (n, 128) of the pipeline's recognizer and `lent` (n, 512) of the swapper's, unit rows; `female`, `age`.
    """
    from anonlib.datasets import open_dataset
    from anonlib.faces import align
    from anonlib.faces.detect import open_detector
    from anonlib.faces.mesh import MIN_PRESENCE, five_points
    from anonlib.faces.regions import main_face
    from anonlib.media.prefetch import try_to_read
    from anonlib.models.cache import model_bytes
    from anonlib.models.catalog import ARCFACE_POINTS, FACE_MODELS
    from anonlib.models.packs import RECOGNIZER_SIZE
    from anonlib.synthesis.describe import Describer
    from anonlib.workspace.schemas import MESH_POINTS

    detector = open_detector(job.detector.searching)
    describer = Describer(job, {name: model_bytes(name) for name in FACE_MODELS})
    rows: list[dict[str, Any]] = []
    photos = 0
    try:
        dataset = open_dataset(uri, options=job.storage.options)
        for sample in (sample for shard in dataset.shards() for sample in dataset.read(shard)):
            photos += 1
            picture = try_to_read(sample, job)
            if isinstance(picture, ImageProblem):
                continue
            chosen = [main_face(found, picture.rgb.shape) for found in detector.detect([picture.rgb])]
            for face in describer.describe([picture.rgb], chosen)[0] if len(chosen[0]) else ():
                five = five_points(face["mesh"].reshape(MESH_POINTS, 3))
                eyes = float(np.linalg.norm(five[1] - five[0]))
                if face["presence"] < MIN_PRESENCE or abs(face["yaw"]) > _MAX_YAW or eyes < _LEAST_EYES:
                    continue
                matrix = align.similarity(five, np.array(ARCFACE_POINTS, np.float32))
                (lent,) = embed(align.crop(picture.rgb, matrix, RECOGNIZER_SIZE)[None])
                looks = {"female": face["female"], "age": face["age"]}
                rows.append({"vectors": face["embedding"], "lent": lent} | looks)
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
