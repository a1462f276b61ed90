"""What a release says of a shard that could not be rendered: a row with the reason for every image, and no pixel."""

from __future__ import annotations

from anonlib.datasets import Shard
from anonlib.pipeline import tables
from anonlib.pipeline.naming import Naming
from anonlib.pipeline.outcome import Outcome
from anonlib.pipeline.places import Places, Room, release_room, render_room, sha256
from anonlib.pipeline.render import publish_reasons
from anonlib.pipeline.reviewed import Standing
from anonlib.records import MANIFEST, QUARANTINED
from anonlib.vocabulary import Problem, Reason


def give_up(
    shard: Shard, why: str, places: Places, scan: Room, run_key: str, naming: Naming, standing: Standing
) -> Outcome | None:
    """Write the manifest and the marker of a lost shard; None if another driver has written a marker before.

    Raises Differs if an attempt that was cut off has left another manifest.
    """
    release, name = release_room(places), naming.shard(shard.shard_id)
    if release.committed(name) is not None:
        return None
    known = tables.from_bytes(scan.storage.read(scan.path("images", f"{shard.shard_id}.parquet")), ["key"])
    problem = Problem(Reason.SHARD_FAILED, f"the shard failed: {why}")
    rows = [
        {
            "own_key": key,
            "problem": problem,
            "key": naming.key(shard.shard_id, key),
            "review": standing.word(shard.shard_id, key),
            "status": QUARANTINED,
            "reason": problem.reason,
            "faces": [],
        }
        for key in known.column("key").to_pylist()
    ]
    publish_reasons(render_room(places, run_key), shard.shard_id, rows)
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
            **standing.vouched(shard.shard_id, naming.keyring),
            **counts,
        },
    )
    return Outcome(shard.shard_id, images=len(rows), quarantined=len(rows)) if claimed else None
