"""What a release says of a shard that could not be rendered: a row with the reason for every image, and no pixel."""

from __future__ import annotations

from anonlib.config import JobConfig
from anonlib.datasets import Shard
from anonlib.pipeline import tables
from anonlib.pipeline.outcome import Outcome, without_names
from anonlib.pipeline.places import Room, sha256
from anonlib.pipeline.reviewed import Standing
from anonlib.privacy.keys import Keyring
from anonlib.records import MANIFEST, QUARANTINED


def give_up(
    shard: Shard,
    why: str,
    job: JobConfig,
    scan: Room,
    release: Room,
    run_key: str,
    keyring: Keyring,
    standing: Standing,
) -> Outcome | None:
    """Write the manifest and the marker of a lost shard; None if another driver has written a marker before.

    Raises Differs if an attempt that was cut off has left another manifest.
    """
    if release.committed(shard.shard_id) is not None:
        return None
    known = tables.from_bytes(scan.storage.read(scan.path("images", f"{shard.shard_id}.parquet")), ["key"])
    keys = known.column("key").to_pylist()
    words = [standing.word(shard.shard_id, key) for key in keys]
    if job.rekey:
        why = without_names(why, keys)
        keys = [keyring.pseudonym("key", shard.shard_id, key) for key in keys]
    lost = {"status": QUARANTINED, "reason": f"the shard failed: {why}", "faces": []}
    rows = [{"key": key, "review": word} | lost for key, word in zip(keys, words, strict=True)]
    manifest = tables.to_bytes(rows, MANIFEST)
    release.storage.create(release.path("manifest", f"{shard.shard_id}.parquet"), manifest)
    counts = {"images": len(keys), "faces": 0, "released": 0, "no_face": 0, "quarantined": len(keys), "fallbacks": 0}
    claimed = release.commit(
        shard.shard_id,
        {
            "shard": shard.shard_id,
            "run": run_key,
            "files": {},
            "manifest_sha256": sha256(manifest),
            **standing.vouched(shard.shard_id, keyring),
            **counts,
        },
    )
    return Outcome(shard.shard_id, images=len(keys), quarantined=len(keys)) if claimed else None
