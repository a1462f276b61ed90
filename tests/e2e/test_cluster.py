"""A job that `ray job submit` starts on a cluster of machines, from bucket to bucket, ends in the bytes of a serial run
on a disk: on two nodes, when one of them vanishes, when its driver does, and when two of it run at once.

A proxy in front of the bucket makes the reading of tars slow, so that a tiny job lasts long enough for machines to
vanish in it without costing anybody's CPU, and it counts the markers that were claimed. By hand, so many times over:

    python tests/e2e/test_cluster.py TIMES
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from anonlib.storage import open_storage
from tests.faults.proxy import FaultProxy
from tests.support import photos
from tests.support.cluster import SCRIPT, Cluster, Node, Submitted, cluster, missing
from tests.support.runs import SECRET, Run, contents, job, run_job, salted
from tests.support.s3server import REGION, S3Server, running

SHARDS, PEOPLE, SHOTS = 8, 8, 2
SLOW_S = 0.4
"""A tar takes about twice as long to read."""

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")


@dataclass
class Cloud:
    """A cluster, a bucket behind a proxy, and by method the run in whose bytes every job must end."""

    cluster: Cluster
    proxy: FaultProxy
    server: S3Server
    bucket: str
    clean: dict[str, Run]
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
            for entry in storage.list(unfinished=True):
                storage.fetch(entry.path, to / entry.path)
        return contents(to)

    def is_finished(self, name: str, method: str = "k-diff") -> None:
        """The release is the serial run's, byte for byte, and every marker was claimed once."""
        assert self.release(name) == contents(self.clean[method].output)
        claims = {key: times for key, times in self.proxy.claims.items() if f"/{name}/" in f"/{key}"}
        assert set(claims.values()) == {1}, claims
        markers = [key for key in claims if key.startswith(f"{self.bucket}/{name}/release/commits/")]
        assert len(markers) == SHARDS

    def workers(self) -> list[Node]:
        return [node for node in self.cluster.nodes.values() if node.name != "head"]


@contextmanager
def cloud_of(server: S3Server, clean: dict[str, Run], folder: Path) -> Iterator[Cloud]:
    """Two nodes of one CPU each beside the head, whose environment holds the rights on the bucket and the secret."""
    with ExitStack() as stack:
        with server.acting_as():
            bucket = server.bucket()
            storage = open_storage(f"s3://{bucket}/photos", server.options)
            for path in sorted(clean["solid"].input.iterdir()):
                storage.publish(path.name, path)
        proxy = stack.enter_context(FaultProxy(server.endpoint, slow_s=SLOW_S))
        proxy.inject("slow", "GET */photos/*.tar", -1)
        rights = {"AWS_ACCESS_KEY_ID": server.root.key_id, "AWS_SECRET_ACCESS_KEY": server.root.secret}
        made = stack.enter_context(cluster(nodes=2, ANONLIB_SECRET=SECRET, NO_PROXY="127.0.0.1", **rights))
        yield Cloud(made, proxy, server, bucket, clean, folder)


def clean_runs(folder: Path) -> dict[str, Run]:
    """Eight small tars, and serial runs of them on a disk: a quick one, and one with a plan."""
    shots = photos.people(PEOPLE, SHOTS)
    for shard in range(SHARDS):
        content = []
        for number, (name, pixels) in list(enumerate(shots))[shard::SHARDS]:
            content += photos.members(f"holiday-{number:03d}", pixels, {"person": name, "caption": f"photo {number}"})
        photos.tar(folder / "input" / f"{shard:05d}.tar", content)
    methods: tuple[dict[str, Any], ...] = ({"name": "solid"}, {"name": "k-diff", "k": 2})
    return {one["name"]: run_job(folder / "input", folder / one["name"], method=one) for one in methods}


@pytest.fixture(scope="module")
def cloud(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("cloud")
    with cloud_of(s3, clean_runs(folder), folder) as made:
        yield made


def units_of(cloud: Cloud, before: dict[str, int]) -> dict[str, int]:
    """Address -> units that ended there since `before`."""
    return {address: count - before.get(address, 0) for address, count in cloud.cluster.units_by_node().items()}


def both_work(cloud: Cloud, run: Submitted, before: dict[str, int]) -> None:
    """Wait until each of the workers has finished a unit of this job."""
    nodes = [node.address for node in cloud.workers()]
    done = run.wait_for(lambda: all(units_of(cloud, before).get(address, 0) > 0 for address in nodes))
    assert done, f"the job ended before both nodes had done a unit: {run.logs[-2000:]}"


def lose_a_node(cloud: Cloud, name: str, victim: Node) -> None:
    """One of two machines vanishes with shards in flight; later another comes in its place."""
    before = cloud.cluster.units_by_node()
    run = cloud.cluster.submit(cloud.job(name))
    both_work(cloud, run, before)
    survivor = next(node for node in cloud.workers() if node is not victim)
    then = cloud.cluster.units_by_node()
    assert victim.actors(), "no actor lives on the node that is to vanish"
    cloud.cluster.kill(victim)
    went_on = run.wait_for(lambda: units_of(cloud, then).get(survivor.address, 0) > 1)
    assert went_on, run.logs[-2000:]
    substitute = cloud.cluster.start_node()
    assert run.wait() == "SUCCEEDED" and run.code == 0, run.logs[-3000:]
    assert cloud.cluster.lost_units(victim.address) > 0, "nothing was in flight on the node that vanished"
    assert units_of(cloud, before).get(substitute.address, 0) > 0, "the new node was not used"
    cloud.is_finished(name)


def lose_the_driver(cloud: Cloud, name: str, *, politely: bool = False) -> None:
    """The script is killed (or stopped as `ray job stop` does) while its actors write, and submitted again at once."""
    before = cloud.cluster.units_by_node()
    path = cloud.job(name, method={"name": "solid"})
    first = cloud.cluster.submit(path)
    both_work(cloud, first, before)
    (driver,) = cloud.cluster.nodes["head"].drivers()
    if politely:
        first.stop()
    else:
        cloud.cluster.signal(driver)
    second = cloud.cluster.submit(path)
    assert first.wait() == ("STOPPED" if politely else "FAILED")
    assert second.wait() == "SUCCEEDED" and second.code == 0, second.logs[-3000:]
    cloud.is_finished(name, "solid")


def submit_twice(cloud: Cloud, name: str) -> list[subprocess.CompletedProcess[str]]:
    """`ray job submit` by two schedulers that do not know of each other."""
    command = ["job", "submit", "--", sys.executable, str(SCRIPT), str(cloud.job(name, ray={"actors": 1}))]
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(cloud.cluster.command, *command) for _ in range(2)]
    return [one.result() for one in both]


def test_two_submitted_at_once_end_well_and_claim_each_marker_once(cloud: Cloud) -> None:
    before = cloud.cluster.units_by_node()
    for ended in submit_twice(cloud, "twice"):
        assert ended.returncode == 0, ended.stdout[-3000:]
        assert '"stage": "render", "round": 1' in ended.stdout and "images     16 = 16 released" in ended.stdout
    assert set(units_of(cloud, before)) == {node.address for node in cloud.workers()}
    cloud.is_finished("twice")


def test_a_node_that_vanishes_and_comes_back_changes_no_byte(cloud: Cloud) -> None:
    lose_a_node(cloud, "vanish", cloud.workers()[0])


def test_a_driver_that_vanishes_is_replaced_by_submitting_again(cloud: Cloud) -> None:
    lose_the_driver(cloud, "driver")


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


def main(times: int) -> None:
    with tempfile.TemporaryDirectory(prefix="anonlib-cluster-") as name, ExitStack() as stack:
        folder = Path(name)
        clean = clean_runs(folder)
        cloud = stack.enter_context(cloud_of(stack.enter_context(running(folder)), clean, folder))
        for number in range(times):
            draw = random.Random(number)
            began = time.monotonic()
            for ended in submit_twice(cloud, f"twice-{number}"):
                assert ended.returncode == 0, ended.stdout[-3000:]
            cloud.is_finished(f"twice-{number}")
            lose_a_node(cloud, f"vanish-{number}", draw.choice(cloud.workers()))
            lose_the_driver(cloud, f"driver-{number}")
            lose_the_driver(cloud, f"stopped-{number}", politely=True)
            took = time.monotonic() - began
            print(
                f"{number}: two at once, a node lost, a driver killed, one stopped: the same bytes, {took:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]))
