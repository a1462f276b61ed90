"""A user's face swapper in the interface of insightface's inswapper: a donor's face in the target's crop.

anonlib ships no swapper: the weights are the user's, and so are their terms. The swapper sees the whole face that it
replaces, so the method claims nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anonlib.models.catalog import ARCFACE_POINTS
from anonlib.models.packs import SWAPPER_SHIFT, SWAPPER_SIZE, PackSwapper
from anonlib.storage.scratch import scratch
from anonlib.synthesis import crops
from anonlib.synthesis.compositor import Rendered

POINTS = np.array(ARCFACE_POINTS, np.float32) + np.array([SWAPPER_SHIFT, 0.0], np.float32)


class Swapper:
    """Renders faces by a swapper's ONNX bytes. Raises ModelUnusable; BackendMissing without insightface."""

    def __init__(self, data: bytes) -> None:
        # insightface reads files; it holds what it read
        with scratch() as folder:
            path = folder / "swapper.onnx"
            path.write_bytes(data)
            self._swapper = PackSwapper(path)

    def render(self, image: NDArray[np.uint8], mesh: NDArray[np.float32], donor: NDArray[np.float32]) -> Rendered:
        """A face of a photo (H, W, 3) with `mesh` (468, 3) px, replaced by that of an ArcFace vector (512,)."""
        crop = crops.take(image, mesh, POINTS, SWAPPER_SIZE)
        return crops.replace(image, mesh, crop, self._swapper.swap(crop.pixels, donor))
