"""How much a released face of a clip changes from frame to frame, over how much the original does: more is flicker."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anonlib.faces.embed import Recognizer
from anonlib.faces.regions import Regions
from anonlib.media.clip import Frame

MOST = 48
"""Frames of a track that are looked at, its first."""
LEAST = 6
"""Changes that a track must have to be counted."""


class Flicker:
    """Of each track two changes, of luminance (grey levels) and of the direction of `recognizer`'s vector."""

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self._last: dict[object, tuple[int, NDArray[np.float64]]] = {}
        self._changes: dict[object, list[NDArray[np.float64]]] = {}

    def add(self, track: object, old: Frame, new: Frame, place: Regions) -> None:
        """One more frame of a track, clear and released, with the region that was found there."""
        seen = self._changes.setdefault(track, [])
        if not place.scores[0] or len(seen) == MOST:
            return
        (x0, y0), (x1, y1) = np.maximum(np.rint(place.boxes[0]).astype(int).reshape(2, 2), 0).tolist()
        vectors = self._recognizer.embed([old.rgb, new.rgb], [place.landmarks[0]] * 2)
        light = [frame.rgb[y0 : y1 + 1, x0 : x1 + 1].mean(keepdims=True).ravel() for frame in (old, new)]
        values = np.stack([np.concatenate([one, vector]) for one, vector in zip(light, vectors, strict=True)])
        before, values = self._last.get(track), np.asarray(values, np.float64)
        if before is not None and before[0] == old.index - 1:
            moved = np.abs(values - before[1])
            seen.append(np.stack([moved[:, 0], np.linalg.norm(moved[:, 1:], axis=1)]))
        self._last[track] = old.index, values

    def end_clip(self) -> None:
        """Forget the last frames, whose tracks have ended."""
        self._last.clear()

    def words(self) -> str:
        """The two changes over the original's: the median of the tracks, and the most."""
        changes = [np.mean(seen, axis=0) for seen in self._changes.values() if len(seen) >= LEAST]
        if not changes:
            return ""
        ratios = np.array([change[:, 1] / np.maximum(change[:, 0], 1e-6) for change in changes])
        told = [f"{np.median(ratio):.2f} (at most {ratio.max():.2f})" for ratio in ratios.T]
        return (
            f"; from frame to frame the luminance of {len(changes):,} tracks changes {told[0]} times as much as "
            f"the original's, and the vector of {self._recognizer.name} {told[1]} times"
        )
