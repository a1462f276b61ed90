"""What decisions do to a release: which images they change, and by which digest a marker vouches for them.

A marker that names other decisions than those that stand is of a shard to be made again, which is how `render` and
`run` find out. Who decided and when does not count, so the same decisions give the same bytes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from anonlib.codes import Problem, Reason
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.stages.render_state import FaceState, ImageState
from anonlib.workspace.decisions import WORDS, Decision, DecisionLog, latest

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
        for one in decisions:
            shards[one.shard][one.key] = one
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
        decided = sorted(self.shards.get(shard, {}).values(), key=lambda one: one.key)
        parts = {"decisions": decided, "painted": [one for one in decided if one.verdict != "confirmed"]}
        return {
            name: keyring.digest(Purpose.REVIEW, name, shard, json.dumps(list(_spoken(part)))).hex()
            for name, part in parts.items()
            if part
        }


def _spoken(decisions: Iterable[Decision]) -> Iterator[list[object]]:
    return ([one.key, one.verdict, one.boxes] for one in decisions)


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
