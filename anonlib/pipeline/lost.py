"""Shards that could not be scanned or rendered: what stands in the place of their tables, and no pixel.

The release has a row with the reason for every image. Of a shard that could not even be scanned it is not known which
images it has, so one row stands for all of them, and the reason, which may name places, stays in the workspace.
"""

from __future__ import annotations

from typing import Any

from anonlib.config import JobConfig
from anonlib.datasets import Shard
from anonlib.pipeline import tables
from anonlib.pipeline.outcome import Outcome, without_names
from anonlib.pipeline.places import Room, json_bytes, sha256
from anonlib.pipeline.reviewed import Standing
from anonlib.privacy.keys import Keyring
from anonlib.records import FACES, IMAGES, MANIFEST, QUARANTINED
from anonlib.storage import StorageError

_LOST = "lost"
UNSCANNED = "it could not be scanned (the workspace says why)"


def lose(shard: Shard, why: str, scan: Room) -> None:
    """Commit the scan of a shard that could not be scanned, with no face; safe to repeat.

    Raises StorageError if another driver has scanned it meanwhile, whose tables this one has replaced.
    """
    if scan.committed(shard.shard_id) is not None:
        return
    problem = "the shard could not be scanned"
    row = {"key": f"{shard.shard_id}#unscanned", "position": 0, "problem": problem, "faces": 0}
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


def lost_in(scan: Room) -> frozenset[str]:
    """The shards that could not be scanned."""
    start = scan.path(_LOST, "")
    return frozenset(one.path.removeprefix(start).removesuffix(".json") for one in scan.storage.list(start))


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
    """Write the manifest and the marker of a lost shard; None if another driver has written a marker before."""
    known = tables.from_bytes(scan.storage.read(scan.path("images", f"{shard.shard_id}.parquet")), ["key"])
    keys = known.column("key").to_pylist()
    words = [standing.word(shard.shard_id, key) for key in keys]
    if job.rekey:
        why = without_names(why, keys)
        keys = [keyring.pseudonym("key", shard.shard_id, key) for key in keys]
    lost = {"status": QUARANTINED, "reason": f"the shard failed: {why}", "faces": []}
    rows = [{"key": key, "review": word} | lost for key, word in zip(keys, words, strict=True)]
    manifest = tables.to_bytes(rows, MANIFEST)
    release.storage.publish(release.path("manifest", f"{shard.shard_id}.parquet"), manifest)
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
