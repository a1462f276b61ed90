"""A photo's name is in no sentence of a storage, and under new keys in no release; of logs see test_secret.py."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anonlib.codes import Reason, foreign_words
from anonlib.errors import StorageError
from anonlib.job import Job
from anonlib.storage import open_storage
from tests.support import photos
from tests.support.forgery import check
from tests.support.runs import Run, every_byte, manifest, run_job


def test_what_the_storage_says_names_no_file_and_its_error_does(tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to("/nowhere/Ada_Quill.jpg")
    for path in ("Ada_Quill/at_sea.jpg", "link.jpg"):
        with pytest.raises(StorageError, match=r"a file in .*") as caught:
            open_storage(str(tmp_path)).read(path)
        assert caught.value.path == path
        assert "Ada" not in str(caught.value) and "link.jpg" not in str(caught.value)


# ---- new keys -------------------------------------------------------------------------------------------------

NAMES = (b"Merkel", b"merkel", b"Mustermann", b"mustermann", b"John", b"john", b"Doe", b"doe", b"Patient", b"Quill")


@pytest.fixture(scope="module")
def rekeyed_tars(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Tars whose members', sidecars' and own names are people's, with dots, links, twins and a broken photo."""
    root = tmp_path_factory.mktemp("names")
    good = photos.jpeg(photos.nobody()[:96, :96])
    rosa = photos.encoded(photos.nobody()[:96, :96], "PNG")
    members: list[tuple[str, bytes]] = [
        ("0001.Angela Merkel.jpg", good),
        ("0001.angela merkel.json", json.dumps({"caption": "a place", "file_name": "0001.Angela Merkel.jpg"}).encode()),
        ("Dr. Erika Mustermann.jpg", good),
        ("0002.jpg", good),
        ("0002.john.doe.json", json.dumps({"caption": "another place"}).encode()),
        ("0003.john doe.jpg", good),
        ("0003.png", rosa),
        ("John Doe.jpg", good[:400]),
        ("John Doe.jpg", good),
    ]
    photos.tar(root / "input" / "Patient John Doe.tar", members)
    photos.tar(root / "input" / "Quill.tar", [(f"Quill {number}.png", rosa) for number in range(20)])
    return run_job(root / "input", root, method={"name": "solid"}, rekey=True, keep_fields=["caption", "file_name"])


def test_no_part_of_a_name_is_anywhere_in_a_release_with_new_keys(rekeyed_tars: Run) -> None:
    release, source = every_byte(rekeyed_tars.output), every_byte(rekeyed_tars.input)
    for name in NAMES:
        assert name in source or name.title() in source
        assert name not in release, name
    check(rekeyed_tars.output)


def test_no_order_of_names_is_left(rekeyed_tars: Run) -> None:
    note = json.loads((rekeyed_tars.output / "run.json").read_text())
    assert note["shards"] == sorted(note["shards"])
    naming = Job(rekeyed_tars.config).naming
    for shard in note["shards"]:
        rows = pq.read_table(rekeyed_tars.output / "manifest" / f"{shard}.parquet").to_pylist()
        assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    quill = naming.shard("Quill")
    keys = [naming.key("Quill", f"Quill {number}") for number in range(20)]
    rows = pq.read_table(rekeyed_tars.output / "manifest" / f"{quill}.parquet").to_pylist()
    assert {row["key"] for row in rows} == set(keys) and [row["key"] for row in rows] != keys
    with tarfile.open(rekeyed_tars.output / "data" / f"{quill}.tar") as archive:
        assert [name.split(".")[0] for name in archive.getnames()] == [row["key"] for row in rows]


def test_reasons_are_codes_and_their_sentences_lie_in_the_workspace(rekeyed_tars: Run) -> None:
    lost = [row for row in manifest(rekeyed_tars.output) if row["status"] == "quarantined"]
    assert sorted(row["reason"] for row in lost) == ["damaged", "duplicate-key"]
    assert all(not foreign_words(row) for row in manifest(rekeyed_tars.output))
    (path,) = (rekeyed_tars.workspace / "render").glob("*/reasons/*.parquet")
    told = {row["key"]: row for row in pq.read_table(path).to_pylist()}
    assert told["John Doe#2"]["sentence"] == "the key 'John Doe' is in this shard already"
    assert {row["reason"] for row in told.values()} == {row["reason"] for row in lost}
    meanings = [one.meaning for one in Reason]
    assert len(set(meanings)) == len(meanings)
    assert all(one.isprintable() and not any(sign in one for sign in "'\"{}") for one in meanings)


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_other_formats_lose_names_and_order_too(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "input"
    source.mkdir()
    names = [f"Ada Quill.{number}" for number in range(8)]
    content = [photos.jpeg(photos.nobody()[number : 96 + number, :96]) for number in range(8)]
    if kind == "folder":
        for name, data in zip(names, content, strict=True):
            (source / f"{name}.JPG").write_bytes(data)
    else:
        pq.write_table(pa.table({"Quill's photos": content, "key": names}), source / "Ada Quill.parquet")
    run = run_job(source, tmp_path, method={"name": "solid"}, rekey=True)
    release = every_byte(run.output)
    assert b"Quill" in every_byte(source) and b"Quill" not in release and b"files-00000000" not in release
    rows = manifest(run.output)
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows) and len(rows) == 8
    check(run.output)
    naming = Job(run.config).naming
    shard = "files-00000000" if kind == "folder" else next(iter(Job(run.config).shards)).shard_id
    keys = [naming.key(shard, f"{name}.JPG" if kind == "folder" else name) for name in names]
    assert keys != sorted(keys) and set(keys) == {row["key"] for row in rows}
