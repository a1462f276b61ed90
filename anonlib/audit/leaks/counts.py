"""How many things a check looked at, how many it found, and the first few places by name."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from anonlib.audit.findings import LeakCheck

MOST_PLACES = 5


class LeakCounts:
    """Counts by check; `names` are all checks, so that one that never had anything to look at is there too."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._checked: Counter[str] = Counter()
        self._found: Counter[str] = Counter()
        self._places: dict[str, list[str]] = defaultdict(list)

    def count(self, name: str, where: str, found: bool) -> None:
        """One more thing looked at, at `where` of the release."""
        self._checked[name] += 1
        if found:
            self._found[name] += 1
            places = self._places[name]
            if where not in places and len(places) < MOST_PLACES:
                places.append(where)

    def checks(self, notes: Mapping[str, str]) -> list[LeakCheck]:
        """All of them, in order."""
        return [
            LeakCheck(
                name=name,
                checked=self._checked[name],
                found=self._found[name],
                where=tuple(self._places[name]),
                note=notes.get(name, ""),
            )
            for name in self.names
        ]
