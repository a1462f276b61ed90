"""A decision is there whole or not at all, and the last one on an image stands."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from anonlib.errors import StorageError
from anonlib.privacy.keys import Keyring
from anonlib.stages.rerender import ActiveDecisions
from anonlib.storage import open_storage
from anonlib.workspace.decisions import Decision, DecisionLog

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
