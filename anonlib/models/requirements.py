"""What the models of a job need. They travel as bytes: the driver reads them once, workers fetch nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from anonlib.config import JobConfig
from anonlib.errors import ConfigError
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import Engine, Precision, has_bf16, load_engine

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
    """Raise ConfigError if this machine cannot compute in the detector's precision."""
    if job.detector.precision == "bf16" and not has_bf16():
        raise ConfigError("detector.precision is bf16, but this machine's CPU or OpenVINO has none; use f32")


def load(models: ModelBytes, name: str, job: JobConfig, precision: Precision = "f32") -> Engine:
    """The engine of one model, one thread, on a GPU if the job gives the actor one."""
    return load_engine(models[name], device=device_of(job), precision=precision)


def device_of(job: JobConfig) -> str:
    """Where the networks of a job's actors run."""
    return "cuda" if job.ray.num_gpus > 0 else "cpu"
