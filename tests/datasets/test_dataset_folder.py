"""A folder of images becomes slices, and its mirror."""

import csv
import io
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from anonlib.datasets import open_dataset
from anonlib.datasets.folder import SLICE_IMAGES
from anonlib.errors import DatasetError
from anonlib.workspace.tables import table_bytes
from tests.support.photos import fill


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
PNG, PHOTO = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


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


def test_slices_cover_every_image_once_in_order(tmp_path: Path) -> None:
    names = [f"{number // 100}/{number:04d}.jpg" for number in range(2 * SLICE_IMAGES + 10)]
    dataset = open_dataset(str(fill(tmp_path, dict.fromkeys(names, b"1") | {"0/0003.json": b"{}"})))
    shards = dataset.shards()
    assert [len(shard.files) for shard in shards] == [257, 256, 10]
    assert shards[0].bytes == 258
    assert [sample.key for shard in shards for sample in dataset.read(shard)] == names


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


# ---- sidecars -------------------------------------------------------------------------------------------------

ROWS = [
    {"file_name": "a.jpg", "caption": "one", "gps": "52.5,13.4"},
    {"file_name": "sub/./b.jpg", "caption": "two", "gps": "48.1,11.6"},
    {"file_name": "left-out.jpg", "caption": "of what is not released", "gps": "1,1"},
    {"file_name": "nowhere.jpg", "caption": "of nothing", "gps": "1,1"},
]
IMAGES = dict.fromkeys(("a.jpg", "left-out.jpg", "sub/b.jpg"), b"1")
LEFT_OUT: dict[str, bytes | None] = {"left-out.jpg": None}


def as_metadata(name: str) -> bytes:
    if name.endswith("jsonl"):
        return "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    if name.endswith("parquet"):
        when, photo = datetime(2026, 1, 2), {"bytes": PNG, "path": None}
        return table_bytes(pa.Table.from_pylist([row | {"when": when, "photo": photo} for row in ROWS]))
    return "\n".join(
        [",".join(ROWS[0]), *(f'{name},{words},"{gps}"' for name, words, gps in map(dict.values, ROWS))]
    ).encode()


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "metadata.parquet"])
def test_metadata_files_are_read_and_pass_what_is_kept_of_what_is_released(tmp_path: Path, name: str) -> None:
    files = written(tmp_path, IMAGES | {name: as_metadata(name)}, LEFT_OUT, {"caption", "when", "photo"})
    text = files.pop(f"data/{name.replace('parquet', 'jsonl')}").decode()
    rows = list(csv.DictReader(io.StringIO(text))) if name.endswith("csv") else list(map(json.loads, text.splitlines()))
    expected: list[dict[str, Any]] = [
        {"file_name": "a.jpg", "caption": "one"},
        {"file_name": "sub/b.jpg", "caption": "two"},
    ]
    if name == "metadata.parquet":
        expected = [row | {"when": "2026-01-02 00:00:00", "photo": {"bytes": None, "path": None}} for row in expected]
    assert rows == expected and set(files) == {"data/a.jpg", "data/sub/b.jpg"}
    assert open_dataset(str(tmp_path / "in")).left_out() == {}


def test_a_metadata_file_over_several_slices_has_a_part_a_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anonlib.datasets.folder.SLICE_IMAGES", 1)
    dataset = open_dataset(str(fill(tmp_path / "in", IMAGES | {"metadata.jsonl": as_metadata("metadata.jsonl")})))
    parts = {}
    for shard in dataset.shards():
        with dataset.writer(shard, tmp_path / shard.shard_id, frozenset({"caption"})) as writer:
            for sample in dataset.read(shard):
                writer.write(sample, LEFT_OUT.get(sample.key, b"new"))
        parts |= {path: local.read_bytes() for path, local in writer.outputs()}
    metadata = {path: json.loads(data) for path, data in parts.items() if "metadata" in path}
    assert metadata == {
        "data/metadata-00000000.jsonl": {"file_name": "a.jpg", "caption": "one"},
        "data/metadata-00000002.jsonl": {"file_name": "sub/b.jpg", "caption": "two"},
    }
    again = open_dataset(str(fill(tmp_path / "release", {path.removeprefix("data/"): parts[path] for path in parts})))
    fields = [sample.fields for shard in again.shards() for sample in again.read(shard)]
    assert [json.loads(next(iter(each.values())))["caption"] for each in fields] == ["one", "two"]


def test_sidecars_by_the_whole_name_are_read_and_written_back(tmp_path: Path) -> None:
    takeout = json.dumps({"caption": "takeout", "person": "Ada"}).encode()
    named = {"a.jpg": "supplemental-metadata", "b.jpg": "supplemental-meta", "c.png": "supp", "d(2).jpg": "s"}
    files = {f"{image}.{word}.json": takeout for image, word in named.items()} | dict.fromkeys(named, b"1")
    files |= {"a(1).jpg": b"1", "a.jpg.supplemental-metada(1).json": takeout, "a.jpg.sup.txt": b"no sidecar"}
    files |= {"e.jpg": PHOTO, "e.jpg.json": takeout, "f.png": PNG, "f.png.txt": b"words"}
    files |= {"g": PHOTO, "g.json": takeout, "h.bmp": b"1", "h.bmp.json": takeout}
    data = written(tmp_path, files, {"h.bmp": PNG}, {"caption", "txt"})
    expected = {*files} - {"h.bmp", "a.jpg.sup.txt", "a.jpg.supplemental-metada(1).json"}
    assert set(data) == {f"data/{name}" for name in (*expected, "h.bmp.png", "a(1).jpg.supplemental-metada.json")}
    kept = [json.loads(content) for path, content in data.items() if path.endswith(".json")]
    assert kept == [{"caption": "takeout"}] * 8 and data["data/f.png.txt"] == b"words"
    whole = written(tmp_path / "whole", files, {"h.bmp": PNG}, {"json"})
    assert whole["data/c.png.supp.json"] == takeout
    assert open_dataset(str(tmp_path / "in")).left_out() == {"no image: .txt": 1}


def test_new_keys_take_captions_with_them(tmp_path: Path) -> None:
    files = IMAGES | {"metadata.jsonl": as_metadata("metadata.jsonl"), "a.jpg.json": b'{"caption": "other"}'}
    data = written(tmp_path, files, LEFT_OUT, {"caption"}, a="n0", b="n1")
    captions = {path: json.loads(content) for path, content in data.items() if path.endswith("json")}
    assert captions == {"data/n0.json": {"caption": "other"}, "data/n1.json": {"caption": "two"}}
