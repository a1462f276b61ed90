"""A network that ships as one ONNX file, with its terms and the arrays that belong to it in the file's metadata."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray

from anonlib.errors import ModelUnusable
from anonlib.synthesis.base import DecoderNotes


@dataclass(frozen=True)
class NetworkFile:
    """Terms, `arrays` in single precision, the input's `shape` after the batch axis, `outputs` by name, sha256."""

    about: DecoderNotes
    arrays: dict[str, NDArray[np.float32]]
    shape: tuple[int, ...]
    outputs: tuple[str, ...]
    digest: str


def metadata_of(version: int, about: DecoderNotes, arrays: Mapping[str, NDArray[np.floating]]) -> dict[str, str]:
    """What such a file says beside its network; arrays keep their precision."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict[str, NDArray[np.floating]](arrays))  # type: ignore[arg-type]  # not allow_pickle
    text = json.dumps({"version": version, **asdict(about)}, sort_keys=True)
    return {"about": text, "arrays": base64.b64encode(buffer.getvalue()).decode()}


def read_network(data: bytes, version: int) -> NetworkFile:
    """What the file's bytes say of themselves; raises ModelUnusable."""
    try:
        model = onnx.load_model_from_string(data)
        notes = {one.key: one.value for one in model.metadata_props}
        about = json.loads(notes["about"])
        own = about.pop("version")
        if own != version:
            raise ModelUnusable(f"the network is of version {own} and this anonlib reads {version}")
        with np.load(io.BytesIO(base64.b64decode(notes["arrays"])), allow_pickle=False) as stored:
            arrays = {name: stored[name].astype(np.float32) for name in stored.files}
        shape = tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:])
        outputs = tuple(one.name for one in model.graph.output)
        return NetworkFile(DecoderNotes(**about), arrays, shape, outputs, hashlib.sha256(data).hexdigest())
    except (ValueError, KeyError, TypeError, IndexError, OSError, DecodeError, zipfile.BadZipFile) as error:
        raise ModelUnusable("the network is damaged, or of another kind") from error
