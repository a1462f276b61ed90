"""A release against its own certificate: what a stranger can check with the release alone.

No workspace, secret, model or GPU: the signature, every file's hash, that no file is there which nobody vouches for,
that counts add up, and that classes, manifests and data say what the claim needs them to say. The first thing that is
not so is named in one sentence. Data is read as a stream, a shard at a time; what is kept in memory is a name a file
and a pseudonym a person.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from anonlib.audit.contents import BROKEN, Expected, check_folder, check_parquet, check_tar
from anonlib.config import MethodConfig
from anonlib.datasets.base import format_of
from anonlib.pipeline.certify import CERTIFICATE, CLASSES_TABLE, DRAWS_TABLE, Committed, face_of
from anonlib.pipeline.places import RUN_NOTE, Room, sha256
from anonlib.privacy.certificate import Certificate, Untrue, check_signature, merkle_root
from anonlib.privacy.claims import Claim, claim_of
from anonlib.privacy.conditions import Classes, ClassRow, DrawRow, Draws, Nothing, Tally, wardrobe_of
from anonlib.records import CERTIFIED_CLASSES, CERTIFIED_DRAWS, MANIFEST, QUARANTINED, RESTRICTED_COLUMNS
from anonlib.storage import NotFound, Storage

_SUMMED = ("images", "faces", "released", "no_face", "quarantined")

Parsed = TypeVar("Parsed", bound=BaseModel)


class _Note(BaseModel):
    """run.json, as far as it is checked."""

    model_config = ConfigDict(strict=True)

    anonlib: str
    run: str
    method: dict[str, Any]
    keep_fields: list[str]
    rekeyed: bool
    shards: list[str]
    models: dict[str, dict[str, str]]


class _Marker(BaseModel):
    """commits/SHARD.json."""

    model_config = ConfigDict(strict=True, extra="forbid")

    shard: str
    run: str
    files: dict[str, str]
    manifest_sha256: str
    images: int
    faces: int
    released: int
    no_face: int
    quarantined: int
    fallbacks: int


@dataclass(frozen=True)
class Verified:
    """What was found to be so. `pinned`: the key was given; `classes` and `people` of a class method, else 0."""

    certificate: Certificate
    pinned: bool
    files: int
    classes: int
    people: int
    keep_fields: tuple[str, ...]


def verify(release: Storage, key: str | None = None) -> Verified:
    """Check a release; `key` is the hex public key that must have signed it.

    Raises Untrue at the first thing that is not so, and StorageError where the release cannot be read.
    """
    certificate = Certificate.from_bytes(_read(release, CERTIFICATE))
    check_signature(certificate, key)
    note, method = _check_note(release, certificate)
    room = Room(release, "")
    leaves = []
    vouched = {CERTIFICATE, RUN_NOTE, *([certificate.table.path] if certificate.table else [])}
    for shard in note.shards:
        one, marker = _committed(room, shard)
        leaves.append(one.leaf())
        vouched |= {room.marker(shard), room.path("manifest", f"{shard}.parquet"), *marker.files}
    if merkle_root(leaves) != certificate.merkle_root:
        raise Untrue("the markers and manifests are not those that were signed: their Merkle root differs")
    _check_no_strays(release, vouched)
    wardrobe = _check_table(release, certificate, method)
    tally = Tally(method, wardrobe)
    for shard, leaf in zip(note.shards, leaves, strict=True):
        one, marker = _committed(room, shard)
        if one.leaf() != leaf or marker.run != note.run:
            raise Untrue(f"the marker of shard {shard} is of another run, or changed while it was read")
        _check_shard(release, one, marker, note, tally)
    if tally.counts != certificate.counts:
        raise Untrue(f"the certificate counts {certificate.counts}, the manifests {tally.counts}")
    people = wardrobe.people if isinstance(wardrobe, Classes) else 0
    classes = wardrobe.rows if isinstance(wardrobe, Classes) else 0
    return Verified(certificate, key is not None, len(vouched), classes, people, tuple(note.keep_fields))


def in_words(claim: Claim) -> str:
    """`k-anonymity of the identity channel, k = 5`."""
    epsilon = None if claim.epsilon is None else f"{claim.epsilon:g} a {claim.metric}"
    numbers = {"k": claim.k, "epsilon": epsilon}
    return ", ".join([claim.kind, *(f"{name} = {value}" for name, value in numbers.items() if value is not None)])


def unproved(found: Verified) -> list[str]:
    """What a release cannot prove of itself, in sentences."""
    counts, method = found.certificate.counts, found.certificate.method["name"]
    said = []
    if not found.pinned:
        said.append(
            "who signed: anybody can sign. Compare the key with the one that its owner publishes, or give it as --key"
        )
    if found.certificate.table is not None:
        said.append("who the people are, and that no two are one: their templates stay with the maker")
        said.append("that each picture shows the surrogate which its row names: surrogates stay with the maker")
    said.append("that every face was found, and that hair, clothes and background give nobody away")
    outside = counts.next_surrogate + counts.solid
    if outside and method != "solid":
        said.append(
            f"{outside} of {counts.faces} faces, chosen after a look at the face "
            f"({counts.next_surrogate} next surrogate, {counts.solid} solid), are outside the claim"
        )
    if found.keep_fields:
        said.append(f"what is in the fields that were kept by name: {', '.join(found.keep_fields)}")
    return said


def _read(release: Storage, path: str) -> bytes:
    try:
        return release.read(path)
    except NotFound:
        raise Untrue(f"{path} is missing") from None


def _check_note(release: Storage, certificate: Certificate) -> tuple[_Note, MethodConfig]:
    """run.json and the method, both as signed, and the claim as the method allows."""
    data = _read(release, RUN_NOTE)
    if sha256(data) != certificate.run_sha256:
        raise Untrue(f"{RUN_NOTE} is not the one that was signed")
    note = _parsed(_Note, data, RUN_NOTE)
    for name in ("run", "anonlib", "method", "models"):
        if getattr(note, name) != getattr(certificate, name):
            raise Untrue(f"the certificate and {RUN_NOTE} differ in {name}")
    if len(set(note.shards)) != len(note.shards):
        raise Untrue(f"{RUN_NOTE} lists a shard twice")
    try:
        method = MethodConfig.model_validate(certificate.method)
    except ValidationError:
        raise Untrue("the certificate's method is none that this anonlib knows") from None
    if certificate.claim != claim_of(method):
        raise Untrue(
            f"the certificate claims {in_words(certificate.claim)}; its method allows {in_words(claim_of(method))}"
        )
    expected = {Classes: CLASSES_TABLE, Draws: DRAWS_TABLE, Nothing: None}[type(wardrobe_of(method))]
    if (certificate.table.path if certificate.table else None) != expected:
        raise Untrue(f"the certificate of {method.name} must name {expected or 'no table'}")
    return note, method


def _committed(room: Room, shard: str) -> tuple[Committed, _Marker]:
    """Marker and manifest of a shard, the manifest as the marker names it."""
    data = _read(room.storage, room.marker(shard))
    marker = _parsed(_Marker, data, room.marker(shard))
    manifest = _read(room.storage, room.path("manifest", f"{shard}.parquet"))
    if marker.shard != shard:
        raise Untrue(f"the marker of shard {shard} speaks of shard {marker.shard}")
    if sha256(manifest) != marker.manifest_sha256:
        raise Untrue(f"the manifest of shard {shard} is not the one that its marker names")
    if any(not path.startswith("data/") for path in marker.files):
        raise Untrue(f"the marker of shard {shard} vouches for files outside data/")
    return Committed(shard, marker.model_dump(), sha256(data), manifest), marker


def _check_no_strays(release: Storage, vouched: set[str]) -> None:
    """Every file that the storage lists; it lists none of those that its own unfinished writes left behind."""
    for entry in release.list():
        if entry.path not in vouched:
            raise Untrue(f"{entry.path} is in the release, and nobody vouches for it")


def _check_table(release: Storage, certificate: Certificate, method: MethodConfig) -> Classes | Draws | Nothing:
    """The rows that the claim rests on, every one of them against the conditions."""
    wardrobe, table = wardrobe_of(method), certificate.table
    if table is None or isinstance(wardrobe, Nothing):
        return wardrobe
    data = _read(release, table.path)
    if sha256(data) != table.sha256:
        raise Untrue(f"{table.path} is not the one that was signed")
    count = 0
    for row in _rows(data, CERTIFIED_CLASSES if isinstance(wardrobe, Classes) else CERTIFIED_DRAWS, table.path):
        count += 1
        if any(value is None for name, value in row.items() if name not in ("wears", "epsilon")) or (
            None in row.get("people", ())
        ):
            raise Untrue(f"row {count} of {table.path} has an empty field")
        if isinstance(wardrobe, Classes):
            lists = {"people": tuple(row["people"]), "weights": tuple(row["weights"])}
            wardrobe.add(ClassRow(name=row.pop("class"), **(row | lists)))
        else:
            wardrobe.add(DrawRow(**row))
    if count != table.rows:
        raise Untrue(f"{table.path} has {count} rows, the certificate says {table.rows}")
    wardrobe.close()
    return wardrobe


def _check_shard(release: Storage, one: Committed, marker: _Marker, note: _Note, tally: Tally) -> None:
    """A shard's manifest against the conditions, its marker's counts, and its data."""
    before = tally.counts
    tally.add_shard()
    images: list[tuple[str, str]] = []
    keys: set[str] = set()
    paths: set[str] = set()
    fallbacks = 0
    for row in _rows(one.manifest, MANIFEST, f"the manifest of shard {one.shard}"):
        key, status, faces = row["key"], row["status"], row["faces"] or []
        if key is None or None in faces:
            raise Untrue(f"the manifest of shard {one.shard} has a row with an empty key or face")
        fallbacks += sum(face["fallback"] == "solid" for face in faces)
        try:
            tally.add_image(status, map(face_of, faces))
        except Untrue as error:
            raise Untrue(f"shard {one.shard}, image {key!r}: {error}") from None
        if key in keys:
            raise Untrue(f"the manifest of shard {one.shard} has two rows for {key!r}")
        keys.add(key)
        if (status == QUARANTINED) != (row["output_sha256"] is None) or (status == QUARANTINED) != (
            row["path"] is None
        ):
            raise Untrue(f"the manifest of shard {one.shard} says that {key!r} is {status}, and names data that is not")
        if status != QUARANTINED:
            images.append((key, row["output_sha256"]))
            paths.add(row["path"])
    counts = {name: getattr(tally.counts, name) - getattr(before, name) for name in _SUMMED}
    for name, counted in (counts | {"fallbacks": fallbacks}).items():
        if counted != getattr(marker, name):
            raise Untrue(
                f"the marker of shard {one.shard} counts {getattr(marker, name)} {name}, its manifest {counted}"
            )
    _check_data(release, one.shard, marker.files, paths, Expected(images, frozenset(note.keep_fields), note.rekeyed))


def _check_data(release: Storage, shard: str, files: Mapping[str, str], paths: set[str], expected: Expected) -> None:
    """The data that a marker names, by the reader of its format."""
    formats = {format_of(path) for path in files} - {None}
    try:
        if formats <= {"folder"}:
            if paths - {"data"}:
                raise Untrue(f"the manifest of shard {shard} names data that its marker does not")
            check_folder(release, files, expected)
            return
        if len(files) != 1 or paths - set(files):
            raise Untrue(f"the manifest of shard {shard} names data that its marker does not")
        ((path, digest),) = files.items()
        check = check_tar if formats == {"webdataset"} else check_parquet
        check(release, path, digest, expected)
    except NotFound as error:
        raise Untrue(f"a file of shard {shard} is missing: {error}") from None


def _rows(data: bytes, schema: pa.Schema, what: str) -> Iterator[dict[str, Any]]:
    """The rows of a table of ours, which has exactly this schema and nothing beside it."""
    try:
        with pq.ParquetFile(io.BytesIO(data)) as file:
            found = file.schema_arrow
            for name in found.names:
                if name not in schema.names:
                    kind = "restricted" if name in RESTRICTED_COLUMNS else "unknown"
                    raise Untrue(f"{what} has the {kind} column {name!r}")
            if not found.equals(schema) or set(file.metadata.metadata or {}) - {b"ARROW:schema"} or found.metadata:
                raise Untrue(f"{what} does not have the columns that it should, or more beside them")
            for batch in file.iter_batches(1024, use_threads=False):
                yield from batch.to_pylist()
    except BROKEN as error:
        raise Untrue(f"{what} cannot be read ({type(error).__name__})") from None


def _parsed(model: type[Parsed], data: bytes, what: str) -> Parsed:
    try:
        return model.model_validate_json(data)
    except (ValueError, RecursionError):
        raise Untrue(f"{what} cannot be read") from None
