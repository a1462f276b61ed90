"""What a report says of a release before anything is attacked: counts, claim, models, software; from its own files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from anonlib import __version__
from anonlib.audit.findings import ClaimSection, ModelUse, ReleaseCounts
from anonlib.codes import meaning_of
from anonlib.methods import METHODS
from anonlib.models.catalog import MODELS
from anonlib.storage import Storage
from anonlib.verification.certificate import Certificate
from anonlib.verification.parsing import rows_of, shards_of
from anonlib.workspace import tables
from anonlib.workspace.layout import JobStores, render_store
from anonlib.workspace.schemas import CERTIFIED_CLASSES, CLASSES_TABLE, QUARANTINED

LIBRARIES = ("numpy", "opencv-python-headless", "onnxruntime", "openvino", "torch", "pyarrow", "faiss-cpu", "scipy")
"""Whose versions a figure may depend on."""


def counts_of(stores: JobStores, run: str, shards: Iterable[str]) -> ReleaseCounts:
    """Images and faces of the manifests, and why any is an exception, as the workspace says; `run` of run.json."""
    images: Counter[str] = Counter()
    methods: Counter[str] = Counter()
    fallbacks: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    number = 0
    for shard in shards_of(stores.release, shards):
        number += 1
        rendered = render_store(stores, run).faces(shard.shard)
        for row in tables.from_bytes(shard.manifest, ["key", "status", "reason", "faces"]).to_pylist():
            images[row["status"]] += 1
            if row["status"] == QUARANTINED:
                reasons[without_numbers(meaning_of(row["reason"]))] += 1
                continue
            for face in rendered.get(row["key"], ()):
                methods[face["method"]] += 1
                if face["fallback"] is not None:
                    fallbacks[f"{face['fallback']}: {without_numbers(face['reason'])}"] += 1
    return ReleaseCounts(
        shards=number,
        images=images.total(),
        released=images["released"],
        no_face=images["no_face"],
        quarantined=images[QUARANTINED],
        faces=methods.total(),
        methods=dict(methods.most_common()),
        fallbacks=dict(fallbacks.most_common()),
        quarantine_reasons=dict(reasons.most_common()),
    )


def claim_of(release: Storage, certificate: Certificate) -> ClaimSection:
    """The certificate's claim and, for classes, how many have how many people."""
    claim = certificate.claim
    sizes: Counter[int] = Counter()
    effective: Counter[int] = Counter()
    if CLASSES_TABLE in (table.path for table in certificate.tables):
        for row in rows_of(release.read(CLASSES_TABLE), CERTIFIED_CLASSES, CLASSES_TABLE):
            sizes[row["k"]] += 1
            effective[row["effective_k"]] += 1
    return ClaimSection(
        kind=claim.kind,
        text=str(claim),
        k=claim.k,
        class_sizes=dict(sorted(sizes.items())),
        effective_sizes=dict(sorted(effective.items())),
        epsilon=claim.epsilon,
        epsilon_unit=claim.metric or "",
    )


def models_of(certificate: Certificate, judges: Collection[str]) -> tuple[ModelUse, ...]:
    """What made the release, as its certificate has it, and what judged it."""
    licences = {name: (model["licence"], model["sha256"]) for name, model in sorted(certificate.models.items())}
    catalogue = {name: (MODELS[name].licence, MODELS[name].sha256) for name in sorted(judges)}
    uses: tuple[tuple[Literal["release", "audit"], dict[str, tuple[str, str]]], ...]
    uses = (("release", licences), ("audit", catalogue))
    return tuple(
        ModelUse(
            name=name,
            role=str(MODELS[name].role) if name in MODELS else name,
            licence=licence,
            commercial=MODELS[name].commercial if name in MODELS else None,
            sha256=sha256,
            used_for=purpose,
        )
        for purpose, models in uses
        for name, (licence, sha256) in models.items()
    )


def settings_of(certificate: Certificate) -> dict[str, str | int | float | bool | None]:
    """The method's settings that mean something to a reader."""
    method = certificate.method
    keys = METHODS[method["name"]].keys
    return {"name": method["name"], **{key: method[key] for key in keys if method.get(key) is not None}}


def software() -> dict[str, str]:
    """anonlib and the libraries that are installed here, with their versions."""
    found = {"anonlib": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def without_numbers(reason: str | None) -> str:
    """A reason as a kind of reason: its numbers do not make it another one."""
    return re.sub(r"\d+(\.\d+)?", "N", reason or "no reason given")
