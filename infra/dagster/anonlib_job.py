"""A job by Dagster, without Ray: parts of a scan, the plan, parts of a render, and what is missing.

    dagster job execute -f infra/dagster/anonlib_job.py -c run.yaml
    # run.yaml:  ops: {parts: {config: {job: job.yaml, parts: 16}}}

Give the job an executor of yours (k8s_job_executor, celery) for several machines; an op needs one and knows no other.
"""

import subprocess
import sys
from collections.abc import Iterator

from dagster import DynamicOut, DynamicOutput, Failure, job, op


def anonlib(*arguments: str) -> None:
    """Run the command; 3 says that something is quarantined, or that other parts are missing, and is no failure."""
    code = subprocess.run([sys.executable, "-m", "anonlib", *arguments, "--actors", "0"], check=False).returncode
    if code not in (0, 3):
        raise Failure(f"anonlib {arguments[0]} ended with {code}; its last line says why")


@op(config_schema={"job": str, "parts": int}, out=DynamicOut(dict))
def parts(context) -> Iterator[DynamicOutput]:  # type: ignore[no-untyped-def]
    """A part for each machine."""
    many = context.op_config["parts"]
    for number in range(many):
        yield DynamicOutput({"job": context.op_config["job"], "part": f"{number}/{many}"}, mapping_key=str(number))


@op
def scan(what: dict) -> dict:  # type: ignore[type-arg]
    anonlib("scan", what["job"], "--part", what["part"])
    return what


@op
def plan(scanned: list) -> str:  # type: ignore[type-arg]
    anonlib("plan", scanned[0]["job"])
    return "planned"


@op
def render(what: dict, planned: str) -> dict:  # type: ignore[type-arg]
    anonlib("render", what["job"], "--part", what["part"])
    return what


@op
def finish(rendered: list) -> None:  # type: ignore[type-arg]
    anonlib("run", rendered[0]["job"])


@job
def anonymize() -> None:
    divided = parts()
    planned = plan(divided.map(scan).collect())
    finish(divided.map(lambda what: render(what, planned)).collect())
