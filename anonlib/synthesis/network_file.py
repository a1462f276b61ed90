"""A network that ships as one ONNX file, with its terms and the arrays that belong to it in the file's metadata."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from anonlib.models.runtime import Engine, load_engine, locked_cached_property
from anonlib.privacy.clustering import normalized
from anonlib.synthesis.base import DecoderNotes, Floats

Arrays = Mapping[str, Floats]
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Network:
    """The network in a file's bytes, its terms, and the `centre` (d,) of its identity space."""

    about: DecoderNotes
    centre: Floats
    data: bytes = field(repr=False)
    device: str = "cpu"

    @cached_property
    def digest(self) -> str:
        """sha256 of the file, hex."""
        return hashlib.sha256(self.data).hexdigest()

    @locked_cached_property
    def engine(self) -> Engine:
        """The network, loaded where it is first used."""
        return load_engine(self.data, device=self.device)

    def identity(self, vectors: Floats) -> Floats:
        """Recognizer vectors (n, d), unit rows -> points of the identity space (n, d), unit rows."""
        return normalized(vectors - self.centre)


def metadata_of(about: DecoderNotes, single: Arrays, half: Arrays) -> dict[str, str]:
    """What such a file says beside its network: terms, arrays as they are, and arrays in half precision."""
    buffer = io.BytesIO()
    stored: dict[str, Any] = {**single, **{name: array.astype(np.float16) for name, array in half.items()}}
    np.savez_compressed(buffer, **stored)
    text = json.dumps({"version": _VERSION, **asdict(about)}, sort_keys=True)
    return {"about": text, "arrays": base64.b64encode(buffer.getvalue()).decode()}


def read_network(data: bytes, names: Sequence[str]) -> tuple[DecoderNotes, list[Floats]]:
    """What a file's bytes say: its terms, and the arrays of these names."""
    notes = {entry.key: entry.value for entry in onnx.load_model_from_string(data).metadata_props}
    about = {name: value for name, value in json.loads(notes["about"]).items() if name != "version"}
    with np.load(io.BytesIO(base64.b64decode(notes["arrays"])), allow_pickle=False) as stored:
        arrays = [stored[name].astype(np.float32) for name in names]
    return DecoderNotes(**about), arrays
