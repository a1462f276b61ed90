"""Where the texture of a surrogate comes from: one file a texture, and its line in TEXTURES.

The files are imported where their texture is used, since they load OpenCV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from anonlib.synthesis.base import FaceDecoder


class TextureEntry(NamedTuple):
    """`decoder`: `module:class` of what decodes it, empty: it is averaged from portraits. `has_faces`: its bank has
    faces that are shown as they are, and a release is checked against them."""

    decoder: str = ""
    has_faces: bool = False

    def load(self) -> type[FaceDecoder]:
        """The class that decodes this texture."""
        module, _, name = self.decoder.partition(":")
        decoder: type[FaceDecoder] = getattr(import_module(module), name)
        return decoder


TEXTURES = {
    "average": TextureEntry(),
    "gallery": TextureEntry("anonlib.synthesis.textures.gallery:Gallery", has_faces=True),
    "ksame-net": TextureEntry("anonlib.synthesis.textures.ksame_net:NetworkDecoder"),
}
