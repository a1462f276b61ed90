"""`anonlib verify` believes a release as it was written, and names the first lie of one that was tampered with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import photos
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forgery import SECRET as FORGERS
from forgery import Forger, Rows, sha256
from runs import SECRET, Run, images, run_job
from s3server import S3Server
from typer.testing import CliRunner

from anonlib.audit.verify import unproved, verify
from anonlib.cli import app
from anonlib.config import MethodConfig
from anonlib.privacy.certificate import Untrue, public_key
from anonlib.privacy.claims import K_ANONYMITY, Claim, claim_of
from anonlib.storage import open_storage

CLI = CliRunner()
OURS = public_key(SECRET.encode())
SHARD, OTHER = "00000", "00001"
TAR, MANIFEST, MARKER = f"data/{SHARD}.tar", f"manifest/{SHARD}.parquet", f"commits/{SHARD}.json"
CLASSES = "classes.parquet"

Tampering = Callable[[Forger], object]


def check(release: Path, key: str | None = None) -> Any:
    return verify(open_storage(str(release)), key)


@pytest.fixture
def forger(finished: Run, tmp_path: Path) -> Forger:
    return Forger(finished.output, tmp_path / "forged")


# ---- what is true ---------------------------------------------------------------------------------------------


def test_a_release_is_as_it_says(finished: Run) -> None:
    found = check(finished.output, OURS)
    counts, summary = found.certificate.counts, finished.summary
    assert found.pinned
    assert (counts.images, counts.faces, counts.released) == (summary.images, summary.faces, summary.released)
    assert counts.faces == counts.replaced + counts.next_surrogate + counts.solid + counts.withheld
    assert counts.replaced > 0 and found.classes > 1
    assert found.files == sum(path.is_file() for path in finished.output.rglob("*"))


def test_without_the_key_it_says_that_anybody_could_have_signed(finished: Run) -> None:
    assert any("anybody can sign" in line for line in unproved(check(finished.output)))
    assert not any("anybody can sign" in line for line in unproved(check(finished.output, OURS.upper())))


def test_the_command_prints_what_is_proved_and_what_is_not(finished: Run) -> None:
    done = CLI.invoke(app, ["verify", str(finished.output), "--key", OURS])
    assert done.exit_code == 0
    for words in (
        "k-anonymity of the identity channel, k = 2",
        OURS,
        "not proved",
        "hair",
        "outside the claim",
        "caption",
    ):
        assert words in done.stdout


def test_the_command_names_a_lie_in_one_sentence(forger: Forger) -> None:
    forger.path("notes.txt").write_text("Ada lives in the third house")
    done = CLI.invoke(app, ["verify", str(forger.root)])
    assert done.exit_code == 1
    assert done.stderr == "anonlib: not as it says: notes.txt is in the release, and nobody vouches for it\n"


def test_it_needs_the_release_alone(finished: Run, tmp_path: Path) -> None:
    release = tmp_path / "elsewhere"
    shutil.copytree(finished.output, release)
    code = (
        "import sys\nfrom anonlib.cli import main\n"
        "try: main()\nfinally: print([m for m in ('ray', 'torch', 'faiss', 'onnxruntime') if m in sys.modules])"
    )
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "ANONLIB_MODELS": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", code, "verify", str(release)], env=bare, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("[]")


def test_a_forger_who_changes_nothing_is_believed_until_the_key_is_pinned(forger: Forger) -> None:
    forger.reseal()
    assert check(forger.root).certificate.public_key == public_key(FORGERS)
    with pytest.raises(Untrue, match="is signed by the key"):
        check(forger.root, OURS)


def test_a_place_that_is_no_release_has_no_certificate(tmp_path: Path) -> None:
    with pytest.raises(Untrue, match=r"certificate\.json is missing"):
        check(tmp_path)


def test_on_s3_as_on_a_disk(finished: Run, s3: S3Server) -> None:
    with s3.acting_as():
        uri = f"s3://{s3.bucket()}/november"
        storage = open_storage(uri, s3.options)
        for path in finished.output.rglob("*"):
            if path.is_file():
                storage.publish(str(path.relative_to(finished.output)), path)
        flags = ["--endpoint-url", s3.endpoint, "--region", "us-east-1"]
        assert CLI.invoke(app, ["verify", uri, *flags]).exit_code == 0
        storage.delete(TAR)
        done = CLI.invoke(app, ["verify", uri, *flags])
        assert done.exit_code == 1 and "is missing" in done.stderr


# ---- what a hash or a signature gives away ---------------------------------------------------------------------


def flip(release: Forger, name: str, at: int) -> None:
    data = bytearray(release.path(name).read_bytes())
    data[at] ^= 1
    release.path(name).write_bytes(data)


def swap(release: Forger, first: str, second: str) -> None:
    one, two = (release.path(name).read_bytes() for name in (first, second))
    release.path(first).write_bytes(two)
    release.path(second).write_bytes(one)


def spoken(change: Callable[[dict[str, Any]], object]) -> Tampering:
    """The certificate with a word changed, under the old signature."""

    def tamper(release: Forger) -> None:
        document = json.loads(release.path("certificate.json").read_text())
        change(document)
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        release.path("certificate.json").write_text(text + "\n")

    return tamper


SEEN: dict[str, tuple[Tampering, str]] = {
    "a byte in a tar": (lambda r: flip(r, TAR, 5000), f"{TAR} is not the file that its marker names"),
    "a byte in a tar's header": (lambda r: flip(r, TAR, 3), f"{TAR} is not the file that its marker names"),
    "a byte after a tar's end": (lambda r: flip(r, TAR, -1), f"{TAR} is not the file that its marker names"),
    "a dropped row": (
        lambda r: r.rows(MANIFEST, lambda rows: rows[1:]),
        f"the manifest of shard {SHARD} is not the one that its marker names",
    ),
    "two manifests swapped": (
        lambda r: swap(r, MANIFEST, f"manifest/{OTHER}.parquet"),
        f"the manifest of shard {SHARD} is not the one",
    ),
    "two shards swapped": (
        lambda r: (swap(r, MANIFEST, f"manifest/{OTHER}.parquet"), swap(r, MARKER, f"commits/{OTHER}.json")),
        f"the marker of shard {SHARD} speaks of shard {OTHER}",
    ),
    "an embedding column": (
        lambda r: r.column(MANIFEST, "embedding", [0.1] * 128),
        f"the manifest of shard {SHARD} is not the one",
    ),
    "a marker removed": (lambda r: r.path(MARKER).unlink(), f"{MARKER}: there is no such file"),
    "a manifest removed": (lambda r: r.path(MANIFEST).unlink(), f"{MANIFEST}: there is no such file"),
    "a tar removed": (lambda r: r.path(TAR).unlink(), f"a file of shard {SHARD} is missing"),
    "a marker's hash edited": (
        lambda r: r.json(MARKER, lambda marker: marker["files"].update({TAR: "0" * 64})),
        "Merkle root differs",
    ),
    "a marker's spelling edited": (
        lambda r: r.path(MARKER).write_text(r.path(MARKER).read_text() + " "),
        "Merkle root differs",
    ),
    "a file added": (lambda r: r.path("data/more.tar").write_bytes(b""), "data/more.tar is in the release"),
    "a file added under the name of an unfinished one": (
        lambda r: r.path("data/.anonlib-publish-1").write_bytes(b""),
        "data/.anonlib-publish-1 is in the release",
    ),
    "a shard added": (
        lambda r: shutil.copy(r.path(MARKER), r.path("commits/more.json")),
        "commits/more.json is in the release, and nobody vouches for it",
    ),
    "a class of the table": (
        lambda r: r.rows(CLASSES, lambda rows: rows[1:]),
        f"{CLASSES} is not the one that was signed",
    ),
    "another run.json": (
        lambda r: r.json("run.json", lambda note: note.update(keep_fields=["caption", "person"])),
        "run.json is not the one that was signed",
    ),
    "a claim raised": (spoken(lambda one: one["claim"].update(k=50)), "signature does not fit"),
    "a count changed": (spoken(lambda one: one["counts"].update(quarantined=1)), "signature does not fit"),
    "a word added": (spoken(lambda one: one.update(approved=True)), "approved is not as it should be"),
    "another key beside the old signature": (
        spoken(lambda one: one.update(public_key=public_key(FORGERS))),
        "signature does not fit",
    ),
    "a certificate in another spelling": (
        lambda r: r.path("certificate.json").write_text(
            json.dumps(json.loads(r.path("certificate.json").read_text()), indent=1)
        ),
        "not in canonical form",
    ),
    "half a certificate": (
        lambda r: r.path("certificate.json").write_bytes(r.path("certificate.json").read_bytes()[:300]),
        "the certificate cannot be read",
    ),
}


@pytest.mark.parametrize("what", SEEN)
def test_a_tampering_does_not_get_past_the_hashes(what: str, forger: Forger) -> None:
    tamper, sentence = SEEN[what]
    tamper(forger)
    with pytest.raises(Untrue) as lie:
        check(forger.root)
    assert sentence in str(lie.value)


# ---- what a forger cannot hide though he signs anew ------------------------------------------------------------


def people_of(row: dict[str, Any], people: list[str], weights: list[float]) -> None:
    row.update(people=people, weights=weights, k=len(people))


def short_class(rows: Rows) -> None:
    people_of(rows[0], rows[0]["people"][:1], [1.0])
    rows[0]["effective_k"] = 1


def lonely_class(rows: Rows) -> None:
    rows[0]["effective_k"] = 1


def subject_in_two(rows: Rows) -> None:
    shared = sorted([*rows[1]["people"], rows[0]["people"][0]])
    people_of(rows[1], shared, [1 / len(shared)] * len(shared))


def person_twice(rows: Rows) -> None:
    people = sorted([*rows[0]["people"], rows[0]["people"][0]])
    people_of(rows[0], people, [1 / len(people)] * len(people))


def two_digests(rows: Rows) -> Rows:
    return [rows[0], rows[0] | {"wears": rows[2]["made"]}, *rows[1:]]


def heavier(rows: Rows) -> None:
    """The last member at 1 - 1/k, as normalizing inside the averaging loop has it."""
    shares = [weight for weight in rows[0]["weights"] if weight]
    rows[0]["weights"] = [0.25 if weight else 0.0 for weight in rows[0]["weights"]]
    rows[0]["weights"][rows[0]["weights"].index(0.25)] = 1 - 0.25 * (len(shares) - 1)


def one_donor(rows: Rows) -> None:
    rows[0]["weights"] = [1.0] + [0.0] * (rows[0]["k"] - 1)


def says_more(rows: Rows) -> None:
    rows[0]["k"] += 1


def named(rows: Rows) -> Rows:
    rows[0]["people"][0] = "Ada-Quill-person-003"
    return rows


def worn_elsewhere(rows: Rows) -> None:
    rows[0]["wears"] = "f" * 64


def own_average(rows: Rows) -> None:
    rows[0]["wears"] = rows[0]["made"]


def faces(rows: Rows, fallback: str | None) -> list[dict[str, Any]]:
    return [face for row in rows for face in row["faces"] if face["fallback"] == fallback]


def face_says(fallback: str | None, /, **changes: Any) -> Tampering:
    """One face with this fallback, in whatever shard there is one, with another word."""

    def tamper(release: Forger) -> None:
        def change(rows: Rows) -> None:
            found = faces(rows, fallback)
            if found and not done:
                done.append(True)
                found[0].update(changes)

        done: list[bool] = []
        for path in sorted(release.path("manifest").iterdir()):
            release.rows(f"manifest/{path.name}", change)
        assert done

    return tamper


def table(change: Callable[[Rows], Rows | None]) -> Tampering:
    return lambda release: release.rows(CLASSES, change)


def manifest(change: Callable[[Rows], Rows | None]) -> Tampering:
    return lambda release: release.rows(MANIFEST, change)


def row_says(**changes: Any) -> Tampering:
    return manifest(lambda rows: rows[-1].update(changes))  # type: ignore[func-returns-value]


def members(change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]) -> Tampering:
    return lambda release: release.tar(TAR, change)


def renamed_column(release: Forger) -> None:
    release.path(CLASSES).unlink()
    pq.write_table(pa.table({"class": ["0" * 24], "subject_id": ["Ada"]}), release.path(CLASSES))


def lost_shard(release: Forger) -> None:
    release.json("run.json", lambda note: note["shards"].remove(SHARD))
    release.path(MARKER).unlink()


PHOTO = photos.jpeg(photos.nobody()[:64, :64])
UNDONE: dict[str, tuple[Tampering, str]] = {
    "a class of k-1": (table(short_class), "has 1 people, fewer than k = 2"),
    "a class of one person under two names": (table(lonely_class), "has an effective k of 1, not between 2 and"),
    "a subject in two classes": (table(subject_in_two), "is in two classes"),
    "a person twice in a class": (table(person_twice), "lists one person twice"),
    "two digests in one class": (table(two_digests), "is in the table twice, so it has two surrogates"),
    "weights not uniform": (table(heavier), "are not uniform"),
    "an average of one person": (table(one_donor), "is made of 1 people, not of at least k"),
    "a class that says more than it lists": (table(says_more), "and lists"),
    "a name where a pseudonym should be": (table(named), "has a name that is no pseudonym"),
    "classes in an order that speaks": (table(lambda rows: rows[::-1]), "not in the order of their names"),
    "a surrogate made of nobody": (table(worn_elsewhere), "no class of the table is averaged into it"),
    "a class that wears its own average": (table(own_average), "wears its own average"),
    "a class that nobody wears any more": (table(lambda rows: rows[1:]), "of the table is averaged into it"),
    "a restricted column in the table": (renamed_column, "has the restricted column 'subject_id'"),
    "a face that wears what no class was dealt": (
        face_says(None, surrogate_digest="0" * 64),
        "which no class was dealt",
    ),
    "a face that counts more people": (face_says(None, k=50), "a face counts 50 people"),
    "a face with an epsilon": (face_says(None, epsilon=0.1), "claims epsilon"),
    "a retried face of nobody's": (
        face_says("next-surrogate", surrogate_digest="0" * 64),
        "was made of no class of the table",
    ),
    "a retried face that counts as dealt": (face_says("next-surrogate", fallback="other"), "has the fallback 'other'"),
    "a face left as it was": (
        face_says("solid", method="none", fallback=None),
        "was replaced by none, and the method of this release is k-diff",
    ),
    "a redaction that claims k": (face_says("solid", k=9), "a redacted face claims a surrogate, k or epsilon"),
    "a dropped row": (manifest(lambda rows: rows[1:]), f"{TAR} holds"),
    "the last row dropped": (manifest(lambda rows: rows[:-1]), "which no row of its manifest vouches for"),
    "a row twice": (manifest(lambda rows: [rows[0], *rows]), "has two rows for"),
    "rows in another order": (manifest(lambda rows: rows[::-1]), "where its manifest has"),
    "a status that is none": (row_says(status="fine"), "has the status 'fine'"),
    "a photo with faces that has none": (row_says(status="no_face"), "is no_face with 1 faces"),
    "a quarantined photo with data": (row_says(status="quarantined"), "and names data that is not"),
    "two manifests swapped": (
        lambda r: swap(r, MANIFEST, f"manifest/{OTHER}.parquet"),
        "names data that its marker does not",
    ),
    "an embedding column": (
        lambda r: r.column(MANIFEST, "embedding", [0.1] * 128),
        f"the manifest of shard {SHARD} has the restricted column 'embedding'",
    ),
    "a column of one's own": (
        lambda r: r.column(MANIFEST, "note", "Ada"),
        f"the manifest of shard {SHARD} has the unknown column 'note'",
    ),
    "a picture in the place of another": (
        members(lambda found: [(found[0][0], PHOTO), *found[1:]]),
        "is not the one in its manifest",
    ),
    "a picture beside another": (
        members(lambda found: [found[0], (found[0][0].replace(".jpg", ".before.jpg"), PHOTO), *found[1:]]),
        "comes with .before.jpg, which keep_fields does not allow",
    ),
    "a sample nobody vouches for": (members(lambda found: [*found, ("zz.jpg", PHOTO)]), "holds 'zz', which no row"),
    "a hidden picture that readers skip": (
        members(lambda found: [*found, ("._zz.jpg", PHOTO)]),
        "belongs to no sample",
    ),
    "a file without an ending": (members(lambda found: [*found, ("README", PHOTO)]), "belongs to no sample"),
    "more in a sidecar than was kept": (
        members(lambda found: [found[0], (found[1][0], b'{"caption": "x", "gps": "52.5,13.3"}'), *found[2:]]),
        "holds more than keep_fields allows",
    ),
    "something after the archive's end": (
        lambda r: r.path(TAR).write_bytes(r.path(TAR).read_bytes() + PHOTO),
        "after the end of the archive",
    ),
    "half a tar": (lambda r: r.path(TAR).write_bytes(r.path(TAR).read_bytes()[:20000]), "cannot be read to its end"),
    "a shard left out": (lost_shard, f"{TAR} is in the release, and nobody vouches for it"),
    "a file outside data that a marker vouches for": (
        lambda r: (
            r.path("secret.csv").write_text("Ada"),
            r.json(MARKER, lambda marker: marker["files"].update({"secret.csv": ""})),
        ),
        "vouches for files outside data/",
    ),
    "a marker of another run": (
        lambda r: r.json(MARKER, lambda marker: marker.update(run="0" * 64)),
        "is of another run",
    ),
    "a larger k everywhere": (
        lambda r: r.method(k=50),
        "the certificate claims k-anonymity of the identity channel, k = 2",
    ),
    "a method of no claim": (lambda r: r.method(name="blur"), "its method allows none"),
    "a method that nobody knows": (lambda r: r.method(name="magic"), "is none that this anonlib knows"),
    "a shard listed twice": (lambda r: r.json("run.json", lambda n: n["shards"].append(SHARD)), "lists a shard twice"),
}


@pytest.mark.parametrize("what", UNDONE)
def test_a_tampering_is_caught_though_every_hash_fits_and_it_is_signed(what: str, forger: Forger) -> None:
    tamper, sentence = UNDONE[what]
    tamper(forger)
    forger.reseal()
    with pytest.raises(Untrue) as lie:
        check(forger.root)
    assert sentence in str(lie.value)


CLAIMED: dict[str, tuple[dict[str, Any], str]] = {
    "a claim raised": ({"claim": Claim(K_ANONYMITY, k=50)}, "claims k-anonymity of the identity channel, k = 50; its"),
    "a claim of another kind": (
        {"claim": claim_of(MethodConfig(name="dp-uniform", decoder="x"))},
        "claims epsilon metric privacy",
    ),
    "another release of anonlib": ({"anonlib": "9"}, "the certificate and run.json differ in anonlib"),
    "another run": ({"run": "0" * 64}, "the certificate and run.json differ in run"),
    "other models": ({"models": {}}, "the certificate and run.json differ in models"),
    "a method that run.json does not name": ({"method": {"name": "solid"}}, "run.json differ in method"),
    "no table": ({"table": None}, "the certificate of k-diff must name classes.parquet"),
    "a version to come": ({"version": 2}, "is of version 2"),
}


@pytest.mark.parametrize("what", CLAIMED)
def test_a_certificate_that_says_other_things_is_caught_though_it_is_signed(what: str, forger: Forger) -> None:
    changes, sentence = CLAIMED[what]
    forger.reseal(**changes)
    with pytest.raises(Untrue) as lie:
        check(forger.root)
    assert sentence in str(lie.value)


@pytest.mark.parametrize(
    "name", ["shards", "images", "no_face", "quarantined", "faces", "replaced", "solid", "withheld"]
)
def test_a_count_of_the_certificate_that_is_not_the_manifests_is_caught(name: str, forger: Forger) -> None:
    forger.reseal()
    counts = check(forger.root).certificate.counts
    forger.certificate(counts=replace(counts, **{name: getattr(counts, name) + 1}))
    with pytest.raises(Untrue, match="the certificate counts"):
        check(forger.root)


@pytest.mark.parametrize("name", ["images", "faces", "released", "no_face", "quarantined", "fallbacks"])
def test_a_count_of_a_marker_that_is_not_its_manifests_is_caught(
    name: str, forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    import forgery

    honest = forgery._counts
    monkeypatch.setattr(forgery, "_counts", lambda rows: honest(rows) | {name: honest(rows)[name] + 1})
    forger.reseal()
    with pytest.raises(Untrue, match=f"the marker of shard {SHARD} counts"):
        check(forger.root)


def test_an_original_that_is_put_back_is_caught(forger: Forger, finished: Run) -> None:
    originals = images(finished.input / f"{SHARD}.tar")
    forger.tar(
        TAR, lambda found: [(name, originals[name]) if name.endswith(".jpg") else (name, it) for name, it in found]
    )
    forger.reseal()
    with pytest.raises(Untrue, match="is not the one in its manifest"):
        check(forger.root)
    # With the manifest forged too the release is another one, which its maker did not sign.
    forged = {name.partition(".")[0]: it for name, it in images(forger.path(TAR)).items() if name.endswith(".jpg")}

    def fit(rows: Rows) -> None:
        import hashlib

        for row in rows:
            row["output_sha256"] = hashlib.sha256(forged[row["key"]]).hexdigest()

    forger.rows(MANIFEST, fit)
    forger.reseal()
    check(forger.root)
    with pytest.raises(Untrue, match="is signed by the key"):
        check(forger.root, OURS)


# ---- other formats and methods --------------------------------------------------------------------------------


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
    import gzip

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

    def release(kind: str, rekey: bool = False) -> Path:
        name = f"{kind}-{rekey}"
        if name not in made:
            root = tmp_path_factory.mktemp(name)
            made[name] = run_job(INPUTS[kind](root / "input"), root, method={"name": "solid"}, rekey=rekey).output
        return made[name]

    return release


@pytest.mark.parametrize("rekey", [False, True])
@pytest.mark.parametrize("kind", INPUTS)
def test_a_release_of_any_format_is_as_it_says(kind: str, rekey: bool, solid: Callable[..., Path]) -> None:
    found = check(solid(kind, rekey), OURS)
    counts = found.certificate.counts
    assert found.certificate.claim.kind == "none" and found.certificate.table is None
    assert counts.quarantined == 1 and counts.faces == counts.replaced == 1


def without(table: pa.Table, name: str) -> pa.Table:
    return table.drop_columns([name])


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


@pytest.mark.parametrize("what", PARQUET)
def test_a_tampered_parquet_dataset_is_caught_though_it_is_signed(
    what: str, solid: Callable[..., Path], tmp_path: Path
) -> None:
    forger = Forger(solid("parquet"), tmp_path / "forged")
    change, sentence = PARQUET[what]
    path = forger.path("data/photos.parquet")
    pq.write_table(change(pq.read_table(path)), path)
    forger.reseal()
    with pytest.raises(Untrue) as lie:
        check(forger.root)
    assert sentence in str(lie.value)


def vouch(release: Forger, name: str, content: bytes) -> None:
    """A file that a marker of the folder names."""
    release.path(name).parent.mkdir(parents=True, exist_ok=True)
    release.path(name).write_bytes(content)
    release.json("commits/files-00000000.json", lambda marker: marker["files"].update({name: ""}))


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
}


@pytest.mark.parametrize("what", FOLDER)
def test_a_tampered_folder_is_caught_though_it_is_signed(what: str, solid: Callable[..., Path], tmp_path: Path) -> None:
    forger = Forger(solid("folder"), tmp_path / "forged")
    tamper, sentence = FOLDER[what]
    tamper(forger)
    forger.reseal()
    with pytest.raises(Untrue) as lie:
        check(forger.root)
    assert sentence in str(lie.value)


def test_a_folder_lacks_a_picture_that_its_manifest_names(solid: Callable[..., Path], tmp_path: Path) -> None:
    forger = Forger(solid("folder"), tmp_path / "forged")
    forger.path("data/two.png").unlink()
    forger.json("commits/files-00000000.json", lambda marker: marker["files"].pop("data/two.png"))
    forger.reseal()
    with pytest.raises(Untrue, match=r"lacks the image 'two.png'"):
        check(forger.root)


def test_a_redaction_that_claims_a_surrogate_is_caught(solid: Callable[..., Path], tmp_path: Path) -> None:
    forger = Forger(solid("folder"), tmp_path / "forged")
    face_says(None, surrogate_digest="0" * 64)(forger)
    forger.reseal()
    with pytest.raises(Untrue, match="a redacted face claims a surrogate"):
        check(forger.root)


def test_the_forger_of_these_tests_signs_what_verify_believes(solid: Callable[..., Path], tmp_path: Path) -> None:
    """Else every test above would pass for a reason of its own."""
    for number, kind in enumerate(INPUTS):
        forger = Forger(solid(kind), tmp_path / str(number))
        before = sha256(forger.path("run.json"))
        forger.reseal()
        assert check(forger.root).certificate.run_sha256 == before
