"""`make demo` starts over and hides real faces; the drawn dataset has labels that hold, and bytes that repeat."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.support.jobs import JOBS, script

DEMO, PHOTO = script("demo_data"), script("demo_photo")
SMALL = {"people": 4, "photos_per_person": 2, "groups": 2, "empty": 2, "shards": 3}

Samples = list[tuple[bytes, dict[str, Any]]]


def shaded_ovals(latents: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A generator that needs no weights: an oval whose colour is the latent's."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    oval = (x**2 / 0.5 + y**2 / 0.8 < 1)[None, :, :, None]
    colour = 128 + 50 * np.tanh(latents.reshape(len(latents), -1)[:, None, None, :3])
    return np.where(oval, colour, 60).astype(np.uint8)


def samples_of(shards: list[Path]) -> Samples:
    """JPEG and sidecar of every sample; a member with a clock or an owner fails."""
    samples = []
    for path in shards:
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            assert {(info.mtime, info.uid, info.gid, info.uname, info.mode) for info in members} == {
                (0, 0, 0, "", 0o644)
            }
            content = [tar.extractfile(member).read() for member in members]  # type: ignore[union-attr]
        assert [Path(info.name).suffix for info in members] == [".jpg", ".json"] * (len(members) // 2)
        samples += [(jpeg, json.loads(sidecar)) for jpeg, sidecar in zip(content[::2], content[1::2], strict=True)]
    return samples


def faces_of(table: Path) -> list[dict[str, Any]]:
    return [face for row in pq.read_table(table, columns=["faces"]).to_pylist() for face in row["faces"]]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return list(DEMO.make_dataset(shaded_ovals, tmp_path_factory.mktemp("demo"), **SMALL))


def test_the_demo_starts_over_and_shows_where_everything_is(tmp_path: Path) -> None:
    size = ["--people", "2", "--photos-per-person", "2", "--actors", "0"]
    command = [sys.executable, str(JOBS / "demo.py"), "--folder", str(tmp_path), *size]
    for place in ("input", "workspace", "release"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "of an earlier run").touch()
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    for place in ("input", "workspace/sheet.jpg", "release/data"):
        assert str(tmp_path / place) in done.stdout and (tmp_path / place).exists()
    assert not list(tmp_path.rglob("of an earlier run"))
    names = {path.name for path in (tmp_path / "input").glob("*.jpg")}
    assert len(names) == 6 + 1 + 4 and names == {path.name for path in (tmp_path / "release" / "data").glob("*.jpg")}
    rows = [json.loads(line) for line in (tmp_path / "input" / "metadata.jsonl").read_text().splitlines()]
    assert Counter(row["person"] for row in rows) == {None: 6, "astronaut": 1, "p1": 2, "p2": 2}
    faces = [face for table in (tmp_path / "release" / "manifest").glob("*.parquet") for face in faces_of(table)]
    hidden = [face for face in faces if face["fallback"]]
    assert len(faces) >= 22 + 1 + 4 and len(hidden) <= len(faces) / 5


def test_labels_hold_and_photos_carry_a_position(shards: list[Path]) -> None:
    samples = samples_of(shards)
    fields = [sidecar for _, sidecar in samples]
    labels = Counter(sidecar["person"] for sidecar in fields if sidecar.get("person"))
    assert labels == {"p000": 2, "p001": 2, "p002": 2, "p003": 2, "astronaut": 1}
    groups = [sidecar for sidecar in fields if "people" in sidecar]
    assert sorted(len(set(sidecar["people"])) for sidecar in groups) == [2, 3]
    assert all(sidecar["person"] is None for sidecar in groups)
    nobody = [sidecar["caption"] for sidecar in fields if "person" not in sidecar]
    assert len(nobody) == 2 and all(caption.startswith("Nobody") for caption in nobody)
    assert not any("p00" in sidecar["caption"] for sidecar in fields)
    for jpeg, _ in samples:
        with Image.open(io.BytesIO(jpeg)) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB") and image.getexif().get_ifd(0x8825)
            assert image.size in {*PHOTO.SIZES, PHOTO.GROUP_SIZE, (512, 512)}
