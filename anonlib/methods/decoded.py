"""What the two families that decode faces share: the decoder's file, its faces, and their names in a release.

The driver reads the file once, it travels as bytes like a model, and a worker opens it once.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import model_validator

from anonlib.config import JobConfig
from anonlib.errors import ConfigError, ModelUnusable, StorageError
from anonlib.methods.base import Method, MethodFile, MethodSettings
from anonlib.models.runtime import locked_cached_property
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.synthesis.base import FaceDecoder, FaceTexture, IdentityDraw
from anonlib.synthesis.textures import TEXTURES, TextureEntry, decoder_class

DECODER = "decoder"
"""The decoder's name among a job's models."""


class DecodedConfig(MethodSettings):
    """Settings of a method whose faces may be decoded from vectors."""

    DEFAULT: ClassVar[str] = "average"

    @property
    def texture_name(self) -> str:
        """The texture, or the method's own."""
        return self.texture or self.DEFAULT

    @property
    def entry(self) -> TextureEntry:
        """The texture's line in TEXTURES."""
        return TEXTURES[self.texture_name]

    @model_validator(mode="after")
    def _has_decoder(self) -> DecodedConfig:
        if self.entry.decoder and not self.decoder and not self.entry.ships:
            raise ValueError(f"{self.name} with this texture needs a decoder; make one with `anonlib fit-decoder`")
        return self


class DecodedMethod(Method):
    """Draws into faces, by the texture that the settings name."""

    Settings = DecodedConfig
    settings: DecodedConfig

    @locked_cached_property
    def decoder(self) -> FaceDecoder | None:
        """The opened file; None where faces are averaged. Raises ValueError where one is needed and did not come."""
        entry, data = self.settings.entry, self.files.get(DECODER)
        if not entry.decoder:
            return None
        if data is None:
            raise ValueError(f"{self.name} decodes faces, and no decoder came with the job")
        return entry.load().from_bytes(data, self.device)

    @property
    def required_decoder(self) -> FaceDecoder:
        """The same of a method whose faces are decoded; raises ValueError where they are averaged."""
        if self.decoder is None:
            raise ValueError(f"the texture {self.settings.texture_name} is averaged and decodes nothing")
        return self.decoder

    @property
    def file_digest(self) -> str:
        return self.decoder.digest if self.decoder else ""

    def recognizers_used(self) -> frozenset[str]:
        entry = self.settings.entry
        trained = entry.load().trained_against if entry.decoder else ()
        return super().recognizers_used() | set(trained)

    def decoded(self, draw: IdentityDraw) -> FaceTexture:
        """The face of a draw; the same draw gives the same face."""
        return self.required_decoder.face(draw, self.settings.k)

    def draw_name(self, draw: IdentityDraw, keyring: Keyring) -> str:
        """Names the face of a draw in a plan: 64 hex digits of decoder, texture and draw.

        Keyed: a plain digest would confirm a guess of the vector, and with it of the person.
        """
        of = self.required_decoder.digest, self.settings.texture_name, str(self.settings.k)
        drawn = (draw.vector, [draw.female, draw.age], draw.rows, draw.weights)
        return keyring.digest(
            Purpose.DRAWN_FACE, *of, *(np.asarray(numbers, "<f4").tobytes() for numbers in drawn)
        ).hex()

    def read_files(self, job: JobConfig) -> dict[str, MethodFile]:
        """The decoder; without a file of the user's own, the one that comes with anonlib."""
        from anonlib.storage import read_file

        entry, path = self.settings.entry, self.settings.decoder
        if not entry.decoder:
            return {}
        name, texture = path or self.settings.texture_name, entry.load()
        try:
            data = texture.shipped() if path is None else read_file(path, job.storage.options)
            found = texture if texture.reads(data) else decoder_class(data)
            decoder = found.from_bytes(data)
        except (StorageError, ModelUnusable) as error:
            raise ConfigError(f"the decoder {name} cannot be used: {error}") from None
        if found is not texture:
            raise ConfigError(f"the decoder {name} is {found.kind}; method.texture is {self.settings.texture_name}")
        licence = DECODER if path else self.settings.texture_name
        if not decoder.about.commercial and licence not in job.accept_licences:
            raise ConfigError(
                f"the decoder {name} was fitted on photos whose terms are: {decoder.about.terms}; "
                f"if that is allowed here, add {licence} to accept_licences; else use the texture average, or a "
                "decoder fitted on your own consented photos (`anonlib fit-decoder`)"
            )
        return {DECODER: MethodFile(data, decoder.about.terms)}
