"""A release against its own certificate: what a stranger can check with the release alone.

No workspace, secret, model or GPU: the signature, every file's hash, that no file is there which nobody vouches for,
that counts add up, and that classes, manifests and data say what the claim needs them to say. The first thing that is
not so is named in one sentence. Data is read as a stream, a shard at a time, once to hash it and once more to look into
it; what is kept in memory is a name a file and a pseudonym a person.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from anonlib.datasets import DATASETS, format_of
from anonlib.errors import NotFound, VerificationError
from anonlib.storage import Storage
from anonlib.verification.certificate import NONE, AuditStatement, Certificate, check_signature, merkle_root, sha256
from anonlib.verification.conditions import (
    ClaimedFace,
    ClaimTable,
    ClassRow,
    ClassTable,
    DrawRow,
    DrawTable,
    ReleaseCounter,
    SurrogateRow,
    claim_of,
    claim_table,
    tables_of,
)
from anonlib.verification.data_files import CHECKS, Expected, check_folder, check_items
from anonlib.verification.first_version import (
    CLASSES_1,
    MANIFEST_1,
    TELLS_MORE,
    FirstClassRow,
    FirstClassTable,
)
from anonlib.verification.parsing import (
    MAX_CERTIFICATE,
    MAX_TABLE,
    CommittedShard,
    ReleasedMethod,
    RunNote,
    parsed,
    read,
    read_statement,
    rows_of,
    shards_of,
)
from anonlib.workspace.schemas import (
    CERTIFICATE,
    CERTIFIED,
    CERTIFIED_DRAWS,
    CLASSES_TABLE,
    CONFIRMED,
    DATA,
    DRAWS_TABLE,
    MANIFEST,
    MANIFESTS,
    MARKERS,
    MASKED,
    NO_FACE,
    QUARANTINED,
    RELEASED,
    RUN_NOTE,
    SOLID,
    STATEMENT,
    WITHDRAWN,
    WITHHELD,
    manifest_path,
    marker_path,
)

_WITHOUT_PROOF = {
    "embedding": "that the people are not recognized: this method deceives recognizers, not people",
    "inswapper": "that the donors agreed, and how much of a face the swapper kept: its maker brought both",
}
_SUMMED = ("images", "faces", "released", "no_face", "quarantined")


@dataclass(frozen=True)
class Verified:
    """What was found to be so. `pinned`: the key was given; `classes` and `people` of a class method, else 0.

    `audit` is None for a release that nobody audited, though the maker may have `promised` one.
    """

    certificate: Certificate
    pinned: bool
    files: int
    classes: int
    people: int
    keep_fields: tuple[str, ...]
    audit: AuditStatement | None = None
    promised: bool = False

    @property
    def audit_stands(self) -> bool:
        """Whether there is no audit that failed, and none missing that was promised."""
        return self.audit.passed if self.audit is not None else not self.promised


def verify(release: Storage, key: str | None = None) -> Verified:
    """Check a release; `key` is the hex public key that must have signed it.

    Raises VerificationError at the first thing that is not so, and StorageError where the release cannot be read.
    """
    certificate = Certificate.from_bytes(read(release, CERTIFICATE, MAX_CERTIFICATE))
    check_signature(certificate, key)
    note = _check_note(release, certificate)
    leaves = []
    vouched = {CERTIFICATE, RUN_NOTE, *(table.path for table in certificate.tables)}
    for shard in shards_of(release, note.shards):
        leaves.append(shard.leaf)
        vouched |= {marker_path(shard.shard), manifest_path(shard.shard), *shard.marker.files}
    if merkle_root(leaves) != certificate.merkle_root:
        raise VerificationError("the markers and manifests are not those that were signed: their Merkle root differs")
    audit = read_statement(release, certificate)
    vouched |= {STATEMENT, *audit.files} if audit is not None else set()
    _check_no_strays(release, vouched)
    table = _check_tables(release, certificate)
    counter = ReleaseCounter(certificate.method["name"], table)
    for shard, leaf in zip(shards_of(release, note.shards), leaves, strict=True):
        if shard.leaf != leaf or shard.marker.run != note.run:
            raise VerificationError(
                f"the marker of shard {shard.shard} is of another run, or changed while it was read"
            )
        _check_shard(release, shard, note, counter)
    if counter.counts != certificate.counts:
        raise VerificationError(f"the certificate counts {certificate.counts}, the manifests {counter.counts}")
    kept = tuple(note.keep_fields)
    return Verified(certificate, key is not None, len(vouched), table.rows, table.people, kept, audit, note.promised)


def unproved(found: Verified) -> list[str]:
    """What a release cannot prove of itself, in sentences."""
    counts, method = found.certificate.counts, found.certificate.method["name"]
    sentences = []
    if not found.pinned:
        sentences.append(
            "who signed: anybody can sign. Compare the key with the one that its owner publishes, or give it as --key"
        )
    if found.certificate.version == 1:
        sentences.append(TELLS_MORE)
    paths = {table.path for table in found.certificate.tables}
    if paths:
        sentences.append(
            "who the people are, that no two are one, and that each has a face here: templates stay with the maker"
        )
    if CLASSES_TABLE in paths:
        sentences.append("the effective k of a class: how many photos each person has stays with the maker")
    if DRAWS_TABLE in paths:
        sentences.append("that identities were drawn at random, and one for each person: the key stays with the maker")
    sentences.append("that each picture shows what its row says: originals and surrogates stay with the maker")
    sentences.append("that no image is missing, and what other releases of the same people add to this one")
    if found.audit is None and not found.promised:
        sentences.append("how it stands up to attacks: nobody has audited it (`anonlib audit`)")
    sentences.append("that every face was found, and that hair, clothes and background give nobody away")
    if method in _WITHOUT_PROOF:
        sentences.append(_WITHOUT_PROOF[method])
    outside = counts.next_surrogate + counts.solid
    if outside and paths:
        sentences.append(
            f"{outside} of {counts.faces} faces, chosen after a look at the face "
            f"({counts.next_surrogate} next surrogate, {counts.solid} solid), are outside the claim"
        )
    if found.keep_fields:
        sentences.append(f"what is in the fields that were kept by name: {', '.join(found.keep_fields)}")
    return sentences


def _check_note(release: Storage, certificate: Certificate) -> RunNote:
    """run.json and the method, both as signed, and the claim and its tables as the method allows."""
    data = read(release, RUN_NOTE)
    if sha256(data) != certificate.run_sha256:
        raise VerificationError(f"{RUN_NOTE} is not the one that was signed")
    note = parsed(RunNote, data, RUN_NOTE)
    for name in ("run", "anonlib", "method", "models"):
        if getattr(note, name) != getattr(certificate, name):
            raise VerificationError(f"the certificate and {RUN_NOTE} differ in {name}")
    if len(set(note.shards)) != len(note.shards):
        raise VerificationError(f"{RUN_NOTE} lists a shard twice")
    try:
        method = ReleasedMethod.model_validate(certificate.method)
    except ValidationError:
        raise VerificationError("the certificate's method is none that this anonlib knows") from None
    claim = certificate.claim
    if claim != claim_of(method):
        raise VerificationError(f"the certificate claims {claim}; its method allows {claim_of(method)}")
    if note.schema_version != certificate.version:
        raise VerificationError(
            f"{RUN_NOTE} is of schema version {note.schema_version}, the certificate {certificate.version}"
        )
    paths = tuple(table.path for table in certificate.tables)
    # A method without a claim may redact or draw.
    expected = tables_of(claim, surrogates=claim.kind != NONE or bool(paths))
    if paths != (expected[:1] if certificate.version == 1 else expected):
        raise VerificationError(f"the certificate of {method.name} must name {' and '.join(expected) or 'no table'}")
    return note


def _check_no_strays(release: Storage, vouched: set[str]) -> None:
    """Every file, interrupted writes too, and everything that is no file; nothing is opened.

    An earlier anonlib left folders of its own behind that are empty; their names say nothing.
    """
    for entry in release.list(unfinished=True, foreign=True):
        if entry.path not in vouched and (entry.path not in (DATA, MANIFESTS, MARKERS, WITHDRAWN) or entry.size):
            raise VerificationError(f"{entry.path} is in the release, and nobody vouches for it")


def _check_tables(release: Storage, certificate: Certificate) -> ClaimTable:
    """The rows that the claim rests on, every one of them against the conditions."""
    if certificate.version == 1:
        return _check_first_tables(release, certificate)
    table = claim_table(certificate.claim, [table.path for table in certificate.tables])
    for row in _signed_rows(release, certificate, CERTIFIED):
        if isinstance(table, DrawTable):
            table.add(DrawRow(**row))
        elif isinstance(table, ClassTable) and "class" in row:
            table.add(ClassRow(row["class"], tuple(row["people"]), row["k"], row["effective_k"], row["wears"]))
        elif isinstance(table, ClassTable):
            table.add_surrogate(SurrogateRow(**row))
    table.close()
    return table


def _check_first_tables(release: Storage, certificate: Certificate) -> ClaimTable:
    """The same of a release of schema version 1."""
    claim, table = certificate.claim, claim_table(certificate.claim, [table.path for table in certificate.tables])
    classes = FirstClassTable(claim.k or 0, own_average=certificate.method["name"] == "k-same")
    draws = DrawTable(claim.epsilon, redraws=True)
    for row in _signed_rows(release, certificate, {CLASSES_TABLE: CLASSES_1, DRAWS_TABLE: CERTIFIED_DRAWS}):
        if "class" in row:
            numbers = tuple(row["people"]), tuple(row["weights"]), row["k"], row["effective_k"]
            classes.add(FirstClassRow(row["class"], *numbers, row["made"], row["wears"]))
        else:
            draws.add(DrawRow(**row))
    classes.close()
    if isinstance(table, ClassTable):
        return classes
    return draws if isinstance(table, DrawTable) else table


def _signed_rows(
    release: Storage, certificate: Certificate, schemas: Mapping[str, pa.Schema]
) -> Iterator[dict[str, Any]]:
    """The rows of every table that the certificate names, in its order; raises VerificationError."""
    for table in certificate.tables:
        data = read(release, table.path, MAX_TABLE)
        if sha256(data) != table.sha256:
            raise VerificationError(f"{table.path} is not the one that was signed")
        count = 0
        for row in rows_of(data, schemas[table.path], table.path):
            count += 1
            optional = ("epsilon", "wears") if certificate.version == 1 else ("epsilon",)
            if any(value is None for name, value in row.items() if name not in optional) or (
                None in row.get("people", ())
            ):
                raise VerificationError(f"row {count} of {table.path} has an empty field")
            yield row
        if count != table.rows:
            raise VerificationError(f"{table.path} has {count} rows, the certificate says {table.rows}")


def _check_shard(release: Storage, committed: CommittedShard, note: RunNote, counter: ReleaseCounter) -> None:
    """A shard's manifest against the conditions, its marker's counts, and its data."""
    shard, marker, before = committed.shard, committed.marker, counter.counts
    counter.add_shard()
    images: list[tuple[str, str]] = []
    keys: set[str] = set()
    paths: set[str] = set()
    fallbacks = 0
    schema = MANIFEST if note.schema_version > 1 else MANIFEST_1
    for row in rows_of(committed.manifest, schema, f"the manifest of shard {shard}", later="review"):
        key, status, faces = row["key"], row["status"], row["faces"] or []
        if key is None or None in faces:
            raise VerificationError(f"the manifest of shard {shard} has a row with an empty key or face")
        fallbacks += sum(face["fallback"] in SOLID for face in faces)
        try:
            counter.add_image(status, map(ClaimedFace.of, faces))
        except VerificationError as error:
            raise VerificationError(f"shard {shard}, image {key!r}: {error}") from None
        if key in keys:
            raise VerificationError(f"the manifest of shard {shard} has two rows for {key!r}")
        keys.add(key)
        if not _fits_review(row.get("review"), status):
            raise VerificationError(
                f"the manifest of shard {shard} says that {key!r} is {status}, and a reviewer otherwise"
            )
        if (status == QUARANTINED) != (row["output_sha256"] is None) or (status == QUARANTINED) != (
            row["path"] is None
        ):
            raise VerificationError(
                f"the manifest of shard {shard} says that {key!r} is {status}, and names data that is not"
            )
        if status != QUARANTINED:
            images.append((key, row["output_sha256"]))
            paths.add(row["path"])
    counts = {name: getattr(counter.counts, name) - getattr(before, name) for name in _SUMMED}
    for name, counted in (counts | {"fallbacks": fallbacks}).items():
        if counted != getattr(marker, name):
            raise VerificationError(
                f"the marker of shard {shard} counts {getattr(marker, name)} {name}, its manifest {counted}"
            )
    _check_data(release, shard, marker.files, paths, Expected(images, frozenset(note.keep_fields), note.rekeyed))


def _fits_review(word: str | None, status: str) -> bool:
    """Whether an image may be `status` after this review; what could not be rendered is quarantined after any."""
    allowed = {None: (RELEASED, NO_FACE), CONFIRMED: (RELEASED, NO_FACE), MASKED: (RELEASED,), WITHHELD: ()}
    return word in allowed and (status == QUARANTINED or status in allowed[word])


def _check_data(release: Storage, shard: str, files: Mapping[str, str], paths: set[str], expected: Expected) -> None:
    """The data that a marker names, by the reader of its format."""
    formats = {format for path in files if (format := format_of(path)) is not None}
    try:
        if all(DATASETS[format].media_type is None for format in formats):
            if paths - {"data"}:
                raise VerificationError(f"the manifest of shard {shard} names data that its marker does not")
            check_folder(release, files, expected)
            return
        if len(files) != 1 or paths - set(files):
            raise VerificationError(f"the manifest of shard {shard} names data that its marker does not")
        ((path, digest),) = files.items()
        check = CHECKS.get(next(iter(formats)), check_items)
        check(release, path, digest, expected)
    except NotFound as error:
        raise VerificationError(f"a file of shard {shard} is missing: {error}") from None
