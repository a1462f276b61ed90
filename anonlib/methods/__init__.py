"""The methods: what may replace a face, what each proves, and what it needs. One file a family, one line a method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from anonlib.config import JobConfig, MethodConfig
from anonlib.methods.base import Method
from anonlib.methods.feature_transfer import Embedding, Inswapper
from anonlib.methods.identity_draws import BankSurrogate, DpEpsilon, DpKappa, DpNoise, DpSubset, Sampling
from anonlib.methods.k_anonymity import KDiff, KSame
from anonlib.methods.redaction import Redaction
from anonlib.models.catalog import FACE_MODELS, MESH_MODELS, MODELS, REGION_MODELS
from anonlib.synthesis.textures import TEXTURES

METHODS: dict[str, type[Method]] = {
    "k-diff": KDiff,
    "k-same": KSame,
    "dp-laplace": DpEpsilon,
    "dp-vmf": DpKappa,
    "dp-purkayastha": DpEpsilon,
    "dp-uniform": DpNoise,
    "dp-subset": DpSubset,
    "sampling": Sampling,
    "surrogate": BankSurrogate,
    "embedding": Embedding,
    "inswapper": Inswapper,
    "fill": Redaction,
    "solid": Redaction,
    "blur": Redaction,
    "pixelate": Redaction,
}


def settings_of(document: Any) -> Any:
    """The settings that a job file's `method` gives, checked by its method; what is no mapping comes back as it is.

    Raises ValidationError or ValueError.
    """
    if not isinstance(document, Mapping):
        return document
    name = document.get("name", "k-diff")
    if not isinstance(name, str) or name not in METHODS:
        raise _not_one_of("name", name, METHODS)
    settings = METHODS[name].Settings.model_validate(document)
    if settings.texture not in (None, *TEXTURES):
        raise _not_one_of("texture", settings.texture, TEXTURES)
    method_of(settings).check()
    for key in dict.fromkeys(key for other in METHODS.values() for key in other.required):
        owners = [of for of in METHODS if key in METHODS[of].required]
        is_given = getattr(settings, key, None) is not None
        if name in owners and not is_given:
            raise ValueError(f"{name} needs a value of method.{key} (docs/methods.md says what it means)")
        if name not in owners and is_given:
            raise ValueError(f"{key} belongs to {' and '.join(owners)}; the method is {name}")
    return settings


def _not_one_of(key: str, value: object, names: Iterable[str]) -> ValidationError:
    *most, last = (f"'{name}'" for name in names)
    expected = {"expected": f"{', '.join(most)} or {last}"}
    return ValidationError.from_exception_data(
        "method", [{"type": "literal_error", "loc": (key,), "input": value, "ctx": expected}]
    )


def method_of(settings: MethodConfig, files: Mapping[str, bytes] | None = None, device: str = "cpu") -> Method:
    """The method of these settings."""
    return METHODS[settings.name](settings, files, device)


def models_of(job: JobConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The networks of the catalogue that scan and render of a job load, its detectors first that are among them."""
    method = METHODS[job.method.name]
    detectors = tuple(name for name in job.detector.searching.names if name in MODELS)
    render = (*detectors, *method.recheck, *(name for name in MESH_MODELS if name in method.describe))
    describe = FACE_MODELS if job.spare else method.describe
    hidden = tuple(REGION_MODELS[kind] for kind in job.hide if kind in REGION_MODELS)
    return (*detectors, *describe, *hidden), (*(render if method.recheck else ()), *hidden)
