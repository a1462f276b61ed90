"""A clean release leaks nothing; each planted leak is found by its own check and by name."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from anonlib.audit.findings import LeakCheck
from anonlib.audit.leaks import CHECKS, scan_leaks
from anonlib.job import Job
from anonlib.media.codec import decode, encode
from tests.support import photos
from tests.support.forgery import Forger
from tests.support.runs import Run, by_key, run_job

Members = list[tuple[str, bytes]]
Change = Callable[[bytes], bytes]


def findings(run: Run, output: Path) -> dict[str, LeakCheck]:
    """What the scan says of a release of `run` that lies at `output`."""
    moved = run.config.model_copy(update={"output": run.config.output.model_copy(update={"uri": str(output)})})
    return {check.name: check for check in scan_leaks(Job(moved))}


def found(run: Run, output: Path) -> dict[str, tuple[str, ...]]:
    """The checks that found something, and where."""
    return {name: check.where for name, check in findings(run, output).items() if check.found}


def with_photo(release: Forger, key: str, change: Change) -> None:
    """Another photo under a key of the first shard, vouched for as if it had always been there."""
    digest = {}

    def in_tar(members: Members) -> Members:
        new = [(name, change(data) if name == f"{key}.jpg" else data) for name, data in members]
        digest[key] = hashlib.sha256(dict(new)[f"{key}.jpg"]).hexdigest()
        return new

    release.tar("data/00000.tar", in_tar)

    def in_rows(rows: list[dict[str, object]]) -> None:
        for row in rows:
            if row["key"] == key:
                row["output_sha256"] = digest[key]

    release.rows("manifest/00000.parquet", in_rows)
    release.reseal()


KEY = "holiday-003"


def original_of(run: Run, key: str) -> bytes:
    return photos.content_of(run.input / "00000.tar")[f"{key}.jpg"]


@pytest.fixture
def forger(finished: Run, tmp_path: Path) -> Forger:
    return Forger(finished.output, tmp_path / "forged")


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
    return run_job(root / "input", root, method={"name": "solid"}, rekey=True)


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


def gps() -> bytes:
    block = Image.Exif()
    block.get_ifd(0x8825)[1] = "N"
    return block.tobytes()


METADATA: dict[str, tuple[Change, set[str]]] = {
    "a thumbnail": (
        lambda data: photos.with_segments(data, photos.jpeg_segment(0xE0, b"JFXX\0\x10" + data[:900])),
        {"thumbnail"},
    ),
    "a position": (
        lambda data: photos.with_segments(data, photos.jpeg_segment(0xE1, gps())),
        {"EXIF", "GPS position"},
    ),
    "a profile": (
        lambda data: photos.with_segments(data, photos.jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1" + photos.srgb())),
        {"foreign colour profile"},
    ),
    "a second picture": (lambda data: data + photos.jpeg(photos.nobody()), {"bytes after the end", "further picture"}),
}


@pytest.mark.parametrize("what", METADATA)
def test_what_is_added_to_a_photo_is_found_there(what: str, finished: Run, forger: Forger) -> None:
    change, checks = METADATA[what]
    with_photo(forger, KEY, change)
    assert found(finished, forger.root) == dict.fromkeys(checks, (f"00000/{KEY}",))


# ---- px -------------------------------------------------------------------------------------------------------


def pasted(run: Run, part: float, quality: int) -> Change:
    """The upper `part` of the original's face, brows to chin, back over the new one."""
    box = by_key(run.output)[KEY]["faces"][0]["box"]
    x0, y0, x1, y1 = (round(side) for side in box)
    y1 = round(y0 + part * (y1 - y0))

    def change(data: bytes) -> bytes:
        pixels = photos.decoded(data).copy()
        pixels[y0:y1, x0:x1] = photos.decoded(original_of(run, KEY))[y0:y1, x0:x1]
        picture = decode(data, max_mpx=10)
        return encode(pixels, picture, jpeg_quality=quality)

    return change


@pytest.mark.parametrize(("part", "quality"), [(1.0, 92), (1.0, 60), (0.6, 92)])
def test_an_original_face_pasted_back_is_found(part: float, quality: int, finished: Run, forger: Forger) -> None:
    with_photo(forger, KEY, pasted(finished, part, quality))
    places = found(finished, forger.root)
    assert places.pop("original px in a face") == (f"00000/{KEY}",)
    # A photo that was encoded once more, or at another quality, is not what the job wrote anywhere.
    assert set(places) <= {"changed px outside faces"}


def test_a_change_far_from_any_face_is_found(finished: Run, forger: Forger) -> None:
    def change(data: bytes) -> bytes:
        pixels = photos.decoded(data).copy()
        pixels[:6, :6] = 255 - pixels[:6, :6]
        return encode(pixels, decode(data, max_mpx=10), jpeg_quality=92)

    with_photo(forger, KEY, change)
    assert found(finished, forger.root) == {"changed px outside faces": (f"00000/{KEY}",)}


# ---- a lossless release with new keys -------------------------------------------------------------------------


def rewritten(run: Run, root: Path, change: Callable[[Members, list[dict[str, object]]], Members]) -> Path:
    """A copy of a release whose tar is changed by a function of its members and its manifest's rows."""
    forger = Forger(run.output, root)
    shard = shard_of(run)
    rows = pq.read_table(forger.path(f"manifest/{shard}.parquet")).to_pylist()
    forger.tar(f"data/{shard}.tar", lambda members: change(members, rows))
    forger.rows(f"manifest/{shard}.parquet", lambda _: rows)
    forger.reseal()
    return root


def shard_of(run: Run) -> str:
    """The name of a release's only shard."""
    (shard,) = json.loads((run.output / "run.json").read_text())["shards"]
    return str(shard)


def place(run: Run, key: str | None = None) -> str:
    """Where a finding is, of the first photo if no key is given."""
    return f"{shard_of(run)}/{key or first_key(run)}"


def first_key(run: Run) -> str:
    return next(row["key"] for row in by_key(run.output).values() if row["faces"])


def with_caption(run: Run, root: Path, caption: object) -> Path:
    """The first photo's caption says something else."""
    name = f"{first_key(run)}.json"
    data = json.dumps({"caption": caption}).encode()
    change = {name: data}
    return rewritten(run, root, lambda members, _: [(member, change.get(member, old)) for member, old in members])


def test_a_clean_lossless_release_with_new_keys_leaks_nothing(new_keys: Run) -> None:
    checks = findings(new_keys, new_keys.output)
    assert {name: check.where for name, check in checks.items() if check.found} == {}
    assert (checks["original key"].checked, checks["quarantined image"].checked) == (4, 1)
    # The list of shards, the tar, and a picture and a caption of each released photo.
    assert (checks["foreign name"].checked, checks["foreign word in a manifest"].checked) == (8, 4)
    assert checks["changed px outside faces"].checked == 3
    assert checks["original px in a face"].checked == 2


@pytest.mark.parametrize("where", ["one px beside the ellipse", "face"])
def test_one_changed_px_of_a_png_is_found(where: str, new_keys: Run, tmp_path: Path) -> None:
    key = first_key(new_keys)

    def change(members: Members, rows: list[dict[str, object]]) -> Members:
        new = []
        for name, data in members:
            if name == f"{key}.png":
                pixels = photos.decoded(data).copy()
                if where == "face":
                    pixels[90:140, 200:250] = photos.astronaut()[90:140, 200:250]
                else:
                    pixels[5, 7, 1] ^= 1
                data = encode(pixels, decode(data, max_mpx=10), jpeg_quality=92)
                next(row for row in rows if row["key"] == key)["output_sha256"] = hashlib.sha256(data).hexdigest()
            new.append((name, data))
        return new

    check = "original px in a face" if where == "face" else "changed px outside faces"
    assert found(new_keys, rewritten(new_keys, tmp_path / "forged", change)) == {check: (place(new_keys, key),)}


def test_an_original_name_is_found_and_not_repeated(new_keys: Run, tmp_path: Path) -> None:
    places = found(new_keys, with_caption(new_keys, tmp_path / "one", "was holiday-001.png"))
    assert places == {"original key": (place(new_keys),)}
    places = found(new_keys, with_caption(new_keys, tmp_path / "two", "by ada_quill, 2"))
    assert places == {"person's label": (place(new_keys),)}


@pytest.mark.parametrize(("algorithm", "spelling"), [("sha256", "hex"), ("md5", "base64")])
def test_a_plain_hash_of_an_original_is_found(algorithm: str, spelling: str, new_keys: Run, tmp_path: Path) -> None:
    original = photos.content_of(new_keys.input / "00000.tar")["holiday-002.png"]
    digest = hashlib.new(algorithm, original).digest()
    text = digest.hex() if spelling == "hex" else base64.b64encode(digest).decode()
    places = found(new_keys, with_caption(new_keys, tmp_path / "forged", f"see {text}"))
    assert places == {"hash of an original": (place(new_keys),)}


VECTOR = np.random.default_rng(0).normal(size=128).astype(np.float32)
SIDECARS: dict[str, object] = {
    "a list": VECTOR.tolist(),
    "a nested list": {"of": [[float(number), 0] for number in VECTOR]},
    "a name": {"embedding": None},
}


@pytest.mark.parametrize("what", SIDECARS)
def test_an_embedding_in_a_sidecar_is_found(what: str, new_keys: Run, tmp_path: Path) -> None:
    places = found(new_keys, with_caption(new_keys, tmp_path / "forged", SIDECARS[what]))
    assert places == {"embedding": (place(new_keys),)}


def test_boxes_and_outlines_are_no_embeddings(new_keys: Run, tmp_path: Path) -> None:
    harmless = {"box": [1.5, 2.5, 3.5, 4.5], "keypoints": list(range(51)), "outline": list(range(100))}
    assert found(new_keys, with_caption(new_keys, tmp_path / "forged", harmless)) == {}


def test_an_embedding_beside_the_photos_is_found(new_keys: Run, tmp_path: Path) -> None:
    out = io.BytesIO()
    np.save(out, VECTOR)
    key = first_key(new_keys)
    whole = rewritten(new_keys, tmp_path / "one", lambda members, _: [*members, (f"{key}.npy", out.getvalue())])
    at = place(new_keys, key)
    names = {"foreign name": (f"{at}, its name",), "field that the job does not keep": (at,)}
    assert found(new_keys, whole) == {"embedding": (at,)} | names
    forger = Forger(new_keys.output, tmp_path / "two")
    forger.column(f"manifest/{shard_of(new_keys)}.parquet", "template", VECTOR.tolist())
    assert set(found(new_keys, forger.root)) == {"embedding"}


def test_whole_originals_are_found_wherever_they_lie(new_keys: Run, tmp_path: Path) -> None:
    original = photos.content_of(new_keys.input / "00000.tar")["holiday-002.png"]
    key = first_key(new_keys)
    extra = rewritten(new_keys, tmp_path / "one", lambda members, _: [*members, (f"{key}.bak", original)])
    places = found(new_keys, extra)
    assert places.pop("foreign name") == (f"{place(new_keys, key)}, its name",)
    checks = ("whole original", "image without a row", "field that the job does not keep")
    assert places == dict.fromkeys(checks, (place(new_keys, key),))
    forger = Forger(new_keys.output, tmp_path / "two")
    (forger.root / "holiday-002.png").write_bytes(original)
    places = found(new_keys, forger.root)
    assert set(places) == {"whole original", "image without a row", "file that belongs to no shard", "original key"}
    assert not any("holiday" in where for check in places.values() for where in check)


def test_a_quarantined_photo_with_an_output_is_found(new_keys: Run, tmp_path: Path) -> None:
    lost = next(row["key"] for row in by_key(new_keys.output).values() if row["status"] == "quarantined")
    data = photos.encoded(photos.nobody(), "PNG")
    whole = rewritten(new_keys, tmp_path / "one", lambda members, _: [*members, (f"{lost}.png", data)])
    assert found(new_keys, whole)["quarantined image"] == (place(new_keys, lost),)


@pytest.mark.parametrize(
    ("name", "content"),
    [("json", b'{"caption": "x", "camera": "C02XK"}'), ("json", b'["C02XK"]'), ("txt", b"C02XK"), ("bin", bytes(9))],
)
def test_a_field_that_the_job_does_not_keep_is_found(name: str, content: bytes, finished: Run, forger: Forger) -> None:
    forger.tar("data/00000.tar", lambda members: [*members, (f"{KEY}.more.{name}", content)])
    forger.reseal()
    assert found(finished, forger.root) == {"field that the job does not keep": (f"00000/{KEY}",)}


# ---- names and words beside the photos ------------------------------------------------------------------------


HEADERS: list[dict[str, Any]] = [
    *({"uname": "quill"}, {"gname": "quill"}, {"mtime": 1}, {"uid": 7}, {"mode": 0o600}),
    {"pax_headers": {"comment": "x"}},
]


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: str(next(iter(header))))
def test_a_header_of_a_tar_that_says_more_is_found(header: dict[str, Any], new_keys: Run, tmp_path: Path) -> None:
    forger = Forger(new_keys.output, tmp_path / "forged")
    path = forger.path(f"data/{shard_of(new_keys)}.tar")
    content = photos.content_of(path)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for number, (name, data) in enumerate(content.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in header.items() if number == 0 else ():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(data))
    forger.reseal()
    assert set(found(new_keys, forger.root)) == {"odd thing in a file"}


def test_a_name_of_the_input_in_a_members_name_is_found(new_keys: Run, tmp_path: Path) -> None:
    key = first_key(new_keys)

    def change(members: Members, rows: list[dict[str, object]]) -> Members:
        return [(f"{key}.ada quill-0.png" if name == f"{key}.png" else name, data) for name, data in members]

    places = found(new_keys, rewritten(new_keys, tmp_path / "forged", change))
    assert set(places) == {"foreign name", "person's label"}
    assert not any("quill" in where for check in places.values() for where in check)


@pytest.mark.parametrize(
    ("column", "value"),
    [("reason", "quill.png is a link"), ("notes", ["by Quill"]), ("metadata_stripped", ["serial C02XK"])],
)
def test_a_word_of_no_list_in_a_manifest_is_found(column: str, value: object, new_keys: Run, tmp_path: Path) -> None:
    forger, shard = Forger(new_keys.output, tmp_path / "forged"), shard_of(new_keys)

    def change(rows: list[dict[str, object]]) -> None:
        next(row for row in rows if row["status"] == "quarantined")[column] = value

    forger.rows(f"manifest/{shard}.parquet", change)
    forger.reseal()
    ((check, (where,)),) = found(new_keys, forger.root).items()
    assert check == "foreign word in a manifest" and where.endswith(f", {column}")


def with_run_note(run: Run, root: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a release with another run.json."""
    forger = Forger(run.output, root)
    forger.json("run.json", change)
    forger.reseal()
    return root


def test_a_name_in_run_json_is_found(new_keys: Run, tmp_path: Path) -> None:
    forged = with_run_note(new_keys, tmp_path / "forged", lambda note: note.update(note="photos of Ada Quill-1"))
    assert found(new_keys, forged) == {"person's label": ("run.json",)}


def test_names_and_order_of_the_input_shards_are_found_and_not_repeated(tmp_path: Path) -> None:
    for number, name in enumerate(("Patient John Doe", "b", "c", "d", "e", "f")):
        photos.tar(tmp_path / "input" / f"{name}.tar", photos.members(f"k{number}", photos.nobody(), {}))
    run = run_job(tmp_path / "input", tmp_path, method={"name": "solid"}, rekey=True)
    assert found(run, run.output) == {}
    reordered = with_run_note(run, tmp_path / "one", lambda note: note["shards"].reverse())
    assert found(run, reordered) == {"foreign name": ("run.json",)}
    named = with_run_note(run, tmp_path / "two", lambda note: note.update(note="from patient_john-doe.tar"))
    assert found(run, named) == {"original key": ("run.json",)}


def test_keys_that_name_people_are_found(tmp_path: Path) -> None:
    photos.tar(tmp_path / "input" / "0.tar", photos.members("Ada_Quill_0001", photos.nobody(), {"person": "Ada Quill"}))
    run = run_job(tmp_path / "input", tmp_path, method={"name": "solid"})
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
    return run_job(root / "input", root, method={"name": "solid"}, rekey=True)


def with_table(run: Run, root: Path, change: Callable[[pa.Table], pa.Table]) -> Path:
    """A copy of a release with another data file."""
    forger = Forger(run.output, root)
    path = forger.path(f"data/{shard_of(run)}.parquet")
    pq.write_table(change(pq.read_table(path)), path)
    forger.reseal()
    return root


def test_an_embedding_column_is_found(rekeyed_table: Run, tmp_path: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        return table.append_column("features", pa.array([VECTOR.tolist()] * len(table)))

    assert set(found(rekeyed_table, with_table(rekeyed_table, tmp_path / "forged", change))) == {"embedding"}


@pytest.mark.parametrize("key", ["pandas", "huggingface", "quill"])
def test_words_in_the_footer_of_a_parquet_file_are_found(key: str, rekeyed_table: Run, tmp_path: Path) -> None:
    assert found(rekeyed_table, rekeyed_table.output) == {}
    note = json.dumps({"info": {"features": {"image": {"_type": "Image"}}, "description": "by ada_quill 1"}})
    forged = with_table(rekeyed_table, tmp_path / "forged", lambda table: table.replace_schema_metadata({key: note}))
    assert set(found(rekeyed_table, forged)) == {"odd thing in a file", "person's label"}


def test_metadata_of_a_column_is_found(rekeyed_table: Run, tmp_path: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        fields = [field.with_metadata({"by": "Quill"}) if field.name == "caption" else field for field in table.schema]
        return table.cast(pa.schema(fields, metadata=table.schema.metadata))

    assert set(found(rekeyed_table, with_table(rekeyed_table, tmp_path / "forged", change))) == {"odd thing in a file"}
