"""Shards that could not be scanned or rendered: what stands in the place of their tables, and no pixel.

The release has a row with the reason for every image. Of a shard that could not even be scanned it is not known which
images it has, so one row stands for all of them, and the reason, which may name places, stays in the workspace.
"""

from __future__ import annotations

from typing import Any

from anonlib.codes import Problem, Reason
from anonlib.datasets import Shard
from anonlib.errors import StorageError
from anonlib.execution.base import UnitResult
from anonlib.stages.render import publish_reasons
from anonlib.stages.review_decisions import ActiveDecisions
from anonlib.workspace import tables
from anonlib.workspace.layout import JobStores, StageStore, json_bytes, release_store, render_store, sha256
from anonlib.workspace.release import Naming
from anonlib.workspace.schemas import FACES, IMAGES, MANIFEST, QUARANTINED

_LOST = "lost"


def lose(shard: Shard, why: str, scan: StageStore) -> None:
    """Commit the scan of a shard that could not be scanned, with no face; safe to repeat.

    Raises StorageError if another driver has scanned it meanwhile, whose tables this one has replaced.
    """
    if scan.committed(shard.shard_id) is not None:
        return
    problem = Problem(Reason.SHARD_UNSCANNED)
    row = {
        "key": f"{shard.shard_id}#unscanned",
        "position": 0,
        "reason": problem.reason,
        "problem": str(problem),
        "faces": 0,
    }
    faces, images = tables.to_bytes([], FACES), tables.to_bytes([row], IMAGES)
    scan.storage.publish(scan.path("faces", f"{shard.shard_id}.parquet"), faces)
    scan.storage.publish(scan.path("images", f"{shard.shard_id}.parquet"), images)
    marker: dict[str, Any] = {"shard": shard.shard_id, "etag": shard.etag, "images": 1, "faces": 0, "unreadable": 1}
    marker |= {"faces_sha256": sha256(faces), "images_sha256": sha256(images)}
    if not scan.commit(shard.shard_id, marker) and scan.committed(shard.shard_id) != marker:
        raise StorageError(
            f"Another driver scanned shard {shard.shard_id} while this one gave it up; delete "
            f"{scan.marker(shard.shard_id)} in {scan.storage.uri} and run the job again."
        )
    # Last, so that what a killed driver did not give up is scanned again. Without it the shard is rendered in vain.
    scan.storage.publish(scan.path(_LOST, f"{shard.shard_id}.json"), json_bytes({"why": why}))


def lost_in(scan: StageStore) -> frozenset[str]:
    """The shards that could not be scanned."""
    start = scan.path(_LOST, "")
    return frozenset(one.path.removeprefix(start).removesuffix(".json") for one in scan.storage.list(start))


def quarantine_shard(
    shard: Shard, why: str, stores: JobStores, scan: StageStore, run_key: str, naming: Naming, active: ActiveDecisions
) -> UnitResult | None:
    """Write the manifest and the marker of a lost shard; None if another driver has written a marker before.

    Raises Differs if an attempt that was cut off has left another manifest.
    """
    release, name = release_store(stores), naming.shard(shard.shard_id)
    if release.committed(name) is not None:
        return None
    known = tables.from_bytes(scan.storage.read(scan.path("images", f"{shard.shard_id}.parquet")), ["key"])
    problem = Problem(Reason.SHARD_FAILED, f"the shard failed: {why}")
    rows = [
        {
            "own_key": key,
            "problem": problem,
            "key": naming.key(shard.shard_id, key),
            "review": active.word(shard.shard_id, key),
            "status": QUARANTINED,
            "reason": problem.reason,
            "faces": [],
        }
        for key in known.column("key").to_pylist()
    ]
    publish_reasons(render_store(stores, run_key), shard.shard_id, rows)
    manifest = tables.to_bytes(naming.sorted(rows), MANIFEST)
    release.storage.create(release.path("manifest", f"{name}.parquet"), manifest)
    counts = {"images": len(rows), "faces": 0, "released": 0, "no_face": 0, "quarantined": len(rows), "fallbacks": 0}
    claimed = release.commit(
        name,
        {
            "shard": name,
            "run": run_key,
            "files": {},
            "manifest_sha256": sha256(manifest),
            **active.vouched(shard.shard_id, naming.keyring),
            **counts,
        },
    )
    return UnitResult(shard.shard_id, images=len(rows), quarantined=len(rows)) if claimed else None
