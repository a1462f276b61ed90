"""Another person's features, put into a face that keeps its looks: machine evasion after Hanawa et al. 2024.

Recognizers then read less of the person and more of the donor; people still recognize the face, so nothing is claimed.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np

from anonlib.errors import ModelUnusable
from anonlib.models.catalog import InputSpec
from anonlib.privacy.clustering import normalized
from anonlib.synthesis import crops
from anonlib.synthesis.base import Floats, Pixels
from anonlib.synthesis.compositor import Rendered
from anonlib.synthesis.network_file import Network, read_network

SIDE, FLOW_SIDE = crops.SIDE, 16
MOST_CHANGE, MOST_SHIFT = 0.4, 6.0
"""The most that a px may be tinted, of 0-1, and fetched from beside it, in px of the crop."""
POINTS = np.array(InputSpec((SIDE, SIDE), "points", 1.115, -0.142).landmarks(), np.float32)
"""Where the five points lie in the crop: as in dlib's, which shows brows to chin and little else."""
TRAINED_AGAINST = ("dlib-resnet", "mobileface")
"""The recognizers whose gradients its training used (see its card): they do not judge it."""
_STORED = ("centre", "donors", "female", "age")


@dataclass(frozen=True, kw_only=True)
class FeatureTransferNetwork(Network):
    """`donors` (b, d) unit rows of the identity space, their `female` (0-1) and `age` (b,). The network takes float32
    (n, 3, SIDE + 1, SIDE), see `network_input`, and answers with tints (n, 3, SIDE, SIDE) and shifts (n, 2, FLOW_SIDE,
    FLOW_SIDE)."""

    donors: Floats
    female: Floats
    age: Floats

    def render(self, image: Pixels, mesh: Floats, way: Floats) -> Rendered:
        """A face of a photo (H, W, 3) with `mesh` (468, 3) px, changed along a `way` (d,): donor less person."""
        pixels, matrix = crops.take(image, mesh, POINTS)
        tints, shifts = self.engine(network_input(pixels, way)[None])
        return crops.change(image, mesh, matrix, 255 * tints[0].transpose(1, 2, 0), shifts[0].transpose(1, 2, 0))

    @classmethod
    def from_bytes(cls, data: bytes, device: str = "cpu") -> FeatureTransferNetwork:
        """The network in a file's bytes, to run on `device`; raises ModelUnusable if they are damaged or another's."""
        about, (centre, donors, female, age), shape, outputs = read_network(data, _STORED, "embedding")
        if shape != (3, SIDE + 1, SIDE) or len(outputs) != 2:
            raise ModelUnusable("the network is none of embedding")
        columns = {"donors": normalized(donors), "female": female, "age": age}
        return cls(about=about, centre=centre, data=data, device=device, **columns)


def shipped() -> bytes:
    """The network that comes with anonlib; its terms are in it."""
    return resources.files("anonlib.synthesis").joinpath("shipped/feature-transfer.onnx").read_bytes()


def network_input(crop: Pixels, way: Floats) -> Floats:
    """(3, SIDE + 1, SIDE): a crop (SIDE, SIDE, 3) in 0-1 and, under it, a way (SIDE,)."""
    packed = np.zeros((3, SIDE + 1, SIDE), np.float32)
    packed[:, :SIDE] = crop.transpose(2, 0, 1) / np.float32(255)
    packed[0, SIDE] = way
    return packed
