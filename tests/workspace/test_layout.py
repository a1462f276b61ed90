"""A marker is claimed once, and says what it vouches for."""

from __future__ import annotations

from pathlib import Path

from anonlib.storage import open_storage
from anonlib.workspace.layout import (
    JobStores,
    json_bytes,
    plan_store,
    release_store,
    render_store,
    scan_store,
    scans_of,
)


def stores(root: Path) -> JobStores:
    return JobStores(open_storage(str(root / "workspace")), open_storage(str(root / "release")))


def test_a_marker_has_one_author(tmp_path: Path) -> None:
    store = scan_store(stores(tmp_path), "a" * 64)
    assert store.committed("00000") is None and store.done() == set()
    assert store.commit("00000", {"images": 1})
    assert not store.commit("00000", {"images": 2})
    assert store.committed("00000") == {"images": 1}


def test_done_units_are_those_with_a_marker(tmp_path: Path) -> None:
    store = release_store(stores(tmp_path))
    for unit in ("00000", "train/00001", "surrogates/block-00000"):
        store.commit(unit, {})
    store.storage.publish("commits/notes.txt", b"")
    assert store.done() == {"00000", "train/00001", "surrogates/block-00000"}


def test_stores_do_not_see_each_other(tmp_path: Path) -> None:
    both = stores(tmp_path)
    one, other = scan_store(both, "a" * 64), plan_store(both, "a" * 64)
    one.commit("00000", {})
    assert other.done() == set() and release_store(both).done() == set()
    assert scan_store(both, "b" * 64).done() == set()


def test_json_has_one_spelling() -> None:
    assert json_bytes({"b": 1, "a": "é"}) == json_bytes({"a": "é", "b": 1}) == '{"a": "é", "b": 1}\n'.encode()


def test_markers_come_in_the_order_asked_for_and_the_missing_are_left_out(tmp_path: Path) -> None:
    store = release_store(stores(tmp_path))
    for unit in ("b", "a", "c"):
        store.commit(unit, {"unit": unit})
    assert [marker["unit"] for marker in store.markers(["c", "nobody", "a", "b"])] == ["c", "a", "b"]


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    both = stores(tmp_path)
    scan, plan, render = scan_store(both, "a" * 64), plan_store(both, "a" * 64), render_store(both, "a" * 64)
    image = {"key": "k", "position": 0, "faces": 0}
    digests = scan.write("00000", [], [image])
    assert scan.images("00000", ["key", "position", "faces"]).to_pylist() == [image]
    assert scan.faces("00000").num_rows == 0 and scan.face_bytes("00000")[:4] == b"PAR1"
    assert digests["images_sha256"] == both.workspace.sha256("scan/aaaaaaaaaaaaaaaa/images/00000.parquet")
    scan.lose("00001", "gone")
    assert scan.lost() == {"00001"} and scans_of(both.workspace).keys() == {"a" * 16}
    assert plan.draws("00000") == [] and render.faces("00000") == {} and render.reasons("00000") == {}
    plan.write_surrogate("s", b"texture")
    assert plan.surrogate("s") == b"texture"
    assert plan.commit_block("block-00000", {"s": "0"}) and plan.blocks_done() == {"block-00000"}
