"""Whatever the format and wherever it lies, the pipeline's one loop works on real images."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anonlib.datasets import Dataset, open_dataset
from anonlib.errors import Changed, DatasetError, StorageError
from anonlib.storage import StorageOptions, open_storage
from tests.support import photos
from tests.support.s3server import S3Server

PHOTOS = [photos.encoded(np.random.default_rng(n).integers(0, 255, (24, 32, 3), np.uint8), "PNG") for n in range(3)]


def make_webdataset(root: Path) -> None:
    for shard in range(2):
        members = [(f"{n}.{kind}", data) for n in range(3) for kind, data in (("png", PHOTOS[n]), ("txt", b"caption"))]
        photos.tar(root / f"{shard:05d}.tar", members)


def make_parquet(root: Path) -> None:
    columns = {"png": PHOTOS, "key": ["0", "1", "2"], "txt": ["caption"] * 3}
    for shard in range(2):
        pq.write_table(pa.table(columns), root / f"{shard:05d}.parquet")


def make_folder(root: Path) -> None:
    for number in range(6):
        (root / f"{number}.png").write_bytes(PHOTOS[number % 3])
        (root / f"{number}.txt").write_bytes(b"caption")


MAKERS = {"webdataset": make_webdataset, "parquet": make_parquet, "folder": make_folder}


@pytest.fixture(params=[(kind, place) for kind in MAKERS for place in ("local", "s3")], ids="-".join)
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Dataset]:
    kind, place = request.param
    (tmp_path / "input").mkdir()
    MAKERS[kind](tmp_path / "input")
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


def test_an_exception_while_writing_leaves_nothing(dataset: Dataset, tmp_path: Path) -> None:
    shard = dataset.shards()[0]
    with (
        pytest.raises(RuntimeError),
        dataset.writer(shard, tmp_path / "scratch" / shard.shard_id, frozenset({"txt"})) as writer,
    ):
        writer.write(next(iter(dataset.read(shard))), PHOTOS[0])
        raise RuntimeError
    assert list((tmp_path / "scratch").iterdir()) == []


def test_shards_are_deterministic_and_a_changed_one_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    shards = dataset.shards()
    assert pickle.loads(pickle.dumps(dataset)).shards() == shards
    assert len({shard.shard_id for shard in shards}) == len(shards)
    name = shards[0].files[0] if shards[0].files else dataset.name_of(shards[0])
    dataset.storage.publish(name, dataset.storage.read(name) + b"\0")
    with pytest.raises(Changed):
        list(dataset.read(shards[0]))


def test_the_format_is_guessed_or_the_mixture_is_named(tmp_path: Path) -> None:
    make_webdataset(tmp_path)
    (tmp_path / "._0.png").write_bytes(b"what macOS leaves beside a file")
    assert open_dataset(str(tmp_path)).format == "webdataset"
    make_folder(tmp_path)
    with pytest.raises(DatasetError, match=r"mixes images \(6\), tar files \(2\)"):
        open_dataset(str(tmp_path))
    assert open_dataset(str(tmp_path), format="folder").format == "folder"
    with pytest.raises(DatasetError, match="no Parquet file"):
        open_dataset(str(tmp_path), format="parquet")
    with pytest.raises(DatasetError, match="no tar, Parquet or image"):
        open_dataset(str(tmp_path / "0.txt"))
    with pytest.raises(StorageError, match="names no file"):
        open_dataset(str(tmp_path / "nothing"), options=StorageOptions())
