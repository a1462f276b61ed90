"""From what a person types, like `linear:faces.npz`, to a source of faces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.generators.averaged import AverageSource
from anonlib.audit.generators.cast import Participants
from anonlib.audit.generators.scanned import ScannedPhoto
from anonlib.audit.generators.sources import (
    CLEAR,
    ClearSource,
    CropSource,
    DecodedSource,
    EmbeddingSource,
    FaceSource,
    Pixels,
    TextureDecoder,
)
from anonlib.errors import ConfigError, ModelUnusable
from anonlib.synthesis import feature_transfer
from anonlib.synthesis.base import FaceDecoder
from anonlib.synthesis.feature_transfer import FeatureTransferNetwork
from anonlib.synthesis.redact import redact
from anonlib.synthesis.textures import TEXTURES, decoder_class
from anonlib.synthesis.textures.average import Texture
from anonlib.synthesis.textures.ksame_net import NetworkDecoder
from anonlib.synthesis.textures.linear import Decoder

AVERAGE = "average"
EMBEDDING = "embedding"
REDACTIONS = ("pixelate", "blur", "solid")
DECODED = tuple(name for name, entry in TEXTURES.items() if entry.decoder)

Vectors = NDArray[np.float32]


class BankDecoder:
    """Answers with the mean of the `k` faces of a decoder's bank that are nearest to the vector."""

    def __init__(self, decoder: Decoder, k: int) -> None:
        self.decoder, self.k = decoder, k

    def identity(self, vectors: Vectors) -> Vectors:
        return self.decoder.identity(vectors)

    def decode(self, z: NDArray[np.float32], female: float, age: float) -> Texture:
        return self.decoder.bank.mix(self.decoder.bank.nearest(z, self.k, female, age))


def redaction(name: str, cast: Participants) -> CropSource:
    """One of REDACTIONS."""

    def change(photo: ScannedPhoto, donor: int) -> Pixels:
        image = photo.rgb.copy()
        redact(image, photo.box, name)
        return image

    return CropSource(name, cast, change)


def read_decoder(spec: str) -> FaceDecoder | None:
    """The decoder that a spec like `linear:FILE` names, None if it names none; raises ConfigError.

    `ksame-net` without a file is the network that comes with anonlib.
    """
    kind, _, path = spec.partition(":")
    if kind not in DECODED:
        return None
    entry = TEXTURES[kind]
    if not path and not entry.ships:
        raise ConfigError(f"{kind} draws with a decoder; name its file, as in {kind}:faces.npz")
    try:
        data = Path(path).read_bytes() if path else entry.load().shipped()
        decoder = decoder_class(data).from_bytes(data)
    except OSError as error:
        raise ConfigError(f"the decoder {path or kind} cannot be read: {error.strerror}") from None
    except ModelUnusable as error:
        raise ConfigError(f"the decoder {path or kind} cannot be used: {error}") from None
    if not entry.load().reads(data):
        raise ConfigError(f"the decoder {path} is not of the kind that {kind} draws with")
    return decoder


def texture_decoder(spec: str, k: int, *, threads: int = 1, device: str = "cpu") -> TextureDecoder | None:
    """What decodes vectors for a spec, None if it is a source that takes none; raises ConfigError.

    `threads` and `device` are for a network; the others take as many threads as their libraries may.
    """
    decoder = read_decoder(spec)
    if isinstance(decoder, NetworkDecoder):
        return replace(decoder, threads=threads, device=device)
    if isinstance(decoder, Decoder) and spec.startswith("bank"):
        return BankDecoder(decoder, k)
    return decoder


def open_sources(specs: Sequence[str], cast: Participants, k: int) -> dict[str, FaceSource]:
    """Spec -> source, for specs like clear, average, linear:FILE, ksame-net or a redaction; raises ConfigError.

    A source is called by its kind, and by its file too where two of a kind are compared.
    """
    kinds = Counter(spec.partition(":")[0] for spec in specs)
    return {spec: _open(spec, cast, k, kinds[spec.partition(":")[0]] > 1) for spec in specs}


def _open(spec: str, cast: Participants, k: int, ambiguous: bool) -> FaceSource:
    decoder = texture_decoder(spec, k)
    if decoder is not None:
        kind, _, path = spec.partition(":")
        return DecodedSource(f"{kind} {Path(path).stem}".rstrip() if ambiguous else kind, cast, decoder)
    if spec == CLEAR:
        return ClearSource(cast)
    if spec == AVERAGE:
        return AverageSource(cast, k)
    if spec == EMBEDDING:
        return EmbeddingSource(cast, FeatureTransferNetwork.from_bytes(feature_transfer.shipped()))
    if spec in REDACTIONS:
        return redaction(spec, cast)
    shipped = (name for name, entry in TEXTURES.items() if entry.ships)
    known = ", ".join((AVERAGE, *(f"{kind}:FILE" for kind in DECODED), *shipped, EMBEDDING, *REDACTIONS))
    raise ConfigError(f"{spec} is no source of faces; it is one of {known}")
