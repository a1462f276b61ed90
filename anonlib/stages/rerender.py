"""What decisions of a review do to a release: which images they change, and taking back what was committed before.

A marker names by digest the decisions that its shard was made by. The certificate goes first, and an audit with it:
what is being changed must not look finished. A copy of each marker is laid aside until every shard is committed again,
so that the next run after a kill knows what was begun. Nothing in a release is ever replaced: files are created where
nothing is, and other bytes that are there stop a worker that wakes up late.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anonlib.codes import Problem, Reason
from anonlib.datasets import Shard
from anonlib.errors import StorageError, VerificationError, require
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.stages.render_state import ClipState, FaceState, ImageState
from anonlib.workspace.decisions import WORDS, Decision, DecisionLog, latest
from anonlib.workspace.layout import JobStores, ReleaseStore, json_bytes, release_store, scan_store
from anonlib.workspace.lease import Lease
from anonlib.workspace.release import Naming, remove_audit
from anonlib.workspace.schemas import CERTIFICATE, DATA, MANIFESTS, WITHDRAWN, manifest_path

FOUND = "a reviewer found this face"
HIDDEN = "a reviewer released the photo with every face hidden"


@dataclass(frozen=True)
class ActiveDecisions:
    """The decisions that stand: shard -> key -> decision; `logged`: how many entries the log had. Picklable."""

    shards: Mapping[str, Mapping[str, Decision]] = field(default_factory=dict)
    logged: int = 0

    @classmethod
    def of_log(cls, log: DecisionLog) -> ActiveDecisions:
        """What stands now; raises StorageError."""
        entries = log.entries()
        return cls.of_all(latest(entries).values(), len(entries))

    @classmethod
    def of_all(cls, decisions: Iterable[Decision], logged: int = 0) -> ActiveDecisions:
        """At most one decision an image."""
        shards: dict[str, dict[str, Decision]] = defaultdict(dict)
        for decision in decisions:
            shards[decision.shard][decision.key] = decision
        return cls(dict(shards), logged)

    def of(self, shard: str, key: str) -> Decision | None:
        return self.shards.get(shard, {}).get(key)

    def word(self, shard: str, key: str) -> str | None:
        """The manifest's `review`."""
        decision = self.of(shard, key)
        return None if decision is None else WORDS[decision.verdict]

    def released(self, shard: str, key: str) -> bool:
        """Whether a reviewer wants this quarantined photo released."""
        decision = self.of(shard, key)
        return decision is not None and decision.verdict == "release_masked"

    def vouched(self, shard: str, keyring: Keyring) -> dict[str, str]:
        """What a marker says of the decisions on its shard, nothing where there are none.

        `decisions` is a keyed digest of all, `painted` of those that change more than a word in the manifest. Keyed,
        since a plain digest would confirm a guess of the input's names.
        """
        decided = sorted(self.shards.get(shard, {}).values(), key=lambda decision: decision.key)
        parts = {"decisions": decided, "painted": [decision for decision in decided if decision.verdict != "confirmed"]}
        spoken = {
            name: json.dumps([[decision.key, decision.verdict, decision.boxes] for decision in part])
            for name, part in parts.items()
            if part
        }
        return {name: keyring.digest(Purpose.REVIEW, name, shard, text).hex() for name, text in spoken.items()}


def carry_out(decision: Decision | None, photo: ImageState | ClipState, hide: str) -> None:
    """Withhold the photo, or have faces in it hidden by the method `hide`; before anything is painted."""
    if decision is None:
        return
    if decision.verdict == "withhold":
        photo.problem = Problem(Reason.WITHHELD)
    if decision.verdict == "release_masked":
        for face in photo.faces:
            face.method, face.tries, face.reason, face.fallback, face.coverage = hide, [], HIDDEN, "review", 1.0
    for box in decision.boxes:
        planned = {"box": [float(side) for side in box]}
        photo.faces.append(FaceState(planned, hide, [], coverage=1.0, fallback="review", reason=FOUND))


def invalidate_shards(
    stores: JobStores, shards: Sequence[Shard], scan_key: str, active: ActiveDecisions, naming: Naming, lease: Lease
) -> frozenset[str]:
    """Take back every shard that was made by other decisions than those that stand; returns their ids in the release.

    Safe to kill and to repeat. Shards that differ in words alone are committed again here, the others are to be
    rendered again; `finish_invalidation` ends it. Raises StorageError if another run is at work.
    """
    store = release_store(stores)
    begun, names = _begun(store), naming.shards(shards)
    markers = {marker["shard"]: marker for marker in store.markers(names)}
    vouched = {name: active.vouched(shard, naming.keyring) for name, shard in names.items()}
    stale = {name for name, marker in markers.items() if vouched_by(marker) != vouched[name]}
    aside = {name: dict(json.loads(store.storage.read(_aside(name)))) for name in begun - stale}
    cut_off = {name for name, marker in aside.items() if markers.get(name) in (None, marker)}
    if begun or stale:
        if other := lease.beside():
            busy = f"Another run ({other}) is at work on the workspace {stores.workspace.uri}"
            raise StorageError(
                f"{busy}; decisions of a review are carried out once it has ended, so run this again then."
            )
        store.storage.delete(CERTIFICATE)
        remove_audit(store.storage)
    for name in sorted(stale):
        store.storage.claim(_aside(name), json_bytes(markers[name]))
    for name in sorted(stale | cut_off):
        marker = markers.get(name) or aside[name]
        if name in cut_off or vouched_by(marker).get("painted") != vouched[name].get("painted"):
            _delete(store, (store.marker(name), *marker["files"], manifest_path(name)))
            continue
        keys = scan_store(stores, scan_key).images(names[name], ["key"]).column("key").to_pylist()
        words = {naming.key(names[name], key): active.word(names[name], key) for key in keys}
        _reword(store, marker, words, vouched[name])
    if cut_off:
        # An attempt that was killed may have published photos that its decisions released and the first ones did not.
        _delete(store, _strays(store, names))
    return frozenset(begun | stale)


def _reword(
    store: ReleaseStore, marker: dict[str, Any], words: Mapping[str, str | None], vouched: Mapping[str, str]
) -> None:
    """Write the manifest's `review` again, in the bytes that a render would give it, and commit."""
    shard = marker["shard"]
    rows = store.manifest(shard).to_pylist()
    for row in rows:
        row["review"] = words[row["key"]]
    unchanged = {name: value for name, value in marker.items() if name not in ("decisions", "painted")}
    _delete(store, (store.marker(shard), manifest_path(shard)))
    manifest = store.create_manifest(shard, rows)
    store.commit(shard, unchanged | {"manifest_sha256": manifest, **vouched})


def finish_invalidation(stores: JobStores, shards: Sequence[Shard], naming: Naming) -> None:
    """End a withdrawal once every shard is committed again: what no marker names goes, then the copies."""
    store, names = release_store(stores), naming.shards(shards)
    begun = _begun(store)
    if begun and len(store.markers(names)) == len(shards):
        _delete(store, (*_strays(store, names), *map(_aside, sorted(begun))))


def take_back(store: ReleaseStore, shard: str, created: Collection[str]) -> None:
    """Remove data that an attempt created and that the marker, which is of another, does not name; none: it stays."""
    marker = store.committed(shard) if created else None
    if marker is not None:
        _delete(store, [path for path in created if path not in marker["files"]])


def check_against_markers(
    stores: JobStores, shards: Sequence[Shard], active: ActiveDecisions, naming: Naming, again: Collection[str]
) -> None:
    """Hold a complete release against its markers: decisions and files; raises VerificationError.

    Only of the shards `again` that were taken back each file's sha256: no late worker's bytes can be in others.
    """
    store = release_store(stores)
    listed = {entry.path for top in (DATA, MANIFESTS) for entry in store.storage.list(top)}
    names = naming.shards(shards)
    markers = store.markers(names)
    if len(markers) < len(shards):
        return
    for marker in markers:
        shard = marker["shard"]
        files = marker["files"] | {manifest_path(shard): marker["manifest_sha256"]}
        as_decided = vouched_by(marker) == active.vouched(names[shard], naming.keyring)
        require(as_decided, f"shard {shard} is not as reviewers decided since it was begun; run the job again")
        for path, digest in files.items():
            require(path in listed, f"{path} is missing; delete {store.marker(shard)}, and run the job again")
            if shard in again and store.storage.sha256(path) != digest:
                raise VerificationError(
                    f"{path} is not what {store.marker(shard)} names; delete both and run the job again"
                )
        listed -= files.keys()
    if listed:
        others = f" and {len(listed) - 1} more" if len(listed) > 1 else ""
        raise VerificationError(
            f"no marker names {min(listed)}{others}; delete what is not of the release, and run the job again"
        )


def vouched_by(marker: dict[str, Any]) -> dict[str, str]:
    """What a marker says of decisions, as `ActiveDecisions.vouched` gives it."""
    return {name: marker[name] for name in ("decisions", "painted") if name in marker}


def _strays(store: ReleaseStore, names: Collection[str]) -> list[str]:
    """The data that no marker names; listed before the markers are read, so that what is committed meanwhile stays."""
    listed = [entry.path for entry in store.storage.list(DATA)]
    named = {path for marker in store.markers(names) for path in marker["files"]}
    return [path for path in listed if path not in named]


def _delete(store: ReleaseStore, paths: Iterable[str]) -> None:
    for path in paths:
        store.storage.delete(path)


def _begun(store: ReleaseStore) -> set[str]:
    """The shards whose markers lie aside."""
    return {entry.path.removeprefix(WITHDRAWN).removesuffix(".json") for entry in store.storage.list(WITHDRAWN)}


def _aside(shard: str) -> str:
    return f"{WITHDRAWN}{shard}.json"
