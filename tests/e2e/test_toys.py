"""What contributors add is one file each: a toy of every kind runs through a whole job."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.config import MethodConfig
from anonlib.datasets import DATASETS, Dataset, Item, Sample, Shard, ShardWriter
from anonlib.datasets.names import kept_members
from anonlib.faces.centerface import CenterFaceDetector
from anonlib.faces.detect import DETECTORS, Detector
from anonlib.faces.regions import Regions
from anonlib.job import Job
from anonlib.methods import METHODS, method_of
from anonlib.methods.base import Method, Region, Replacement, SurrogateSource
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import Placement
from anonlib.privacy.classes import Stratum
from anonlib.storage import Storage, open_storage
from anonlib.synthesis.base import DecoderNotes, IdentityDraw, PublicFaces
from anonlib.synthesis.canonical import SIZE, shape_model
from anonlib.synthesis.redact import GREY
from anonlib.synthesis.textures import TEXTURES, TextureEntry
from anonlib.synthesis.textures.average import Texture
from anonlib.verification.release import verify
from tests.support import photos
from tests.support.runs import Run, manifest, planned_copy, released, run_job


class LinesDataset(Dataset):
    """A format of one JSON object a line: key, image in base64 and caption."""

    format, noun, media_type, suffixes = "lines", "lines file", "application/jsonl", (".lines",)

    def read(self, shard: Shard, left_out: Counter[str] | None = None) -> Iterator[Sample]:
        lines = self.storage.read(self.name_of(shard), shard.etag).splitlines()
        for position, row in enumerate(map(json.loads, lines)):
            image = base64.b64decode(row["image"])
            yield Sample(row["key"], image, "image", {"caption": row["caption"].encode()}, None, position)

    @classmethod
    def _items(cls, storage: Storage, path: str) -> Iterator[Item]:
        for row in map(json.loads, storage.read(path).splitlines()):
            for name in row.keys() - {"key"}:
                content = base64.b64decode(row[name]) if name == "image" else row[name].encode()
                yield Item(f"{path}: {row['key']}", row["key"], name, content)

    def writer(
        self, shard: Shard, local_path: Path, keep_fields: frozenset[str], name: str | None = None
    ) -> ShardWriter:
        return LinesWriter(local_path, self.output_path(shard, name), keep_fields)


class LinesWriter(ShardWriter):
    def __init__(self, local_path: Path, release_path: str, keep: frozenset[str]) -> None:
        super().__init__(local_path, release_path)
        self.keep = keep
        self.lines: list[str] = []

    def _entry(self, sample: Sample, image: bytes, key: str | None) -> Any:
        kept = {name: content.decode() for name, content in kept_members(sample.fields, self.keep).items()}
        return {"key": key or sample.key, "image": base64.b64encode(image).decode(), **kept}

    def _add(self, position: int, entry: Any) -> None:
        self.lines.append(json.dumps(entry) + "\n")

    def _finish(self) -> None:
        self._path.write_text("".join(self.lines))


def test_a_toy_format_is_read_released_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "lines", LinesDataset)
    (tmp_path / "input").mkdir()
    shots = [("ada", photos.people(1, 1)[0][1]), ("empty", photos.nobody())]
    rows = [
        {"key": key, "image": base64.b64encode(photos.jpeg(pixels)).decode(), "caption": "x"} for key, pixels in shots
    ]
    (tmp_path / "input" / "0.lines").write_text("".join(json.dumps(row) + "\n" for row in rows))
    place = {"uri": str(tmp_path / "input")}
    run = run_job(tmp_path / "input", tmp_path, input=place, method={"name": "solid"})
    assert run.summary.code == 0
    lines = [json.loads(line) for line in (run.output / "data" / "0.lines").read_text().splitlines()]
    assert [(row["key"], row["caption"]) for row in lines] == [("ada", "x"), ("empty", "x")]
    assert lines[0]["image"] != rows[0]["image"]
    verify(open_storage(str(run.output)), None)


class CheckerSettings(MethodConfig):
    """A key of the method's own."""

    squares: int = 4


class Checker(Method):
    """A method that paints a checkerboard over each face's box."""

    Settings = CheckerSettings
    settings: CheckerSettings
    synthesis = False
    keys = ("squares",)
    describe = recheck = ()

    def replacement(self, name: str, source: SurrogateSource) -> Replacement:
        return Board(self.settings.squares)


@dataclass(frozen=True)
class Board:
    squares: int
    digest: None = None

    def apply(self, picture: NDArray[np.uint8], region: Region) -> None:
        x0, y0, x1, y1 = np.maximum(region.box.round().astype(int), 0).tolist()
        rows, columns = np.mgrid[0 : self.squares, 0 : self.squares]
        board = ((rows + columns) % 2 * 255).astype(np.uint8)
        painted = cv2.resize(board, (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST)[..., None]
        view = picture[y0:y1, x0:x1]
        view[:] = painted[: view.shape[0], : view.shape[1]]


def test_a_toy_method_is_rendered(one_shard: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "checker", Checker)
    run = run_job(one_shard.input, tmp_path, method={"name": "checker", "squares": 2})
    faces = [face for row in manifest(run.output) for face in row["faces"]]
    assert run.summary.code == 0 and {face["method"] for face in faces} == {"checker"}
    verify(open_storage(str(run.output)), None)
    note = json.loads((run.output / "run.json").read_text())
    assert note["method"]["squares"] == 2 and note["synthesis"] is False


class PlainFaces:
    """A texture of one colour, whose file is a magic word and that colour."""

    trained_against = ("fr-feature",)
    Face = Texture

    def __init__(self, data: bytes) -> None:
        self.grey, self.digest = data[5], hashlib.sha256(data).hexdigest()
        self.about = DecoderNotes("nothing", "none", 0, True)
        self.bank = PublicFaces(np.eye(2, 128, dtype=np.float32), np.zeros(2), np.full(2, 30.0))

    def identity(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return vectors

    def rows(self, stratum: Stratum) -> tuple[int, ...]:
        return ()

    def face(self, draw: IdentityDraw) -> Texture:
        detail = np.full((SIZE, SIZE, 3), self.grey / 255 - 0.5, np.float32)
        return Texture(detail, shape_model().mean, 0.0)

    @classmethod
    def from_bytes(cls, data: bytes, device: str = "cpu") -> PlainFaces:
        return cls(data)

    @classmethod
    def shipped(cls) -> bytes:
        return b"PLAIN\x90"


@pytest.mark.parametrize("name", ["dp-uniform", "k-diff"])
def test_a_toy_texture_is_rendered(name: str, one_shard: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TEXTURES, "plain", TextureEntry(f"{__name__}:PlainFaces"))
    config = planned_copy(one_shard, tmp_path, method={"name": name, "texture": "plain", "k": 2})
    assert Job(config).run().code == 0
    faces = [face for row in manifest(tmp_path / "release") for face in row["faces"]]
    assert sum(face["method"] == name and bool(face["surrogate_digest"]) for face in faces) >= 4
    verify(open_storage(config.output.uri), None)
    assert "fr-feature" in method_of(config.method).recognizers_used()


class SignFinder:
    """A detector of faces, and of a sign that it takes to hang in the corner of every photo."""

    needs_file = False

    def __init__(self, faces: Detector) -> None:
        self.faces = faces

    @classmethod
    def open(cls, data: bytes, *, side: int, score: float, where: Placement) -> SignFinder:
        return cls(CenterFaceDetector.open(model_bytes("centerface"), side=side, score=score, where=where))

    def detect(
        self, images: Sequence[NDArray[np.uint8]], full_sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[Regions]:
        return [
            Regions(
                np.concatenate([SIGN[None], found.boxes]),
                np.concatenate([np.ones(1, np.float32), found.scores]),
                np.concatenate([np.full((1, 5, 2), np.nan, np.float32), found.landmarks]),
                ("sign", *found.kinds),
            )
            for found in self.faces.detect(images, full_sizes)
        ]


SIGN = np.array([0, 0, 24, 16], np.float32)


def test_a_toy_detector_hides_signs(one_shard: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DETECTORS, "signs", SignFinder)
    run = run_job(one_shard.input, tmp_path, detector={"name": "signs"}, fallback="solid")
    assert run.summary.code in (0, 3)
    rows = [row for row in manifest(run.output) if row["status"] == "released"]
    assert all([0, 0, 24, 16] in [face["box"] for face in row["faces"]] for row in rows)
    for row in rows:
        for face in row["faces"]:
            assert face["method"] == "solid" or face["box"] != [0, 0, 24, 16]
    replaced, expected = (
        sorted((row["key"], *face["box"]) for row in of for face in row["faces"] if face["method"] == "k-diff")
        for of in (rows, manifest(one_shard.output))
    )
    assert [key for key, *_ in replaced] == [key for key, *_ in expected] != []
    # The toy computes in f32, also where the other job's detector does not.
    assert np.abs(np.array([box for _, *box in replaced]) - [box for _, *box in expected]).max() <= 2
    for data in released(run.output).values():  # a JPEG rings at the edge of the ellipse
        assert np.abs(photos.decoded(data)[5:11, 8:16].astype(int) - GREY).max() <= 8
    verify(open_storage(str(run.output)), None)
