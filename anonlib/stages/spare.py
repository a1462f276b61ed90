"""Faces that stay: those of people who agreed, told by photos of theirs.

A face stays if both recognizers are sure that it is of one of these people, and of nobody else in its photo. In doubt
it is hidden. What is known of a face that stays is forgotten; its row says by which photo it does.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.config import JobConfig, RayConfig
from anonlib.datasets import open_dataset
from anonlib.errors import ConfigError, ImageProblem
from anonlib.faces.detect import open_detector
from anonlib.faces.mesh import MIN_PRESENCE
from anonlib.media.prefetch import read_image
from anonlib.models.requirements import ModelBytes
from anonlib.privacy.clustering import normalized
from anonlib.synthesis.describe import Describer
from anonlib.workspace.schemas import SPARED

SURE = {"embedding": 0.955, "second": 0.72}
"""Cosines, by the column of each recognizer: of 8.2 million pairs of two of LFW's 840 people one reaches both. Of pairs
of one person 44 % do, so that three photos of each spare 63 % of a person's faces."""
_PLAIN = frozenset({"key", "index", "height", "width", "label", "kind", "score", "box", "landmarks", "consent"})


def consent_photos(job: JobConfig) -> Mapping[str, Any]:
    """The samples of `spare.people` by path, without those that are no image; raises DatasetError, StorageError."""
    if job.spare is None:
        return {}
    dataset = open_dataset(job.spare.people, format="folder", options=job.storage.options, fields=frozenset())
    return {sample.key: sample for shard in dataset.shards() for sample in dataset.read(shard)}


def digest_of(photos: Mapping[str, Any]) -> str:
    """sha256 over names and contents, hex; empty without photos."""
    parts = [f"{name} {hashlib.sha256(sample.image or b'').hexdigest()}" for name, sample in sorted(photos.items())]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest() if parts else ""


@dataclass(frozen=True)
class Consents:
    """Photos of people who agreed: `names` (n) are paths, `vectors` (n, d) unit by column of FACES."""

    names: tuple[str, ...]
    vectors: Mapping[str, NDArray[np.float32]]

    @classmethod
    def of(cls, job: JobConfig, photos: Mapping[str, Any], models: ModelBytes) -> Consents | None:
        """None without photos; raises ConfigError for one that does not show one face."""
        if not photos:
            return None
        here = job.model_copy(update={"ray": RayConfig()})  # the driver may have no GPU
        detector, describer = open_detector(job.detector.searching, models), Describer(here, models)
        described = []
        for name, sample in photos.items():
            try:
                rgb = read_image(sample, job).rgb
            except ImageProblem as problem:
                raise ConfigError(f"spare.people: {name} cannot be read: {problem}") from None
            found = detector.detect([rgb])
            (faces,) = describer.describe([rgb], found)
            if len(faces) != 1 or faces[0]["presence"] < MIN_PRESENCE:
                raise ConfigError(f"spare.people: {name} shows {len(faces)} faces, or none clearly; it must show one")
            described += faces
        return cls(tuple(photos), {column: _unit(described, column) for column in SURE})

    def spare(self, faces: Sequence[dict[str, Any]], *, forget: bool) -> None:
        """Make those of a photo's FACES rows SPARED that are; with `forget` all rows lose what was described."""
        known = [row for row in faces if row["kind"] is None and row["presence"] >= MIN_PRESENCE]
        alike = {column: _unit(known, column) @ of.T for column, of in self.vectors.items() if known}
        sure = np.all([alike[column] >= least for column, least in SURE.items() if known], axis=0)
        people = [{_person(self.names[photo]) for photo in np.flatnonzero(of)} for of in sure] if known else []
        count = Counter(person for of_face in people for person in of_face)
        for number, (row, of_face) in enumerate(zip(known, people, strict=True)):
            if len(of_face) == 1 and max(count[person] for person in of_face) == 1:
                best = int(np.argmax(np.where(sure[number], alike["embedding"][number], -1)))
                row |= {"kind": SPARED, "label": None, "consent": self.names[best]}
        for row in faces:
            if forget or row["kind"] == SPARED:
                row |= dict.fromkeys(row.keys() - _PLAIN)


def _unit(rows: Sequence[Mapping[str, Any]], column: str) -> NDArray[np.float32]:
    return normalized(np.array([row[column] for row in rows], np.float32))


def _person(name: str) -> str:
    """Photos of one person may lie in a folder of theirs."""
    return name.rpartition("/")[0] or name
