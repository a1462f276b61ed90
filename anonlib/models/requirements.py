"""What the models of a job need. They travel as bytes: the driver reads them once, workers fetch nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from anonlib.config import JobConfig
from anonlib.errors import ConfigError, ModelUnusable
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import Engine, Placement, Precision, has_bf16, load_engine

ModelBytes = Mapping[str, bytes]
_RESTRICTED = re.compile(
    r"\bA?GPL|Affero|(?<!Lesser )(?<!Library )General Public"
    r"|non.?commercial|not? (for )?commercial|(?<![a-z])NC(?![a-z])|research|academic",
    re.IGNORECASE,
)
"""Terms that bind what a network makes, or its use. The LGPL binds copies of the network, and a release has none."""
_SHOWN = 80
"""Characters of a network's terms that are shown and certified."""


def check_licences(names: Iterable[str], job: JobConfig) -> None:
    """Raise ConfigError if a model's weights are non-commercial and the job does not accept them by name."""
    for name in names:
        model = MODELS[name]
        if not model.commercial and name not in job.accept_licences:
            raise ConfigError(
                f"the weights of {name} are {model.licence}, not for commercial use; "
                f"if that is allowed here, add {name} to accept_licences"
            )


def read_graph(data: bytes) -> tuple[Any, list[list[int | None]]]:
    """The graph of a user's ONNX file, and the shapes of its inputs, None for a free side. Raises ModelUnusable."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        graph = onnx.load_model_from_string(data).graph
    except (DecodeError, ValueError) as error:
        raise ModelUnusable(f"it cannot be read as ONNX: {error}") from None
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value.type.tensor_type.shape.dim for value in graph.input if value.name not in weights]
    return graph, [[side.dim_value or None for side in sides] for sides in inputs]


def input_size(data: bytes, kind: str, outputs: int | None = None) -> tuple[int, int] | None:
    """The (H, W) of the image that a user's ONNX takes, None where it takes any.

    Raises ModelUnusable, as no network of this `kind`, if it takes something else, or has not that many `outputs`.
    """
    graph, shapes = read_graph(data)
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] != 3 or outputs not in (None, len(graph.output)):
        answers = f" and has {outputs} outputs" if outputs else ""
        raise ModelUnusable(f"it is no {kind}: that takes one image (1, 3, H, W){answers}")
    height, width = shapes[0][2:]
    return (height, width) if height and width else None


def own_terms(name: str, data: bytes, accepted: Collection[str]) -> str | None:
    """The terms that a user's ONNX states in its metadata, if it does.

    Raises ConfigError where these bind what is made with it, or forbid commercial use, and `name` is not in `accepted`.
    """
    import onnx

    properties = onnx.load_model_from_string(data).metadata_props
    terms = [" ".join(entry.value.split()) for entry in properties if "licen" in entry.key.lower()]
    stated = "; ".join(filter(None, terms))
    if (found := _RESTRICTED.search(stated)) and name not in accepted:
        start = max(found.start() - _SHOWN // 2, 0)
        raise ConfigError(
            f"your network {name} says in its metadata that it is under {stated[start : start + _SHOWN]!r}; if that is "
            f"allowed here, add {name} to accept_licences"
        )
    return stated[:_SHOWN] or None


def check_precision(job: JobConfig) -> None:
    """Raise ConfigError if this machine cannot compute as the job does."""
    if job.precision == "bf16" and not has_bf16():
        raise ConfigError(
            "the job computes in bf16, or began so (precision), and this machine's CPU or OpenVINO cannot; go on where "
            "one can, or begin anew with --precision f32 and another workspace and output"
        )


def best_precision(job: JobConfig) -> Precision:
    """What `precision: auto` is on this machine."""
    return "bf16" if device_of(job) == "cpu" and has_bf16() else "f32"


def placement(job: JobConfig) -> Placement:
    """Where the networks of a job's worker compute; `auto` is f32 until the job's workspace has pinned it."""
    return Placement(device_of(job), "bf16" if job.precision == "bf16" else "f32", job.ray.threads)


def load(models: ModelBytes, name: str, job: JobConfig) -> Engine:
    """The engine of one model, on the cores of a job's worker, or on a GPU if the job gives it one."""
    return load_engine(models[name], **vars(placement(job).of(name)))


def device_of(job: JobConfig) -> str:
    """Where the networks of a job's actors run."""
    return "cuda" if job.ray.num_gpus > 0 else "cpu"
