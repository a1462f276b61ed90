"""Shared by the tests of models: a toy model for fetching, and aligned faces of people for the real ones."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from anonlib.models import cache
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import MODELS, InputSpec
from anonlib.models.runtime import load_engine, prepare
from tests.models import toy_model

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy in the catalogue, its wheel in the archives folder of an empty cache; the cache is returned."""
    monkeypatch.setenv("ANONLIB_MODELS", str(tmp_path))
    monkeypatch.setitem(MODELS, toy_model.NAME, MODELS[toy_model.NAME])
    monkeypatch.setitem(cache.stored(), toy_model.NAME, cache.stored()[toy_model.NAME])
    toy_model.install(tmp_path / "archives")
    return tmp_path


@dataclass(frozen=True)
class Face:
    """A found face: its photo, whose it is, its box (4,) and five landmarks (5, 2) in pixels."""

    photo: np.ndarray
    person: str
    box: np.ndarray
    points: np.ndarray

    def crop(self, spec: InputSpec) -> np.ndarray:
        """The crop that a model's card asks for."""
        size = spec.size[0]
        if spec.crop.kind == "points":
            matrix = similarity(self.points, np.array(spec.landmarks()))
        else:
            side = max(self.box[2:] - self.box[:2]) * spec.crop.zoom
            across = self.points[1] - self.points[0]
            tilt = np.arctan2(across[1], across[0])
            turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]]) * size / side
            middle = (self.box[:2] + self.box[2:]) / 2
            matrix = np.hstack([turn, (size / 2 - turn @ middle)[:, None]])
        return cv2.warpAffine(self.photo, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The turn, scale and shift (2, 3) that brings points nearest to others, by least squares."""
    rows = [[[x, -y, 1, 0], [y, x, 0, 1]] for x, y in source]
    (a, b, c, d), *_ = np.linalg.lstsq(np.reshape(rows, (-1, 4)), target.reshape(-1), rcond=None)
    return np.array([[a, -b, c], [b, a, d]])


def best_face(photo: np.ndarray, person: str, detector) -> Face | None:
    """The face in the middle of the photo, decoded from CenterFace as its card says."""
    height, width = (side // 32 * 32 for side in photo.shape[:2])
    photo = photo[:height, :width]
    maps = [m[0] for m in detector(prepare(MODELS["centerface"], photo[None]))]
    heat, scale, offset, landmarks = maps
    rows, columns = np.nonzero(heat[0] > 0.5)
    if len(rows) == 0:
        return None
    away = np.maximum(np.abs(rows * 8 / height - 1), np.abs(columns * 8 / width - 1)) - heat[0, rows, columns]
    y, x = rows[away.argmin()], columns[away.argmin()]
    h, w = np.exp(scale[:, y, x]) * 4
    top, left = (y + offset[0, y, x] + 0.5) * 4 - h / 2, (x + offset[1, y, x] + 0.5) * 4 - w / 2
    points = landmarks[:, y, x].reshape(5, 2)[:, ::-1] * [w, h] + [left, top]
    return Face(photo, person, np.array([left, top, left + w, top + h]), points)


def read_photos(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(person or "", RGB photo) of a WebDataset tar whose .json follows its .jpg."""
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine: the research images are not part of anonlib")
    with tarfile.open(path) as tar:
        for info in tar:
            data = tar.extractfile(info).read()
            if info.name.endswith(".jpg"):
                photo = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
            else:
                yield json.loads(data).get("person", ""), np.ascontiguousarray(photo)


@pytest.fixture(scope="session")
def people() -> list[Face]:
    """Two photos each of 60 people."""
    detector = load_engine(model_bytes("centerface"))
    faces: dict[str, list[Face]] = {}
    for person, photo in read_photos(DATA / "lfw-dev-000.tar"):
        kept = faces.setdefault(person, [])
        face = best_face(photo, person, detector) if len(kept) < 2 else None
        if face is not None:
            kept.append(face)
        pairs = [f for f in faces.values() if len(f) == 2]
        if len(pairs) == 60:
            break
    return [face for pair in pairs for face in pair]


@pytest.fixture(scope="session")
def portraits() -> list[Face]:
    """Twenty portraits of nobody."""
    detector = load_engine(model_bytes("centerface"))
    faces = []
    for _, photo in read_photos(DATA / "portraits-cc0-000.tar"):
        face = best_face(photo, "", detector)
        if face is not None:
            faces.append(face)
        if len(faces) == 20:
            break
    return faces
