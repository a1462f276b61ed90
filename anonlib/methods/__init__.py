"""The methods: what may replace a face, what each proves, and what it needs. One file a family, one line a method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from anonlib.config import JobConfig, MethodConfig
from anonlib.methods.base import Method, alternatives
from anonlib.methods.feature_transfer import Embedding, Inswapper
from anonlib.methods.identity_draws import (
    BankSurrogate,
    DpLaplace,
    DpPurkayastha,
    DpUniform,
    DpVmf,
    Sampling,
)
from anonlib.methods.k_anonymity import KDiff, KSame
from anonlib.methods.redaction import Redaction
from anonlib.models.catalog import MODELS
from anonlib.synthesis.textures import TEXTURES

METHODS: dict[str, type[Method]] = {
    "k-diff": KDiff,
    "k-same": KSame,
    "dp-laplace": DpLaplace,
    "dp-vmf": DpVmf,
    "dp-purkayastha": DpPurkayastha,
    "dp-uniform": DpUniform,
    "sampling": Sampling,
    "surrogate": BankSurrogate,
    "embedding": Embedding,
    "inswapper": Inswapper,
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
    if name not in METHODS:
        expected = {"expected": alternatives(METHODS)}
        raise ValidationError.from_exception_data(
            "method", [{"type": "literal_error", "loc": ("name",), "input": name, "ctx": expected}]
        )
    settings = METHODS[name].Settings.model_validate(document)
    _refuse_foreign(settings, METHODS[name])
    return settings


def choices_of(key: str) -> tuple[str, ...]:
    """The values that a key of the job file may have, where its methods or textures say so."""
    return {"method.name": tuple(METHODS), "method.texture": tuple(TEXTURES)}.get(key, ())


def method_of(settings: MethodConfig, files: Mapping[str, bytes] | None = None, device: str = "cpu") -> Method:
    """The method of these settings."""
    return METHODS[settings.name](settings, files, device)


def models_of(job: JobConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The networks of the catalogue that scan and render of a job load, the detector first if it is one of them."""
    method = METHODS[job.method.name]
    detector = (job.detector.name,) if job.detector.name in MODELS else ()
    return (*detector, *method.describe), (*detector, *method.recheck) if method.recheck else ()


def _refuse_foreign(settings: MethodConfig, method: type[Method]) -> None:
    """Raise ValueError for keys that other methods require and this one does not, and for one that it lacks."""
    owners: dict[tuple[str, ...], list[str]] = {}
    for key in dict.fromkeys(key for other in METHODS.values() for key in other.required):
        if (getattr(settings, key, None) is not None) != (key in method.required):
            names = tuple(name for name, other in METHODS.items() if key in other.required)
            owners.setdefault(names, []).append(key)
    for names, keys in owners.items():
        belong = "belongs" if len(keys) == 1 else "belong"
        needed = ", which need it" if settings.name in names else ""
        raise ValueError(
            f"{' and '.join(keys)} {belong} to {' and '.join(names)}{needed}; the method is {settings.name}"
        )
