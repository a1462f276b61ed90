"""The same job from s3:// to s3://, by users who may do no more than they must."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import pytest

from anonlib.config import JobConfig
from anonlib.errors import AccessDenied, StorageError
from anonlib.job import Job
from anonlib.storage import open_storage
from tests.support.runs import Run, contents, job, salted
from tests.support.s3server import Credentials, S3Server, download

POLICIES = Path(__file__).parents[2] / "infra" / "terraform" / "policies"


@dataclass(frozen=True)
class Cloud:
    """Three buckets, and the user of the job."""

    server: S3Server
    input: str
    workspace: str
    release: str
    user: Credentials


def least_privilege(source: str, workspace: str, release: str) -> dict[str, Any]:
    """What infra/terraform grants a job that scans and renders."""
    names = {"input_bucket": source, "workspace_bucket": workspace, "release_bucket": release}
    names |= {"input_prefix": "photos", "workspace_prefix": "november", "release_prefix": "november"}
    unused = ("workspace_key", "secret_key", "secret", "signing")
    names |= dict.fromkeys(unused, "arn:aws:kms:us-east-1:000000000000:key/none")
    texts = [Template((POLICIES / f"{stage}.json").read_text()).substitute(names) for stage in ("scan", "render")]
    return {"Version": "2012-10-17", "Statement": [one for text in texts for one in json.loads(text)["Statement"]]}


@pytest.fixture(scope="module")
def cloud(s3: S3Server, one_shard: Run) -> Cloud:
    with s3.acting_as():
        buckets = [s3.bucket() for _ in range(3)]
        source = open_storage(f"s3://{buckets[0]}/photos", s3.options)
        for path in sorted(one_shard.input.iterdir()):
            source.publish(path.name, path)
        return Cloud(s3, *buckets, s3.user(least_privilege(*buckets)))


def on_s3(cloud: Cloud, root: Path, one_shard: Run, **changes: Any) -> JobConfig:
    return job(
        f"s3://{cloud.input}/photos",
        root,
        output={"uri": f"s3://{cloud.release}/november", "release": "tests"},
        workspace={"uri": f"s3://{cloud.workspace}/november"},
        storage={"endpoint_url": cloud.server.endpoint, "region": "us-east-1"},
        secret=one_shard.config.secret.model_dump(),
        **changes,
    )


def downloaded(uri: str, cloud: Cloud, to: Path) -> Path:
    return download(open_storage(uri, cloud.server.options), to)


def test_s3_to_s3_with_the_least_rights_gives_the_bytes_of_a_disk(cloud: Cloud, one_shard: Run, tmp_path: Path) -> None:
    config = on_s3(cloud, tmp_path, one_shard)
    with cloud.server.acting_as(cloud.user):
        summary = Job(salted(config, cloud.server.options)).run()
        assert summary == one_shard.summary
        release = downloaded(config.output.uri, cloud, tmp_path / "release")
        assert contents(release) == contents(one_shard.output)
        reports: list[str] = []
        again = Job(config, report=lambda stage, outcome, units: reports.append(stage)).run()
        assert again == summary and reports == []
        with pytest.raises(AccessDenied):
            open_storage(config.output.uri, cloud.server.options).delete("run.json")


def test_a_wrong_secret_is_one_sentence(cloud: Cloud, one_shard: Run, tmp_path: Path) -> None:
    wrong = Credentials(cloud.user.key_id, "x" * 40)
    with cloud.server.acting_as(wrong), pytest.raises(StorageError) as problem:
        Job(on_s3(cloud, tmp_path, one_shard)).run()
    said = str(problem.value)
    assert "secret" in said and "\n" not in said and "Traceback" not in said
    assert cloud.user.secret not in said and "x" * 40 not in said
