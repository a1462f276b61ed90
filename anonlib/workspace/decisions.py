"""What reviewers decided on a run's release: a log, one claimed file a decision, of which the last on an image wins."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from pydantic import Field, NonNegativeInt, ValidationError, model_validator

from anonlib.config import Frozen
from anonlib.errors import StorageError
from anonlib.storage import Storage
from anonlib.workspace.schemas import CONFIRMED, MASKED, WITHHELD

Verdict = Literal["confirmed", "mask", "withhold", "release_masked", "undone"]
WORDS = {"confirmed": CONFIRMED, "mask": MASKED, "release_masked": MASKED, "withhold": WITHHELD}
"""What the manifest says of a verdict."""

_READERS = 16
Box = tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt, NonNegativeInt]
"""x0, y0, x1, y1 in px of the upright image."""


class Decision(Frozen):
    """One verdict on the image `key` of `shard`, both as the input names them.

    confirmed: no face is left. mask: hide the missed faces in `boxes`. withhold: do not release this photo.
    release_masked: release a quarantined photo with the known faces and `boxes` hidden. undone: nothing is decided.
    `when` is UTC; `who` are initials.
    """

    shard: str
    key: str
    verdict: Verdict
    boxes: tuple[Box, ...] = ()
    who: str = Field(default="", max_length=40)
    when: str = ""

    @model_validator(mode="after")
    def _fits(self) -> Decision:
        if bool(self.boxes) != (self.verdict in ("mask", "release_masked")):
            raise ValueError("to mask takes at least one box, and nothing else takes any")
        if any(x1 <= x0 or y1 <= y0 for x0, y0, x1, y1 in self.boxes):
            raise ValueError("a box is x0, y0, x1, y1 with x0 < x1 and y0 < y1")
        return self


class DecisionLog:
    """The decisions on the release of one run, in a workspace."""

    def __init__(self, workspace: Storage, run: str) -> None:
        self.workspace, self.prefix = workspace, f"review/{run[:16]}/decisions/"

    def add(self, decision: Decision) -> None:
        """Append; raises StorageError."""
        data = decision.model_dump_json().encode() + b"\n"
        number = len(self._paths()) + 1
        while not self.workspace.claim(f"{self.prefix}{number:08d}.json", data):
            number += 1

    def entries(self, start: int = 0) -> list[Decision]:
        """All decisions in their order but the first `start`; raises StorageError where one cannot be read."""
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self._read, self._paths()[start:]))

    def latest(self) -> dict[tuple[str, str], Decision]:
        """(shard, key) -> the decision that stands; raises as entries."""
        return latest(self.entries())

    def _paths(self) -> list[str]:
        return [entry.path for entry in self.workspace.list(self.prefix)]

    def _read(self, path: str) -> Decision:
        try:
            return Decision.model_validate_json(self.workspace.read(path))
        except ValidationError:
            raise StorageError(f"the review decision {path} in {self.workspace.uri} cannot be read") from None


def latest(decisions: Iterable[Decision]) -> dict[tuple[str, str], Decision]:
    """(shard, key) -> the decision that stands, of decisions in their order."""
    active = {(decision.shard, decision.key): decision for decision in decisions}
    return {image: decision for image, decision in active.items() if decision.verdict != "undone"}
