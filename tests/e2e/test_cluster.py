"""A job that `ray job submit` starts on a cluster, from bucket to bucket, outlasts the loss of a machine.

A proxy in front of the bucket makes the reading of tars slow, so that a tiny job lasts long enough for a machine to
vanish in it without costing CPU, and it counts the markers that were claimed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from anonlib.storage import open_storage
from tests.faults.proxy import FaultProxy
from tests.support import photos
from tests.support.cluster import Cluster, Node, Submitted, cluster, missing
from tests.support.runs import SECRET, Run, contents, job, run_job, salted
from tests.support.s3server import REGION, S3Server, download

SHARDS, PEOPLE, SHOTS = 8, 8, 2
SLOW_S = 0.4
"""A tar takes about twice as long to read."""

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(missing() is not None, reason=missing() or "")]


@dataclass
class Cloud:
    """A cluster, a bucket behind a proxy, and the run in whose bytes every job must end."""

    cluster: Cluster
    proxy: FaultProxy
    server: S3Server
    bucket: str
    clean: Run
    folder: Path

    def job(self, name: str, **changes: Any) -> Path:
        """The job file of a run to places of its own, with an actor for each of two nodes."""
        document = {
            "output": {"uri": f"s3://{self.bucket}/{name}/release", "release": "tests"},
            "workspace": {"uri": f"s3://{self.bucket}/{name}/workspace"},
            "storage": {"endpoint_url": self.proxy.endpoint, "region": REGION},
            "secret": {"env": "ANONLIB_SECRET"},
            "ray": {"actors": 2, "wait_s": 10},
        }
        config = job(f"s3://{self.bucket}/photos", self.folder, **(document | changes))
        with self.server.acting_as():
            salted(config, self.server.options)
        path = self.folder / f"{name}-{uuid4().hex[:6]}.yaml"
        path.write_text(config.to_yaml())
        return path

    def release(self, name: str) -> dict[str, str]:
        """Path -> sha256 of what lies in the bucket."""
        to = self.folder / f"release-{uuid4().hex[:6]}"
        storage = open_storage(f"s3://{self.bucket}/{name}/release", self.server.options)
        with self.server.acting_as():
            return contents(download(storage, to))

    def is_finished(self, name: str) -> None:
        """The release is the serial run's, byte for byte, and every marker was claimed once."""
        assert self.release(name) == contents(self.clean.output)
        claims = {key: times for key, times in self.proxy.claims.items() if f"/{name}/" in f"/{key}"}
        assert set(claims.values()) == {1}, claims
        markers = [key for key in claims if key.startswith(f"{self.bucket}/{name}/release/commits/")]
        assert len(markers) == SHARDS

    def workers(self) -> list[Node]:
        return [node for node in self.cluster.nodes.values() if node.name != "head"]


@contextmanager
def cloud_of(server: S3Server, clean: Run, folder: Path) -> Iterator[Cloud]:
    """Two nodes of one CPU each beside the head, whose environment holds the rights on the bucket and the secret."""
    with ExitStack() as stack:
        with server.acting_as():
            bucket = server.bucket()
            storage = open_storage(f"s3://{bucket}/photos", server.options)
            for path in sorted(clean.input.iterdir()):
                storage.publish(path.name, path)
        proxy = stack.enter_context(FaultProxy(server.endpoint, slow_s=SLOW_S))
        proxy.inject("slow", "GET */photos/*.tar", -1)
        rights = {"AWS_ACCESS_KEY_ID": server.root.key_id, "AWS_SECRET_ACCESS_KEY": server.root.secret}
        made = stack.enter_context(cluster(nodes=2, ANONLIB_SECRET=SECRET, NO_PROXY="127.0.0.1", **rights))
        yield Cloud(made, proxy, server, bucket, clean, folder)


def clean_run(folder: Path) -> Run:
    """Eight small tars, and a serial run of them on a disk."""
    shots = photos.people(PEOPLE, SHOTS)
    for shard in range(SHARDS):
        content = []
        for number, (name, pixels) in list(enumerate(shots))[shard::SHARDS]:
            content += photos.members(f"holiday-{number:03d}", pixels, {"person": name, "caption": f"photo {number}"})
        photos.tar(folder / "input" / f"{shard:05d}.tar", content)
    return run_job(folder / "input", folder / "clean")


@pytest.fixture(scope="module")
def cloud(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("cloud")
    with cloud_of(s3, clean_run(folder), folder) as made:
        yield made


def units_of(cloud: Cloud, before: dict[str, int]) -> dict[str, int]:
    """Address -> units that ended there since `before`."""
    return {address: count - before.get(address, 0) for address, count in cloud.cluster.units_by_node().items()}


def both_work(cloud: Cloud, run: Submitted, before: dict[str, int]) -> None:
    """Wait until each of the workers has finished a unit of this job."""
    nodes = [node.address for node in cloud.workers()]
    done = run.wait_for(lambda: all(units_of(cloud, before).get(address, 0) > 0 for address in nodes))
    assert done, f"the job ended before both nodes had done a unit: {run.logs[-2000:]}"


def test_a_node_that_vanishes_and_comes_back_changes_no_byte(cloud: Cloud) -> None:
    """One of two machines vanishes with shards in flight; later another comes in its place."""
    victim, survivor = cloud.workers()
    before = cloud.cluster.units_by_node()
    run = cloud.cluster.submit(cloud.job("vanish"))
    both_work(cloud, run, before)
    then = cloud.cluster.units_by_node()
    assert victim.actors(), "no actor lives on the node that is to vanish"
    cloud.cluster.kill(victim)
    went_on = run.wait_for(lambda: units_of(cloud, then).get(survivor.address, 0) > 1)
    assert went_on, run.logs[-2000:]
    substitute = cloud.cluster.start_node()
    assert run.wait() == "SUCCEEDED" and run.code == 0, run.logs[-3000:]
    assert cloud.cluster.lost_units(victim.address) > 0, "nothing was in flight on the node that vanished"
    assert units_of(cloud, before).get(substitute.address, 0) > 0, "the new node was not used"
    cloud.is_finished("vanish")


def test_exit_codes_become_states_of_the_job(cloud: Cloud) -> None:
    with cloud.server.acting_as():
        storage = open_storage(f"s3://{cloud.bucket}/broken", cloud.server.options)
        storage.publish("00000.tar", photos.tar(cloud.folder / "broken.tar", [("a.jpg", b"no photo")]))
    changes: dict[str, Any] = {"method": {"name": "solid"}, "ray": {"actors": 0}}
    kept = cloud.cluster.submit(cloud.job("kept", input={"uri": f"s3://{cloud.bucket}/broken"}, **changes))
    stopped = cloud.cluster.submit(cloud.job("stopped", input={"uri": f"s3://{cloud.bucket}/nothing"}, **changes))
    assert (kept.wait(), kept.code) == ("FAILED", 3)
    assert kept.lines[-1]["stage"] == "render" and "1 quarantined" in kept.logs
    assert (stopped.wait(), stopped.code) == ("FAILED", 1)
    assert "anonlib: " in stopped.logs and "Traceback" not in stopped.logs
