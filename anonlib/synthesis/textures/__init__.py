"""Where the texture of a surrogate comes from: one file a texture, and its line in TEXTURES.

The files are imported where their texture is used, since they load OpenCV.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from anonlib.errors import ModelUnusable

if TYPE_CHECKING:
    from anonlib.synthesis.base import FaceDecoder


@dataclass(frozen=True)
class TextureEntry:
    """`decoder`: `module:class` of what decodes it, empty: it is averaged from portraits. `ships`: with its file.
    `fixed`: it is that file and no other, since a release is checked against it."""

    decoder: str = ""
    ships: bool = False
    fixed: bool = False

    def load(self) -> type[FaceDecoder]:
        """The class that decodes this texture."""
        module, _, name = self.decoder.partition(":")
        decoder: type[FaceDecoder] = getattr(import_module(module), name)
        return decoder


TEXTURES = {
    "average": TextureEntry(),
    "gallery": TextureEntry("anonlib.synthesis.textures.gallery:Gallery", ships=True, fixed=True),
    "linear": TextureEntry("anonlib.synthesis.textures.linear:Decoder"),
    "bank": TextureEntry("anonlib.synthesis.textures.linear:BankMixer"),
    "ksame-net": TextureEntry("anonlib.synthesis.textures.ksame_net:NetworkDecoder", ships=True),
}


def decoder_class(data: bytes) -> type[FaceDecoder]:
    """What reads a decoder's file: the first of TEXTURES that says so; raises ModelUnusable."""
    for entry in TEXTURES.values():
        if entry.decoder and (decoder := entry.load()).reads(data):
            return decoder
    raise ModelUnusable("the decoder is of no texture that this anonlib has")
