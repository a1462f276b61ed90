"""Whatever the format and wherever it lies, the pipeline's one loop works on real images."""

import gc
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anonlib.codes import Reason
from anonlib.datasets import Dataset, base, open_dataset
from anonlib.datasets.names import clip_kind, holds_image, is_clip, media_ending
from anonlib.errors import Changed, DatasetError, StorageError
from anonlib.storage import StorageOptions, open_storage
from tests.support import photos
from tests.support.s3server import S3Server

PHOTOS = [photos.encoded(np.random.default_rng(n).integers(0, 255, (24, 32, 3), np.uint8), "PNG") for n in range(3)]


CLIP = b"\0\0\0\x18ftypisom" + bytes(range(256)) * 40
NEW = b"\0\0\0\x18ftypisom" + bytes(range(256)) * 30
Members = list[tuple[str, bytes]]
STILLS: list[Members] = [
    [member for n in range(3) for member in ((f"{shard}{n}.png", PHOTOS[n]), (f"{shard}{n}.txt", b"caption"))]
    for shard in range(2)
]
MIXED = [("a.mp4", CLIP), ("a.txt", b"one"), ("b.png", PHOTOS[0]), ("c.mov", CLIP[::-1]), ("d.jpg", CLIP)]


def make_webdataset(root: Path, shards: list[Members]) -> None:
    for number, members in enumerate(shards):
        photos.tar(root / f"{number:05d}.tar", members)


def make_parquet(root: Path, shards: list[Members]) -> None:
    for number, members in enumerate(shards):
        texts = {name[:-4]: data.decode() for name, data in members if name.endswith("txt")}
        images = {name.partition(".")[0]: data for name, data in members if not name.endswith("txt")}
        columns = {"image": list(images.values()), "key": list(images), "txt": [texts.get(key, "") for key in images]}
        pq.write_table(pa.table(columns), root / f"{number:05d}.parquet")


def make_folder(root: Path, shards: list[Members]) -> None:
    for name, content in (member for members in shards for member in members):
        (root / name).write_bytes(content)


MAKERS = {"webdataset": make_webdataset, "parquet": make_parquet, "folder": make_folder}


@pytest.fixture(params=[(kind, place) for kind in MAKERS for place in ("local", "s3")], ids="-".join)
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Dataset]:
    kind, place = request.param
    (tmp_path / "input").mkdir()
    MAKERS[kind](tmp_path / "input", STILLS)
    if place == "local":
        yield open_dataset(str(tmp_path / "input"))
        return
    server: S3Server = request.getfixturevalue("s3")
    with server.acting_as():
        uri = f"s3://{server.bucket()}/photos"
        storage = open_storage(uri, server.options)
        for path in (tmp_path / "input").iterdir():
            storage.publish(path.name, path)
        yield open_dataset(uri, options=server.options)


def test_one_loop_reads_writes_and_reads_again(dataset: Dataset, tmp_path: Path) -> None:
    stored = pickle.dumps(dataset)
    assert b"secret" not in stored.lower()
    worker = pickle.loads(stored)
    release = open_storage(str(tmp_path / "release"))
    for shard in dataset.shards():
        with worker.writer(shard, tmp_path / "scratch" / shard.shard_id, frozenset({"txt"})) as writer:
            for sample in worker.read(shard):
                assert sample.problem is None
                writer.write(sample, photos.encoded(255 - photos.decoded(sample.image), "PNG"))
        for path, local in writer.outputs():
            release.publish(path, local)
    again = open_dataset(str(tmp_path / "release" / "data"))
    assert again.format == dataset.format
    before = [sample for shard in dataset.shards() for sample in dataset.read(shard)]
    after = [sample for shard in again.shards() for sample in again.read(shard)]
    assert len(before) == 6
    for old, new in zip(before, after, strict=True):
        assert (old.key, old.fields, old.image_field) == (new.key, new.fields, new.image_field)
        assert np.array_equal(photos.decoded(old.image or b""), 255 - photos.decoded(new.image or b""))


def test_shards_are_deterministic_and_a_changed_file_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    shards = dataset.shards()
    assert pickle.loads(pickle.dumps(dataset)).shards() == shards
    assert len({shard.shard_id for shard in shards}) == len(shards)
    name = shards[0].files[0] if shards[0].files else dataset.name_of(shards[0])
    dataset.storage.publish(name, dataset.storage.read(name) + b"\0")
    if dataset.format == "folder":  # a file costs its own image, and render compares each with the scan's
        assert next(iter(dataset.read(shards[0]))).image == dataset.storage.read(name)
    else:
        with pytest.raises(Changed):
            list(dataset.read(shards[0]))


def test_the_format_is_guessed_or_the_mixture_is_named(tmp_path: Path) -> None:
    make_webdataset(tmp_path, STILLS)
    (tmp_path / "._0.png").write_bytes(b"what macOS leaves beside a file")
    assert open_dataset(str(tmp_path)).format == "webdataset"
    make_folder(tmp_path, STILLS)
    with pytest.raises(DatasetError, match=r"mixes images \(6\), tar files \(2\)"):
        open_dataset(str(tmp_path))
    assert open_dataset(str(tmp_path), format="folder").format == "folder"
    with pytest.raises(DatasetError, match="no Parquet file"):
        open_dataset(str(tmp_path), format="parquet")
    with pytest.raises(DatasetError, match="no tar, Parquet or image"):
        open_dataset(str(tmp_path / "00.txt"))
    with pytest.raises(StorageError, match="names no file"):
        open_dataset(str(tmp_path / "nothing"), options=StorageOptions())


# ---- clips ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=MAKERS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    MAKERS[request.param](tmp_path / "in", [MIXED])
    return tmp_path / "in"


def test_a_clip_is_a_file_on_local_disk_while_its_sample_is_there(root):
    dataset = open_dataset(str(root))
    (shard,) = dataset.shards()
    found = list(dataset.read(shard))
    clips = [found[0], found[-1]]
    for sample in clips:
        assert sample.problem is None and sample.image is None and sample.clip.read_bytes() == CLIP
    assert found[1].clip is None and found[1].image == PHOTOS[0]
    paths = [sample.clip for sample in clips]
    del found, clips, sample
    gc.collect()
    assert not any(path.exists() for path in paths)


def test_a_file_that_is_named_as_a_clip_is_one_unless_it_is_an_image():
    assert is_clip("a.mp4") and is_clip("a.MOV", b"damaged") and is_clip("a.jpg", CLIP)
    assert not is_clip("a.mp4", PHOTOS[0]) and not is_clip("a.jpg") and not is_clip("a.txt", b"The free lunch")
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
        assert new.fields.get("txt") == old.fields.get("txt")
        if not rekey:
            assert (old.key, old.image_field) == (new.key, new.image_field)


@pytest.mark.parametrize("kind", ["webdataset", "folder"])
def test_a_clip_may_be_larger_than_an_image_and_not_larger_than_the_disk_should_hold(tmp_path, monkeypatch, kind):
    (tmp_path / "in").mkdir()
    MAKERS[kind](tmp_path / "in", [MIXED])
    monkeypatch.setattr(base, "MAX_SAMPLE_BYTES", 5000)
    for most, reason in ((20_000, None), (6000, Reason.TOO_LARGE)):
        monkeypatch.setattr(base, "MAX_CLIP_BYTES", most)
        dataset = open_dataset(str(tmp_path / "in"))
        first = next(iter(dataset.read(dataset.shards()[0])))
        (item, *_) = dataset.items(dataset.storage, "00000.tar" if kind == "webdataset" else "a.mp4")
        assert item.odd == (reason is not None and kind == "webdataset")
        assert item.odd or bytes(item.content) == CLIP
        assert (first.problem and first.problem.reason) == reason
        assert (first.clip is None) == (reason is not None)
