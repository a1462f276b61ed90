"""Tars and Parquet files as people have them: a row an image, one sample or row for its images, and nothing clear."""

from __future__ import annotations

import hashlib
import json
import struct
import tarfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anonlib.audit.leaks.scan import scan_leaks
from anonlib.codes import Note
from anonlib.datasets import open_dataset
from anonlib.errors import DatasetError, VerificationError
from anonlib.job import Job
from anonlib.storage import open_storage
from anonlib.verification.data_files import Expected, check_tar
from anonlib.verification.release import verify
from tests.support import photos
from tests.support.runs import Run, by_key, every_byte, job, run_job

FACE = photos.astronaut()[:256, 100:356]
PHOTO, OTHER = photos.jpeg(FACE), photos.jpeg(np.ascontiguousarray(FACE[:, ::-1]))
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def cell(image: bytes | None, path: str | None = "a.jpg") -> dict[str, Any]:
    return {"bytes": image, "path": path}


def solid(source: Path, root: Path, **changes: Any) -> Run:
    """A run of solid; what is released is verified, and no photo of the input is anywhere in it."""
    run = run_job(source, root, **({"method": {"name": "solid"}} | changes))
    verify(open_storage(str(run.output)))
    content = every_byte(run.output)
    assert PHOTO not in content and OTHER not in content
    found = {check.name: check.where for check in scan_leaks(Job(run.config)) if check.found}
    assert not found, found
    return run


def of_tar(members: list[tuple[str, bytes]], root: Path, **changes: Any) -> Run:
    photos.tar(root / "in" / "00000.tar", members)
    return solid(root / "in", root, **changes)


def of_table(columns: dict[str, Any], root: Path, **changes: Any) -> Run:
    (root / "in").mkdir()
    pq.write_table(pa.table(columns), root / "in" / "a.parquet")
    return solid(root / "in", root, **({"input": {"uri": str(root / "in")}} | changes))


def members_of(run: Run) -> dict[str, bytes]:
    (path,) = (run.output / "data").glob("*.tar")
    with tarfile.open(path) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive}  # type: ignore[union-attr]


def rows_of(run: Run) -> list[dict[str, Any]]:
    (path,) = (run.output / "data").glob("*.parquet")
    return list(pq.read_table(path).to_pylist())


def status(run: Run) -> dict[str, str]:
    return {key: row["status"] for key, row in by_key(run.output).items()}


def sha(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest()


def test_every_image_of_a_tar_is_a_row_of_its_own_and_a_bad_one_is_left_out(tmp_path: Path) -> None:
    """Of dotted names the note says what WebDataset's rule did; a key may look like that of a second image."""
    dotted = ["2020-01-01 12.30.45.jpg", "2020-01-01 12.30.59.jpg", *(f"ada.{n}.jpg" for n in range(3)), "22.05.JPG"]
    twins = [("s#2.jpg", PHOTO), ("s.a.jpg", PHOTO), ("s.b.jpg", OTHER), ("t.jpg", PHOTO), ("t#2.jpg", PHOTO)]
    members = [("p.left.jpg", PHOTO), ("p.right.jpg", OTHER), ("p.json", b'{"caption": "two", "gps": "52.5"}')]
    members += [("q.left.jpg", PHOTO[:3000]), ("q.right.dat", OTHER), ("q.json", b'{"caption": "one is broken"}')]
    members += [*((name, PHOTO) for name in dotted), *twins]
    run = of_tar(members, tmp_path, keep_fields=["caption", "right.jpg", "right.dat"])
    by_dots = ["2020-01-01 12", "2020-01-01 12#2", "ada", "ada#2", "ada#3", "22"]
    good = ["p", "p#2", "q#2", *by_dots, "s#2", "s", "t", "t#2"]
    assert status(run) == dict.fromkeys(good, "released") | dict.fromkeys(["q", "s#2#2"], "quarantined")
    found, rows = members_of(run), by_key(run.output)
    expected = {
        "p.left.jpg",
        "p.right.jpg",
        "p.json",
        "q.right.dat",
        "q.json",
        "s#2.jpg",
        "s.a.jpg",
        "t.jpg",
        "t#2.jpg",
    }
    assert set(found) == expected | set(dotted)
    assert all(Note.FIRST_DOT in rows[key]["notes"] for key in by_dots)
    assert sha(found["p.right.jpg"]) == rows["p#2"]["output_sha256"]
    assert sha(found["q.right.dat"]) == rows["q#2"]["output_sha256"]
    assert json.loads(found["p.json"]) == {"caption": "two"}


def test_an_image_is_no_kept_field_whatever_its_name_and_wherever_it_is(tmp_path: Path) -> None:
    import base64
    import pickle

    coded = base64.b64encode(OTHER).decode()
    sidecar = json.dumps({"caption": "x", "thumb": coded, "deep": [{"a": f"data:image/jpeg;base64,{coded}"}]}).encode()
    members = [("a.jpg", PHOTO), ("a.depth", OTHER), ("a.txt", coded.encode()), ("a.pkl", pickle.dumps([OTHER]))]
    members += [("a.json", sidecar), ("a.cls", b"7")]
    keep = ["caption", "thumb", "deep", "depth", "txt", "pkl", "cls"]
    run = of_tar(members, tmp_path, input={"uri": str(tmp_path / "in"), "image_field": "jpg"}, keep_fields=keep)
    assert set(members_of(run)) == {"a.jpg", "a.json", "a.cls"}
    assert json.loads(members_of(run)["a.json"]) == {"caption": "x"} and coded[400:500].encode() not in every_byte(
        run.output
    )
    assert Note.NOT_KEPT in by_key(run.output)["a"]["notes"]


def test_under_new_keys_each_image_is_a_sample_of_its_own(tmp_path: Path) -> None:
    members = [("Ada.left.jpg", PHOTO), ("Ada.right.jpg", OTHER), ("Ada.json", b'{"caption": "two"}')]
    run = of_tar(members, tmp_path, rekey=True)
    keys = set(by_key(run.output))
    assert len(keys) == 2 and set(members_of(run)) == {f"{key}.{kind}" for key in keys for kind in ("jpg", "json")}
    assert b"Ada" not in every_byte(run.output)


def test_a_list_of_images_is_a_row_again_with_null_for_a_bad_one(tmp_path: Path) -> None:
    pairs = [[cell(PHOTO), cell(PHOTO)], [cell(OTHER[:3000]), cell(OTHER)], [], [cell(PHOTO)]]
    columns = {"id": list("pqrs"), "images": pa.array(pairs, pa.list_(IMAGE)), "caption": list("1234")}
    run = of_table(columns, tmp_path)
    assert status(run) == {
        "p": "released",
        "p#2": "released",
        "q": "quarantined",
        "q#2": "released",
        "r": "quarantined",
        "s": "released",
    }
    first, second, last = rows_of(run)
    assert [row["id"] for row in (first, second, last)] == ["p", "q", "s"] and first["caption"] == "1"
    assert [image and image["path"] for image in first["images"]] == [None, None]
    assert (
        second["images"][0] is None and sha(second["images"][1]["bytes"]) == by_key(run.output)["q#2"]["output_sha256"]
    )
    assert pq.read_schema(next((run.output / "data").glob("*"))).field("images").type == pa.list_(IMAGE)


def test_every_image_column_is_anonymized(tmp_path: Path) -> None:
    before, after = pa.array([cell(PHOTO), None], IMAGE), pa.array([cell(OTHER), cell(PHOTO)], IMAGE)
    run = of_table({"id": ["p", "q"], "before": before, "after": after}, tmp_path)
    assert status(run) == {"p": "released", "p#2": "released", "q": "released"}
    first, second = rows_of(run)
    rows = by_key(run.output)
    assert sha(first["before"]["bytes"]) == rows["p"]["output_sha256"]
    assert sha(first["after"]["bytes"]) == rows["p#2"]["output_sha256"]
    assert second["before"] is None and sha(second["after"]["bytes"]) == rows["q"]["output_sha256"]


def test_two_plain_columns_are_refused_and_a_kept_column_with_an_image_is_null(tmp_path: Path) -> None:
    columns = {"id": ["p"], "before": [PHOTO], "after": [OTHER], "text": ["x"]}
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "in" / "a.parquet")
    with pytest.raises(DatasetError, match=r"several columns may be the image \(before, after\).*or all by '\*'"):
        open_dataset(str(tmp_path / "in")).shards()
    source = {"uri": str(tmp_path / "in"), "image_field": "before"}
    run = solid(tmp_path / "in", tmp_path, input=source, keep_fields=["after", "text"])
    (row,) = rows_of(run)
    assert row["after"] is None and row["text"] == "x" and Note.NOT_KEPT in by_key(run.output)["p"]["notes"]


def test_a_column_that_nobody_keeps_costs_nothing(tmp_path: Path) -> None:
    columns = {
        "id": ["a", "b"],
        "image": [PHOTO, OTHER],
        "born": pa.array([-1_000_000, 0], pa.int32()).view(pa.date32()),
        "alt": pa.StringArray.from_buffers(2, pa.py_buffer(struct.pack("<iii", 0, 2, 4)), pa.py_buffer(b"\xff\xfeok")),
        "took": pa.array([2**62, 0], pa.duration("s")),
        "caption": ["one", "two"],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    dataset = open_dataset(str(tmp_path), fields=frozenset({"caption"}))
    found = [(sample.key, sample.fields, sample.problem) for sample in dataset.read(*dataset.shards())]
    assert found == [(key, {"id": key, "caption": text}, None) for key, text in (("a", "one"), ("b", "two"))]


@pytest.mark.parametrize(
    ("log", "table"),
    [
        ("_delta_log/00000000000000000000.json", "Delta Lake"),
        (".hoodie/hoodie.properties", "Apache Hudi"),
        ("metadata/v1.metadata.json", "Apache Iceberg"),
    ],
)
def test_a_table_with_a_log_is_refused_wherever_one_points_into_it(tmp_path: Path, log: str, table: str) -> None:
    place = tmp_path / "lake" / "photos"
    for name in ("data/day=1/a.parquet", "b.parquet"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"id": ["a"], "image": [PHOTO]}), place / name)
    (place / log).parent.mkdir(parents=True, exist_ok=True)
    (place / log).write_text("{}")
    for uri in (
        place,
        place / "*.parquet",
        place / "data" / "day=1",
        place / "data" / "day=1" / "a.parquet",
        place.parent,
    ):
        with pytest.raises(DatasetError, match=f"a table of {table}.*Export a snapshot"):
            open_dataset(str(uri), format="parquet")


def test_an_image_given_by_its_path_is_read_below_the_input_and_nowhere_else(tmp_path: Path) -> None:
    photos.fill(tmp_path / "in" / "images", {"a.jpg": PHOTO, "b.jpg": OTHER})
    (tmp_path / "out.jpg").write_bytes(OTHER)
    paths = [
        "images/a.jpg",
        "in/images/a.jpg",
        str(tmp_path / "in" / "images" / "b.jpg"),
        "../out.jpg",
        str(tmp_path / "out.jpg"),
        "no.jpg",
    ]
    table = pa.table({"id": list("abcdef"), "image": pa.array([cell(None, path) for path in paths], IMAGE)})
    pq.write_table(table, tmp_path / "in" / "t.parquet")
    (tmp_path / "in" / "images" / "nowhere.jpg").write_bytes(OTHER)
    run = solid(tmp_path / "in", tmp_path, input={"uri": str(tmp_path / "in"), "format": "parquet"})
    assert status(run) == dict.fromkeys("abc", "released") | dict.fromkeys("def", "quarantined")
    assert run.summary.left_out == {"no Parquet file: .jpg": 1}
    assert {row["reason"] for row in by_key(run.output).values()} == {None, "only-a-path"}
    assert [row["image"]["path"] for row in rows_of(run)] == [None] * 3
    # One that changes between scan and render is not released by what was found in the old one.
    later = Job(job(tmp_path / "in", tmp_path / "2", method={"name": "solid"}, input=run.config.input.model_dump()))
    later.scan()
    (tmp_path / "in" / "images" / "a.jpg").write_bytes(OTHER + b"\0")
    later.render()
    assert by_key(tmp_path / "2" / "release")["a"]["reason"] == "changed"


@pytest.mark.parametrize("statistics", [True, False])
def test_an_image_file_is_a_row_or_is_counted_and_never_both(tmp_path: Path, statistics: bool) -> None:
    """Where bytes stand beside its path, the row shows these bytes and not the file."""
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(PHOTO + bytes(number))
    cells = [cell(None, "0.jpg"), cell(None, "1.jpg"), cell(None, "2.jpg"), cell(PHOTO, "3.jpg")]
    cells += [cell(PHOTO, "4.jpg"), cell(OTHER, "no.jpg")]
    table = pa.table({"id": list("abcdef"), "image": pa.array(cells, IMAGE)})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2, write_statistics=statistics)
    dataset = open_dataset(str(tmp_path), format="parquet")
    assert dataset.left_out() == {"no Parquet file: .jpg": 3}
    (shard,) = dataset.shards()
    images = [sample.image for sample in dataset.read(shard)]
    assert images == [PHOTO, PHOTO + b"\0", PHOTO + bytes(2), PHOTO, PHOTO, OTHER]


def test_under_new_keys_a_row_of_two_images_becomes_two_rows(tmp_path: Path) -> None:
    columns = {"id": ["Ada"], "before": pa.array([cell(PHOTO)], IMAGE), "after": pa.array([cell(OTHER)], IMAGE)}
    run = of_table(columns | {"caption": ["two"]}, tmp_path, rekey=True)
    rows, vouched = rows_of(run), by_key(run.output)
    assert {row["id"] for row in rows} == vouched.keys() and len(rows) == 2
    assert sorted([row["image"] is None, row["image1"] is None] for row in rows) == [[False, True], [True, False]]
    assert all(row["caption"] == "two" for row in rows) and b"Ada" not in every_byte(run.output)


@pytest.mark.parametrize(
    ("members", "rows", "sentence"),
    [
        ({"p.a.jpg": OTHER, "p.b.jpg": PHOTO}, [("p", OTHER)], "which keep_fields does not allow"),
        ({"p.a.jpg": OTHER}, [("p", OTHER), ("p#2", PHOTO)], "lacks the image 'p#2'"),
        ({"p.a.jpg": OTHER, "p.b.jpg": PHOTO}, [("p", OTHER), ("r#2", PHOTO)], "which keep_fields does not allow"),
        ({"p.a.jpg": OTHER, "p.b.jpg": PHOTO}, [("p", OTHER), ("p#2", PHOTO)], ""),
    ],
)
def test_verify_wants_a_row_of_every_image_of_a_sample(
    tmp_path: Path, members: dict[str, bytes], rows: list[tuple[str, bytes]], sentence: str
) -> None:
    photos.tar(tmp_path / "a.tar", list(members.items()))
    expected = Expected([(key, sha(image)) for key, image in rows], frozenset({"b.jpg"}), rekeyed=False)
    storage = open_storage(str(tmp_path))
    with pytest.raises(VerificationError, match=sentence) if sentence else nullcontext():
        check_tar(storage, "a.tar", storage.sha256("a.tar"), expected)
