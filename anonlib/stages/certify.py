"""The end of a job: what the plan decided and the markers vouch for, as a certificate that needs neither to be checked.

It is claimed once, after the last marker, and holds nothing but what the job's inputs and secret determine, so a rerun
would end in the same bytes. The conditions are checked here before anything is signed, on what the manifests really
say: a false certificate is not written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from anonlib import __version__
from anonlib.config import JobConfig, MethodConfig
from anonlib.errors import VerificationError
from anonlib.privacy.claims import claim_of
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.stages.plan import subjects_of
from anonlib.stages.surrogates import released_digest, surrogate_plans
from anonlib.verification.certificate import (
    VERSION,
    Certificate,
    CertifiedTable,
    Scope,
    merkle_root,
    shard_leaf,
    signed,
)
from anonlib.verification.conditions import (
    ClaimedFace,
    ClassRow,
    ClassTable,
    DrawRow,
    DrawTable,
    NoTable,
    ReleaseCounter,
    SurrogateRow,
    claim_table_of,
)
from anonlib.workspace import tables
from anonlib.workspace.layout import RUN_NOTE, JobStores, StageStore, plan_store, release_store, sha256
from anonlib.workspace.schemas import CERTIFIED_CLASSES, CERTIFIED_DRAWS, CERTIFIED_SURROGATES
from anonlib.workspace.secrets import release_name

CERTIFICATE = "certificate.json"
CLASSES_TABLE = "classes.parquet"
SURROGATES_TABLE = "surrogates.parquet"
DRAWS_TABLE = "draws.parquet"
CERTIFIED: dict[str, pa.Schema] = {
    CLASSES_TABLE: CERTIFIED_CLASSES,
    SURROGATES_TABLE: CERTIFIED_SURROGATES,
    DRAWS_TABLE: CERTIFIED_DRAWS,
}
"""The schema of each table that a certificate may rest on."""

_AT_ONCE = 16


def tables_of(method: MethodConfig) -> list[str]:
    """The tables that a certificate of this method rests on, in their order."""
    wardrobe = claim_table_of(method)
    if isinstance(wardrobe, ClassTable):
        return [CLASSES_TABLE, SURROGATES_TABLE]
    return [DRAWS_TABLE] if isinstance(wardrobe, DrawTable) else []


@dataclass(frozen=True)
class Committed:
    """One shard's marker and manifest, as they lie in the release."""

    shard: str
    marker: bytes
    manifest: bytes

    def leaf(self, files: Mapping[str, str]) -> bytes:
        """The shard in the certificate's Merkle tree; `files` are those that the marker names."""
        return shard_leaf(self.shard, sha256(self.marker), sha256(self.manifest), files)


def certify(
    job: JobConfig, stores: JobStores, keyring: Keyring, signing: bytes, plan_key: str, blocks: Sequence[str]
) -> bool:
    """Write the certificate of a finished release; False if it was there or shards are missing.

    `signing`: the secret that signs (see `secret.signing_secret`).

    Raises VerificationError, and writes nothing, if the plan or a manifest breaks a condition of the claim.
    """
    if stores.release.exists(CERTIFICATE):
        stores.release.sweep()
        return False
    note = stores.release.read(RUN_NOTE)
    run = json.loads(note)
    store = release_store(stores)
    if not store.done().issuperset(run["shards"]):
        return False
    stores.release.sweep()
    wardrobe = claim_table_of(job.method)
    plan = plan_store(stores, plan_key)
    written = _write_tables(stores, plan, blocks, wardrobe, keyring)
    leaves, tally = [], ReleaseCounter(job.method, wardrobe)
    for one in committed(store, run["shards"]):
        marker = json.loads(one.marker)
        if sha256(one.manifest) != marker["manifest_sha256"]:
            raise VerificationError(f"the manifest of shard {one.shard} is not the one that its marker names")
        if marker["run"] != run["run"]:
            raise VerificationError(
                f"shard {one.shard} is of another job that wrote here, too; give this one a new output"
            )
        leaves.append(one.leaf(marker["files"]))
        tally.add_shard()
        for image in tables.from_bytes(one.manifest, ["status", "faces"]).to_pylist():
            tally.add_image(image["status"], map(face_of, image["faces"] or ()))
    certificate = Certificate(
        version=VERSION,
        anonlib=__version__,
        release=release_name(job),
        run=run["run"],
        run_sha256=sha256(note),
        method=run["method"],
        claim=claim_of(job.method),
        counts=tally.counts,
        models=run["models"],
        merkle_root=merkle_root(leaves),
        tables=written,
        scope=_scope(plan) if written else None,
    )
    return stores.release.claim(CERTIFICATE, signed(certificate, signing).to_bytes())


def committed(store: StageStore, shards: Iterable[str]) -> Iterator[Committed]:
    """Marker and manifest of each shard in order, a few read at a time; raises NotFound."""

    def read(shard: str) -> Committed:
        marker = store.storage.read(store.marker(shard))
        return Committed(shard, marker, store.storage.read(store.path("manifest", f"{shard}.parquet")))

    todo = list(shards)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, len(todo), _AT_ONCE):
            yield from pool.map(read, todo[start : start + _AT_ONCE])


def face_of(row: Mapping[str, Any]) -> ClaimedFace:
    """What a MANIFEST_FACE says, as far as the claim goes."""
    return ClaimedFace(row["method"], row["k"], row["epsilon"], row["surrogate_digest"], row["fallback"])


def class_rows(classes: Iterable[Mapping[str, Any]], digests: Mapping[str, str], keyring: Keyring) -> list[ClassRow]:
    """The plan's CLASSES rows under new names and in their order; `digests`: each surrogate's in the release."""
    rows = [
        ClassRow(
            keyring.pseudonym(Purpose.CERTIFICATE_CLASS, row["class_id"]),
            tuple(sorted(keyring.pseudonym(Purpose.CERTIFICATE_PERSON, member) for member in row["members"])),
            len(row["members"]),
            row["effective_k"],
            digests[row["surrogate"]],
        )
        for row in classes
    ]
    return sorted(rows, key=lambda row: row.name)


def _write_tables(
    stores: JobStores,
    plan: StageStore,
    blocks: Sequence[str],
    wardrobe: ClassTable | DrawTable | NoTable,
    keyring: Keyring,
) -> tuple[CertifiedTable, ...]:
    """Publish what the claim rests on, once every row of it was checked; nothing for a redaction."""
    found: dict[str, list[dict[str, Any]]] = {}
    if isinstance(wardrobe, ClassTable):
        made: dict[str, str] = {}
        for marker in plan.markers(f"surrogates/{block}" for block in blocks):
            made |= {one: released_digest(keyring, digest) for one, digest in marker["digests"].items()}
        donors = {
            made[row["surrogate_id"]]: len(row["donors"])
            for row in surrogate_plans(plan, blocks, ["surrogate_id", "donors"])
        }
        planned = tables.from_bytes(plan.storage.read(plan.path("classes.parquet"))).to_pylist()
        found = {CLASSES_TABLE: [], SURROGATES_TABLE: []}
        for row in class_rows(planned, made, keyring):
            wardrobe.add(row)
            found[CLASSES_TABLE].append({"class" if name == "name" else name: of for name, of in asdict(row).items()})
        for digest in sorted(donors):
            one = SurrogateRow(digest, donors[digest])
            wardrobe.add_surrogate(one)
            found[SURROGATES_TABLE].append(asdict(one))
    elif isinstance(wardrobe, DrawTable):
        # The first is what a person was dealt; the others depend on the face that still matched it.
        subjects = subjects_of(plan, ["surrogates"]).column("surrogates").to_pylist()
        found = {DRAWS_TABLE: []}
        for digest in sorted({released_digest(keyring, one[0]) for one in subjects}):
            draw = DrawRow(digest, wardrobe.epsilon)
            wardrobe.add(draw)
            found[DRAWS_TABLE].append(asdict(draw))
    wardrobe.close()
    written = []
    for path, rows in found.items():
        data = tables.to_bytes(rows, CERTIFIED[path])
        stores.release.create(path, data)
        written.append(CertifiedTable(path, sha256(data), len(rows)))
    return tuple(written)


def _scope(plan: StageStore) -> Scope:
    """How many persons wear a surrogate, of which kinds, and how they were told apart."""
    rows = subjects_of(plan, ["person_id", "formed_by", "stratum", "surrogates"]).to_pylist()
    worn = [row for row in rows if row["surrogates"]]
    strata = {row["person_id"]: ", ".join(row["stratum"]) for row in worn}
    return Scope(
        len(strata),
        len(worn),
        sum(row["formed_by"] == "label" for row in worn),
        dict(sorted(Counter(strata.values()).items())),
    )
