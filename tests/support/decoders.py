"""A decoder fitted by the command on the demo's people, for every test that needs faces from vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from anonlib.cli import app
from anonlib.models.cache import model_bytes
from anonlib.synthesis.textures.linear import Decoder
from tests.support import photos

SHOTS = 3
TERMS = "Drawn by a program; anybody may use them."


@dataclass(frozen=True)
class Fit:
    """A decoder, where it lies, the photos it was fitted on, and what the command said."""

    decoder: Decoder
    path: Path
    source: Path
    said: str


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """`anonlib fit-decoder` on heads of the demo's 48 people, three each, and a photo of nobody."""
    folder = tmp_path_factory.mktemp("decoder")
    source = heads(folder / "heads.tar")
    path = folder / "decoder.npz"
    flags = ["--input", str(source), "--output", str(path), "--terms", TERMS, "--about", "demo heads"]
    done = CliRunner().invoke(app, ["fit-decoder", *flags])
    assert done.exit_code == 0, done.output
    return Fit(Decoder.from_bytes(path.read_bytes()), path, source, done.stdout)


def heads(path: Path, people: int = 48) -> Path:
    """A tar of generated heads, large and frontal, and a photo of nobody."""
    data = photos.demo()
    latents = np.stack([one.latent() for one in data.PEOPLE[:people]]).repeat(SHOTS, axis=0)
    noise = data.NOISE * np.random.default_rng(0).standard_normal(latents.shape)
    faces = data.generator_from_onnx(model_bytes("face-gan"))(data.TRUNCATION * latents + noise)
    content = photos.members("nobody", np.full((200, 200, 3), 90, np.uint8), {})
    for number, face in enumerate(faces):
        large = cv2.resize(face, (192, 192), interpolation=cv2.INTER_CUBIC)
        content += photos.members(f"{number:03d}", large, {})
    return photos.tar(path, content)
