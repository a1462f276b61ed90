"""What the models of a job need. They travel as bytes: the driver reads them once, workers fetch nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from anonlib.config import JobConfig
from anonlib.errors import ConfigError
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import Engine, Placement, Precision, has_bf16, load_engine

ModelBytes = Mapping[str, bytes]


def check_licences(names: Iterable[str], job: JobConfig) -> None:
    """Raise ConfigError if a model's weights are non-commercial and the job does not accept them by name."""
    for name in names:
        model = MODELS[name]
        if not model.commercial and name not in job.accept_licences:
            raise ConfigError(
                f"the weights of {name} are {model.licence}, not for commercial use; "
                f"if that is allowed here, add {name} to accept_licences"
            )


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
