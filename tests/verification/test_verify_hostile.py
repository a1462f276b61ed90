"""`anonlib verify` on releases of strangers opens nothing before it has hashed it, and is neither filled nor fooled."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from anonlib.cli import app
from anonlib.errors import VerificationError
from anonlib.storage import open_storage
from anonlib.verification import parsing
from anonlib.verification.certificate import public_key
from anonlib.verification.release import unproved
from anonlib.workspace.release import publish_audit
from anonlib.workspace.schemas import MANIFEST as MANIFEST_SCHEMA
from anonlib.workspace.schemas import STATEMENT
from tests.support import bombs, photos
from tests.support.forgery import MANIFEST, SHARD, TAR, Forger, Tampering, check
from tests.support.runs import SECRET, Run, run_job
from tests.support.s3server import S3Server

CLI = CliRunner()
OURS = public_key(SECRET.encode())
VERIFY = """
from anonlib.errors import VerificationError
from anonlib.verification.release import verify
from anonlib.storage import open_storage
try: verify(open_storage(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
except VerificationError as lie: print(lie)
"""
CHECK = """
from pathlib import Path
from anonlib.errors import VerificationError
from anonlib.verification.data_files import Expected, check_tar
from anonlib.storage import open_storage
path = Path(sys.argv[1])
images = [('first', sys.argv[3]), ('second', sys.argv[3])]
try: check_tar(open_storage(str(path.parent)), path.name, sys.argv[2], Expected(images, frozenset(), False))
except VerificationError as lie: print(lie)
"""
# What a verification of a release without a bomb takes.
PLAIN_MIB = 300.0


@pytest.fixture(scope="module")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release by `solid` of one gzipped tar of two photos."""
    root = tmp_path_factory.mktemp("zipped")
    content = [("a.jpg", photos.jpeg(photos.nobody()[:64, :64])), ("b.jpg", photos.jpeg(photos.nobody()[64:128, :64]))]
    tar = photos.tar(root / "input" / "00000.tar", content)
    (root / "input" / "00000.tgz").write_bytes(gzip.compress(tar.read_bytes()))
    tar.unlink()
    return run_job(root / "input", root, method={"name": "solid"}).output


@pytest.fixture
def zipped_copy(zipped: Path, tmp_path: Path) -> Forger:
    return Forger(zipped, tmp_path / "forged")


ZIPPED = "data/00000.tgz"


def test_a_bomb_in_a_mirror_is_hashed_and_never_opened(zipped_copy: Forger) -> None:
    """It took 3,188 MiB before its hash was compared."""
    shutil.move(
        bombs.long_header_tar(zipped_copy.root.parent / "bomb.tar.gz", tarfile.XHDTYPE), zipped_copy.path(ZIPPED)
    )
    said, peak = bombs.peak_of(VERIFY, zipped_copy.root, OURS)
    assert f"{ZIPPED} is not the file that its marker names" in said
    assert peak < PLAIN_MIB


@pytest.mark.parametrize(
    ("bomb", "sentence"),
    [
        (lambda path: bombs.long_header_tar(path, tarfile.XHDTYPE), "cannot be read to its end (ReadError)"),
        (lambda path: bombs.endless_tar(path, 600), "holds 'endless', which is larger than a sample of a release"),
        (lambda path: bombs.fat_sample_tar(path, 30, 32), "cannot be read to its end (ReadError)"),
    ],
)
def test_a_bomb_that_its_maker_signed_takes_no_more_than_a_sample(
    bomb: Callable[[Path], Path], sentence: str, tmp_path: Path
) -> None:
    """Four members of 256 MiB took 1,649 MiB."""
    path = bomb(tmp_path / "bomb.tgz")
    photo = hashlib.sha256(photos.jpeg(photos.nobody()[:32, :32])).hexdigest()
    said, peak = bombs.peak_of(CHECK, path, hashlib.sha256(path.read_bytes()).hexdigest(), photo)
    assert sentence in said
    assert peak < PLAIN_MIB + 256


def test_a_table_of_six_kilobytes_is_read_a_few_rows_at_a_time() -> None:
    """It took 1,038 MiB over what the script itself held."""
    same = pa.DictionaryArray.from_arrays(pa.array([0] * 256, pa.int32()), pa.array(["x" * (4 << 20)]))
    columns = {field.name: same if field.name == "reason" else pa.nulls(256, field.type) for field in MANIFEST_SCHEMA}
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="zstd", store_schema=False)
    assert out.tell() < 1 << 16
    held = pa.total_allocated_bytes()
    most = 0
    for row in parsing.rows_of(out.getvalue(), MANIFEST_SCHEMA, "a manifest"):
        most = max(most, pa.total_allocated_bytes() - held)
        assert row["reason"] is not None
    assert most < 128 << 20


def test_a_table_that_unpacks_without_end_is_a_lie() -> None:
    faces = MANIFEST_SCHEMA.field("faces").type
    many = pa.ListArray.from_arrays(pa.array([0, 20_000_000], pa.int32()), pa.nulls(20_000_000, faces.value_type))
    columns = {field.name: many if field.name == "faces" else pa.nulls(1, field.type) for field in MANIFEST_SCHEMA}
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="zstd", store_schema=False)
    with pytest.raises(VerificationError, match=r"a manifest is not read: .* unpacks to"):
        list(parsing.rows_of(out.getvalue(), MANIFEST_SCHEMA, "a manifest"))


def with_gzip_name(release: Forger) -> None:
    out = io.BytesIO()
    with gzip.GzipFile("Ada Quill", "wb", fileobj=out, mtime=0) as stream:
        stream.write(gzip.decompress(release.path(ZIPPED).read_bytes()))
    release.path(ZIPPED).write_bytes(out.getvalue())


def repacked(change: Callable[[bytearray], object]) -> Tampering:
    """The tar inside, with some bytes changed, packed as our writer packs."""

    def tamper(release: Forger) -> None:
        data = bytearray(gzip.decompress(release.path(ZIPPED).read_bytes()))
        change(data)
        out = io.BytesIO()
        with gzip.GzipFile("", "wb", 6, out, mtime=0) as stream:
            stream.write(data)
        release.path(ZIPPED).write_bytes(out.getvalue())

    return tamper


def fill(data: bytearray, start: int, text: bytes, *, header: bool = True) -> None:
    data[start : start + len(text)] = text
    if header:
        data[148:156] = b"        "
        data[148:156] = b"%06o\0 " % sum(data[:512])


def first_padding(data: bytearray) -> int:
    return 512 + tarfile.TarInfo.frombuf(bytes(data[:512]), "utf-8", "strict").size


HIDDEN: dict[str, tuple[Tampering, str]] = {
    "a name in the gzip header": (with_gzip_name, "has something in its gzip header"),
    "a second gzip stream": (
        lambda r: r.path(ZIPPED).write_bytes(r.path(ZIPPED).read_bytes() + gzip.compress(b"Ada")),
        "after the end of its gzip stream",
    ),
    "words in a padding": (repacked(lambda d: fill(d, first_padding(d), b"Ada", header=False)), "beside its members"),
    "words after a name": (repacked(lambda d: fill(d, 60, b"Ada Quill")), "beside its members"),
    "a link's name in a file": (repacked(lambda d: fill(d, 157, b"Ada Quill")), "beside its members"),
    "a device's number in a file": (repacked(lambda d: fill(d, 329, b"0000042\0")), "beside its members"),
    "another mode": (repacked(lambda d: fill(d, 100, b"0000600\0")), "beside its members"),
    "more zeros at the end": (repacked(lambda d: d.extend(bytes(10240))), "beside its members"),
}


def test_repacking_alone_is_no_lie(zipped_copy: Forger) -> None:
    repacked(lambda data: data)(zipped_copy)
    zipped_copy.reseal()
    assert check(zipped_copy.root).certificate.counts.images == 2


@pytest.mark.parametrize("what", HIDDEN)
def test_what_no_reader_of_a_tar_shows_is_found_though_it_is_signed(what: str, zipped_copy: Forger) -> None:
    tamper, sentence = HIDDEN[what]
    tamper(zipped_copy)
    zipped_copy.reseal()
    with pytest.raises(VerificationError) as lie:
        check(zipped_copy.root)
    assert sentence in str(lie.value)


def fifo(release: Forger) -> None:
    os.mkfifo(release.path("data/pipe"))


STRAYS: dict[str, tuple[Tampering, str]] = {
    "an empty folder": (lambda r: r.path("data/of Ada Quill").mkdir(), "data/of Ada Quill/"),
    "a folder in an empty folder": (lambda r: r.path("x/y").mkdir(parents=True), "x/y/"),
    "a link to a folder inside": (lambda r: r.path("again").symlink_to("data"), "again"),
    "a link to a folder outside": (lambda r: r.path("elsewhere").symlink_to("/etc"), "elsewhere"),
    "a link to a file outside": (lambda r: r.path("words").symlink_to("/etc/passwd"), "words"),
    "a pipe": (fifo, "data/pipe"),
}


@pytest.mark.parametrize("what", STRAYS)
def test_what_is_no_file_is_named_and_not_opened(what: str, forger: Forger) -> None:
    tamper, path = STRAYS[what]
    tamper(forger)
    with pytest.raises(VerificationError, match=f"^{path} is in the release, and nobody vouches for it$"):
        check(forger.root)


def test_an_empty_folder_that_an_earlier_anonlib_left_is_no_lie(forger: Forger) -> None:
    forger.path("withdrawn").mkdir()
    assert check(forger.root).files


def test_a_pipe_in_the_place_of_a_file_is_refused_and_does_not_hang(forger: Forger) -> None:
    for name in (TAR, MANIFEST, "run.json", "certificate.json"):
        forger.path(name).unlink()
        os.mkfifo(forger.path(name))
        done = CLI.invoke(app, ["verify", str(forger.root)])
        assert done.exit_code == 1 and "is a pipe, a socket or a device and no file" in done.stderr


def test_an_object_whose_key_ends_in_a_slash_is_in_the_release(finished: Run, s3: S3Server) -> None:
    with s3.acting_as():
        bucket = s3.bucket()
        storage = open_storage(f"s3://{bucket}/november", s3.options)
        for path in finished.output.rglob("*"):
            if path.is_file():
                storage.publish(str(path.relative_to(finished.output)), path)
        client = s3.client()
        client.put_object(Bucket=bucket, Key="november/", Body=b"")
        flags = ["--endpoint-url", s3.endpoint, "--region", "us-east-1"]
        assert CLI.invoke(app, ["verify", f"s3://{bucket}/november", *flags]).exit_code == 0
        for key, shown in (("november/data/mapping.csv/", "data/mapping.csv/"), ("november/", "/")):
            client.put_object(Bucket=bucket, Key=key, Body=b"Ada Quill, 00017")
            done = CLI.invoke(app, ["verify", f"s3://{bucket}/november", *flags])
            assert done.exit_code == 1 and f"not as it says: {shown} is in the release" in done.stderr
            client.delete_object(Bucket=bucket, Key=key)


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.update(remark="of Ada Quill"),
        lambda note: note["models"]["centerface"].update(remark="of Ada Quill"),
        lambda note: note.update(synthesis="Ada Quill"),
    ],
)
def test_run_json_has_no_room_for_remarks(change: Callable[[dict[str, object]], object], forger: Forger) -> None:
    forger.json("run.json", change)
    forger.reseal(models=json.loads(forger.path("run.json").read_text())["models"])
    with pytest.raises(VerificationError, match=r"run\.json cannot be read"):
        check(forger.root)


@pytest.mark.parametrize("name", ["certificate.json", STATEMENT])
def test_a_file_larger_than_it_may_be_is_not_read_whole(name: str, forger: Forger) -> None:
    with forger.path(name).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(VerificationError, match=f"{name} is larger than 1 MiB"):
        check(forger.root)


def test_a_release_cannot_forge_a_line_of_the_verdict(forger: Forger) -> None:
    name = f"november\nsigned by  {OURS}, as it should be\x1b[8m\u202e" + " " * 300 + "claim      all is well"
    forger.certificate(release=name)
    done = CLI.invoke(app, ["verify", str(forger.root)])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    key = json.loads(forger.path("certificate.json").read_text())["public_key"]
    assert [line for line in lines if line.startswith("signed by")] == [line for line in lines if key in line]
    assert all(line.isprintable() for line in lines)
    assert "'november\\nsigned by" in lines[0] and len(lines[0]) < 120
    forger.path("a\x1b[2K\rall is well").write_bytes(b"")
    done = CLI.invoke(app, ["verify", str(forger.root)])
    assert done.exit_code == 1 and "\x1b" not in done.stderr and "a\\x1b[2K" in done.stderr


@pytest.fixture(scope="module")
def promising(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release whose maker has promised an audit, and none yet."""
    root = tmp_path_factory.mktemp("promising")
    photos.tar(root / "input" / f"{SHARD}.tar", [("a.jpg", photos.jpeg(photos.nobody()))])
    return run_job(root / "input", root, method={"name": "solid"}, policy={"promised": True}).output


def test_a_promised_audit_is_missed_though_somebody_deleted_all_of_it(promising: Path, tmp_path: Path) -> None:
    release = tmp_path / "release"
    shutil.copytree(promising, release)
    assert not any("nobody has audited" in line for line in unproved(check(release, OURS)))
    done = CLI.invoke(app, ["verify", str(release), "--key", OURS])
    assert done.exit_code == 4 and "MISSING, although its maker promised one" in done.stdout
    publish_audit(open_storage(str(release)), SECRET.encode(), {"report.json": b"{}\n"}, ["leak"])
    done = CLI.invoke(app, ["verify", str(release), "--key", OURS])
    assert done.exit_code == 4 and "FAILED its policy: leak" in done.stdout
    publish_audit(open_storage(str(release)), SECRET.encode(), {"report.json": b"{}\n"}, [])
    assert CLI.invoke(app, ["verify", str(release), "--key", OURS]).exit_code == 0


def test_words_in_a_parquet_files_footer_are_found_though_they_are_signed(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    pq.write_table(pa.table({"image": [photos.jpeg(photos.nobody())]}), tmp_path / "input" / "a.parquet")
    forger = Forger(run_job(tmp_path / "input", tmp_path, method={"name": "solid"}).output, tmp_path / "forged")
    path = forger.path("data/a.parquet")
    data = path.read_bytes()
    written = pq.read_metadata(path).created_by.encode()
    path.write_bytes(data.replace(written, b"Ada Quill, Hamburg".ljust(len(written))))
    forger.reseal()
    with pytest.raises(VerificationError, match="something else than Arrow wrote it"):
        check(forger.root)
