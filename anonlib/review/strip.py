"""A clip as one picture that a person can judge: frames from beginning to end, and of every track at least one."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.audit.missed_faces import faces_at
from anonlib.codes import Reason
from anonlib.config import LimitsConfig
from anonlib.errors import ImageProblem
from anonlib.media.clip import frames_in
from anonlib.workspace.tables import Row

COLUMNS, EVEN, MOST = 3, 12, 24
"""Frames side by side, how many are spread over the clip, and how many there are at most."""
_WIDTH = 640


class Strip:
    """Where the frames of a clip's MANIFEST row lie in its strip: of `size` (H, W), each `scale` times its own size."""

    def __init__(self, row: Row) -> None:
        if not row["frames"]:
            raise ImageProblem(Reason.NO_VIDEO, "the clip was not read to its end, so no frame of it is shown")
        self.row = row
        even = np.linspace(0, row["frames"] - 1, min(EVEN, row["frames"])).round().astype(int).tolist()
        unseen = (face for face in row["faces"] if not any(face["first"] <= frame <= face["last"] for frame in even))
        more = [(face["first"] + face["last"]) // 2 for face in unseen]
        self.frames = sorted({*even, *more[: MOST - len(even)]})
        self.scale = min(1.0, _WIDTH / row["width"])
        self._cell = round(row["height"] * self.scale), round(row["width"] * self.scale)
        columns = min(COLUMNS, len(self.frames))
        self.size = self._cell[0] * -(-len(self.frames) // columns), self._cell[1] * columns

    def _origin(self, place: int) -> tuple[int, int]:
        """Where the frame at a place of `frames` lies, x and y."""
        return place % COLUMNS * self._cell[1], place // COLUMNS * self._cell[0]

    def faces(self) -> list[dict[str, Any]]:
        """The faces of the frames shown, their boxes in px of the strip."""
        shown = []
        for place, frame in enumerate(self.frames):
            offset = np.tile(self._origin(place), 2)
            for face, box in faces_at(self.row, frame):
                inside = np.rint(box * self.scale + offset).astype(int).tolist()
                shown.append({"box": inside, "method": face["method"], "fallback": face["fallback"]})
        return shown

    def picture(self, data: bytes, limits: LimitsConfig) -> NDArray[np.uint8]:
        """The strip (H, W, 3) of a clip's file; raises ImageProblem."""
        whole = np.zeros((*self.size, 3), np.uint8)
        for frame in frames_in(data, limits):
            if frame.index in self.frames:
                x, y = self._origin(self.frames.index(frame.index))
                small = cv2.resize(frame.rgb, self._cell[::-1], interpolation=cv2.INTER_AREA)
                whole[y : y + self._cell[0], x : x + self._cell[1]] = small
        return whole
