"""Another person's features, put into a face that keeps its looks: machine evasion after Hanawa et al. 2024.

Recognizers then read less of the person and more of the donor; people still recognize the face, so nothing is claimed.
A change (tints and shifts) is applied to the photo itself, which stays as sharp as it was; a user's swapper (inswapper)
lays new px over it in its own colours. Both fade at the edge of the oval's first ring. A crop's `matrix` (2, 3) leads
from photo px to its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import cv2
import numpy as np

from anonlib.faces import align, topology
from anonlib.faces.mesh import five_points
from anonlib.models.catalog import ARCFACE_POINTS, InputSpec
from anonlib.models.packs import SWAPPER_SHIFT, SWAPPER_SIZE, Swap
from anonlib.privacy.clustering import normalized
from anonlib.synthesis.base import Floats, Mask, Pixels
from anonlib.synthesis.canonical import filled, sampled, vertices_of
from anonlib.synthesis.compositor import Rendered, in_its_colours
from anonlib.synthesis.network_file import Network, read_network
from anonlib.workspace.schemas import MESH_POINTS

SIDE, FLOW_SIDE = 128, 16
MOST_CHANGE, MOST_SHIFT = 0.4, 6.0
"""The most that a px may be tinted, of 0-1, and fetched from beside it, in px of the crop."""
POINTS = np.array(InputSpec((SIDE, SIDE), "points", 1.115, -0.142).landmarks(), np.float32)
"""Where the five points lie in the crop: as in dlib's, which shows brows to chin and little else."""
TRAINED_AGAINST = ("dlib-resnet", "mobileface")
"""The recognizers whose gradients its training used (see its card): they do not judge it."""
FEATHER = 3.0
"""Standard deviation in px of a crop of SIDE px by which the oval's edge is softened."""
_SWAPPER_POINTS = np.array(ARCFACE_POINTS, np.float32) + np.array([SWAPPER_SHIFT, 0.0], np.float32)
_WHOLE = 0.9
_LEAST_SPREAD = 4.0
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
        pixels, matrix = take(image, mesh, POINTS)
        tints, shifts = self.engine(network_input(pixels, way)[None])
        return change(image, mesh, matrix, 255 * tints[0].transpose(1, 2, 0), shifts[0].transpose(1, 2, 0))

    @classmethod
    def from_bytes(cls, data: bytes, device: str = "cpu") -> FeatureTransferNetwork:
        """The network in a file's bytes, to run on `device`."""
        about, (centre, donors, female, age) = read_network(data, _STORED)
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


def take(image: Pixels, mesh: Floats, points: Floats, side: int = SIDE) -> tuple[Pixels, align.Affine]:
    """The crop (side, side, 3) of a photo in which the five points of `mesh` (468, 3) fall on `points` (5, 2). Returned
    with its matrix."""
    matrix = align.similarity(five_points(mesh), points)
    return align.crop(image, matrix, side), matrix


def change(image: Pixels, mesh: Floats, matrix: align.Affine, tints: Floats, shifts: Floats) -> Rendered:
    """The photo with a face's px moved and tinted. `tints` (s, s, 3) grey levels are added; a px of the crop is fetched
    from `shifts` (any, any, 2) crop px beside it."""
    side = len(tints)
    place = _CropPlace.of(image, mesh, matrix, side)
    back = np.linalg.inv(matrix[:, :2].astype(np.float64)).astype(np.float32)
    full = np.asarray(cv2.resize(shifts, (side, side), interpolation=cv2.INTER_LINEAR), np.float32)
    moved = (sampled(full, place.grid) * place.alpha[..., None]) @ back.T
    rows, columns = np.mgrid[0 : place.view.shape[0], 0 : place.view.shape[1]].astype(np.float32)
    x, y = columns + moved[..., 0], rows + moved[..., 1]
    fetched = cv2.remap(place.view, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    return place.rendered(fetched + place.alpha[..., None] * in_its_colours(place.view, sampled(tints, place.grid)))


def replace(image: Pixels, mesh: Floats, matrix: align.Affine, pixels: Pixels) -> Rendered:
    """The photo with a face's px replaced by `pixels` (s, s, 3), in the mean and spread of the colours they replace.
    Colours after Reinhard et al. 2001, channel by channel in RGB, over what is replaced."""
    place = _CropPlace.of(image, mesh, matrix, len(pixels))
    laid = sampled(pixels.astype(np.float32), place.grid)
    weight = place.alpha[..., None] / max(float(place.alpha.sum()), 1e-6)
    old = place.view.astype(np.float32)
    means, spreads = [], []
    for picture in (old, laid):
        means.append((weight * picture).sum(axis=(0, 1)))
        spreads.append(np.sqrt((weight * (picture - means[-1]) ** 2).sum(axis=(0, 1))))
    gain = spreads[0] / np.maximum(spreads[1], _LEAST_SPREAD)
    recoloured = (laid - means[1]) * np.clip(gain, 0.5, 2.0) + means[0]
    return place.rendered(old + place.alpha[..., None] * (recoloured - old))


def swapped(image: Pixels, mesh: Floats, donor: Floats, swap: Swap) -> Rendered:
    """A face of a photo (H, W, 3) with `mesh` (468, 3) px, replaced by that of an ArcFace vector (512,) by `swap`."""
    pixels, matrix = take(image, mesh, _SWAPPER_POINTS, SWAPPER_SIZE)
    return replace(image, mesh, matrix, swap(pixels, donor))


def alpha_in_crop(mesh: Floats) -> Floats:
    """How far each px of a crop (SIDE, SIDE) may change, 0-1; `mesh` (468, 3) in px of the crop."""
    return _CropPlace.of(np.zeros((SIDE, SIDE, 3), np.uint8), mesh, np.eye(2, 3, dtype=np.float32), SIDE).alpha


@dataclass(frozen=True)
class _CropPlace:
    """Where a crop lies in its photo: the `view` (h, w, 3) at `origin`, the crop's px at each of its px, and alpha."""

    view: Pixels
    origin: tuple[int, int]
    grid: Floats
    alpha: Floats
    face: Mask

    @classmethod
    def of(cls, image: Pixels, mesh: Floats, matrix: align.Affine, side: int) -> _CropPlace:
        corners = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32)
        corners = align.apply(align.inverse(matrix), corners)
        size = [image.shape[1], image.shape[0]]
        x0, y0 = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, [size[0] - 1, size[1] - 1]).tolist()
        x1, y1 = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, [x0 + 1, y0 + 1], size).tolist()
        view = image[y0:y1, x0:x1]
        rows, columns = np.mgrid[y0:y1, x0:x1].astype(np.float32)
        grid = align.apply(matrix, np.stack([columns, rows], axis=-1))
        vertices = vertices_of(mesh)[:, :2] - np.array([x0, y0], np.float32)
        oval, ring = (
            filled(points, *view.shape[:2])
            for points in (vertices[list(topology.OVAL)], vertices[MESH_POINTS : MESH_POINTS + len(topology.OVAL)])
        )
        scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        feather = FEATHER * side / SIDE / max(scale, 1e-6)
        alpha = cv2.GaussianBlur(ring.astype(np.float32), (0, 0), max(feather, 0.5))
        edge = np.minimum(grid, side - 1 - grid).min(axis=-1)
        alpha = alpha * np.clip(edge / FEATHER, 0, 1)
        return cls(view, (x0, y0), grid, alpha.astype(np.float32), oval > 0)

    def rendered(self, pixels: Floats) -> Rendered:
        """New px (h, w, 3) of the view, and how much of the face they reach."""
        reached = float((self.alpha[self.face] >= _WHOLE).sum()) / max(int(self.face.sum()), 1)
        return Rendered(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), self.alpha, self.origin, reached)
