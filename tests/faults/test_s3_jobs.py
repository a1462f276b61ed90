"""Whatever a storage does to a job, it ends in the bytes of a run that nobody disturbed, or stops with a sentence.

Never in a quarantine: that is for good, and a storage that fails is no fault of a shard.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest

from anonlib.config import JobConfig
from anonlib.execution.rounds import SerialRunner
from anonlib.job import Job
from anonlib.storage import OURS, open_storage
from anonlib.terminal import guarded
from tests.faults.proxy import FaultProxy
from tests.support.runs import Run, job, salted
from tests.support.s3server import Credentials, S3Server, policy

RIGHTS = ("s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:DeleteObject")
LASTING = (
    ("/scan/*/commits/00000.json", "expired", "have expired"),
    ("/scan/*/images/*", "skewed", "clock differs"),
    ("/release/data/*", "full", "is full"),
    ("/manifest/*", "503", "overloaded or failing"),
    ("/release/commits/*", "denied", "Access denied"),
)


pytestmark = pytest.mark.usefixtures("hurried")


@dataclass(frozen=True)
class Cloud:
    """A server with the input in a bucket, a job's user, and what an undisturbed run made."""

    server: S3Server
    bucket: str
    user: Credentials
    secret: dict[str, Any]
    clean: dict[str, bytes] = field(default_factory=dict)

    def job(self, endpoint: str) -> JobConfig:
        """A job with places of its own."""
        config = job(
            f"s3://{self.bucket}/photos",
            f"s3://{self.bucket}/{uuid4().hex}",
            method={"name": "solid"},
            storage={"endpoint_url": endpoint, "region": "us-east-1"},
            secret=self.secret,
        )
        return salted(config, self.server.options)

    def made(self, config: JobConfig) -> dict[str, bytes]:
        """Every object of the job's two places but what runs met, where they were, and their leases."""
        storage = open_storage(config.output.uri.removesuffix("/release"), self.server.options)
        paths = [entry.path for entry in storage.list(unfinished=True)]
        passing = ("workspace/failures/", "workspace/job.yaml", f"workspace/{OURS}run-")
        return {path: storage.read(path) for path in paths if not path.startswith(passing)}


@pytest.fixture(scope="module")
def cloud(s3: S3Server, redacted: Run) -> Cloud:
    with s3.acting_as():
        bucket = s3.bucket()
        source = open_storage(f"s3://{bucket}/photos", s3.options)
        for path in sorted(redacted.input.iterdir()):
            source.publish(path.name, path)
        cloud = Cloud(s3, bucket, s3.user(policy(bucket, *RIGHTS)), redacted.config.secret.model_dump())
        config = cloud.job(s3.endpoint)
        assert Job(config).run().committed == 3
        cloud.clean.update(cloud.made(config))
        return cloud


@pytest.fixture
def proxy(cloud: Cloud) -> Iterator[FaultProxy]:
    with cloud.server.acting_as(cloud.user), FaultProxy(cloud.server.endpoint, slow_s=0.01) as proxy:
        yield proxy


def test_a_write_whose_answer_is_lost_is_done_once(cloud: Cloud, proxy: FaultProxy) -> None:
    proxy.inject("reset-after", "PUT *", times=-1, once=True)
    config = cloud.job(proxy.endpoint)
    assert Job(config).run().quarantined == 1
    assert cloud.made(config) == cloud.clean
    lost = {injected.key.rpartition("/release/")[2] for injected in proxy.log}
    assert lost >= {"certificate.json", "commits/00000.json"}


def test_what_lasts_stops_the_job_at_once_and_the_next_run_goes_on(
    cloud: Cloud, proxy: FaultProxy, capsys: pytest.CaptureFixture[str]
) -> None:
    """One job that is stopped by everything there is, each time a little further on."""
    config = cloud.job(proxy.endpoint)
    for where, fault, sentence in LASTING:
        before = len(proxy.log)
        proxy.inject(fault, f"PUT *{where}", times=-1)
        with pytest.raises(SystemExit) as stopped, guarded():
            Job(config, runner=SerialRunner()).run()
        complaint = capsys.readouterr().err
        assert stopped.value.code == 1 and complaint.count("\n") == 1 and sentence in complaint, complaint
        injected = proxy.log[before:]
        assert len({request.key for request in injected}) == 1, "the other shards were left alone"
        assert len(injected) == 1 or fault == "503", "what lasts is not asked twice"
        proxy.heal()
    with cloud.server.acting_as():
        assert not list(open_storage(config.output.uri, cloud.server.options).list("commits/")), "a quarantine"
    assert Job(config).run().quarantined == 1
    assert cloud.made(config) == cloud.clean
