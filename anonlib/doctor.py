"""The doctor: everything that a job needs and that can be known before it costs hours, each with what to do about it.

It really tries: Ray is started, models are hashed, files are written, claimed twice and deleted under a name of ours.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Literal, NamedTuple

from anonlib.config import JobConfig
from anonlib.datasets import Dataset, Shard, label, open_input
from anonlib.errors import ConfigError, DatasetError, ModelMissing, ModelUnusable, SandboxUnavailable, StorageError
from anonlib.execution.capacity import ClusterNode, actor_capacity, check_shape
from anonlib.execution.ray import joins, machines, start
from anonlib.job import detector_files, preflight
from anonlib.media.sandbox.confinement import LAYERS
from anonlib.media.sandbox.process import sandbox_layers
from anonlib.methods import method_of, models_of
from anonlib.models.cache import cache_dir, model_bytes
from anonlib.models.catalog import SETS
from anonlib.stages.scan import Beside
from anonlib.storage import Storage, open_storage
from anonlib.workspace.layout import SECRET, JobStores, open_stores
from anonlib.workspace.secrets import try_secret

_LITTLE_DISK = 4 << 30  # bytes


class CheckResult(NamedTuple):
    """One line: how it stands, what it is about, what was found, and what to do."""

    level: Literal["ok", "warning", "problem"]
    what: str
    found: str
    advice: str = ""


def examine(job: JobConfig | None = None) -> Iterator[CheckResult]:
    """Findings as they come, of the machine and, if one is given, of the job."""
    yield from _machine()
    yield _models(job)
    if job is None:
        yield _disk(0, 1)
        return
    yield from _licences(job)
    shards: list[Shard] = []
    try:
        dataset = open_input(job)
        shards = dataset.shards()
        size = sum(shard.bytes for shard in shards)
        yield CheckResult("ok", "input", f"{len(shards):,} shards, {size / 1e9:,.2f} GB")
        yield from _first_sample(job, dataset, shards[0])
    except (DatasetError, StorageError) as error:
        yield CheckResult("problem", "input", str(error))
    yield from _stores(job)
    nodes, finding = _ray(job)
    yield finding
    actors = 1
    if nodes:
        actors = min(job.ray.actors or actor_capacity(nodes, job.ray.num_gpus), max(len(shards), 1))
        yield _shape(job, actors, nodes)
    yield _disk(max((shard.bytes for shard in shards), default=0), actors * job.ray.shards_at_once)


def _machine() -> Iterator[CheckResult]:
    import torch

    python = ".".join(map(str, sys.version_info[:3]))
    yield CheckResult("ok", "python", f"{python} on {len(os.sched_getaffinity(0))} cores")
    gpus = torch.cuda.device_count()
    yield CheckResult("ok", "gpu", f"torch sees {gpus}" if gpus else "none that torch sees; everything runs on the CPU")
    try:
        granted = sandbox_layers()
    except SandboxUnavailable as error:
        yield CheckResult("problem", "sandbox", str(error))
        return
    behind = f"photos are decoded behind {', '.join(granted)}"
    if missing := [layer for layer in LAYERS if layer not in granted]:
        advice = "allow user namespaces and Landlock (kernel 5.13 or newer, and the container's own seccomp profile)"
        yield CheckResult("warning", "sandbox", f"{behind}; this kernel does not grant {', '.join(missing)}", advice)
        return
    yield CheckResult("ok", "sandbox", behind)


def _models(job: JobConfig | None) -> CheckResult:
    names = SETS["core"] if job is None else sorted({name for models in models_of(job) for name in models})
    bad = []
    for name in names:
        try:
            model_bytes(name)
        except ModelMissing:
            bad.append(f"{name} is missing")
        except ModelUnusable:
            bad.append(f"{name} is damaged")
    if bad:
        return CheckResult("problem", "models", ", ".join(bad), "anonlib models pull")
    return CheckResult("ok", "models", f"{len(names)} of {len(names)} in {cache_dir()}")


def _licences(job: JobConfig) -> Iterator[CheckResult]:
    whole = True
    files = (lambda: method_of(job.method).read_files(job)), (lambda: detector_files(job))
    for what, check in (*preflight(job).items(), *(("models", read) for read in files)):
        try:
            check()
        except ConfigError as error:
            whole = False
            yield CheckResult("problem", what, str(error))
    if whole:
        yield CheckResult("ok", "licences", "nothing has to be accepted that is not")


def _first_sample(job: JobConfig, dataset: Dataset, shard: Shard) -> Iterator[CheckResult]:
    """Whether a sample can be read and carries the label that the job names; one sample proves little, so it warns."""
    dataset.fields = None  # all, to name them
    sample = next(iter(dataset.read(shard)), None)
    field = job.input.subject_field
    if sample is None:
        yield CheckResult("warning", "input", f"the first shard, {shard.shard_id}, is empty")
    elif sample.problem is not None:
        yield CheckResult("warning", "input", f"the first sample cannot be used: {sample.problem.reason.meaning}")
    elif field is not None and label(sample, field) is None:
        found = f"the first sample has no field {field!r} (it has {', '.join(sorted(sample.fields)) or 'none'})"
        advice = "check input.subject_field; faces without a label are clustered by likeness"
        yield CheckResult("warning", "input", found, advice)
    if sample is not None and sample.problem is None:
        beside = Beside()
        beside.add([sample], job.input)
        if missing := beside.missing(job.keep_fields):
            names = ", ".join(map(repr, missing))
            yield CheckResult("warning", "keep_fields", f"the first sample has no field {names}", "check the spelling")


def _stores(job: JobConfig) -> Iterator[CheckResult]:
    stores = open_stores(job)
    yield from _probe("output", stores.release)
    if job.ledger:
        yield from _probe("ledger", open_storage(job.ledger.uri, job.storage.options, private=True))
    workspace = list(_probe("workspace", stores.workspace))
    yield from workspace
    if any(finding.level == "problem" for finding in workspace):
        return
    if not job.secret.named and not stores.workspace.exists(SECRET):
        yield CheckResult("ok", "secret", "none yet; the first run makes one and keeps it in the workspace")
    else:
        yield _secret(job, stores, "secret")
    if job.signing:
        yield _secret(job, stores, "signing")


def _secret(job: JobConfig, stores: JobStores, section: Literal["secret", "signing"]) -> CheckResult:
    try:
        source, random = try_secret(job, stores, section)
    except ConfigError as error:
        return CheckResult("problem", section, str(error))
    if random:
        return CheckResult("ok", section, f"random bytes, from {source}")
    found = f"a passphrase, from {source}; the public key of a release lets anybody try passphrases"
    return CheckResult("warning", section, found, "use 32 random bytes: openssl rand -hex 32")


def _probe(what: str, storage: Storage) -> Iterator[CheckResult]:
    if exposed := storage.exposed():
        yield CheckResult("warning", what, exposed, "the first write closes it, but what was in it may have been read")
    try:
        probe = storage.probe()
    except StorageError as error:
        yield CheckResult("problem", what, str(error))
        return
    details = " ".join(probe.details)
    if not (probe.readable and probe.writable):
        yield CheckResult("problem", what, details)
    elif not probe.conditional_put:
        yield CheckResult("problem", what, details, "or run with --actors 0")
    elif details:
        yield CheckResult("warning", what, details)
    else:
        yield CheckResult("ok", what, f"{storage.uri} can be read, written and claimed")


def _ray(job: JobConfig) -> tuple[list[ClusterNode], CheckResult]:
    """The machines there, and whether Ray came up."""
    if job.ray.actors == 0:
        return [], CheckResult("ok", "ray", "not used: ray.actors is 0, so everything runs in one process")
    try:
        nodes = machines(start(job.ray))
    except (ConfigError, ConnectionError, RuntimeError, OSError, ValueError) as error:
        why = f"it did not start: {' '.join(str(error).split())[:200]}"
        return [], CheckResult("problem", "ray", why, "check ray.address, or run with --actors 0")
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    return nodes, CheckResult("ok", "ray", f"up, with {cpus:g} CPUs and {gpus:g} GPUs on {len(nodes)} machines")


def _shape(job: JobConfig, actors: int, nodes: list[ClusterNode]) -> CheckResult:
    try:
        check_shape(actors, job.ray.num_gpus, nodes)
    except ConfigError as error:
        if joins(job.ray):
            advice = f"a run begins with those that fit, and waits up to {job.ray.wait_s:g} s (ray.wait_s) for one"
            return CheckResult("warning", "shape", str(error), advice)
        return CheckResult("problem", "shape", str(error))
    each = f" with {job.ray.num_gpus:g} GPUs each" if job.ray.num_gpus else ""
    at_once = f", {job.ray.shards_at_once} shards at once in each" if job.ray.shards_at_once > 1 else ""
    return CheckResult("ok", "shape", f"{actors} actors{each}{at_once}")


def _disk(largest_shard: int, at_once: int) -> CheckResult:
    """Every shard is written to the temporary folder before it is published."""
    folder = tempfile.gettempdir()
    free, need = shutil.disk_usage(folder).free, 2 * largest_shard * at_once
    left, advice = f"{free / 1e9:.1f} GB free in {folder}", "point TMPDIR at a larger disk"
    if free < need:
        return CheckResult("problem", "disk", f"{left}; {at_once} shards may need {need / 1e9:.1f} GB", advice)
    if free < _LITTLE_DISK:
        return CheckResult("warning", "disk", left, f"that is little; {advice}")
    return CheckResult("ok", "disk", left)
