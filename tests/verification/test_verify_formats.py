"""`anonlib verify` on Parquet, folders, compressed tars and redactions, believed as written and caught where forged."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anonlib.verification.certificate import public_key
from tests.support import bombs, photos
from tests.support.forgery import PHOTO, Forger, Tampering, check, refused, sha256
from tests.support.runs import SECRET, run_job

OURS = public_key(SECRET.encode())
ZIPPED = "data/00000.tar.gz"
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


def parquet_input(folder: Path) -> Path:
    folder.mkdir(parents=True)
    pixels = [photos.jpeg(photos.astronaut()), photos.jpeg(photos.nobody()), b"broken"]
    rows = [
        {"id": f"k{number}", "image": {"bytes": data, "path": f"Ada_{number}.jpg"}, "caption": "x", "person": "Ada"}
        for number, data in enumerate(pixels)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "photos.parquet")
    return folder


def folder_input(folder: Path) -> Path:
    (folder / "album").mkdir(parents=True)
    (folder / "album" / "one.jpg").write_bytes(photos.jpeg(photos.astronaut()))
    (folder / "album" / "one.json").write_text('{"caption": "x", "person": "Ada"}')
    (folder / "two.png").write_bytes(photos.encoded(photos.nobody(), "PNG"))
    (folder / "broken.jpg").write_bytes(b"broken")
    return folder


def gzipped_input(folder: Path) -> Path:
    key = "a/Zoë-" + 120 * "x"
    content = [(f"{key}.jpg", photos.jpeg(photos.astronaut())), (f"{key}.json", b'{"caption": "x", "person": "Ada"}')]
    tar = photos.tar(folder / "00000.tar", [*content, ("a/two.jpg", b"broken")])
    (folder / "00000.tar.gz").write_bytes(gzip.compress(tar.read_bytes()))
    tar.unlink()
    return folder


INPUTS = {"parquet": parquet_input, "folder": folder_input, "gzip": gzipped_input}


@pytest.fixture(scope="module")
def solid(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A small release of a format with method solid, made once."""
    made: dict[str, Path] = {}

    def release(kind: str) -> Path:
        if kind not in made:
            root = tmp_path_factory.mktemp(kind)
            made[kind] = run_job(INPUTS[kind](root / "input"), root, method={"name": "solid"}).output
        return made[kind]

    return release


@pytest.mark.parametrize("kind", INPUTS)
def test_a_release_of_any_format_is_as_it_says(kind: str, solid: Callable[..., Path]) -> None:
    found = check(solid(kind), OURS)
    counts = found.certificate.counts
    assert found.certificate.claim.kind == "none" and not found.certificate.tables
    assert counts.quarantined == 1 and counts.faces == counts.replaced == 1


def with_path(table: pa.Table) -> pa.Table:
    cells = [cell | {"path": "Ada.jpg"} for cell in table["image"].to_pylist()]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return table.set_column(table.schema.get_field_index("image"), "image", pa.array(cells, kind))


def other_picture(table: pa.Table) -> pa.Table:
    cells = table["image"].to_pylist()
    cells[-1] = cells[-1] | {"bytes": PHOTO}
    index = table.schema.get_field_index("image")
    return table.set_column(index, "image", pa.array(cells, table.schema.field("image").type))


PARQUET: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "an embedding column": (lambda t: t.append_column("embedding", pa.array([[0.1] * 128] * len(t))), "'embedding'"),
    "a vector under another name": (lambda t: t.append_column("v", pa.array([[0.1] * 128] * len(t))), "the column 'v'"),
    "the person's column": (lambda t: t.append_column("person", pa.array(["Ada"] * len(t))), "keep_fields does not"),
    "a key that is another": (
        lambda t: t.set_column(t.schema.get_field_index("id"), "id", pa.array(["k0", "Ada"])),
        "holds 'Ada' in 'id' where its manifest has 'k1'",
    ),
    "where a picture came from": (with_path, "where it came from"),
    "another picture": (other_picture, "is not the one in its manifest"),
    "a row too many": (lambda t: pa.concat_tables([t, t.slice(0, 1)]), "more rows than its manifest"),
    "a row too few": (lambda t: t.slice(0, 1), "lacks the image 'k1'"),
    "a note in the schema": (lambda t: t.replace_schema_metadata({"pandas": "Ada"}), "metadata beside its columns"),
}


def vouch(release: Forger, name: str, content: bytes) -> None:
    """A file that a marker of the folder names."""
    release.path(name).parent.mkdir(parents=True, exist_ok=True)
    release.path(name).write_bytes(content)
    release.json("commits/files-00000000.json", lambda marker: marker["files"].update({name: ""}))


def lose_picture(release: Forger) -> None:
    release.path("data/two.png").unlink()
    release.json("commits/files-00000000.json", lambda marker: marker["files"].pop("data/two.png"))


FOLDER: dict[str, tuple[Tampering, str]] = {
    "another picture": (lambda r: r.path("data/two.png").write_bytes(PHOTO), "data/two.png is not the one in"),
    "a picture nobody vouches for": (lambda r: vouch(r, "data/three.jpg", PHOTO), "belongs to no row"),
    "a sidecar that was not kept": (lambda r: vouch(r, "data/album/one.txt", b"Ada"), "keep_fields does not allow"),
    "more in a sidecar": (
        lambda r: r.path("data/album/one.json").write_text('{"caption": "x", "person": "Ada"}'),
        "holds more than keep_fields allows",
    ),
    "a sidecar of a photo that is not there": (lambda r: vouch(r, "data/broken.json", b'{"caption": "x"}'), "no row"),
    "a picture taken away": (
        lambda r: r.json("commits/files-00000000.json", lambda marker: marker["files"].pop("data/two.png")),
        "data/two.png is in the release, and nobody vouches for it",
    ),
    "a picture lost": (lose_picture, "lacks the image 'two.png'"),
}


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
    "words in padding": (repacked(lambda d: fill(d, first_padding(d), b"Ada", header=False)), "beside its members"),
    "words after a name": (repacked(lambda d: fill(d, 60, b"Ada Quill")), "beside its members"),
    "a link's name in a file": (repacked(lambda d: fill(d, 157, b"Ada Quill")), "beside its members"),
    "an owner": (repacked(lambda d: fill(d, 265, b"ada")), "beside its members"),
    "more zeros at the end": (repacked(lambda d: d.extend(bytes(10240))), "beside its members"),
}


def rewritten(change: Callable[[pa.Table], pa.Table]) -> Tampering:
    def tamper(release: Forger) -> None:
        path = release.path("data/photos.parquet")
        pq.write_table(change(pq.read_table(path)), path)

    return tamper


def other_writer(release: Forger) -> None:
    path = release.path("data/photos.parquet")
    written = pq.read_metadata(path).created_by.encode()
    path.write_bytes(path.read_bytes().replace(written, b"Ada Quill, Hamburg".ljust(len(written))))


CASES = [("parquet", other_writer, "something else than Arrow wrote it")]
CASES += [("parquet", rewritten(change), sentence) for change, sentence in PARQUET.values()]
CASES += [("folder", tamper, sentence) for tamper, sentence in FOLDER.values()]
CASES += [("gzip", tamper, sentence) for tamper, sentence in HIDDEN.values()]


@pytest.mark.parametrize(("kind", "tamper", "sentence"), CASES, ids=["words in the footer", *PARQUET, *FOLDER, *HIDDEN])
def test_a_tampered_dataset_is_seen_though_it_is_signed(
    kind: str, tamper: Tampering, sentence: str, solid: Callable[..., Path], tmp_path: Path
) -> None:
    forger = Forger(solid(kind), tmp_path / "forged")
    tamper(forger)
    forger.reseal()
    refused(forger.root, sentence)


def test_the_forger_of_these_tests_signs_what_verify_believes(solid: Callable[..., Path], tmp_path: Path) -> None:
    """Else every test above would pass for a reason of its own."""
    for number, kind in enumerate(INPUTS):
        forger = Forger(solid(kind), tmp_path / str(number))
        before = sha256(forger.path("run.json"))
        forger.reseal()
        assert check(forger.root).certificate.run_sha256 == before


def test_a_bomb_in_a_mirror_is_hashed_and_never_opened(solid: Callable[..., Path], tmp_path: Path) -> None:
    """It took 3,188 MiB before its hash was compared."""
    release = Forger(solid("gzip"), tmp_path / "forged")
    shutil.move(bombs.long_header_tar(tmp_path / "bomb.tar.gz", tarfile.XHDTYPE), release.path(ZIPPED))
    said, peak = bombs.peak_of(VERIFY, release.root, OURS)
    assert f"{ZIPPED} is not the one that was signed" in said
    assert peak < PLAIN_MIB


@pytest.mark.parametrize(
    ("bomb", "sentence"),
    [
        (lambda path: bombs.long_header_tar(path, tarfile.XHDTYPE), "cannot be read to its end (ReadError)"),
        (lambda path: bombs.endless_tar(path, 600), "holds 'endless', which is larger than a sample of a release"),
        (lambda path: bombs.fat_sample_tar(path, 30, 32), "cannot be read to its end (ReadError)"),
    ],
)
def test_a_signed_bomb_takes_no_more_than_a_sample(bomb: Callable[[Path], Path], sentence: str, tmp_path: Path) -> None:
    """Four members of 256 MiB took 1,649 MiB."""
    path = bomb(tmp_path / "bomb.tgz")
    photo = hashlib.sha256(photos.jpeg(photos.nobody()[:32, :32])).hexdigest()
    said, peak = bombs.peak_of(CHECK, path, hashlib.sha256(path.read_bytes()).hexdigest(), photo)
    assert sentence in said
    assert peak < PLAIN_MIB + 256
