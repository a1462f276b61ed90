"""Folders and listings as people have them: every object is a row or is counted, whatever it is called."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from anonlib.audit.leaks.scan import scan_leaks
from anonlib.cli import app
from anonlib.datasets import open_dataset
from anonlib.errors import AccessDenied, DatasetError, LinkRefused
from anonlib.job import Job
from anonlib.storage import open_storage
from anonlib.verification.release import verify
from tests.support import photos
from tests.support.runs import Run, by_key, every_byte, job, manifest, run_job, salted
from tests.support.s3server import S3Server

PIXELS = photos.astronaut()[:256, 100:356]
PHOTO = photos.jpeg(PIXELS)
SOLID: dict[str, Any] = {"method": {"name": "solid"}}


def run_on(root: Path, files: dict[str, bytes], **changes: Any) -> Run:
    """A run on a folder of these files, verified, in which nothing is lost."""
    run = run_job(photos.fill(root / "in", files), root, **(SOLID | changes))
    assert verify(open_storage(str(run.output))).left_out == run.summary.left_out
    return run


def left_out(run: Run) -> dict[str, int]:
    """What run.json says of the input, and the markers of its shards, which the summary says too."""
    said = sum(
        (
            Counter(json.loads(path.read_text()).get("left_out", {}))
            for path in (run.output / "run.json", *run.output.glob("commits/*.json"))
        ),
        Counter[str](),
    )
    assert said == run.summary.left_out
    return dict(said)


def command(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join((done.output + getattr(done, "stderr", "")).split())


def on_command(root: Path, *arguments: str) -> tuple[int, str]:
    places = ("--output", str(root / "release"), "--workspace", str(root / "workspace"), "--actors", "0")
    return command("run", *places, "--method", "solid", *arguments)


# ---- names ----------------------------------------------------------------------------------------------------


NAMED = {
    "a.jpg": PHOTO,
    "b.jfif": PHOTO,
    "c.jpe": PHOTO,
    "d/noending": PHOTO,
    "d/png": photos.encoded(PIXELS, "PNG"),
    "f.pgm": photos.encoded(np.asarray(Image.fromarray(PIXELS).convert("L")), "PPM"),
    "_DSC0001.JPG": PHOTO,
    "g.jp2": photos.encoded(PIXELS, "JPEG2000"),
    "h.avif": photos.encoded(PIXELS, "AVIF"),
    "i.j2k": photos.encoded(PIXELS, "JPEG2000"),
}
AS_PNG = ("f.pgm", "g.jp2", "h.avif", "i.j2k")
OTHERS = {
    "e.JPG_original": PHOTO,
    "README": b"words without an ending",
    "words.txt": b"of no image",
    "raw.CR2": b"II*\0 a raw photo",
    "of.Ada Quill": b"an ending that is a name",
}


def test_what_can_be_decoded_is_read_by_its_content_and_the_rest_is_counted_by_ending(tmp_path: Path) -> None:
    run = run_on(tmp_path, NAMED | OTHERS | {"d.heic": b"\0\0\0\x18ftypheic" + bytes(99)})
    rows = by_key(run.output)
    assert {key: row["status"] for key, row in rows.items()} == dict.fromkeys(NAMED, "released") | {
        "d.heic": "quarantined"
    }
    assert rows["d.heic"]["reason"] == "not-an-image"
    data = {str(path.relative_to(run.output / "data")) for path in (run.output / "data").rglob("*") if path.is_file()}
    assert data == {*NAMED}.difference(AS_PNG) | {f"{name}.png" for name in AS_PNG}
    assert all((run.output / "data" / f"{name}.png").read_bytes()[1:4] == b"PNG" for name in AS_PNG)
    assert left_out(run) == {
        "no image: .cr2": 1,
        "no image: .jpg_original": 1,
        "no image: .txt": 1,
        "no image: another ending": 1,
        "no image: no ending": 1,
    }
    assert b"Quill" not in (run.output / "run.json").read_bytes()
    assert len(rows) + sum(left_out(run).values()) == len(NAMED) + len(OTHERS) + 1


def test_a_tar_counts_as_a_folder_does(tmp_path: Path) -> None:
    members = {"a.jpg": PHOTO, "b.jfif": PHOTO, "c.jpe": PHOTO, "f.pgm": NAMED["f.pgm"], "README": b"words"}
    members |= {"__MACOSX/._a.jpg": b"-", ".thumbnails/a.jpg": PHOTO, "._a.jpg": b"-", "_DSC1.jpg": PHOTO}
    photos.tar(tmp_path / "in" / "0.tar", members.items())
    run = run_on(tmp_path, {"notes.md": b"beside the tar"})
    assert {row["key"]: row["status"] for row in manifest(run.output)} == dict.fromkeys(
        ("a", "b", "c", "f", "_DSC1"), "released"
    )
    expected = {"hidden name": 1, "no image: no ending": 1, "no tar file: .md": 1, "system folder": 2}
    assert left_out(run) == expected
    assert len(manifest(run.output)) + sum(left_out(run).values()) == len(members) + 1


def test_only_a_photo_without_an_ending_is_enough_of_a_dataset(tmp_path: Path) -> None:
    run = run_on(tmp_path, {"1": PHOTO, "2": PHOTO, "LICENSE": b"words"}, rekey=True)
    assert run.summary.released == 2 and all(path.suffix == ".jpg" for path in (run.output / "data").iterdir())
    with pytest.raises(DatasetError, match="contains no image"):
        open_dataset(str(photos.fill(tmp_path / "none", {"LICENSE": b"words", "a.txt": b"x"})))


# ---- folders --------------------------------------------------------------------------------------------------

BINS = (
    ".Trash-1000/files",
    "$RECYCLE.BIN/S-1-5-21",
    "#recycle",
    "@eaDir/kept.jpg",
    ".thumbnails",
    ".ipynb_checkpoints",
)
BINS += (".git/annex/objects/x", ".TRASHES", "System Volume Information", "lost+found")


def test_bins_thumbnails_and_snapshots_are_left_out_and_counted(tmp_path: Path) -> None:
    files = {f"{folder}/deleted.jpg": PHOTO for folder in BINS}
    files |= {"kept.jpg": PHOTO, ".hidden/a.jpg": PHOTO, "sub/.b.jpg": PHOTO, "_export/c.jpg": PHOTO, "Thumbs.db": b"x"}
    run = run_on(tmp_path, files)
    assert [row["key"] for row in manifest(run.output)] == ["kept.jpg"]
    assert left_out(run) == {"system folder": 10, "hidden name": 2, "system file": 1, "underscore name": 1}
    assert 1 + sum(left_out(run).values()) == len(files)
    code, said = command("status", "--workspace", str(run.workspace), "--output", str(run.output))
    assert code == 0 and "left out 10 in system folders, 2 hidden names" in said
    code, said = command("verify", str(run.output))
    assert code == 0 and "left out 10 in system folders" in said


@pytest.mark.parametrize(
    ("pattern", "keys"),
    [
        (".thumbnails/*.jpg", ["a.jpg"]),
        (".thumb*/*.jpg", [".thumbnails/a.jpg"]),
        ("*/*.jpg", ["sub/b.jpg"]),
        ("**/*.jpg", ["c.jpg", "sub/b.jpg"]),
        ("{.thumbnails,sub}/*.jpg", [".thumbnails/a.jpg", "sub/b.jpg"]),
        ("_x/d.jpg", ["d.jpg"]),
        (".thumbnails", ["a.jpg"]),
    ],
)
def test_a_pattern_that_names_them_reads_them(tmp_path: Path, pattern: str, keys: list[str]) -> None:
    photos.fill(tmp_path, dict.fromkeys((".thumbnails/a.jpg", "sub/b.jpg", "c.jpg", "_x/d.jpg"), PHOTO))
    dataset = open_dataset(f"{tmp_path}/{pattern}")
    assert sorted(sample.key for shard in dataset.shards() for sample in dataset.read(shard)) == keys


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of folders that may not be entered; the tests run as root, who may."""
    names: list[str] = []
    scan = os.scandir

    def refuse(folder: Any) -> Any:
        if Path(folder).name in names:
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr("anonlib.storage.local.os.scandir", refuse)
    return names


def test_a_folder_that_may_not_be_entered_is_named_and_a_closed_lost_found_is_skipped(
    tmp_path: Path, closed: list[str]
) -> None:
    files = {"in/a.jpg": PHOTO, "in/lost+found/x": b"", "in/private/b.jpg": PHOTO, "in/open/c.jpg": PHOTO}
    photos.fill(tmp_path, files)
    closed += ["lost+found"]
    assert open_dataset(str(tmp_path / "in")).left_out() == {"unreadable folder": 1}
    closed += ["private"]
    with pytest.raises(AccessDenied, match=f"Cannot list the folder {tmp_path}/in/private"):
        open_dataset(str(tmp_path / "in"))
    with pytest.raises(AccessDenied, match="in/private"):
        open_dataset(f"{tmp_path}/in/*/*.jpg")
    assert len(open_dataset(f"{tmp_path}/in/*.jpg").sources()) == 1
    assert len(open_dataset(f"{tmp_path}/in/open/**").sources()) == 1


# ---- links ----------------------------------------------------------------------------------------------------

FORMATS = ("photos/a.jpg", "tars/00000.tar", "parquet/train-00000.parquet")


def cache(root: Path, snapshot: str = "0a1b2c") -> Path:
    """A dataset in Hugging Face's cache, a folder a format; returns the folder of the snapshot."""
    hub, blobs = root / "datasets--org--name", {}
    table, tar = io.BytesIO(), photos.tar(root / "tar", [("a.jpg", PHOTO)])
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array([{"bytes": PHOTO, "path": "a.jpg"}], struct)}), table)
    blobs = dict(zip(FORMATS, (PHOTO, tar.read_bytes(), table.getvalue()), strict=True))
    for number, (name, content) in enumerate(blobs.items()):
        photos.fill(hub / "blobs", {f"{number:040x}": content})
        link = hub / "snapshots" / snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../../blobs/{number:040x}")
    photos.fill(hub / "refs", {"main": snapshot.encode()})
    return hub / "snapshots" / snapshot


@pytest.mark.parametrize("path", FORMATS)
def test_a_cache_is_followed_to_its_blobs_in_every_format(tmp_path: Path, path: str) -> None:
    snapshot = cache(tmp_path)
    for named in (path, path.partition("/")[0]):
        dataset = open_dataset(str(snapshot / named))
        assert [sample.image for shard in dataset.shards() for sample in dataset.read(shard)] == [PHOTO]
        assert dataset.left_out() == {}


def test_a_whole_cache_is_its_snapshots_and_not_its_blobs(tmp_path: Path) -> None:
    hub = cache(tmp_path).parents[1]
    dataset = open_dataset(str(hub), format="folder")
    assert [file.path for file in dataset.sources()] == ["snapshots/0a1b2c/photos/a.jpg"]
    assert dataset.left_out() == {"cache blob": 4, "no image: .parquet": 1, "no image: .tar": 1}


@pytest.mark.parametrize("path", FORMATS)
def test_links_out_of_the_input_are_one_sentence_in_every_format(tmp_path: Path, path: str) -> None:
    snapshot, elsewhere = cache(tmp_path), photos.fill(tmp_path / "elsewhere", {"secret": b"s"})
    name = path.rpartition("/")[2]
    folder = photos.fill(tmp_path / "in", {})
    (folder / name).symlink_to((snapshot / path).resolve())
    with pytest.raises(DatasetError, match=r"is a link that leads out of .* or nowhere.*copy it"):
        open_dataset(str(folder))
    # A cache says nothing of what is beside its blobs.
    (snapshot / path).unlink()
    (snapshot / path).symlink_to(elsewhere / "secret")
    with pytest.raises(DatasetError, match="is a link that leads out"):
        open_dataset(str(snapshot / path.partition("/")[0]))


@pytest.mark.parametrize("path", FORMATS[1:])
def test_one_link_out_among_shards_is_a_row(tmp_path: Path, path: str) -> None:
    good = (cache(tmp_path) / path).read_bytes()
    ending = path.rpartition(".")[2]
    (photos.fill(tmp_path / "in", {f"b.{ending}": good}) / f"a.{ending}").symlink_to(tmp_path / "tar")
    run = run_job(tmp_path / "in", tmp_path, **SOLID)
    assert (run.summary.released, run.summary.quarantined) == (1, 1)


def test_a_link_to_a_folder_outside_is_refused_unless_it_is_no_data(tmp_path: Path) -> None:
    photos.fill(tmp_path, {"in/a.jpg": PHOTO, "out/b.jpg": PHOTO})
    (tmp_path / "in" / ".cache").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "again").symlink_to(".")
    os.mkfifo(tmp_path / "in" / "pipe.jpg")
    dataset = open_dataset(str(tmp_path / "in"))
    assert dataset.left_out() == {"no file": 1, "system file": 1} or dataset.left_out() == {
        "hidden name": 1,
        "no file": 1,
    }
    (tmp_path / "in" / "more").symlink_to(tmp_path / "out")
    with pytest.raises(LinkRefused):
        open_dataset(str(tmp_path / "in"))


# ---- buckets --------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(s3: S3Server) -> Iterator[str]:
    with s3.acting_as():
        yield s3.bucket()


def run_on_bucket(
    s3: S3Server, bucket: str, root: Path, objects: dict[str, bytes], *, to_s3: bool
) -> list[dict[str, Any]]:
    """The manifest of a run on these keys below photos/, in which nothing is lost."""
    for key, content in objects.items():
        s3.client().put_object(Bucket=bucket, Key=f"photos/{key}", Body=content)
    places = {"output": {"uri": f"s3://{bucket}/release"}, "workspace": {"uri": f"s3://{bucket}/workspace"}}
    config = job(
        f"s3://{bucket}/photos",
        root,
        storage={"endpoint_url": s3.endpoint, "region": "us-east-1"},
        **(SOLID | (places if to_s3 else {})),
    )
    summary = Job(salted(config, s3.options) if to_s3 else config).run()
    release = open_storage(config.output.uri, s3.options)
    verify(release)
    rows = [
        row
        for entry in release.list("manifest/")
        for row in pq.read_table(io.BytesIO(release.read(entry.path))).to_pylist()
    ]
    assert len(rows) + sum(summary.left_out.values()) == len(objects)
    return rows


@pytest.mark.parametrize("to_s3", [False, True], ids=["disk", "s3"])
def test_keys_that_no_disk_holds_are_quarantined_and_the_others_go_on(
    s3: S3Server, bucket: str, tmp_path: Path, to_s3: bool
) -> None:
    odd = ("/b.jpg", "x//c.jpg", "./d.jpg", "x/./e.jpg", "a.jpg/200.jpg", "a.jpg/x/300.jpg", "t.bmp.png/1.jpg")
    plain = ("a.jpg", "x/f.jpg", "n", "t.bmp")
    objects = dict.fromkeys(plain + odd, PHOTO) | {"x/": b"", "mark/": b"holds something", "n/g.jpg": PHOTO}
    objects |= {"t.bmp": photos.encoded(PIXELS, "BMP")}
    rows = run_on_bucket(s3, bucket, tmp_path, objects, to_s3=to_s3)
    reasons = Counter(row["reason"] for row in rows)
    assert {row["key"] for row in rows if row["status"] == "released"} == set(plain)
    assert reasons == {None: 4, "unsafe-name": 4, "inside-a-file": 4}


# ---- what is typed --------------------------------------------------------------------------------------------


def test_a_pattern_that_the_shell_expanded_is_a_sentence(tmp_path: Path) -> None:
    photos.fill(tmp_path, {"a.jpg": PHOTO, "b.jpg": PHOTO, "c.jpg": PHOTO})
    files = [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg")]
    for arguments in (files, files[:2]):
        code, said = on_command(tmp_path, "--input", *arguments)
        assert code == 1 and "quote the pattern" in said and "Traceback" not in said
        assert not (tmp_path / "release").exists()


# ---- fields that are nowhere ----------------------------------------------------------------------------------


def test_a_kept_field_that_is_nowhere_and_what_is_dropped_is_said(tmp_path: Path) -> None:
    members = [
        ("a.jpg", PHOTO),
        ("a.txt", b"words"),
        ("a.json", b'{"caption": "x"}'),
        ("b.jpg", PHOTO),
        ("b.txt", b"w"),
    ]
    photos.tar(tmp_path / "in" / "0.tar", members)
    code, said = on_command(tmp_path, "--input", str(tmp_path / "in"), "--keep-field", "captoin")
    assert code == 0 and "'captoin' is in no image" in said
    assert "dropped json of 1, txt of 2 images" in said
    job_file = tmp_path / "job.yaml"
    job_file.write_text(job(tmp_path / "in", tmp_path / "3", keep_fields=["captoin"], **SOLID).to_yaml())
    assert "the first sample has no field 'captoin'" in command("doctor", str(job_file))[1]
    code, said = on_command(tmp_path / "2", "--input", str(tmp_path / "in"), "--keep-field", "caption")
    assert code == 0 and "is in no image" not in said and "dropped txt of 2 images" in said


def test_a_field_of_labels_or_boxes_that_is_nowhere_stops_the_run(tmp_path: Path) -> None:
    rows = [{"file_name": "a.jpg", "person": "Ada"}, {"file_name": "b.jpg", "person": "Bob"}]
    files = dict.fromkeys(("a.jpg", "b.jpg"), PHOTO) | {"metadata.jsonl": "\n".join(map(json.dumps, rows)).encode()}
    photos.fill(tmp_path / "in", files)
    for key in ("subject", "boxes"):
        code, said = on_command(tmp_path, "--input", str(tmp_path / "in"), f"--{key}-field", "persno")
        assert code == 1 and "json:person" in said
        assert f"none of the 2 readable images has the field 'persno' that input.{key}_field names" in said
    assert not (tmp_path / "release" / "data").exists()


@pytest.mark.parametrize("rekey", [False, True])
def test_sidecars_of_every_kind_pass_what_is_kept_and_nothing_else(tmp_path: Path, rekey: bool) -> None:
    """Also not of a photo that is quarantined, or is not there."""
    takeout = json.dumps({"caption": "takeout", "person": "Ada Quill", "gps": "52.5"}).encode()
    rows = [
        {"file_name": name, "caption": "one", "person": "Eve", "gps": "48.1"} for name in ("a.jpg", "bad.jpg", "no")
    ]
    files = NAMED | OTHERS | {"metadata.jsonl": "\n".join(map(json.dumps, rows)).encode()}
    files |= {"bad.jpg": b"\xff\xd8\xff no photo", "b.jfif.json": takeout, "c.jpe.supplemental-meta.json": takeout}
    run = run_on(tmp_path, files, rekey=rekey, input={"uri": str(tmp_path / "in"), "subject_field": "person"})
    assert [check for check in scan_leaks(Job(run.config)) if check.found] == []
    released = every_byte(run.output)
    assert released.count(b"takeout") == 2 and released.count(b'"one"') == 1
    assert not any(word in released for word in (b"Eve", b"Quill", b"52.5", b"48.1"))
