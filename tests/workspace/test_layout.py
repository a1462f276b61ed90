"""A marker is claimed once, and says what it vouches for; the same rows are the same bytes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from anonlib.errors import StorageError
from anonlib.privacy.keys import Keyring
from anonlib.stages.rerender import ActiveDecisions
from anonlib.storage import open_storage
from anonlib.workspace.decisions import Decision, DecisionLog
from anonlib.workspace.layout import JobStores, json_bytes, plan_store, release_store, scan_store
from anonlib.workspace.schemas import IMAGES
from anonlib.workspace.tables import from_bytes, to_bytes

ROWS = [{"key": f"k{number}", "position": number, "problem": None, "faces": 2} for number in range(600)]


@pytest.fixture
def stores(tmp_path: Path) -> JobStores:
    return JobStores(open_storage(str(tmp_path / "workspace")), open_storage(str(tmp_path / "release")))


def test_a_marker_has_one_author_and_stores_do_not_see_each_other(stores: JobStores) -> None:
    store = scan_store(stores, "a" * 64)
    assert store.committed("00000") is None and store.done() == set()
    assert store.commit("00000", {"images": 1})
    assert not store.commit("00000", {"images": 2})
    assert store.committed("00000") == {"images": 1}
    for other in (plan_store(stores, "a" * 64), release_store(stores), scan_store(stores, "b" * 64)):
        assert other.done() == set()


def test_the_same_rows_are_the_same_bytes_and_come_back() -> None:
    data = to_bytes(ROWS, IMAGES)
    assert data == to_bytes([dict(row) for row in ROWS], IMAGES)
    table = from_bytes(data)
    assert table.schema.equals(IMAGES)
    assert table.column("key").to_pylist() == [row["key"] for row in ROWS]
    assert from_bytes(data, ["faces"]).column_names == ["faces"]
    assert pq.ParquetFile(pa.BufferReader(data)).num_row_groups == 3, "a crop can be read without its neighbours"
    assert json_bytes({"b": 1, "a": "é"}) == json_bytes({"a": "é", "b": 1}) == '{"a": "é", "b": 1}\n'.encode()


KEYRING = Keyring(b"a secret of 32 bytes for the tests", "tests")


def on(key: str, verdict: Any = "confirmed", **more: Any) -> Decision:
    return Decision(shard="00000", key=key, verdict=verdict, **more)


def test_the_last_word_on_an_image_stands_and_nothing_is_overwritten(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    log = DecisionLog(storage, "a" * 64)
    for decision in (on("a"), on("b"), on("a", "mask", boxes=[(1, 2, 3, 4)]), on("b", "undone"), on("c", "withhold")):
        log.add(decision)
    assert {key: decision.verdict for (_, key), decision in log.latest().items()} == {"a": "mask", "c": "withhold"}
    assert DecisionLog(storage, "b" * 64).latest() == {}, "another run has other decisions"
    assert len(list(tmp_path.rglob("*.json"))) == 5
    next(tmp_path.rglob("*.json")).write_text("{}")
    with pytest.raises(StorageError, match="cannot be read"):
        log.latest()


def test_two_reviewers_at_once_lose_nothing(tmp_path: Path) -> None:
    log = DecisionLog(open_storage(str(tmp_path)), "a" * 64)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: log.add(on(f"photo-{number}")), range(40)))
    assert len(log.latest()) == 40


@pytest.mark.parametrize(
    "wrong",
    [
        {"verdict": "mask"},
        {"verdict": "confirmed", "boxes": [(1, 2, 3, 4)]},
        {"verdict": "mask", "boxes": [(3, 2, 1, 4)]},
        {"verdict": "mask", "boxes": [(-1, 2, 3, 4)]},
        {"verdict": "confirmed", "name": "Ada"},
    ],
)
def test_a_decision_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Decision(shard="00000", key="a", **wrong)


def test_a_marker_vouches_for_what_was_decided_and_not_for_whom_or_when() -> None:
    def vouched(*decisions: Decision, keyring: Keyring = KEYRING) -> dict[str, str]:
        return ActiveDecisions.of_all(decisions).vouched("00000", keyring)

    masked = on("a", "mask", boxes=[(1, 2, 3, 4)])
    assert vouched() == {} and set(vouched(on("a"))) == {"decisions"}
    assert set(vouched(masked)) == {"decisions", "painted"}
    assert vouched(masked) == vouched(masked.model_copy(update={"who": "AB", "when": "later"}))
    assert vouched(masked, on("b")) == vouched(on("b"), masked)
    assert vouched(masked, on("b"))["painted"] == vouched(masked)["painted"]
    assert vouched(masked) != vouched(on("a", "mask", boxes=[(1, 2, 3, 5)]))
    assert vouched(masked) != vouched(masked, keyring=Keyring(KEYRING.secret, "another release"))
    assert ActiveDecisions.of_all([masked]).vouched("00001", KEYRING) == {}
