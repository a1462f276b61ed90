"""What decisions of a review do to a release: which images they change, and taking back what was committed before.

A marker names by digest the decisions that its shard was made by; one that names others than those that stand is of a
shard to be made again. Who decided and when does not count, so the same decisions give the same bytes.

The certificate goes first, and an audit with it: what is being changed must not look finished. A copy of a shard's
marker is laid aside, the marker is deleted, which makes the shard undone, and only then what it vouched for. The copies
stay until every shard is committed again, so the next run after a kill knows what was begun. Where only words of the
manifest change, the data stays and the manifest alone is written again.

A worker may be late: paused before or between its writes, it wakes up after all this and knows only the decisions of
its start. So it looks at the log of decisions and at the marker before each file. And nothing in a release is replaced:
data, manifest and marker are created where nothing is, and other bytes that are there stop the worker with a sentence.
What remains is a pause between a look and the write after it, and it ends so:
- It wakes up between a deletion here and the new file. Then its old file is there first, and the run that renders
  again is the one that is stopped, before its marker and without a certificate. The copies that are aside make the
  next run remove that file and render once more. If it was the old marker that came first, `check_against_markers`
  stops the run, and the next one takes the marker back. A late run that gets that far reads the log again, and stops.
- A dataset of a folder has a file for each photo, and a withheld one leaves its path free, so its file comes back. As
  soon as the worker goes on, it removes the file again (`take_back`). Killed before that, it leaves a file that no
  marker names: `check_against_markers` finds it at the end of each later run, and `anonlib verify` refuses the release.
- Two runs that carry out decisions at once would delete what the other has just written. So none begins beside another
  run that its lease shows to be at work.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from anonlib.codes import Problem, Reason
from anonlib.datasets import Shard
from anonlib.errors import StorageError, VerificationError
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.stages.render_state import FaceState, ImageState
from anonlib.workspace.decisions import WORDS, Decision, DecisionLog, latest
from anonlib.workspace.layout import JobStores, ReleaseStore, json_bytes, release_store, scan_store
from anonlib.workspace.lease import Lease
from anonlib.workspace.release import Naming, remove_audit
from anonlib.workspace.schemas import CERTIFICATE, DATA, MANIFESTS, WITHDRAWN, manifest_path

FOUND = "a reviewer found this face"
HIDDEN = "a reviewer released the photo with every face hidden"


@dataclass(frozen=True)
class ActiveDecisions:
    """The decisions that stand: shard -> key -> decision. Picklable; `ActiveDecisions()` is a job that nobody reviewed.

    `logged`: how many entries the log had when it was read.
    """

    shards: Mapping[str, Mapping[str, Decision]] = field(default_factory=dict)
    logged: int = 0

    @classmethod
    def of_log(cls, log: DecisionLog) -> ActiveDecisions:
        """What stands now; raises StorageError."""
        entries = log.entries()
        return replace(cls.of_all(latest(entries).values()), logged=len(entries))

    @classmethod
    def of_all(cls, decisions: Iterable[Decision]) -> ActiveDecisions:
        """At most one decision an image."""
        shards: dict[str, dict[str, Decision]] = defaultdict(dict)
        for decision in decisions:
            shards[decision.shard][decision.key] = decision
        return cls(dict(shards))

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
        return {
            name: keyring.digest(Purpose.REVIEW, name, shard, json.dumps(list(_spoken(part)))).hex()
            for name, part in parts.items()
            if part
        }


def _spoken(decisions: Iterable[Decision]) -> Iterator[list[object]]:
    return ([decision.key, decision.verdict, decision.boxes] for decision in decisions)


def carry_out(decision: Decision | None, photo: ImageState) -> None:
    """Change what is going to be painted, before anything is: withhold the photo, or hide faces in it.

    What a reviewer found comes last, over whatever the method paints there.
    """
    if decision is None:
        return
    if decision.verdict == "withhold":
        photo.problem = Problem(Reason.WITHHELD)
    if decision.verdict == "release_masked":
        for face in photo.faces:
            face.method, face.tries, face.reason, face.fallback, face.coverage = "solid", [], HIDDEN, "review", 1.0
    photo.faces.extend(_found(box) for box in decision.boxes)


def _found(box: tuple[int, ...]) -> FaceState:
    planned = {"box": [float(side) for side in box]}
    return FaceState(planned, "solid", [], coverage=1.0, fallback="review", reason=FOUND)


def invalidate_shards(
    stores: JobStores, shards: Sequence[Shard], scan_key: str, active: ActiveDecisions, naming: Naming, lease: Lease
) -> frozenset[str]:
    """Take back every committed shard that was made by other decisions than those that stand.

    Returns their ids in the release.

    Safe to kill and to repeat. What is taken back is to be rendered again, and then `finish_invalidation` ends it; a
    shard that differs in words alone is committed again here. Raises StorageError if another run is at work.
    """
    store = release_store(stores)
    begun, names = _begun(store), naming.shards(shards)
    markers = {marker["shard"]: marker for marker in store.markers(names)}
    vouched = {name: active.vouched(shard, naming.keyring) for name, shard in names.items()}
    stale = {name for name, marker in markers.items() if vouched_by(marker) != vouched[name]}
    cut_off = {name for name in begun - stale if markers.get(name) in (None, _laid_aside(store, name))}
    if begun or stale:
        if other := lease.beside():
            raise StorageError(
                f"Another run ({other}) is at work on the workspace {stores.workspace.uri}; decisions of a review are "
                "carried out once it has ended, so run this again then."
            )
        store.storage.delete(CERTIFICATE)
        remove_audit(store.storage)
    for name in sorted(stale):
        store.storage.claim(_aside(name), json_bytes(markers[name]))
    for name in sorted(stale | cut_off):
        marker = markers.get(name)
        if name in cut_off or marker is None or vouched_by(marker).get("painted") != vouched[name].get("painted"):
            _remove(store, name, marker or _laid_aside(store, name))
        else:
            keys = _keys(stores, scan_key, names[name])
            words = {naming.key(names[name], key): active.word(names[name], key) for key in keys}
            _reword(store, marker, words, vouched[name])
    if cut_off:
        # An attempt that was killed may have published photos that its decisions released and the first ones did not.
        _delete(store, _strays(store, names))
    return frozenset(begun | stale)


def finish_invalidation(stores: JobStores, shards: Sequence[Shard], naming: Naming) -> None:
    """End a withdrawal once every shard is committed again: what no marker names goes, then the copies."""
    store = release_store(stores)
    begun = _begun(store)
    if not begun:
        return
    names = naming.shards(shards)
    if len(store.markers(names)) < len(shards):
        return
    _delete(store, (*_strays(store, names), *map(_aside, sorted(begun))))


def take_back(store: ReleaseStore, shard: str, created: Collection[str]) -> None:
    """Remove the data files that an attempt created and that the shard's marker, which is of another, does not name.

    Without a marker they stay: the next attempt compares them with its own, or a withdrawal removes them.
    """
    marker = store.committed(shard) if created else None
    if marker is not None:
        _delete(store, [path for path in created if path not in marker["files"]])


def check_against_markers(
    stores: JobStores, shards: Sequence[Shard], active: ActiveDecisions, naming: Naming, again: Collection[str]
) -> None:
    """Hold a release that is complete against its markers; raises VerificationError with the first difference.

    Of all shards, from a listing alone: the decisions that stand are those of the markers, and data/ and manifest/ hold
    the files that the markers name and no others. Of the shards `again` that this run took back also each file's
    sha256, since only between a deletion and a new file can other bytes have come in.
    """
    store = release_store(stores)
    listed = {entry.path for top in (DATA, MANIFESTS) for entry in store.storage.list(top)}
    names = naming.shards(shards)
    markers = store.markers(names)
    if len(markers) < len(shards):
        return
    for marker in markers:
        shard, files = (
            marker["shard"],
            marker["files"] | {manifest_path(marker["shard"]): marker["manifest_sha256"]},
        )
        if vouched_by(marker) != active.vouched(names[shard], naming.keyring):
            raise VerificationError(f"shard {shard} is not as reviewers decided since it was begun; run the job again")
        for path, digest in files.items():
            if path not in listed:
                raise VerificationError(f"{path} is missing; delete {store.marker(shard)}, and run the job again")
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


def _delete(store: ReleaseStore, paths: Collection[str]) -> None:
    for path in paths:
        store.storage.delete(path)


def _begun(store: ReleaseStore) -> set[str]:
    """The shards whose markers lie aside."""
    return {entry.path.removeprefix(WITHDRAWN).removesuffix(".json") for entry in store.storage.list(WITHDRAWN)}


def _aside(shard: str) -> str:
    return f"{WITHDRAWN}{shard}.json"


def _laid_aside(store: ReleaseStore, shard: str) -> dict[str, Any]:
    return dict(json.loads(store.storage.read(_aside(shard))))


def _remove(store: ReleaseStore, shard: str, marker: dict[str, Any]) -> None:
    """The marker of a shard first, then its data and its manifest."""
    _delete(store, (store.marker(shard), *marker["files"], manifest_path(shard)))


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


def _keys(stores: JobStores, scan_key: str, shard: str) -> list[str]:
    """The images of a shard as the input names them."""
    return [str(key) for key in scan_store(stores, scan_key).images(shard, ["key"]).column("key").to_pylist()]
