"""The evaluation of sources of faces, one after another, on the same photos of the same people, by the same judges."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.generators.cast import Participants
from anonlib.audit.generators.fidelity import Identity, Looks, Paintings, identity, looks
from anonlib.audit.generators.judges import REALISM, STANDING, Judges, joined
from anonlib.audit.generators.scanned import ScannedPhoto
from anonlib.audit.generators.sources import NOBODY, FaceSource
from anonlib.execution.base import UnitResult
from anonlib.models.catalog import PIPELINE_RECOGNIZER
from anonlib.workspace.schemas import MESH_POINTS

PAIRS = 150
"""Donors whose face is painted a second time, into another photo, if a source gives it the same identity there."""

_CHUNK = 32

Report = Callable[[str, UnitResult, int], None]


@dataclass(frozen=True)
class Measured:
    """A source's figures: `identity` by recognizer, and `looks`."""

    identity: dict[str, Identity]
    looks: Looks


class Evaluation:
    """Knows the people by the judges; `measure` paints and judges one source."""

    def __init__(self, cast: Participants, judges: Judges, report: Report = lambda stage, outcome, units: None) -> None:
        self.cast, self.judges, self.report = cast, judges, report
        self.gallery = self._known("people", cast.gallery, tuple(STANDING))
        self.real = self._known("others", cast.strangers, (REALISM,))[REALISM]

    def measure(self, source: FaceSource) -> Measured:
        """Everybody's face into another person's photo, and those of the first PAIRS into a third person's too."""
        cast, count = self.cast, len(self.cast)
        wishes = [source.wish(*one) for one in enumerate(cast.first.tolist())]
        more = [source.wish(*one) for one in enumerate(cast.second[:PAIRS].tolist())]
        again = np.array(
            [row for row, wish in enumerate(more) if wish.target == wishes[row].target != NOBODY], np.int64
        )
        wishes += [more[row] for row in again]
        hosts = np.concatenate([cast.first, cast.second[again]])
        photos = [cast.scenes[host] for host in hosts]
        parts, meant = [], np.full((len(hosts), MESH_POINTS, 3), np.nan, np.float32)
        for start in range(0, len(hosts), _CHUNK):
            began = time.monotonic()
            rows = range(start, min(start + _CHUNK, len(hosts)))
            painted = [source.paint(photos[row], wishes[row]) for row in rows]
            for row, one in zip(rows, painted, strict=True):
                if one.intended is not None:
                    meant[row] = one.intended
            parts.append(self.judges.look([photos[row] for row in rows], [one.image for one in painted]))
            self._say(source.name, start, len(rows), len(hosts), began)
        targets = np.array([wish.target for wish in wishes], np.int64)
        seen = joined(parts)
        yaws = np.array([photo.yaw for photo in photos], np.float32)
        first, second = (
            Paintings(targets[rows], hosts[rows], yaws[rows], seen.rows(rows))
            for rows in (slice(0, count), slice(count, None))
        )
        return Measured(
            {name: self._identity(source, name, first, second, again) for name in STANDING},
            looks(
                first,
                [wish.look for wish in wishes[:count]],
                np.stack([photo.expression for photo in photos[:count]]),
                meant[:count],
                np.stack([photo.mesh for photo in photos[:count]]),
                self.real,
            ),
        )

    def _identity(
        self, source: FaceSource, name: str, first: Paintings, second: Paintings, again: NDArray[np.int64]
    ) -> Identity:
        """By one recognizer: against the vectors that were decoded where they are its own, else against photos."""
        vectors = first.seen.vectors[name], second.seen.vectors[name]
        clear, targets = self.gallery[name], source.targets
        if targets is None:
            return identity(first, second, again, vectors, (clear[:0], np.zeros(0, np.int64)), clear)
        gallery = clear, targets.of_person
        if name == PIPELINE_RECOGNIZER:
            vectors = source.identity(vectors[0]), source.identity(vectors[1])
            clear = source.identity(clear)
            gallery = targets.vectors, np.arange(len(targets.vectors))
        return identity(first, second, again, vectors, gallery, clear)

    def _known(self, what: str, photos: Sequence[ScannedPhoto], names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The vectors of photos as they are, by the recognizers named."""
        parts = [self.judges.know([], names)]
        for start in range(0, len(photos), _CHUNK):
            began = time.monotonic()
            parts.append(self.judges.know(photos[start : start + _CHUNK], names))
            self._say(what, start, len(photos[start : start + _CHUNK]), len(photos), began)
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def _say(self, stage: str, start: int, done: int, of: int, began: float) -> None:
        outcome = UnitResult(str(start), images=done, faces=done, seconds=time.monotonic() - began)
        self.report(stage, outcome, -(-of // _CHUNK))
