"""Taking back what was committed before a reviewer decided otherwise.

The certificate goes first, and an audit with it: what is being changed must not look finished. A copy of a shard's
marker is laid aside, the marker is deleted, which makes the shard undone, and only then what it vouched for. The copies
stay until every shard is committed again, so whoever comes after a kill knows what was begun. Where only words of the
manifest change, the data stays and the manifest alone is written again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from anonlib.datasets import Shard
from anonlib.pipeline import tables
from anonlib.pipeline.certify import CERTIFICATE
from anonlib.pipeline.naming import Naming
from anonlib.pipeline.places import (
    AUDIT_FILES,
    STATEMENT,
    Places,
    Room,
    json_bytes,
    release_room,
    scan_room,
    sha256,
)
from anonlib.pipeline.reviewed import Standing
from anonlib.records import MANIFEST

_ASIDE = "withdrawn/"


def withdraw(
    places: Places, shards: Sequence[Shard], scan_key: str, standing: Standing, naming: Naming
) -> frozenset[str]:
    """Take back every committed shard that was made by other decisions than those that stand.

    Returns their ids in the release.

    Safe to kill and to repeat. What is taken back is to be rendered again, and then `settle` ends it; a shard that
    differs in words alone is committed again here.
    """
    room = release_room(places)
    begun, names = _begun(room), naming.shards(shards)
    markers = {marker["shard"]: marker for marker in room.markers(names)}
    vouched = {name: standing.vouched(shard, naming.keyring) for name, shard in names.items()}
    stale = {name for name, marker in markers.items() if vouched_by(marker) != vouched[name]}
    cut_off = {name for name in begun - stale if markers.get(name) in (None, _laid_aside(room, name))}
    if begun or stale:
        for path in (CERTIFICATE, STATEMENT, *AUDIT_FILES):
            room.storage.delete(path)
    for name in sorted(stale):
        room.storage.claim(_aside(name), json_bytes(markers[name]))
    for name in sorted(stale | cut_off):
        marker = markers.get(name)
        if name in cut_off or marker is None or vouched_by(marker).get("painted") != vouched[name].get("painted"):
            _remove(room, name, marker or _laid_aside(room, name))
        else:
            keys = _keys(places, scan_key, names[name])
            words = {naming.key(names[name], key): standing.word(names[name], key) for key in keys}
            _reword(room, marker, words, vouched[name])
    return frozenset(begun | stale)


def settle(places: Places, shards: Sequence[Shard], naming: Naming) -> None:
    """End a withdrawal once every shard is committed again: what no marker names goes, then the copies."""
    room = release_room(places)
    begun = _begun(room)
    if not begun:
        return
    markers = room.markers(naming.shards(shards))
    if len(markers) < len(shards):
        return
    named = {path for marker in markers for path in marker["files"]}
    strays = [entry.path for entry in room.storage.list("data/") if entry.path not in named]
    for path in (*strays, *map(_aside, sorted(begun))):
        room.storage.delete(path)


def vouched_by(marker: dict[str, Any]) -> dict[str, str]:
    """What a marker says of decisions, as `Standing.vouched` gives it."""
    return {name: marker[name] for name in ("decisions", "painted") if name in marker}


def _begun(room: Room) -> set[str]:
    """The shards whose markers lie aside."""
    return {entry.path.removeprefix(_ASIDE).removesuffix(".json") for entry in room.storage.list(_ASIDE)}


def _aside(shard: str) -> str:
    return f"{_ASIDE}{shard}.json"


def _laid_aside(room: Room, shard: str) -> dict[str, Any]:
    return dict(json.loads(room.storage.read(_aside(shard))))


def _manifest(room: Room, shard: str) -> str:
    return room.path("manifest", f"{shard}.parquet")


def _remove(room: Room, shard: str, marker: dict[str, Any]) -> None:
    """The marker of a shard first, then its data and its manifest."""
    room.storage.delete(room.marker(shard))
    for path in (*marker["files"], _manifest(room, shard)):
        room.storage.delete(path)


def _reword(room: Room, marker: dict[str, Any], words: Mapping[str, str | None], vouched: Mapping[str, str]) -> None:
    """Write the manifest's `review` again, in the bytes that a render would give it, and commit."""
    shard = marker["shard"]
    rows = tables.from_bytes(room.storage.read(_manifest(room, shard))).to_pylist()
    for row in rows:
        row["review"] = words[row["key"]]
    manifest = tables.to_bytes(rows, MANIFEST)
    unchanged = {name: value for name, value in marker.items() if name not in ("decisions", "painted")}
    room.storage.delete(room.marker(shard))
    room.storage.publish(_manifest(room, shard), manifest)
    room.commit(shard, unchanged | {"manifest_sha256": sha256(manifest), **vouched})


def _keys(places: Places, scan_key: str, shard: str) -> list[str]:
    """The images of a shard as the input names them."""
    room = scan_room(places, scan_key)
    names = tables.from_bytes(room.storage.read(room.path("images", f"{shard}.parquet")), ["key"])
    return [str(key) for key in names.column("key").to_pylist()]
