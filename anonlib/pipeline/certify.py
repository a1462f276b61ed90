"""The end of a job: what the plan decided and the markers vouch for, as a certificate that needs neither to be checked.

It is claimed once, after the last marker, and holds nothing but what the job's inputs and secret determine, so a rerun
would end in the same bytes. The conditions are checked here before anything is signed, on what the manifests really
say: a false certificate is not written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from anonlib import __version__
from anonlib.config import JobConfig
from anonlib.pipeline import tables
from anonlib.pipeline.places import RUN_NOTE, Places, Room, plan_room, release_room, sha256
from anonlib.pipeline.plan import subjects_of
from anonlib.pipeline.secret import release_name
from anonlib.privacy.certificate import VERSION, Certificate, Table, Untrue, merkle_root, shard_leaf, signed
from anonlib.privacy.claims import claim_of
from anonlib.privacy.conditions import Classes, ClassRow, DrawRow, Draws, Face, Nothing, Tally, wardrobe_of
from anonlib.privacy.keys import Keyring
from anonlib.records import CERTIFIED_CLASSES, CERTIFIED_DRAWS

CERTIFICATE = "certificate.json"
CLASSES_TABLE = "classes.parquet"
DRAWS_TABLE = "draws.parquet"

_AT_ONCE = 16
_CLASS_COLUMNS = ["class_id", "members", "donors", "portraits", "k", "effective_k", "surrogates"]


@dataclass(frozen=True)
class Committed:
    """One shard's marker and manifest, as they lie in the release."""

    shard: str
    marker: bytes
    manifest: bytes

    def leaf(self, files: Mapping[str, str]) -> bytes:
        """The shard in the certificate's Merkle tree; `files` are those that the marker names."""
        return shard_leaf(self.shard, sha256(self.marker), sha256(self.manifest), files)


def certify(job: JobConfig, places: Places, keyring: Keyring, plan_key: str, blocks: Sequence[str]) -> bool:
    """Write the certificate of a finished release; False if it was there or shards are missing.

    Raises Untrue, and writes nothing, if the plan or a manifest breaks a condition of the claim.
    """
    if places.release.exists(CERTIFICATE):
        places.release.sweep()
        return False
    note = places.release.read(RUN_NOTE)
    run = json.loads(note)
    room = release_room(places)
    if not room.done().issuperset(run["shards"]):
        return False
    places.release.sweep()
    wardrobe = wardrobe_of(job.method)
    table = _write_table(job, places, plan_room(places, plan_key), blocks, wardrobe, keyring)
    leaves, tally = [], Tally(job.method, wardrobe)
    for one in committed(room, run["shards"]):
        marker = json.loads(one.marker)
        if sha256(one.manifest) != marker["manifest_sha256"]:
            raise Untrue(f"the manifest of shard {one.shard} is not the one that its marker names")
        if marker["run"] != run["run"]:
            raise Untrue(f"shard {one.shard} is of another job that wrote here, too; give this one a new output")
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
        table=table,
    )
    return places.release.claim(CERTIFICATE, signed(certificate, keyring.signing).to_bytes())


def committed(room: Room, shards: Iterable[str]) -> Iterator[Committed]:
    """Marker and manifest of each shard in order, a few read at a time; raises NotFound."""

    def read(shard: str) -> Committed:
        marker = room.storage.read(room.marker(shard))
        return Committed(shard, marker, room.storage.read(room.path("manifest", f"{shard}.parquet")))

    todo = list(shards)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, len(todo), _AT_ONCE):
            yield from pool.map(read, todo[start : start + _AT_ONCE])


def face_of(row: Mapping[str, Any]) -> Face:
    """What a MANIFEST_FACE says, as far as the claim goes."""
    return Face(row["method"], row["k"], row["epsilon"], row["surrogate_digest"], row["fallback"])


def class_rows(classes: Iterable[Mapping[str, Any]], made: Mapping[str, str], keyring: Keyring) -> list[ClassRow]:
    """The plan's CLASSES rows under new names and in their order; `made`: class_id -> digest of its surrogate."""
    rows = []
    for row in classes:
        donors = set(row["donors"])
        if len(donors) != len(row["portraits"]):
            raise Untrue(f"the plan averages {len(row['portraits'])} people where {len(donors)} are donors")
        people = sorted(
            (keyring.pseudonym("certificate-person", member), 1 / len(donors) if member in donors else 0.0)
            for member in row["members"]
        )
        rows.append(
            ClassRow(
                keyring.pseudonym("certificate-class", row["class_id"]),
                tuple(name for name, _ in people),
                tuple(weight for _, weight in people),
                row["k"],
                row["effective_k"],
                made[row["class_id"]],
                made[row["surrogates"][0]] if row["surrogates"] else None,
            )
        )
    return sorted(rows, key=lambda row: row.name)


def _write_table(
    job: JobConfig,
    places: Places,
    plan: Room,
    blocks: Sequence[str],
    wardrobe: Classes | Draws | Nothing,
    keyring: Keyring,
) -> Table | None:
    """Publish what the claim rests on, once every row of it was checked; None for a redaction."""
    made: dict[str, str] = {}
    for marker in plan.markers(f"surrogates/{block}" for block in blocks):
        made |= marker["digests"]
    path: str
    schema: pa.Schema
    found: list[dict[str, Any]] = []
    if isinstance(wardrobe, Classes):
        path, schema = CLASSES_TABLE, CERTIFIED_CLASSES
        planned = (
            row
            for block in blocks
            for row in tables.from_bytes(
                plan.storage.read(plan.path("classes", f"{block}.parquet")), _CLASS_COLUMNS
            ).to_pylist()
        )
        for row in class_rows(planned, made, keyring):
            wardrobe.add(row)
            found.append(
                {
                    "class": row.name,
                    "people": row.people,
                    "weights": row.weights,
                    "k": row.k,
                    "effective_k": row.effective_k,
                    "made": row.made,
                    "wears": row.wears,
                }
            )
    elif isinstance(wardrobe, Draws):
        path, schema = DRAWS_TABLE, CERTIFIED_DRAWS
        # The first is what a person was dealt; the others depend on the face that still matched it.
        dealt = {one[0] for one in subjects_of(plan, ["surrogates"]).column("surrogates").to_pylist()}
        for digest in sorted(dealt):
            draw = DrawRow(digest, claim_of(job.method).epsilon)
            wardrobe.add(draw)
            found.append({"digest": draw.digest, "epsilon": draw.epsilon})
    else:
        return None
    wardrobe.close()
    data = tables.to_bytes(found, schema)
    places.release.publish(path, data)
    return Table(path, sha256(data), len(found))
