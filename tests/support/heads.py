"""Generated heads of the demo's people, for what learns from photos of faces."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from anonlib.models.cache import model_bytes
from tests.support import photos

SHOTS = 3
TERMS = "Drawn by a program; anybody may use them."


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
