"""The end of a job: what the plan decided and the markers vouch for, as a certificate that needs neither to be checked.

It is claimed once, after the last marker, and holds nothing but what the job's inputs and secret determine, so a rerun
would end in the same bytes. The conditions are checked here before anything is signed, on what the manifests say.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from anonlib import __version__
from anonlib.config import JobConfig
from anonlib.errors import require
from anonlib.methods import method_of
from anonlib.methods.base import released_digest
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.verification.certificate import VERSION, Certificate, CertifiedTable, Hidden, Scope, merkle_root
from anonlib.verification.conditions import ReleaseCounter, claim_table, gallery_digests, tables_of
from anonlib.verification.parsing import shards_of
from anonlib.workspace import tables
from anonlib.workspace.layout import RUN_NOTE, JobStores, PlanStore, plan_store, release_store, sha256
from anonlib.workspace.schemas import CERTIFICATE, CERTIFIED, CLASSES_TABLE, DRAWS_TABLE, SURROGATES_TABLE
from anonlib.workspace.secrets import release_name

Rows = list[dict[str, Any]]
_COUNTED = ("status", "faces", "media", "frames", "rate", "seconds")
_AT_ONCE = 16
"""Rows that are Python's numbers at once, which of a long clip are many."""


def certify(
    job: JobConfig, stores: JobStores, keyring: Keyring, signing: bytes, plan_key: str, blocks: Sequence[str]
) -> bool:
    """Write a finished release's certificate; False if it was there or shards are missing. Raises VerificationError."""
    if stores.release.exists(CERTIFICATE):
        stores.release.sweep()
        return False
    note = stores.release.read(RUN_NOTE)
    run = json.loads(note)
    if not release_store(stores).done().issuperset(run["shards"]):
        return False
    stores.release.sweep()
    method, plan = method_of(job.method), plan_store(stores, plan_key)
    paths = tables_of(method.claim, surrogates=method.synthesis)
    table = claim_table(method.claim, paths)
    rows_at = _certified_rows(plan, blocks, paths, method.claim.epsilon, keyring)
    for rows in rows_at.values():
        for row in rows:
            table.add(row)
    table.close()
    certified = []
    for path, rows in rows_at.items():
        data = tables.to_bytes(rows, CERTIFIED[path])
        stores.release.create(path, data)
        certified.append(CertifiedTable(path, sha256(data), len(rows)))
    hide = run.get("hide", {})
    leaves, counter = [], ReleaseCounter(method.name, table, {kind: how["method"] for kind, how in hide.items()})
    for shard in shards_of(stores.release, run["shards"]):
        own = shard.marker.run == run["run"]
        require(own, f"shard {shard.shard} is of another job that wrote here, too; give this one a new output")
        leaves.append(shard.leaf)
        counter.add_shard()
        for batch in tables.from_bytes(shard.manifest, _COUNTED).to_batches(max_chunksize=_AT_ONCE):
            for image in batch.to_pylist():
                counter.add_image(image["status"], image["faces"] or ())
                counter.add_media(image)
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
        tables=tuple(certified),
        scope=_scope(plan) if certified else None,
        hidden={kind: Hidden(regions=counter.hidden[kind], **how) for kind, how in hide.items()},
    )
    return stores.release.claim(CERTIFICATE, certificate.sign(signing).to_bytes())


def class_rows(classes: Iterable[Mapping[str, Any]], digests: Mapping[str, str], keyring: Keyring) -> Rows:
    """The plan's CLASSES rows under new names and in their order; `digests`: each surrogate's in the release."""
    rows = [
        {
            "class": keyring.pseudonym(Purpose.CERTIFICATE_CLASS, row["class_id"]),
            "people": sorted(keyring.pseudonym(Purpose.CERTIFICATE_PERSON, member) for member in row["members"]),
            "k": len(row["members"]),
            "effective_k": row["effective_k"],
            "wears": digests[row["surrogate"]],
        }
        for row in classes
    ]
    return sorted(rows, key=lambda row: row["class"])


def _certified_rows(
    plan: PlanStore, blocks: Sequence[str], paths: Sequence[str], epsilon: float | None, keyring: Keyring
) -> dict[str, Rows]:
    """The rows of the tables at `paths`, on which the claim rests."""
    if CLASSES_TABLE in paths:
        digests: dict[str, str] = {}
        for marker in plan.block_markers(blocks):
            digests |= {surrogate: released_digest(keyring, digest) for surrogate, digest in marker["digests"].items()}
        surrogates = plan.surrogate_plans(blocks, ["surrogate_id", "donors", "draw"])
        made: dict[str, dict[str, Any]] = {}
        for row in surrogates:
            digest, donors = digests[row["surrogate_id"]], len(row["donors"])
            shipped = None if donors else gallery_digests()[row["draw"]["rows"][0]]
            # Where two of them are one face, what fewer made is said.
            if digest not in made or donors < made[digest]["donors"]:
                made[digest] = {"digest": digest, "donors": donors, "gallery": shipped}
        return {
            CLASSES_TABLE: class_rows(plan.classes(), digests, keyring),
            SURROGATES_TABLE: [made[digest] for digest in sorted(made)],
        }
    if DRAWS_TABLE in paths:
        # The first is the one assigned to a person; the others depend on the face that still matched it.
        subjects = plan.subjects(["surrogates"]).column("surrogates").to_pylist()
        assigned = {released_digest(keyring, surrogates[0]) for surrogates in subjects}
        return {DRAWS_TABLE: [{"digest": digest, "epsilon": epsilon} for digest in sorted(assigned)]}
    return {}


def _scope(plan: PlanStore) -> Scope:
    """How many persons have a surrogate, of which kinds, and how they were told apart."""
    rows = plan.subjects(["person_id", "formed_by", "stratum", "surrogates"]).to_pylist()
    assigned = [row for row in rows if row["surrogates"]]
    strata = Counter({row["person_id"]: ", ".join(row["stratum"]) for row in assigned}.values())
    by_label = sum(row["formed_by"] == "label" for row in assigned)
    return Scope(strata.total(), len(assigned), by_label, dict(sorted(strata.items())))
