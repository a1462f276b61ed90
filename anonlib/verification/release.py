"""A release against its own certificate: what a stranger can check with the release alone.

No workspace, secret, model or GPU: the signature, every file's hash, that nothing else is there, that counts add up,
that classes, manifests and data say what the claim needs. The first thing that is not so is named in one sentence. Data
is read as a stream; what is held is a name a file and a pseudonym a person.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from anonlib.datasets import DATASETS, format_of
from anonlib.errors import ConfigError, NotFound, VerificationError, require
from anonlib.storage import Storage
from anonlib.verification import parsing
from anonlib.verification.certificate import NONE, AuditStatement, Certificate, Hidden, merkle_root
from anonlib.verification.conditions import ClaimTable, ReleaseCounter, claim_of, claim_table, tables_of
from anonlib.verification.data_files import CHECKS, Expected, check_folder, check_items, whole
from anonlib.verification.parsing import CommittedShard, RunNote, rows_of
from anonlib.workspace import schemas
from anonlib.workspace.schemas import NO_FACE, QUARANTINED, RELEASED, RUN_NOTE

TELLS_MORE = (
    "that it keeps its people: this release was made before schema version 2, and its tables tell more than they "
    "should. classes.parquet leads from a released face to the average of its own class, and the manifest's figures "
    "depend on the original faces; make the release again"
)
_WITHOUT_PROOF = {
    "embedding": "that the people are not recognized: this method deceives recognizers, not people",
    "inswapper": "that the donors agreed, and how much of a face the swapper kept: its maker brought both",
}
_REVIEWED: dict[str | None, tuple[str, ...]] = dict.fromkeys((None, schemas.CONFIRMED), (RELEASED, NO_FACE))
_REVIEWED |= {schemas.MASKED: (RELEASED,), schemas.WITHHELD: ()}
"""What an image may be after each word of a review; what could not be rendered is quarantined after any."""


@dataclass(frozen=True)
class Verified:
    """What was found to be so; `classes` and `people` of a class method, else 0; `pinned`: the key was given."""

    certificate: Certificate
    pinned: bool
    files: int
    classes: int
    people: int
    keep_fields: tuple[str, ...]
    audit: AuditStatement | None = None
    promised: bool = False
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def audit_stands(self) -> bool:
        """Whether there is no audit that failed, and none missing that was promised."""
        return self.audit.passed if self.audit is not None else not self.promised


def verify(release: Storage, key: str | None = None) -> Verified:
    """Check a release, signed by the hex `key` if given; raises VerificationError at the first thing that is not so.

    Raises NotFound where there is no release at all, and ConfigError for a key that is none.
    """
    if key is not None and not re.fullmatch("[0-9a-f]{64}", key.strip().lower()):
        raise ConfigError(
            f"'{key.strip()[:80]}' is not a public key: 64 hex digits, as the maker of a release gives it"
        )
    if not release.exists(schemas.CERTIFICATE) and not release.exists(RUN_NOTE):
        raise NotFound(f"there is no release at {release.uri}")
    certificate = Certificate.from_bytes(whole(release, schemas.CERTIFICATE, parsing.MAX_CERTIFICATE))
    given = key is None or key.strip().lower() == certificate.public_key
    require(given, f"the certificate is signed by the key {certificate.public_key}, not by the one that was given")
    certificate.check_signature("the certificate")
    note = _check_note(release, certificate)
    leaves, left_out = [], Counter(note.left_out)
    vouched = {schemas.CERTIFICATE, RUN_NOTE, *(table.path for table in certificate.tables)}
    for shard in parsing.shards_of(release, note.shards):
        leaves.append(shard.leaf)
        left_out.update(shard.marker.left_out)
        vouched |= {schemas.marker_path(shard.shard), schemas.manifest_path(shard.shard), *shard.marker.files}
    same = merkle_root(leaves) == certificate.merkle_root
    require(same, "the markers and manifests are not those that were signed: their Merkle root differs")
    audit = parsing.read_statement(release, certificate)
    vouched |= {schemas.STATEMENT, *audit.files} if audit is not None else set()
    _check_no_strays(release, vouched)
    table = _check_tables(release, certificate)
    counter = ReleaseCounter(certificate.method["name"], table, {kind: how.method for kind, how in note.hide.items()})
    for shard, leaf in zip(parsing.shards_of(release, note.shards), leaves, strict=True):
        same = shard.leaf == leaf and shard.marker.run == note.run
        require(same, f"the marker of shard {shard.shard} is of another run, or changed while it was read")
        _check_shard(release, shard, note, counter)
    same = counter.counts == certificate.counts
    require(same, f"the certificate counts {certificate.counts}, the manifests {counter.counts}")
    hidden = {kind: Hidden(how.method, how.network, counter.hidden[kind]) for kind, how in note.hide.items()}
    require(hidden == certificate.hidden, f"the certificate says that it hides {certificate.hidden}, not {hidden}")
    named = all(how.network in note.models for how in note.hide.values())
    require(named, f"{RUN_NOTE} names a network that is none of its models")
    kept = tuple(note.keep_fields)
    return Verified(
        certificate, key is not None, len(vouched), table.rows, table.people, kept, audit, note.promised, left_out
    )


def unproved(found: Verified) -> list[str]:
    """What a release cannot prove of itself, in sentences."""
    certificate, counts = found.certificate, found.certificate.counts
    paths = {table.path for table in certificate.tables}
    without_proof = _WITHOUT_PROOF.get(certificate.method["name"], "")
    outside = counts.next_surrogate + counts.solid + counts.by_lot
    kinds = f"{counts.next_surrogate} next surrogate, {counts.by_lot} by lot, {counts.solid} ellipses"
    chosen = f"({kinds}), are outside the claim"
    unaudited = found.audit is None and not found.promised
    sentences: list[tuple[object, str]] = [
        (not found.pinned, "who signed: anybody can sign; compare the key with its owner's, or give it as --key"),
        (certificate.version == 1, TELLS_MORE),
        (paths, "who the people are, that no two are one, and that each has a face here: the maker has the templates"),
        (schemas.CLASSES_TABLE in paths, "the effective k of a class: the maker knows how many photos a person has"),
        (schemas.DRAWS_TABLE in paths, "that identities were drawn at random, one a person: the maker has the key"),
        (True, "that each picture shows what its row says: the maker has originals and surrogates"),
        (True, "that no image is missing, and what other releases of the same people add to this one"),
        (unaudited, "how it stands up to attacks: nobody has audited it (`anonlib audit`)"),
        (True, "that every face was found, and that hair, clothes and background give nobody away"),
        (
            certificate.hidden,
            f"that every {' and '.join(certificate.hidden)} was found: what a network misses stays as it was",
        ),
        (counts.ignored, f"that {counts.ignored} faces may be seen: they stay in areas that the dataset ignores"),
        (counts.spared, f"that the people of {counts.spared} faces that stay agreed: the maker has their photos"),
        (without_proof, without_proof),
        (outside and paths, f"{outside} of {counts.faces} faces, chosen after a look at the face {chosen}"),
        (found.keep_fields, f"what is in the fields that were kept by name: {', '.join(found.keep_fields)}"),
    ]
    return [sentence for holds, sentence in sentences if holds]


def _check_note(release: Storage, certificate: Certificate) -> RunNote:
    """run.json and the method, both as signed, and the claim and its tables as the method allows."""
    note = parsing.parsed(RunNote, whole(release, RUN_NOTE, parsing.MAX_NOTE, certificate.run_sha256), RUN_NOTE)
    for name in ("run", "anonlib", "method", "models"):
        require(getattr(note, name) == getattr(certificate, name), f"the certificate and {RUN_NOTE} differ in {name}")
    require(len(set(note.shards)) == len(note.shards), f"{RUN_NOTE} lists a shard twice")
    try:
        allowed = claim_of(parsing.ReleasedMethod.model_validate(certificate.method))
    except ValidationError:
        raise VerificationError("the certificate's method is none that this anonlib knows") from None
    claim, version = certificate.claim, certificate.version
    require(claim == allowed, f"the certificate claims {claim}; its method allows {allowed}")
    same = note.schema_version == version
    require(same, f"{RUN_NOTE} is of schema version {note.schema_version}, the certificate {version}")
    paths = tuple(table.path for table in certificate.tables)
    # A method without a claim may redact or draw.
    expected = tables_of(claim, surrogates=claim.kind != NONE or bool(paths))
    if paths != (expected[:1] if version == 1 else expected):
        needed = " and ".join(expected) or "no table"
        raise VerificationError(f"the certificate of {certificate.method['name']} must name {needed}")
    return note


def _check_no_strays(release: Storage, vouched: set[str]) -> None:
    """Every file and all that is no file is vouched for, but empty folders that an earlier anonlib left."""
    folders = (schemas.DATA, schemas.MANIFESTS, schemas.MARKERS, schemas.WITHDRAWN)
    for entry in release.list(unfinished=True, foreign=True):
        if entry.path not in vouched and (entry.path not in folders or entry.size):
            raise VerificationError(f"{entry.path} is in the release, and nobody vouches for it")


def _check_tables(release: Storage, certificate: Certificate) -> ClaimTable:
    """The rows that the claim rests on, every one of them against the conditions."""
    first = certificate.method["name"] if certificate.version == 1 else None
    table = claim_table(certificate.claim, [signed.path for signed in certificate.tables], first_version_of=first)
    for row in _signed_rows(release, certificate):
        table.add(row)
    table.close()
    return table


def _signed_rows(release: Storage, certificate: Certificate) -> Iterator[dict[str, Any]]:
    """The rows of every table that the certificate names, in its order; raises VerificationError."""
    first = {schemas.CLASSES_TABLE: parsing.CLASSES_1} if certificate.version == 1 else {}
    first |= {schemas.SURROGATES_TABLE: parsing.SURROGATES_2} if certificate.version < 3 else {}
    optional = ("epsilon", "gallery", "wears") if certificate.version == 1 else ("epsilon", "gallery")
    for table in certificate.tables:
        data = whole(release, table.path, parsing.MAX_TABLE, table.sha256)
        count = 0
        for row in rows_of(data, (schemas.CERTIFIED | first)[table.path], table.path):
            count += 1
            required = [value for name, value in row.items() if name not in optional]
            if None in required or None in row.get("people", ()):
                raise VerificationError(f"row {count} of {table.path} has an empty field")
            yield row
        require(count == table.rows, f"{table.path} has {count} rows, the certificate says {table.rows}")


def _check_shard(release: Storage, committed: CommittedShard, note: RunNote, counter: ReleaseCounter) -> None:
    """A shard's manifest against the conditions, its marker's counts, and its data by the reader of its format."""
    shard, marker, before = committed.shard, committed.marker, counter.counts
    manifest = f"the manifest of shard {shard}"
    counter.add_shard()
    images: dict[str, str] = {}
    keys, paths = set[str](), set[str]()
    fallbacks = 0
    for row in rows_of(committed.manifest, parsing.manifest_of(note), manifest, later="review"):
        key, status, faces = row["key"], row["status"], row["faces"] or []
        if key is None or None in faces:
            raise VerificationError(f"{manifest} has a row with an empty key or face")
        require(key not in keys, f"{manifest} has two rows for {key!r}")
        keys.add(key)
        fallbacks += sum(face["fallback"] in schemas.ELLIPSES for face in faces)
        try:
            counter.add_image(status, faces)
            counter.add_media(row)
        except VerificationError as error:
            raise VerificationError(f"shard {shard}, image {key!r}: {error}") from None
        allowed = _REVIEWED.get(row.get("review"))
        if allowed is None or (status != QUARANTINED and status not in allowed):
            raise VerificationError(f"{manifest} says that {key!r} is {status}, and a reviewer otherwise")
        digest, path = row["output_sha256"], row["path"]
        if {digest is None, path is None} != {status == QUARANTINED}:
            raise VerificationError(f"{manifest} says that {key!r} is {status}, and names data that is not")
        if status != QUARANTINED:
            images[key] = digest
            paths.add(path)
    for name in schemas.COUNTS:
        counted = fallbacks if name == "fallbacks" else getattr(counter.counts, name) - getattr(before, name)
        holds = counted == getattr(marker, name)
        require(holds, f"the marker of shard {shard} counts {getattr(marker, name)} {name}, its manifest {counted}")
    formats = {format for path in marker.files if (format := format_of(path)) is not None}
    in_folder = all(DATASETS[format].media_type is None for format in formats)
    if paths - ({"data"} if in_folder else set(marker.files)) or (not in_folder and len(marker.files) != 1):
        raise VerificationError(f"{manifest} names data that its marker does not")
    expected = Expected(list(images.items()), frozenset(note.keep_fields), note.rekeyed)
    if in_folder:
        check_folder(release, marker.files, expected)
        return
    ((path, digest),) = marker.files.items()
    CHECKS.get(next(iter(formats)), check_items)(release, path, digest, expected)
