"""Clips in every format: they pass through local disk and never through memory, in the order and under the names of
their dataset."""

from __future__ import annotations

import gc
import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anonlib.codes import Reason
from anonlib.datasets import base, open_dataset
from anonlib.datasets.names import clip_kind, holds_image, is_clip, media_ending
from anonlib.storage import StorageOptions, open_storage
from tests.support import photos

PHOTO = photos.encoded(np.random.default_rng(1).integers(0, 255, (24, 32, 3), np.uint8), "PNG")
CLIP = b"\0\0\0\x18ftypisom" + bytes(range(256)) * 40
NEW = b"\0\0\0\x18ftypisom" + bytes(range(256)) * 30
MEMBERS = [("a.mp4", CLIP), ("a.txt", b"one"), ("b.png", PHOTO), ("c.mov", CLIP[::-1]), ("d.jpg", CLIP)]


def make_webdataset(root: Path) -> None:
    photos.tar(root / "0.tar", MEMBERS)


def make_parquet(root: Path) -> None:
    contents = [content for name, content in MEMBERS if name != "a.txt"]
    pq.write_table(pa.table({"image": contents, "txt": ["one", "", "", ""]}), root / "0.parquet")


def make_folder(root: Path) -> None:
    for name, content in MEMBERS:
        (root / name).write_bytes(content)


MAKERS = {"webdataset": make_webdataset, "parquet": make_parquet, "folder": make_folder}


@pytest.fixture(params=MAKERS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    MAKERS[request.param](tmp_path / "in")
    return tmp_path / "in"


def test_a_clip_is_a_file_on_local_disk_while_its_sample_is_there(root):
    dataset = open_dataset(str(root))
    (shard,) = dataset.shards()
    found = list(dataset.read(shard))
    clips = [found[0], found[-1]]
    for sample in clips:
        assert sample.problem is None and sample.image is None and sample.clip.read_bytes() == CLIP
    assert found[1].clip is None and found[1].image == PHOTO
    paths = [sample.clip for sample in clips]
    del found, clips, sample
    gc.collect()
    assert not any(path.exists() for path in paths)


def test_a_file_that_is_named_as_a_clip_is_one_unless_it_is_an_image():
    assert is_clip("a.mp4") and is_clip("a.MOV", b"damaged") and is_clip("a.jpg", CLIP)
    assert not is_clip("a.mp4", PHOTO) and not is_clip("a.jpg") and not is_clip("a.txt", b"The free lunch")
    ebml = b"\x1a\x45\xdf\xa3"
    for kind, head in {"webm": ebml + b"\x9fB\x82\x84webm", "matroska": ebml, "avi": b"RIFF1234AVI LIST"}.items():
        assert clip_kind(head) == kind
    assert clip_kind(b"\0\0\0\x18ftypavif") is None and media_ending(b"\x1a\x45\xdf\xa3") == "mkv"
    assert holds_image(CLIP) and holds_image("data:video/mp4;base64,AAAA")


@pytest.mark.parametrize("rekey", [False, True])
def test_a_new_clip_is_written_in_its_place(root, tmp_path, rekey):
    dataset = open_dataset(str(root))
    (shard,) = dataset.shards()
    samples = list(dataset.read(shard))
    keys = {sample.key: f"k{9 - number}" for number, sample in enumerate(samples)}
    with dataset.writer(shard, tmp_path / "work/shard", frozenset({"txt"}), "new" if rekey else None) as writer:
        for sample in samples:
            out = sample.image
            if sample.clip is not None:
                out = tmp_path / "work" / "rendered"
                out.write_bytes(NEW)
            writer.write(sample, out, keys[sample.key] if rekey else None)
            assert not (tmp_path / "work" / "rendered").exists()
    release = open_storage(str(tmp_path / "release"))
    for path, local in writer.outputs():
        release.publish(path, local)
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"shard"}
    again = open_dataset(str(tmp_path / "release" / "data"))
    (shard,) = again.shards()
    found = list(again.read(shard))
    order = sorted(samples, key=lambda sample: keys[sample.key]) if rekey else samples
    assert len(found) == len(order)
    for old, new in zip(order, found, strict=True):
        if old.image is None:
            assert new.clip.read_bytes() == NEW
        else:
            assert new.image == old.image
        assert new.fields == old.fields
        if not rekey:
            assert (old.key, old.image_field) == (new.key, new.image_field)


def test_a_clip_without_an_ending_gets_that_of_its_container_with_a_new_key(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "noname").write_bytes(CLIP)
    dataset = open_dataset(str(tmp_path / "in"))
    (shard,) = dataset.shards()
    (sample,) = dataset.read(shard)
    with dataset.writer(shard, tmp_path / "shard", frozenset(), "new") as writer:
        (tmp_path / "out").write_bytes(NEW)
        writer.write(sample, tmp_path / "out", "k1")
    assert [path for path, _ in writer.outputs()] == ["data/k1.mp4"]


@pytest.mark.parametrize("kind", ["webdataset", "folder"])
def test_a_clip_may_be_larger_than_an_image_and_not_larger_than_the_disk_should_hold(tmp_path, monkeypatch, kind):
    (tmp_path / "in").mkdir()
    MAKERS[kind](tmp_path / "in")
    monkeypatch.setattr(base, "MAX_SAMPLE_BYTES", 5000)
    for most, reason in ((20_000, None), (6000, Reason.TOO_LARGE)):
        monkeypatch.setattr(base, "MAX_CLIP_BYTES", most)
        dataset = open_dataset(str(tmp_path / "in"))
        first = next(iter(dataset.read(dataset.shards()[0])))
        (item, *_) = dataset.items(dataset.storage, "0.tar" if kind == "webdataset" else "a.mp4")
        assert item.odd == (reason is not None and kind == "webdataset")
        assert item.odd or bytes(item.content) == CLIP
        assert (first.problem and first.problem.reason) == reason
        assert (first.clip is None) == (reason is not None)


def test_a_clip_that_a_parquet_file_names_by_its_path_is_copied_to_disk(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(CLIP)
    cells = pa.array([{"bytes": None, "path": "a.mp4"}], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    pq.write_table(pa.table({"image": cells}), tmp_path / "in" / "0.parquet")
    dataset = open_dataset(str(tmp_path / "in"), format="parquet")
    (sample,) = dataset.read(dataset.shards()[0])
    assert sample.clip.read_bytes() == CLIP


def test_a_clip_in_a_damaged_tar_leaves_no_copy(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        header = tarfile.TarInfo("a.mp4")
        header.size = len(CLIP)
        archive.addfile(header, io.BytesIO(CLIP))
    (tmp_path / "0.tar").write_bytes(out.getvalue()[:4000])
    dataset = open_dataset(str(tmp_path / "0.tar"), options=StorageOptions())
    (sample,) = dataset.read(dataset.shards()[0])
    assert sample.problem.reason is Reason.TRUNCATED and sample.clip is None
