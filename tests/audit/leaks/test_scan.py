"""A clean release leaks nothing; each planted leak is found by its own check and by name."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anonlib.audit.findings import LeakCheck
from anonlib.audit.leaks.scan import CHECKS, _is_left, scan_leaks
from anonlib.job import Job
from anonlib.media.clip import Frame
from anonlib.media.codec import decode, encode
from tests.support import photos
from tests.support.forgery import Forger
from tests.support.runs import Run, by_key, run_job

Members = list[tuple[str, bytes]]
Change = Callable[[bytes], bytes]


def labelled(source: Path) -> dict[str, str]:
    return {"uri": str(source), "subject_field": "person"}


def findings(run: Run, output: Path) -> dict[str, LeakCheck]:
    """What the scan says of a release of `run` that lies at `output`."""
    moved = run.config.model_copy(update={"output": run.config.output.model_copy(update={"uri": str(output)})})
    return {check.name: check for check in scan_leaks(Job(moved))}


def found(run: Run, output: Path) -> dict[str, tuple[str, ...]]:
    """The checks that found something, and where."""
    return {name: check.where for name, check in findings(run, output).items() if check.found}


def shard_of(run: Run) -> str:
    """The name of a release's first shard."""
    return str(json.loads((run.output / "run.json").read_text())["shards"][0])


def first_key(run: Run) -> str:
    return next(row["key"] for row in by_key(run.output).values() if row["faces"])


def place(run: Run, key: str | None = None) -> str:
    """Where a finding is, of the first photo if no key is given."""
    return f"{shard_of(run)}/{key or first_key(run)}"


def rewritten(run: Run, root: Path, change: Callable[[Members], Members]) -> Path:
    """A copy of a release whose first tar is changed; its manifest vouches for photos as if they had always been so."""
    forger, shard, digests = Forger(run.output, root), shard_of(run), {}

    def in_tar(members: Members) -> Members:
        new = change(members)
        for (_, old), (_, data) in zip(members, new, strict=False):
            digests[hashlib.sha256(old).hexdigest()] = hashlib.sha256(data).hexdigest()
        return new

    def in_rows(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["output_sha256"] = digests.get(row["output_sha256"], row["output_sha256"])

    forger.tar(f"data/{shard}.tar", in_tar)
    forger.rows(f"manifest/{shard}.parquet", in_rows)
    forger.reseal()
    return root


def with_photo(run: Run, root: Path, change: Change, key: str = "") -> Path:
    """A copy of a release with another photo under a key, the first one's if none is given."""
    names = {f"{key or first_key(run)}.{ending}" for ending in ("jpg", "png")}
    return rewritten(run, root, lambda all: [(name, change(data) if name in names else data) for name, data in all])


KEY = "holiday-003"


@pytest.fixture(scope="module")
def new_keys(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three PNGs and a broken one, faces under ellipses, with new keys and captions."""
    root = tmp_path_factory.mktemp("new-keys")
    content: Members = []
    for number, pixels in enumerate([photos.astronaut(), photos.nobody(), photos.astronaut()[:, ::-1].copy()]):
        sidecar = {"person": f"Ada Quill-{number}", "caption": f"a photo, {number}"}
        name = f"holiday-{number:03d}"
        content += [(f"{name}.png", photos.encoded(pixels, "PNG")), (f"{name}.json", json.dumps(sidecar).encode())]
    photos.tar(root / "input" / "00000.tar", [*content, ("holiday-003.png", b"broken")])
    return run_job(root / "input", root, method={"name": "solid"}, rekey=True, input=labelled(root / "input"))


def test_a_clean_release_leaks_nothing(finished: Run) -> None:
    checks = findings(finished, finished.output)
    assert tuple(checks) == CHECKS
    assert {name: check.where for name, check in checks.items() if check.found} == {}
    faces = sum(len(row["faces"]) for row in by_key(finished.output).values())
    assert checks["original px in a face"].checked == faces >= 24
    for name in ("EXIF", "thumbnail", "bytes after the end", "changed px outside faces", "whole original"):
        assert checks[name].checked == 27, name
    assert checks["person's label"].checked == 24
    assert (checks["original key"].checked, checks["original key"].note) == (0, "the release keeps its keys")


def test_a_clean_lossless_release_with_new_keys_leaks_nothing(new_keys: Run) -> None:
    checks = findings(new_keys, new_keys.output)
    assert {name: check.where for name, check in checks.items() if check.found} == {}
    assert (checks["original key"].checked, checks["quarantined image"].checked) == (4, 1)
    # The list of shards, the tar, and a picture and a caption of each released photo.
    assert (checks["foreign name"].checked, checks["foreign word in a manifest"].checked) == (8, 4)
    assert checks["changed px outside faces"].checked == 3
    assert checks["original px in a face"].checked == 2


# ---- photos ---------------------------------------------------------------------------------------------------


def test_what_is_added_to_a_photo_is_found_there(finished: Run, tmp_path: Path) -> None:
    thumbnail = photos.jpeg_segment(0xE0, b"JFXX\0\x10a small picture")

    def change(data: bytes) -> bytes:
        return photos.with_segments(data, thumbnail) + photos.jpeg(photos.nobody())

    release = with_photo(finished, tmp_path / "forged", change, KEY)
    checks = ("thumbnail", "bytes after the end", "further picture", "odd thing in a file")
    assert found(finished, release) == dict.fromkeys(checks, (f"00000/{KEY}",))


@pytest.mark.parametrize(("part", "quality"), [(1.0, 60), (0.6, 92)])
def test_an_original_face_and_a_change_far_from_it_are_found(
    part: float, quality: int, finished: Run, tmp_path: Path
) -> None:
    """The upper `part` of the original's face, brows to chin, is back over the new one, and a corner is inverted."""
    x0, y0, x1, y1 = (round(side) for side in by_key(finished.output)[KEY]["faces"][0]["box"])
    face, corner = np.s_[y0 : round(y0 + part * (y1 - y0)), x0:x1], np.s_[:6, :6]
    original = photos.decoded(photos.content_of(finished.input / "00000.tar")[f"{KEY}.jpg"])

    def change(data: bytes) -> bytes:
        pixels = photos.decoded(data).copy()
        pixels[face], pixels[corner] = original[face], 255 - pixels[corner]
        return encode(pixels, decode(data, max_mpx=10), jpeg_quality=quality)

    places = found(finished, with_photo(finished, tmp_path / "forged", change, KEY))
    assert places == dict.fromkeys(("original px in a face", "changed px outside faces"), (f"00000/{KEY}",))


def test_one_changed_px_of_a_png_is_found(new_keys: Run, tmp_path: Path) -> None:
    def change(data: bytes) -> bytes:
        pixels = photos.decoded(data).copy()
        pixels[5, 7, 1] ^= 1
        return encode(pixels, decode(data, max_mpx=10), jpeg_quality=92)

    release = with_photo(new_keys, tmp_path / "forged", change)
    assert found(new_keys, release) == {"changed px outside faces": (place(new_keys),)}


# ---- names, hashes, embeddings --------------------------------------------------------------------------------

VECTOR = np.random.default_rng(0).normal(size=128).astype(np.float32)
SMALL = photos.nobody()[:64]


@pytest.mark.parametrize(
    ("check", "caption"),
    [
        ("original key", "was holiday-001.png"),
        ("person's label", "by ada_quill, 2"),
        ("hash of an original", "see {hash}"),
        ("embedding", {"of": [[float(number), 0] for number in VECTOR]}),
    ],
)
def test_what_a_caption_says_is_found_and_not_repeated(check: str, caption: Any, new_keys: Run, tmp_path: Path) -> None:
    original = photos.content_of(new_keys.input / "00000.tar")["holiday-002.png"]
    if isinstance(caption, str):
        caption = caption.format(hash=hashlib.md5(original).hexdigest())
    sidecar = {f"{first_key(new_keys)}.json": json.dumps({"caption": caption}).encode()}
    forged = rewritten(
        new_keys, tmp_path / "forged", lambda all: [(name, sidecar.get(name, data)) for name, data in all]
    )
    assert found(new_keys, forged) == {check: (place(new_keys),)}


def test_what_lies_beside_the_photos_is_found(new_keys: Run, tmp_path: Path) -> None:
    array = io.BytesIO()
    np.save(array, VECTOR)
    original = photos.content_of(new_keys.input / "00000.tar")["holiday-002.png"]
    key, at = first_key(new_keys), place(new_keys)
    lost = next(row["key"] for row in by_key(new_keys.output).values() if row["status"] == "quarantined")
    fields = {"npy": array.getvalue(), "bak": original, "txt": b"C02XK", "a.json": b'["C02XK"]'}
    fields["b.json"] = b'{"caption": "x", "camera": "C02XK"}'
    more = [*((f"{key}.{name}", data) for name, data in fields.items()), (f"{lost}.png", photos.encoded(SMALL, "PNG"))]
    checks = findings(new_keys, rewritten(new_keys, tmp_path / "forged", lambda members: [*members, *more]))
    assert {name: (check.found, check.where) for name, check in checks.items() if check.found} == {
        "embedding": (1, (at,)),
        "whole original": (1, (at,)),
        "field that the job does not keep": (5, (at,)),
        "foreign name": (5, (f"{at}, its name",)),
        "image without a row": (2, (at, place(new_keys, lost))),
        "quarantined image": (1, (place(new_keys, lost),)),
    }


def test_what_lies_beside_the_shards_is_found_and_not_repeated(new_keys: Run, tmp_path: Path) -> None:
    original = photos.content_of(new_keys.input / "00000.tar")["holiday-002.png"]
    forger = Forger(new_keys.output, tmp_path / "forged")
    forger.column(f"manifest/{shard_of(new_keys)}.parquet", "template", VECTOR.tolist())
    forger.json("run.json", lambda note: note.update(note="photos of Ada Quill-1"))
    (forger.root / "holiday-002.png").write_bytes(original)
    places = found(new_keys, forger.root)
    assert places.pop("person's label") == ("run.json",)
    stray = {"whole original", "image without a row", "file that belongs to no shard", "original key"}
    assert set(places) == stray | {"embedding"}
    assert not any("holiday" in where for check in places.values() for where in check)


def test_names_headers_and_words_around_the_photos_are_found(new_keys: Run, tmp_path: Path) -> None:
    forger, shard, key = Forger(new_keys.output, tmp_path / "forged"), shard_of(new_keys), first_key(new_keys)
    path = forger.path(f"data/{shard}.tar")
    content = photos.content_of(path)
    headers: list[dict[str, Any]] = [{"uname": "quill"}, {"gname": "quill"}, {"mtime": 1}, {"uid": 7}, {"mode": 0o600}]
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        members = zip(content.items(), [*headers, {"pax_headers": {"comment": "x"}}], strict=True)
        for (name, data), header in members:
            info = tarfile.TarInfo(f"{key}.ada quill-0.png" if name == f"{key}.png" else name)
            info.size = len(data)
            for field, value in header.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(data))
    words = {"reason": "quill.png is a link", "notes": ["by Quill"], "metadata_stripped": ["serial C02XK"]}

    def change(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["status"] == "quarantined").update(words)

    forger.rows(f"manifest/{shard}.parquet", change)
    forger.reseal()
    checks = {name: check for name, check in findings(new_keys, forger.root).items() if check.found}
    (where,) = checks.pop("foreign word in a manifest").where
    assert set(where.split(", ")[1:]) == set(words) and checks["odd thing in a file"].found == 6
    assert set(checks) == {"odd thing in a file", "foreign name", "person's label"}
    assert not any("quill" in where for check in checks.values() for where in check.where)


def test_names_and_order_of_the_input_shards_are_found_and_not_repeated(tmp_path: Path) -> None:
    for number, name in enumerate(("Patient John Doe", "b", "c", "d", "e", "f")):
        photos.tar(tmp_path / "input" / f"{name}.tar", photos.members(f"k{number}", photos.nobody(), {}))
    run = run_job(tmp_path / "input", tmp_path, method={"name": "solid"}, rekey=True)
    assert found(run, run.output) == {}
    forger = Forger(run.output, tmp_path / "forged")
    forger.json("run.json", lambda note: note["shards"].reverse())
    forger.json("run.json", lambda note: note.update(note="from patient_john-doe.tar"))
    assert found(run, forger.root) == dict.fromkeys(("original key", "foreign name"), ("run.json",))


def test_keys_that_name_people_are_found(tmp_path: Path) -> None:
    photos.tar(tmp_path / "input" / "0.tar", photos.members("Ada_Quill_0001", photos.nobody(), {"person": "Ada Quill"}))
    run = run_job(tmp_path / "input", tmp_path, method={"name": "solid"}, input=labelled(tmp_path / "input"))
    assert found(run, run.output) == {"person's label in a key": ("0/Ada_Quill_0001",)}


# ---- Parquet --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rekeyed_table(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A Parquet file for Hugging Face readers, with new keys."""
    root = tmp_path_factory.mktemp("table")
    (root / "input").mkdir()
    rows = [{"id": f"photo-{number}", "image": {"bytes": photos.jpeg(photos.nobody()), "path": "x"}, "caption": "x",
             "person": f"Ada Quill-{number}"} for number in range(2)]  # fmt: skip
    features = {"info": {"features": {"image": {"_type": "Image"}}, "description": "photos of Ada Quill-1"}}
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, root / "input" / "photos.parquet")
    return run_job(root / "input", root, method={"name": "solid"}, rekey=True, input=labelled(root / "input"))


NOTE = json.dumps({"info": {"features": {"image": {"_type": "Image"}}, "description": "by ada_quill 1"}})


def with_column_note(table: pa.Table) -> pa.Table:
    fields = [field.with_metadata({"by": "Quill"}) if field.name == "caption" else field for field in table.schema]
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))


def with_file_notes(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata({"quill": NOTE, "huggingface": NOTE})


TABLES: dict[str, tuple[Callable[[pa.Table], pa.Table], set[str]]] = {
    "as written": (lambda table: table, set()),
    "an embedding": (lambda t: t.append_column("features", pa.array([VECTOR.tolist()] * len(t))), {"embedding"}),
    "notes of the file": (with_file_notes, {"odd thing in a file", "person's label"}),
    "a column's note": (with_column_note, {"odd thing in a file"}),
}


@pytest.mark.parametrize("what", TABLES)
def test_what_a_parquet_file_says_more_is_found(what: str, rekeyed_table: Run, tmp_path: Path) -> None:
    change, checks = TABLES[what]
    forger = Forger(rekeyed_table.output, tmp_path / "forged")
    path = forger.path(f"data/{shard_of(rekeyed_table)}.parquet")
    pq.write_table(change(pq.read_table(path)), path)
    forger.reseal()
    assert set(found(rekeyed_table, forger.root)) == checks


def test_a_face_that_only_an_alpha_draws_is_left_until_it_is_even() -> None:
    drawn, flat = photos.astronaut()[..., 0], np.full((512, 512, 3), 90, np.uint8)
    core = np.zeros((512, 512), bool)
    core[60:180, 180:280] = True
    before = Frame(0, Fraction(0), flat, drawn).picture
    assert _is_left(before, before, core)
    assert not _is_left(before, Frame(0, Fraction(0), flat, np.full_like(drawn, 255)).picture, core)
    assert not _is_left(before, Frame(0, Fraction(0), flat).picture, core)
