"""What a finished job comes to, counted from the markers of its release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Summary:
    """Counts of a finished job; `code` is the exit code, 0 or 3."""

    shards: int
    committed: int
    images: int
    released: int
    no_face: int
    quarantined: int
    faces: int
    fallbacks: int

    @classmethod
    def of(cls, shards: int, markers: Sequence[Mapping[str, Any]], **more: Any) -> Self:
        """Add up the release's markers, of so many shards in all."""
        names = ("images", "released", "no_face", "quarantined", "faces", "fallbacks")
        counts = {name: sum(int(marker[name]) for marker in markers) for name in names}
        return cls(shards, len(markers), **counts, **more)

    @property
    def code(self) -> int:
        return 0 if self.committed == self.shards and self.quarantined == 0 else 3
