"""Sources of faces that a test knows everything about: one face for all, and decoders that learned nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.clustering import normalized
from anonlib.synthesis.base import DecoderNotes, IdentityDraw, PublicFaces
from anonlib.synthesis.canonical import shape_model
from anonlib.synthesis.textures.average import Texture
from anonlib.synthesis.textures.face_space import region
from anonlib.synthesis.textures.ksame_net import LOOKS
from anonlib.synthesis.textures.linear import Decoder, to_bytes
from anonlib.workspace.schemas import EMBEDDING_DIM, MESH_POINTS


@dataclass
class OneFace:
    """Decodes every vector to the same face."""

    texture: Texture
    about = DecoderNotes("one face", "free", 1, True)
    digest = ""
    bank = PublicFaces(*(np.zeros((0, 1), np.float32),) * 3)

    def identity(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return normalized(vectors - vectors.mean(axis=0))

    def face(self, draw: IdentityDraw, k: int) -> Texture:
        return self.texture


def decoder_file(path: Path, faces: NDArray[np.float32]) -> Path:
    """A decoder with `faces` (n, 128) in its bank, that draws noise: for what needs a file and no likeness."""
    rng = np.random.default_rng(0)
    pixels, codes = 3 * int(region().sum()), 3
    centre = faces.mean(axis=0)
    arrays = {
        "detail_mean": np.zeros(pixels),
        "detail": 0.05 * rng.normal(size=(2, pixels)),
        "shape_mean": shape_model().mean.ravel(),
        "shape": np.zeros((1, 3 * MESH_POINTS)),
        "centre": centre,
        "axes": 10 * np.eye(5, EMBEDDING_DIM),
        "offset": np.zeros(5),
        "weights": rng.normal(size=(7, codes)),
        "intercept": np.zeros(codes),
        "stretch": np.ones(1),
        "bank_vectors": normalized(faces - centre),
        "bank_codes": rng.normal(size=(len(faces), codes)),
        **{f"bank_{name}": np.zeros(len(faces)) for name in ("female", "age", "happy")},
    }
    path.write_bytes(to_bytes(DecoderNotes("faces drawn by a program", "free", len(faces), True), arrays))
    return path


def network_file(path: Path, decoder: Path) -> Path:
    """A network that was never trained, over the decoder in a file."""
    from anonlib.training.export import generator_onnx
    from anonlib.training.objectives.generator_network import Generator

    linear = Decoder.from_bytes(decoder.read_bytes())
    looks = np.ones(len(LOOKS), np.float32)
    path.write_bytes(generator_onnx(Generator(linear, 0 * looks, looks, 128).eval(), linear.about, linear))
    return path
