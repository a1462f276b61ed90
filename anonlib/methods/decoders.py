"""The decoder file of a job: the driver reads it once, it travels as bytes like a model, a worker opens it once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.config import JobConfig, MethodConfig
from anonlib.errors import ConfigError, ModelUnusable, StorageError
from anonlib.models.requirements import device_of
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.storage import open_storage
from anonlib.synthesis.base import FaceDecoder, FaceTexture
from anonlib.synthesis.textures.face_bank import FaceBank
from anonlib.synthesis.textures.ksame_net import NetworkDecoder, shipped
from anonlib.synthesis.textures.linear import Decoder
from anonlib.workspace.layout import storage_options

DECODER = "decoder"
"""Its name among a job's models."""
SHIPPED = "ksame-net"
"""The texture and the licence of the network that comes with anonlib."""


@dataclass(frozen=True)
class IdentityDraw:
    """A face to be decoded: `vector` (d,) unit in the identity space, as `female` (0-1) and as old (years) as asked.

    `rows` and `weights` name faces of the decoder's bank instead, where the mechanism chose them itself.
    """

    vector: NDArray[np.float32]
    female: float
    age: float
    rows: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()


def draw_of(row: Mapping[str, Any]) -> IdentityDraw:
    """A draw as the tables hold it."""
    rows, weights = row["rows"] or (), row["weights"] or ()
    return IdentityDraw(np.array(row["vector"], np.float32), row["female"], row["age"], tuple(rows), tuple(weights))


def read_decoder(job: JobConfig) -> bytes | None:
    """The bytes of the job's decoder file, None if its method needs none; raises ConfigError.

    Without a file of the user's own, ksame-net is the network that comes with anonlib.
    """
    method = job.method
    if not method.needs_decoder:
        return None
    where, accepted = method.decoder or SHIPPED, DECODER if method.decoder else SHIPPED
    try:
        data = shipped() if method.decoder is None else read_file(method.decoder, job)
        decoder = open_decoder(data)
    except (StorageError, ModelUnusable) as error:
        raise ConfigError(f"the decoder {where} cannot be used: {error}") from None
    if isinstance(decoder, NetworkDecoder) != (method.texture_name == SHIPPED):
        kind = "a network, whose texture is ksame-net" if isinstance(decoder, NetworkDecoder) else "no network"
        raise ConfigError(f"the decoder {where} is {kind}; method.texture is {method.texture_name}")
    if decoder.about.needs_acceptance and accepted not in job.accept_licences:
        raise ConfigError(
            f"the decoder {where} was fitted on photos whose terms are: {decoder.about.terms}; "
            f"if that is allowed here, add {accepted} to accept_licences; else use the texture average, or a decoder "
            "fitted on your own consented photos (`anonlib fit-decoder`)"
        )
    return data


def open_decoder(data: bytes, device: str = "cpu") -> FaceDecoder:
    """The linear decoder or the network, to run on `device`, in a file's bytes; raises ModelUnusable."""
    return Decoder.from_bytes(data) if data[:2] == b"PK" else NetworkDecoder.from_bytes(data, device)


def terms_of(data: bytes) -> str:
    """The terms of the photos that a decoder was fitted on."""
    return open_decoder(data).about.terms


def read_file(uri: str, job: JobConfig) -> bytes:
    """The bytes of a file that the job names, on disk or S3; raises StorageError."""
    folder, _, name = uri.rpartition("/")
    return open_storage(folder or ("/" if uri.startswith("/") else "."), storage_options(job)).read(name)


class FaceDecoderSet:
    """Draws into textures, by the texture that the method names."""

    def __init__(self, data: bytes, method: MethodConfig, device: str = "cpu") -> None:
        self.decoder = open_decoder(data, device)
        self.method = method

    def identity(self, template: NDArray[np.float32]) -> NDArray[np.float32]:
        """A unit template (d,) as a point of the decoder's identity space (d,)."""
        return np.asarray(self.decoder.identity(template[None])[0], np.float32)

    def texture(self, draw: IdentityDraw) -> FaceTexture:
        """The face of a draw; the same draw gives the same face."""
        bank = self.decoder.bank
        if isinstance(bank, FaceBank) and draw.rows:
            return bank.mix(draw.rows, draw.weights)
        if isinstance(bank, FaceBank) and self.method.texture_name == "bank":
            return bank.mix(bank.nearest(draw.vector, self.method.k, draw.female, draw.age))
        return self.decoder.decode(draw.vector, draw.female, draw.age)

    def digest(self, draw: IdentityDraw, keyring: Keyring) -> str:
        """Names the face of a draw in a release: 64 hex digits of decoder, texture and draw.

        Keyed: a plain digest would confirm to everybody a guess of the vector, and with it of the person.
        """
        of = self.decoder.digest, self.method.texture_name, str(self.method.k)
        drawn = (draw.vector, [draw.female, draw.age], draw.rows, draw.weights)
        return keyring.digest(
            Purpose.DRAWN_FACE, *of, *(np.asarray(numbers, "<f4").tobytes() for numbers in drawn)
        ).hex()


def face_decoders_of(models: Mapping[str, bytes], job: JobConfig) -> FaceDecoderSet | None:
    """The painter of a stage that got the decoder among its models."""
    return FaceDecoderSet(models[DECODER], job.method, device_of(job)) if DECODER in models else None
