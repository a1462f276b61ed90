"""One whole job, to be started by a scheduler: `ray job submit --working-dir . -- python jobs/anonymize.py [JOB.yaml]`.

The script is the config: copy it, change the constants, and keep it with the release. Or give it a job file, in which
`{month}` of a URI becomes the month of the run (UTC), so that a schedule makes a release a month. Run again, it does
what is missing. Only the secret comes from outside, by the environment variable that SECRET_ENV names.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from anonlib.config import JobConfig, load_config
from anonlib.execution.telemetry import open_progress
from anonlib.terminal import guarded, print_summary

INPUT = "s3://photos/2026/{00000..00099}.tar"
OUTPUT = "s3://release/2026-11"
WORKSPACE = "s3://restricted/2026-11"  # personal data; `anonlib purge` destroys it after the release
SUBJECT_FIELD = "person"
KEEP_FIELDS = ("caption",)  # everything else in the sidecars is dropped
METHOD = "k-diff"
K = 5
SECRET_ENV = "ANONLIB_SECRET"
ACTORS = None  # one a core
GPUS_PER_ACTOR = 0.0


def config() -> JobConfig:
    """The constants as a job; the keys are those of a job file."""
    return load_config(
        overrides={
            "input.uri": INPUT,
            "input.subject_field": SUBJECT_FIELD,
            "output.uri": OUTPUT,
            "workspace.uri": WORKSPACE,
            "method.name": METHOD,
            "method.k": K,
            "keep_fields": KEEP_FIELDS,
            "secret.env": SECRET_ENV,
            "ray.actors": ACTORS,
            "ray.num_gpus": GPUS_PER_ACTOR,
        }
    )


def config_of(path: Path, month: str) -> JobConfig:
    """The job in a file, its places those of a month such as 2026-11."""
    job = load_config(path)
    uris = {f"{place}.uri": getattr(job, place).uri for place in ("input", "output", "workspace")}
    return load_config(path, {key: uri.replace("{month}", month) for key, uri in uris.items()})


def main(arguments: list[str]) -> int:
    """Exit code 0 all done, 3 something is quarantined, 1 it could not go on."""
    from anonlib.job import Job

    with guarded():
        job_config = config_of(Path(arguments[0]), f"{datetime.now(UTC):%Y-%m}") if arguments else config()
        with open_progress() as progress:
            job = Job(job_config, report=progress, ended=progress.ended)
            summary = job.run()
        print_summary(job, summary)
    return summary.code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
