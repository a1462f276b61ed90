"""The end of a job: what the plan decided and the markers vouch for, as a certificate that needs neither to be checked.

It is claimed once, after the last marker, and holds nothing but what the job's inputs and secret determine, so a rerun
would end in the same bytes. The conditions are checked here before anything is signed, on what the manifests really
say: a false certificate is not written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from anonlib import __version__
from anonlib.config import JobConfig
from anonlib.errors import VerificationError
from anonlib.methods import method_of
from anonlib.methods.base import released_digest
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.verification.certificate import (
    VERSION,
    Certificate,
    CertifiedTable,
    Scope,
    merkle_root,
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
    claim_table,
    tables_of,
)
from anonlib.verification.parsing import shards_of
from anonlib.workspace import tables
from anonlib.workspace.layout import RUN_NOTE, JobStores, PlanStore, plan_store, release_store, sha256
from anonlib.workspace.schemas import CERTIFICATE, CERTIFIED, CLASSES_TABLE, DRAWS_TABLE, SURROGATES_TABLE
from anonlib.workspace.secrets import release_name


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
    method = method_of(job.method)
    table = claim_table(method.claim, tables_of(method.claim, surrogates=method.synthesis))
    plan = plan_store(stores, plan_key)
    written = _write_tables(stores, plan, blocks, table, keyring)
    leaves, counter = [], ReleaseCounter(method.name, table)
    for shard in shards_of(stores.release, run["shards"]):
        if shard.marker.run != run["run"]:
            raise VerificationError(
                f"shard {shard.shard} is of another job that wrote here, too; give this one a new output"
            )
        leaves.append(shard.leaf)
        counter.add_shard()
        for image in tables.from_bytes(shard.manifest, ["status", "faces"]).to_pylist():
            counter.add_image(image["status"], map(ClaimedFace.of, image["faces"] or ()))
    certificate = Certificate(
        version=VERSION,
        anonlib=__version__,
        release=release_name(job),
        run=run["run"],
        run_sha256=sha256(note),
        method=run["method"],
        claim=method.claim,
        counts=counter.counts,
        models=run["models"],
        merkle_root=merkle_root(leaves),
        tables=written,
        scope=_scope(plan) if written else None,
    )
    return stores.release.claim(CERTIFICATE, signed(certificate, signing).to_bytes())


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
    plan: PlanStore,
    blocks: Sequence[str],
    table: ClassTable | DrawTable | NoTable,
    keyring: Keyring,
) -> tuple[CertifiedTable, ...]:
    """Publish what the claim rests on, once every row of it was checked; nothing for a redaction."""
    found: dict[str, list[dict[str, Any]]] = {}
    if isinstance(table, ClassTable):
        digests: dict[str, str] = {}
        for marker in plan.block_markers(blocks):
            digests |= {surrogate: released_digest(keyring, digest) for surrogate, digest in marker["digests"].items()}
        donors = {
            digests[row["surrogate_id"]]: len(row["donors"])
            for row in plan.surrogate_plans(blocks, ["surrogate_id", "donors"])
        }
        planned = plan.classes()
        found = {CLASSES_TABLE: [], SURROGATES_TABLE: []}
        for row in class_rows(planned, digests, keyring):
            table.add(row)
            numbers = {"people": row.people, "k": row.k, "effective_k": row.effective_k}
            found[CLASSES_TABLE].append({"class": row.name, **numbers, "wears": row.surrogate})
        for digest in sorted(donors):
            surrogate = SurrogateRow(digest, donors[digest])
            table.add_surrogate(surrogate)
            found[SURROGATES_TABLE].append(asdict(surrogate))
    elif isinstance(table, DrawTable):
        # The first is the one assigned to a person; the others depend on the face that still matched it.
        subjects = plan.subjects(["surrogates"]).column("surrogates").to_pylist()
        found = {DRAWS_TABLE: []}
        for digest in sorted({released_digest(keyring, surrogates[0]) for surrogates in subjects}):
            draw = DrawRow(digest, table.epsilon)
            table.add(draw)
            found[DRAWS_TABLE].append(asdict(draw))
    table.close()
    written = []
    for path, rows in found.items():
        data = tables.to_bytes(rows, CERTIFIED[path])
        stores.release.create(path, data)
        written.append(CertifiedTable(path, sha256(data), len(rows)))
    return tuple(written)


def _scope(plan: PlanStore) -> Scope:
    """How many persons have a surrogate, of which kinds, and how they were told apart."""
    rows = plan.subjects(["person_id", "formed_by", "stratum", "surrogates"]).to_pylist()
    assigned = [row for row in rows if row["surrogates"]]
    strata = {row["person_id"]: ", ".join(row["stratum"]) for row in assigned}
    return Scope(
        len(strata),
        len(assigned),
        sum(row["formed_by"] == "label" for row in assigned),
        dict(sorted(Counter(strata.values()).items())),
    )
