"""A folder of images becomes slices, and its mirror."""

import os
from pathlib import Path

import pytest

from anonlib.datasets import open_dataset
from anonlib.datasets.folder import SLICE_IMAGES
from anonlib.errors import Changed, DatasetError, StorageError


def fill(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def written(
    root: Path, files: dict[str, bytes], images: dict[str, bytes | None], keep: set[str], **keys: str
) -> dict[str, bytes]:
    """What a folder with these files becomes; images: {key: new image}, keys: {key without ending: new key}."""
    dataset = open_dataset(str(fill(root / "in", files)))
    (shard,) = dataset.shards()
    with dataset.writer(shard, root / "out", frozenset(keep)) as writer:
        for sample in dataset.read(shard):
            writer.write(sample, images.get(sample.key, b"new"), keys.get(Path(sample.key).stem))
        with pytest.raises(ValueError, match="not closed"):
            writer.outputs()
    assert sorted(path.name for path in root.iterdir()) == ["in", "out"]
    return {path: local.read_bytes() for path, local in writer.outputs()}


PEOPLE = {
    "ada/1.JPG": b"a1",
    "ada/1.json": b'{"key": "ada/1", "caption": "x"}',
    "ada/1.txt": b"Ada herself",
    "ada/2.png": b"a2",
    "bob/3.jpg": b"b1",
    "notes.md": b"not an image",
    "top.webp": b"t",
}
PNG = b"\x89PNG\r\n\x1a\n"


def test_every_image_below_the_folder_is_a_sample_with_its_sidecars(tmp_path: Path) -> None:
    dataset = open_dataset(str(fill(tmp_path, PEOPLE)))
    (shard,) = dataset.shards()
    samples = list(dataset.read(shard))
    assert [sample.key for sample in samples] == ["ada/1.JPG", "ada/2.png", "bob/3.jpg", "top.webp"]
    assert [sample.image for sample in samples] == [b"a1", b"a2", b"b1", b"t"]
    assert [sample.image_field for sample in samples] == ["jpg", "png", "jpg", "webp"]
    assert set(samples[0].fields) == {"txt", "json"} and samples[1].fields == {}


def test_the_output_mirrors_paths_and_passes_only_what_is_allowed(tmp_path: Path) -> None:
    files = written(tmp_path, PEOPLE, {"ada/2.png": None}, {"caption", "key"})
    assert list(files) == ["data/ada/1.JPG", "data/ada/1.json", "data/bob/3.jpg", "data/top.webp"]
    assert files["data/ada/1.json"] == PEOPLE["ada/1.json"] and files["data/bob/3.jpg"] == b"new"


def test_a_converted_image_keeps_its_old_name_before_the_new_ending(tmp_path: Path) -> None:
    files = {"a.bmp": b"1", "a.txt": b"x", "a.png": b"2", "b.tif": b"3", "b.tif.png": b"4"}
    images = dict.fromkeys(files, PNG) | {"b.tif": None}
    assert set(written(tmp_path, files, images, {"txt"})) == {
        "data/a.bmp.png",
        "data/a.txt",
        "data/a.png",
        "data/b.tif.png",
    }
    dataset = open_dataset(str(tmp_path / "in"))
    assert [one.key for one in dataset.read(*dataset.shards()) if one.problem] == ["b.tif"]


def test_a_new_key_replaces_the_path_and_its_copies(tmp_path: Path) -> None:
    keys = {"1": "n0", "2": "n1", "3": "n2", "top": "n3"}
    files = written(tmp_path, PEOPLE, {}, {"key"}, **keys)
    assert list(files) == ["data/n0.jpg", "data/n0.json", "data/n1.png", "data/n2.jpg", "data/n3.webp"]
    assert files["data/n0.json"] == b'{"key": "n0"}'


def test_slices_cover_every_image_once_in_order(tmp_path: Path) -> None:
    names = [f"{number // 100}/{number:04d}.jpg" for number in range(2 * SLICE_IMAGES + 10)]
    dataset = open_dataset(str(fill(tmp_path, dict.fromkeys(names, b"1") | {"0/0003.json": b"{}"})))
    shards = dataset.shards()
    assert [len(shard.files) for shard in shards] == [257, 256, 10]
    assert shards[0].bytes == 258
    assert [sample.key for shard in shards for sample in dataset.read(shard)] == names


@pytest.mark.parametrize("name", ["ada/1.JPG", "ada/1.txt"])
def test_a_file_that_changed_since_the_inventory_stops_the_slice(tmp_path: Path, name: str) -> None:
    dataset = open_dataset(str(fill(tmp_path, PEOPLE)))
    (shard,) = dataset.shards()
    fill(tmp_path, {name: b"something else"})
    with pytest.raises(Changed):
        list(dataset.read(shard))


@pytest.mark.parametrize(("name", "key"), [("bob/3.jpg", "bob/3.jpg"), ("ada/1.txt", "ada/1.JPG")])
def test_a_file_that_is_gone_costs_its_own_image_and_no_other(tmp_path: Path, name: str, key: str) -> None:
    dataset = open_dataset(str(fill(tmp_path, PEOPLE)))
    (shard,) = dataset.shards()
    (tmp_path / name).unlink()
    samples = list(dataset.read(shard))
    assert len(samples) > 2 and [sample.key for sample in samples if sample.problem] == [key]


def test_links_out_of_the_folder_and_unsafe_names_are_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anonlib.datasets.base.MAX_SAMPLE_BYTES", 100)
    fill(tmp_path, {"secret.jpg": b"s", "in/a.jpg": b"1", "in/line\nbreak.jpg": b"2", "in/large.jpg": bytes(101)})
    (tmp_path / "in" / "b.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "in" / "c.jpg").symlink_to("a.jpg")
    dataset = open_dataset(str(tmp_path / "in"))
    samples = {sample.key: sample for sample in dataset.read(dataset.shards()[0])}
    assert {key for key, sample in samples.items() if sample.problem is None} == {"a.jpg", "c.jpg"}
    assert samples["c.jpg"].image == b"1"
    assert len(samples) == 5 and all(key.isprintable() for key in samples)
    assert all(sample.image is None for sample in samples.values() if sample.problem)


def test_a_file_name_that_no_table_can_hold_is_refused_before_the_work_begins(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")).write_bytes(b"3")
    with pytest.raises(DatasetError, match="names of 1 files") as refused:
        open_dataset(str(tmp_path))
    assert "jpg" not in str(refused.value)


def test_a_full_disk_is_a_storage_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(str(fill(tmp_path / "in", PEOPLE)))
    (shard,) = dataset.shards()
    samples = list(dataset.read(shard))

    def full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="is full"), dataset.writer(shard, tmp_path / "out", frozenset()) as writer:
        writer.write(samples[0], b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
